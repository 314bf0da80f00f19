"""The status check reads rarely and slowly, and no namespace delays the others; time passes as fast as it is slept.

See also: tests/cluster/test_restored_redemptions.py for what it compares.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from voucher_operator.controllers import status_check
from voucher_operator.controllers.status_check import StatusCheck
from voucher_operator.kube.errors import ExpiredError, ForbiddenError
from voucher_operator.settings import Settings

INTERVAL, RETRY = 21_600.0, 300.0
_sleep = asyncio.sleep

Body = dict[str, Any]


def wrong(namespace: str, n: int) -> Body:
    """Make a Redemption of which the ledger knows nothing."""
    metadata = {"namespace": namespace, "name": f"r-{n}", "uid": f"{n}", "resourceVersion": "1"}
    return {"metadata": metadata, "spec": {}, "status": {"finished": True, "state": "Redeemed"}}


class Parts:
    """What the check works with: API server, ledger, controllers and queues in one, and the clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lists: list[tuple[str, float]] = []
        """Which namespace was listed, and when."""
        self.pages_read: dict[str, int] = {}
        self.pages_of: dict[str, int] = {}
        """How many pages of wrong statuses a namespace has; others have none."""
        self.errors: dict[str, Exception] = {}
        """With what the list of a namespace ends."""
        self.queued: set[str] = set()
        self.works = True
        """Whether the queue writes statuses."""

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.works:
            self.queued.clear()
        await _sleep(0)

    async def pages(self, _: object, namespace: str, __: str) -> AsyncIterator[list[Body]]:
        self.lists.append((namespace, self.now))
        for page in range(self.pages_of.get(namespace, 0)):
            self.pages_read[namespace] = page + 1
            yield [wrong(namespace, 500 * page + n) for n in range(500)]
        if namespace in self.errors:
            raise self.errors[namespace]

    slow_pages = pages

    async def states(self, _: Sequence[str]) -> dict[str, Any]:
        return {}

    def knows(self, key: str) -> bool:
        return key in self.queued

    def add(self, key: str) -> None:
        self.queued.add(key)

    def reopen(self, body: Body, key: str) -> None: ...

    def times(self, namespace: str) -> list[float]:
        return [at for name, at in self.lists if name == namespace]


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    made = Parts()
    monkeypatch.setattr(asyncio, "sleep", made.sleep)
    monkeypatch.setattr(status_check, "time", made, raising=False)
    monkeypatch.setattr(status_check, "random", SimpleNamespace(uniform=lambda low, _: low), raising=False)
    return made


async def run(parts: Parts, until: Callable[[], bool], *namespaces: str, **intervals: float) -> None:
    """Lead until a condition holds."""
    names = {"namespaces": namespaces, "status_check_interval": INTERVAL, "resync_interval": RETRY}
    settings = Settings(**cast("dict[str, Any]", names | intervals))
    one = cast("Any", parts)
    task = asyncio.ensure_future(StatusCheck(one, one, one, one, one, one, settings).run())
    async with asyncio.timeout(20):
        while not until():
            assert not task.done()
            await _sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_first_check_begins_minutes_after_the_replica_began_to_lead(parts: Parts) -> None:
    await run(parts, lambda: len(parts.lists) == 2, "billing")
    first, second = parts.times("billing")
    assert 300 <= first <= 600
    assert INTERVAL <= second - first <= INTERVAL + RETRY


async def test_first_check_waits_no_longer_than_the_interval(parts: Parts) -> None:
    await run(parts, lambda: bool(parts.lists), "billing", status_check_interval=60.0)
    assert parts.times("billing") == [60.0]


async def test_namespace_that_cannot_be_read_does_not_delay_the_others(parts: Parts) -> None:
    parts.errors["broken"] = ForbiddenError("no right")
    await run(parts, lambda: parts.now > 3 * INTERVAL, "broken", "billing")
    assert len(parts.times("billing")) == 3
    assert len(parts.times("broken")) > 100


async def test_namespace_that_can_be_read_again_is_checked_soon(parts: Parts) -> None:
    parts.errors["broken"] = ForbiddenError("no right")
    await run(parts, lambda: len(parts.lists) >= 5, "broken")
    first, second = parts.times("broken")[:2]
    assert second - first <= 2 * RETRY


async def test_list_that_cannot_be_continued_is_not_begun_anew_before_the_next_interval(parts: Parts) -> None:
    parts.pages_of["billing"] = 3
    parts.errors["billing"] = ExpiredError("expired")
    await run(parts, lambda: len(parts.lists) == 2, "billing")
    first, second = parts.times("billing")
    assert second - first >= INTERVAL


async def test_next_page_waits_until_wrong_statuses_are_written(parts: Parts) -> None:
    """With the resources of a hundred thousand in memory the process would be ended."""
    parts.works, parts.pages_of["billing"] = False, 200
    beginning: list[float] = []

    def waits() -> bool:
        beginning.extend([parts.now] if parts.lists and not beginning else [])
        return bool(beginning) and (parts.now > beginning[0] + 100 or parts.pages_read["billing"] == 200)

    await run(parts, waits, "billing")
    assert len(parts.queued) == 1_000
    parts.works = True
    await run(parts, lambda: parts.pages_read["billing"] == 200, "billing")


async def test_namespace_whose_statuses_are_not_written_does_not_stop_the_others(parts: Parts) -> None:
    parts.works, parts.pages_of["stuck"] = False, 200
    await run(parts, lambda: bool(parts.times("billing")), "stuck", "billing", resync_interval=0.05)
    assert parts.pages_read["stuck"] == 2
    await run(parts, lambda: len(parts.times("stuck")) == 4, "stuck", resync_interval=0.05)
    assert len(parts.queued) == 1_000
