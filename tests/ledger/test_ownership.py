"""Ownership of a code: it belongs to the namespace that issued it first on the ledger.

See also: test_put.py for what a put writes, and for Vouchers of one namespace.
"""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.helpers import ON_POSTGRESQL_16, issue, open_ledger, redeem_outcome, redeem_request, rows, terms
from tests.ledger.interleaving import Operation, Run, explore, open_sessions
from voucher_operator.ledger.admin.commands import release
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.types import PutOutcome, VoucherOwner, VoucherTerms
from voucher_operator.ledger.voucher import vouchers
from voucher_operator.resources.errors import CodeConflictError, CodeReservedError

pytestmark = ON_POSTGRESQL_16

FIRST = VoucherOwner("voucher-1", "billing", "first")
CREATED = terms().created_at
OLDER = CREATED - timedelta(days=30)
NEWER = CREATED + timedelta(days=30)
PROMO = "SELECT credit_minor, active, deleted_at, times_redeemed FROM promo_codes"


def foreign(created_at: datetime = OLDER, **changes: Any) -> VoucherTerms:
    """Make the terms of a Voucher of another namespace on the same code, with much more credit."""
    named: dict[str, Any] = {"uid": "voucher-2", "namespace": "attack", "name": "waiting", "created_at": created_at}
    return terms(**({**named, "credit_minor": 1_000_000_000} | changes))


@pytest.mark.parametrize("created_at", [OLDER, CREATED, NEWER], ids=["older", "same age", "newer"])
async def test_issued_code_is_not_taken_over_from_another_namespace(
    ledger: Ledger, database: Database, created_at: datetime
) -> None:
    await ledger.put(terms())
    before = await rows(database, PROMO)
    with pytest.raises(CodeConflictError) as error:
        await ledger.put(foreign(created_at))
    assert error.value.holder_uid == "voucher-1"
    for secret_text in ("billing", "first", "CODE"):
        assert secret_text not in error.value.message
    assert await rows(database, PROMO) == before
    assert await ledger.owners() == [FIRST]
    assert (await ledger.put(terms())).outcome is PutOutcome.UNCHANGED
    assert (await ledger.redeem(redeem_request())).credit_minor == 25_500


async def test_conflict_within_a_namespace_names_the_holder(ledger: Ledger) -> None:
    await ledger.put(terms())
    with pytest.raises(CodeConflictError, match="billing/first") as error:
        await ledger.put(terms(uid="voucher-2", name="second", created_at=NEWER))
    assert error.value.holder_uid == "voucher-1"


@pytest.mark.parametrize("created_at", [OLDER, NEWER], ids=["older", "newer"])
async def test_revoked_code_is_not_issued_to_another_namespace(
    ledger: Ledger, database: Database, created_at: datetime
) -> None:
    """Whether its Voucher waited for it or came afterwards."""
    await ledger.put(terms())
    await ledger.revoke(FIRST)
    before = await rows(database, PROMO)
    with pytest.raises(CodeReservedError) as error:
        await ledger.put(foreign(created_at))
    for secret_text in ("billing", "first", "CODE"):
        assert secret_text not in error.value.message
    assert await rows(database, PROMO) == before
    assert redeem_outcome(await ledger.redeem(redeem_request())) == "VoucherNotFound"


@pytest.mark.parametrize(("uid", "name"), [("voucher-1", "first"), ("voucher-9", "first"), ("voucher-9", "other")])
async def test_revoked_code_is_issued_again_in_its_namespace(ledger: Ledger, uid: str, name: str) -> None:
    """The same object found again, one that was created anew (restored, or in a namespace made anew), a renamed one."""
    await ledger.put(terms())
    await ledger.redeem(redeem_request())
    await ledger.revoke(FIRST)
    with pytest.raises(CodeReservedError):
        await ledger.put(foreign())
    result = await ledger.put(terms(uid=uid, name=name, created_at=NEWER))
    assert (result.outcome, result.displaced, result.counters.times_redeemed) == (PutOutcome.ISSUED, None, 1)
    with pytest.raises(CodeConflictError):
        await ledger.put(foreign())


async def test_code_of_the_go_service_is_adopted_by_the_first_namespace(ledger: Ledger, database: Database) -> None:
    await issue(database, "CODE", 3)
    assert (await ledger.put(foreign(NEWER))).outcome is PutOutcome.ISSUED
    with pytest.raises(CodeConflictError):
        await ledger.put(terms())


async def test_code_reissued_by_the_go_service_stays_with_its_namespace(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms())
    await ledger.revoke(FIRST)
    async with GoService.connect(database.owner_url) as go:
        await go.issue("CODE", 3)
    with pytest.raises(CodeReservedError):
        await ledger.put(foreign())
    assert (await ledger.put(terms(uid="voucher-9"))).outcome is PutOutcome.ISSUED


@pytest.mark.parametrize("revoked", [False, True])
async def test_deleted_row_leaves_the_code_with_its_namespace(
    ledger: Ledger, database: Database, revoked: bool
) -> None:
    """Also under another spelling, which the code's terms alone still have."""
    await issue(database, " code ")
    await ledger.put(terms())
    if revoked:
        await ledger.revoke(FIRST)
    await rows(database, "DELETE FROM promo_codes")
    with pytest.raises(CodeReservedError if revoked else CodeConflictError):
        await ledger.put(foreign())
    await ledger.put(terms())
    assert await ledger.owners() == [FIRST]
    assert (await ledger.redeem(redeem_request())).credit_minor == 25_500


async def test_row_written_by_0_1_0_keeps_its_owner(ledger: Ledger, database: Database) -> None:
    """Written without what came since, by an older Voucher that had displaced a newer one, or that was revoked."""
    await rows(
        database,
        "INSERT INTO vouchers.terms (code, owner_uid, owner_namespace, owner_name, owner_created_at, generation, "
        "credit_minor, revoked_at) VALUES ('LIVE', 'old-1', 'billing', 'live', %s, 1, 1000, NULL), "
        "('GONE', 'old-2', 'billing', 'gone', %s, 1, 1000, now())",
        NEWER,
        NEWER,
    )
    with pytest.raises(CodeConflictError):
        await ledger.put(foreign(code="LIVE"))
    with pytest.raises(CodeReservedError):
        await ledger.put(foreign(code="GONE"))
    await ledger.put(terms("LIVE", uid="old-1", name="live", created_at=NEWER))
    await ledger.put(terms("GONE", uid="new", name="gone"))
    assert {owner.name for owner in await ledger.owners()} == {"live", "gone"}


async def test_released_code_is_issued_only_in_the_target_namespace(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms())
    await ledger.redeem(redeem_request(user="ahmed"))
    await ledger.revoke(FIRST)
    assert await release(database.runtime_url, "billing", "first", "sales") == 1
    for refused in (foreign(), terms(uid="voucher-9")):
        with pytest.raises(CodeReservedError):
            await ledger.put(refused)
    moved = foreign(NEWER, namespace="sales", name="moved")
    result = await ledger.put(moved)
    assert (result.outcome, result.counters.times_redeemed) == (PutOutcome.ISSUED, 1)
    assert redeem_outcome(await ledger.redeem(redeem_request(user="ahmed"))) == "AlreadyRedeemed"
    with pytest.raises(CodeConflictError):
        await ledger.put(terms(uid="voucher-9"))
    # From now on it belongs to that namespace.
    await ledger.revoke(VoucherOwner(moved.uid, moved.namespace, moved.name))
    with pytest.raises(CodeReservedError):
        await ledger.put(terms(uid="voucher-9"))
    assert (await ledger.put(moved)).outcome is PutOutcome.ISSUED


async def test_release_can_be_taken_back(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms())
    await ledger.revoke(FIRST)
    assert await release(database.runtime_url, "billing", "first", "sales") == 1
    assert await release(database.runtime_url, "billing", "first", "billing") == 1
    with pytest.raises(CodeReservedError):
        await ledger.put(foreign(namespace="sales"))
    assert (await ledger.put(terms())).outcome is PutOutcome.ISSUED


async def test_release_is_of_the_last_code_of_a_name_and_of_none_while_a_voucher_has_it(
    ledger: Ledger, database: Database
) -> None:
    """A Voucher of this name had another code long ago, which may have leaked: it stays where it is."""
    old, new = terms("OLD-CODE"), terms("NEW-CODE", uid="voucher-2")
    await ledger.put(old)
    await ledger.revoke(VoucherOwner(old.uid, old.namespace, old.name))
    await ledger.put(new)
    assert await release(database.runtime_url, new.namespace, new.name, "sales") == 0
    await ledger.revoke(VoucherOwner(new.uid, new.namespace, new.name))
    assert await release(database.runtime_url, new.namespace, new.name, "sales") == 1
    sales = replace(new, uid="voucher-3", namespace="sales")
    assert (await ledger.put(sales)).outcome is PutOutcome.ISSUED
    with pytest.raises(CodeReservedError):
        await ledger.put(replace(sales, uid="voucher-4", name="other", code="OLD-CODE"))


async def test_code_of_a_live_voucher_is_not_released(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms())
    assert await release(database.runtime_url, "billing", "first", "sales") == 0
    assert await release(database.runtime_url, "billing", "nobody", "sales") == 0
    with pytest.raises(CodeConflictError):
        await ledger.put(foreign(namespace="sales"))


async def test_concurrent_issue_in_two_namespaces_has_one_winner(ledger: Ledger, database: Database) -> None:
    async with open_ledger(database.runtime_url) as other:
        for n in range(20):
            one = terms(f"RACE-{n}", uid=f"one-{n}", name=f"one-{n}")
            two = foreign(code=f"RACE-{n}", uid=f"two-{n}", name=f"two-{n}")
            answers = await asyncio.gather(ledger.put(one), other.put(two), return_exceptions=True)
            assert sum(isinstance(answer, CodeConflictError) for answer in answers) == 1
            again = await asyncio.gather(ledger.put(one), other.put(two), return_exceptions=True)
            assert [type(answer) for answer in again] == [type(answer) for answer in answers]
    assert len(await ledger.owners()) == 20


async def test_deletion_during_put_of_another_namespace_keeps_the_code_reserved(
    ledger: Ledger, database: Database
) -> None:
    """In every order of the statements of both."""
    codes = (f"C-{n}" for n in itertools.count())

    async def both(order: Sequence[int]) -> Run:
        code = next(codes)
        await ledger.put(terms(code, uid=f"uid-{code}", name=code))
        owner = VoucherOwner(f"uid-{code}", "billing", code)
        operations: list[Operation] = [
            lambda session: vouchers.put(session, foreign(code=code, uid=code)),  # type: ignore[arg-type]
            lambda session: vouchers.revoke(session, owner),  # type: ignore[arg-type]
        ]
        return await sessions.run(operations, order)

    async with open_sessions(database) as sessions:
        async for run in explore(both):
            refused, revoked = run.answers
            assert isinstance(refused, (CodeConflictError, CodeReservedError)), run
            assert revoked is True, run
    assert await ledger.owners() == []


async def test_put_of_another_namespace_is_refused_after_a_year(ledger: Ledger, database: Database) -> None:
    """No time frees a revoked code: those who had it written down still have it."""
    await ledger.put(terms())
    await ledger.revoke(FIRST)
    await rows(database, "UPDATE vouchers.terms SET revoked_at = now() - interval '1 year'")
    with pytest.raises(CodeReservedError):
        await ledger.put(foreign(datetime.now(UTC)))
