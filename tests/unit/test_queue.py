"""The work queue: once per key, backoff without a worker, nothing lost while a key is under way."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from voucher_operator.kube.errors import BusyError
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


async def test_key_whose_call_was_not_sent_is_retried_without_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """There may be hundreds each second, and nothing is wrong."""
    attempts = 0
    passed = asyncio.Event()

    async def reconcile(_: str) -> Result:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise BusyError("many wait")
        passed.set()
        return Result.DONE

    with caplog.at_level(logging.INFO):
        async with running(reconcile) as queue:
            queue.add("a")
            await passed.wait()
    assert caplog.records == []


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
