"""The work queue is fair to namespaces, and to customers within it. See also: test_queue.py, test_fairness.py."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from voucher_operator.kube.work_queue import Result, WorkQueue

WORKERS: Final = 32


class Workload:
    """Reconciles nothing: each key waits until the test releases it."""

    def __init__(self, workers: int = WORKERS) -> None:
        self.queue = WorkQueue("Test", self._reconcile, workers=workers, backoff_max=1)
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
async def working(workers: int = WORKERS) -> AsyncIterator[Workload]:
    load = Workload(workers)
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


async def test_namespace_gets_all_workers_again_when_no_other_one_waits() -> None:
    """Also the worker that neither of two got while both waited."""
    async with working(workers=3) as load:
        load.queue.add("more/0")
        for number in range(10):
            load.queue.add(f"many/{number}")
        load.queue.add("more/1")
        load.queue.add("more/2")
        await settled()
        while load.under_way("more") or "more/2" not in load.started:
            load.finish(1, "more")
            load.finish(1, "many")
            await settled()
        assert load.under_way("many") == 3


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
