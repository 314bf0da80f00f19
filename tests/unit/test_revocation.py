"""Without a ledger the finalizer of each deleted Voucher is removed after the time limit, however many there are."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from voucher_operator.controllers.voucher import revocation
from voucher_operator.controllers.voucher.revocation import Revocations
from voucher_operator.resources.errors import LedgerUnavailableError

TIMEOUT = 120.0


class Clock:
    """Stands in for `time` in the module."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(revocation, "time", made)
    return made


def without_ledger(released: list[str]) -> Any:
    async def revoke(_: object) -> None:
        raise LedgerUnavailableError("no ledger")

    return SimpleNamespace(
        revoke=revoke, release_finalizer=lambda body, _: released.append(cast("str", body["metadata"]["uid"]))
    )


async def attempt(revocations: Revocations, vouchers: Any, uid: str) -> bool:
    """Try once; return whether the finalizer may be removed."""
    try:
        await revocations.revoke(vouchers, {"metadata": {"uid": uid}})
    except LedgerUnavailableError:
        return False
    return True


async def test_finalizers_of_twenty_thousand_vouchers_are_removed_after_the_time_limit(clock: Clock) -> None:
    released: list[str] = []
    revocations, vouchers = Revocations(TIMEOUT), without_ledger(released)
    uids = [f"uid-{n}" for n in range(20_000)]
    assert not any([await attempt(revocations, vouchers, uid) for uid in uids])
    clock.now += TIMEOUT
    assert all([await attempt(revocations, vouchers, uid) for uid in uids])
    assert released == uids


async def test_failures_of_vouchers_that_are_not_tried_again_are_forgotten(clock: Clock) -> None:
    revocations, vouchers = Revocations(2 * revocation._ABANDONED), without_ledger([])
    for uid in ("gone", "waiting"):
        assert not await attempt(revocations, vouchers, uid)
    for _ in range(3):
        clock.now += revocation._ABANDONED / 2
        await attempt(revocations, vouchers, "waiting")
    assert list(revocations._failing) == ["waiting"]
    clock.now += revocation._ABANDONED / 2
    assert await attempt(revocations, vouchers, "waiting")
