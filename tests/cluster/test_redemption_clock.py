"""Windows follow PostgreSQL's clock: an operator whose own clock is wrong by minutes behaves in the same way."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cluster.ledger_reader import LedgerReader
from tests.cluster.resources import FAST, CustomObject, ResourceClient, condition, ready, state, waiting
from tests.conftest import Operators

GRANTED = ("Redeemed", "Redeemed")
OFF = 300
SHIFT = '''
"""Runs before everything else in the interpreter: moves its clocks, but for the monotonic one."""

import datetime
import os
import time

_OFF = int(os.environ["CLOCK_OFF"])
_time, _time_ns, _real = time.time, time.time_ns, datetime.datetime


class _Either(type):
    def __instancecheck__(cls, value):
        return isinstance(value, _real)


class _Shifted(_real, metaclass=_Either):
    __slots__ = ()

    @classmethod
    def now(cls, tz=None):
        return _real.now(tz) + datetime.timedelta(seconds=_OFF)

    @classmethod
    def utcnow(cls):
        return cls.now(datetime.UTC).replace(tzinfo=None)


time.time = lambda: _time() + _OFF
time.time_ns = lambda: _time_ns() + _OFF * 10**9
datetime.datetime = _Shifted
'''


@pytest.fixture(params=[OFF, -OFF], ids=["fast", "slow"])
def off(request: pytest.FixtureRequest, operators: Operators, tmp_path: Path) -> timedelta:
    """How far the clock of a running operator is off."""
    folder = tmp_path / "clock"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SHIFT)
    path = f"{folder}:{Path(__file__).resolve().parent.parent.parent / 'operator'}"
    env = {"PYTHONPATH": path, "CLOCK_OFF": str(request.param), "VOUCHER_OPERATOR_RESYNC_INTERVAL": "0.5"}
    operators.start(env=FAST | env, interpreter=True)
    return timedelta(seconds=request.param)


def time(ledger: LedgerReader, seconds: float = 0) -> str:
    """Return the ledger's time, so many seconds from now."""
    (now,) = ledger.row("SELECT clock_timestamp()")
    assert isinstance(now, datetime)
    return (now + timedelta(seconds=seconds)).isoformat()


def is_off(moment: str, off: timedelta) -> bool:
    """Whether a moment just now was taken from the shifted clock."""
    return abs(datetime.fromisoformat(moment) - off - datetime.now(UTC)) < timedelta(seconds=OFF / 2)


def test_windows_and_ttl_follow_the_ledger_clock(
    api: ResourceClient, ledger: LedgerReader, operators: Operators, off: timedelta
) -> None:
    """Edges that the operator's clock would put on the other side, whichever way it is off."""

    def voucher(word: str, **window: str) -> CustomObject:
        made = api.voucher(**window)
        made.wait(state(word))
        return made

    began = voucher("Active", validFrom=time(ledger, -60))
    to_begin = voucher("Scheduled", validFrom=time(ledger, 60))
    lasts = voucher("Active", validUntil=time(ledger, 60))
    ended = voucher("Expired", validUntil=time(ledger, -60))
    made = [api.redeem(one.code) for one in (began, to_begin, lasts, ended)]
    assert [one.result() for one in made] == [
        GRANTED,
        ("Rejected", "VoucherNotYetValid"),
        GRANTED,
        ("Rejected", "VoucherExpired"),
    ]
    # Neither at once nor minutes later does an unknown code lose its grace.
    unknown = api.redeem("NO-SUCH-CODE")
    unknown.wait(waiting("VoucherNotReady"))
    assert unknown.result() == ("Rejected", "VoucherNotFound")
    # The shift is real, in both of the clocks: what the operator stamps by itself, and what it logs.
    stamped = condition(began.wait(ready("Issued")), "Ready")["lastTransitionTime"]
    logged = operators.started[0].records()[-1]["time"].replace(",", ".")
    assert is_off(stamped, off)
    assert is_off(datetime.fromisoformat(logged).astimezone().isoformat(), off)
    # What the ledger decided is stamped by the ledger.
    body = made[0].body()
    times = [body["status"]["redeemedAt"], body["status"]["finishedAt"], condition(body, "Ready")["lastTransitionTime"]]
    assert [is_off(moment, timedelta()) for moment in times] == [True] * 3
    short, long = (api.redeem(began.code, ttlSecondsAfterFinished=ttl) for ttl in (1, 120))
    short.wait_gone()
    assert long.result() == GRANTED
    # A window that closes while the operator runs.
    closing = voucher("Active", validUntil=time(ledger, 4))
    assert api.redeem(closing.code).result() == GRANTED
    closing.wait(state("Expired"))
    assert api.redeem(closing.code).result() == ("Rejected", "VoucherExpired")
