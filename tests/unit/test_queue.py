"""The work queue: once per key, backoff without a worker, fair to namespaces, nothing lost while a key is under way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import pytest

from voucher_operator.kube.work_queue import Result, WorkQueue
from voucher_operator.resources.errors import LedgerUnavailableError


@asynccontextmanager
async def running(reconcile: Callable[[str], Awaitable[Result]], *, workers: int = 2) -> AsyncIterator[WorkQueue]:
    queue = WorkQueue("Test", reconcile, workers=workers, backoff_min=0.01, backoff_max=0.02)
    task = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        queue.stop()
        await task


async def test_key_is_reconciled_once_however_often_it_is_added() -> None:
    seen: list[str] = []
    done = asyncio.Event()

    async def reconcile(key: str) -> Result:
        seen.append(key)
        if key == "last":
            done.set()
        return Result.DONE

    async with running(reconcile, workers=1) as queue:
        for key in ("a", "a", "b", "a", "last"):
            queue.add(key)
        await done.wait()
    assert seen == ["a", "b", "last"]


async def test_key_added_while_under_way_is_reconciled_again_and_never_twice_at_once() -> None:
    started, release, second = asyncio.Event(), asyncio.Event(), asyncio.Event()
    under_way = 0
    calls = 0

    async def reconcile(_: str) -> Result:
        nonlocal under_way, calls
        under_way += 1
        calls += 1
        assert under_way == 1
        if calls == 2:
            second.set()
        started.set()
        await release.wait()
        under_way -= 1
        return Result.DONE

    async with running(reconcile) as queue:
        queue.add("a")
        await started.wait()
        queue.add("a")
        release.set()
        await second.wait()
    assert calls == 2


async def test_failed_key_is_retried_until_it_succeeds() -> None:
    attempts = 0
    passed = asyncio.Event()

    async def reconcile(_: str) -> Result:
        nonlocal attempts
        attempts += 1
        if attempts < 4:
            raise LedgerUnavailableError("down")
        passed.set()
        return Result.DONE

    async with running(reconcile) as queue:
        queue.add("a")
        await passed.wait()
    assert attempts == 4


async def test_keys_in_backoff_occupy_no_worker() -> None:
    passed = asyncio.Event()

    async def reconcile(key: str) -> Result:
        if key == "good":
            passed.set()
            return Result.DONE
        return Result.RETRY

    queue = WorkQueue("Test", reconcile, workers=1, backoff_min=3600, backoff_max=3600)
    task = asyncio.create_task(queue.run())
    for number in range(100):
        queue.add(f"bad-{number}")
    queue.add("good")
    await passed.wait()
    assert queue.is_backing_off("bad-0")
    queue.stop()
    await task


async def test_resumed_key_continues_its_backoff() -> None:
    """As the leader before had reached it: not at once, and then not from the shortest pause."""
    tried = asyncio.Event()

    async def reconcile(_: str) -> Result:
        tried.set()
        return Result.RETRY

    queue = WorkQueue("Test", reconcile, workers=1, backoff_min=3600, backoff_max=3600 * 8)
    task = asyncio.create_task(queue.run())
    queue.resume("old", 3600.0 * 100)
    queue.resume("new", 0.0)
    await tried.wait()
    assert queue.is_backing_off("old")
    while not queue.is_backing_off("new"):  # noqa: ASYNC110 - it is set one turn of the loop later
        await asyncio.sleep(0)
    now = asyncio.get_running_loop().time()
    assert 0.7 * 3600 < queue._timers["new"].when() - now < 1.3 * 3600
    queue.add("old")
    while not queue.is_backing_off("old"):  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert queue._timers["old"].when() - now > 6 * 3600
    queue.stop()
    await task


async def test_wake_retries_keys_in_backoff_at_once() -> None:
    attempts = 0
    first, again = asyncio.Event(), asyncio.Event()

    async def reconcile(_: str) -> Result:
        nonlocal attempts
        attempts += 1
        (again if attempts > 1 else first).set()
        return Result.RETRY

    queue = WorkQueue("Test", reconcile, workers=1, backoff_min=3600, backoff_max=3600)
    task = asyncio.create_task(queue.run())
    queue.add("a")
    await first.wait()
    while not queue.is_backing_off("a"):  # noqa: ASYNC110 - it is set one turn of the loop later
        await asyncio.sleep(0)
    queue.wake()
    await again.wait()
    queue.stop()
    await task


async def test_unexpected_error_is_logged_and_retried(caplog: pytest.LogCaptureFixture) -> None:
    attempts = 0
    passed = asyncio.Event()

    async def reconcile(_: str) -> Result:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise ZeroDivisionError
        passed.set()
        return Result.DONE

    async with running(reconcile) as queue:
        queue.add("a")
        await passed.wait()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert caplog.records[0].__dict__["key"] == "a"


async def test_stop_finishes_keys_under_way() -> None:
    started, release = asyncio.Event(), asyncio.Event()
    finished: list[str] = []

    async def reconcile(key: str) -> Result:
        started.set()
        await release.wait()
        finished.append(key)
        return Result.DONE

    queue = WorkQueue("Test", reconcile, workers=1, backoff_max=1)
    task = asyncio.create_task(queue.run())
    queue.add("a")
    queue.add("b")
    await started.wait()
    queue.stop()
    release.set()
    await task
    assert finished == ["a"]


WORKERS: Final = 32


class Workload:
    """Reconciles nothing: each key waits until the test releases it."""

    def __init__(self) -> None:
        self.queue = WorkQueue("Test", self._reconcile, workers=WORKERS, backoff_max=1)
        self.started: list[str] = []
        self.release: dict[str, asyncio.Event] = {}

    async def _reconcile(self, key: str) -> Result:
        self.started.append(key)
        await self.release.setdefault(key, asyncio.Event()).wait()
        return Result.DONE

    def under_way(self, namespace: str) -> int:
        held = [key for key in self.started if not self.release[key].is_set()]
        return sum(key.startswith(f"{namespace}/") for key in held)

    def finish(self, number: int, namespace: str) -> None:
        held = [key for key in self.started if key.startswith(namespace) and not self.release[key].is_set()]
        for key in held[:number]:
            self.release[key].set()


@asynccontextmanager
async def working() -> AsyncIterator[Workload]:
    load = Workload()
    task = asyncio.create_task(load.queue.run())
    try:
        yield load
    finally:
        load.queue.stop()
        for event in load.release.values():
            event.set()
        await task


async def settled() -> None:
    """Let what is ready run; nothing here waits for time."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_namespace_that_works_alone_gets_all_workers() -> None:
    async with working() as load:
        for number in range(100):
            load.queue.add(f"many/{number}")
        await settled()
        assert load.under_way("many") == WORKERS


async def test_key_of_another_namespace_starts_although_all_workers_are_held() -> None:
    """They may wait for a slow API server: the other namespace does not wait for one of them."""
    async with working() as load:
        for number in range(20_000):
            load.queue.add(f"many/{number}")
        await settled()
        load.queue.add("one/good")
        await settled()
        assert load.under_way("one") == 1
        assert load.under_way("many") == WORKERS


async def test_namespace_holds_half_of_the_workers_while_another_waits() -> None:
    async with working() as load:
        for number in range(1000):
            load.queue.add(f"many/{number}")
            load.queue.add(f"more/{number}")
        await settled()
        while load.under_way("many") + load.under_way("more") > WORKERS:
            load.finish(1, "many")
            await settled()
        load.finish(10, "many")
        await settled()
        assert {load.under_way("many"), load.under_way("more")} == {WORKERS // 2}


async def test_workers_are_bounded_however_many_namespaces_wait() -> None:
    async with working() as load:
        for namespace in range(10):
            for number in range(100):
                load.queue.add(f"n{namespace}/{number}")
        await settled()
        assert len(load.started) <= WORKERS + 10 * (WORKERS // 16)


async def test_key_of_another_customer_is_next_in_its_namespace() -> None:
    started: list[str] = []

    async def reconcile(key: str) -> Result:
        started.append(key)
        await asyncio.sleep(0)
        return Result.DONE

    def flow(key: str) -> tuple[str, str]:
        return "shop", key.partition("-")[0]

    queue = WorkQueue("Test", reconcile, workers=2, backoff_max=1, flow=flow)
    task = asyncio.create_task(queue.run())
    for number in range(1000):
        queue.add(f"many-{number}")
    queue.add("one-good")
    while "one-good" not in started:  # noqa: ASYNC110 - at most a thousand turns of the loop
        await asyncio.sleep(0)
    queue.stop()
    await task
    assert started.index("one-good") <= 3
