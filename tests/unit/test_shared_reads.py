"""Shared reads: one call for all who wait, none older than who asks, and a limit on all of them together."""

import asyncio
from collections import Counter
from typing import cast

import pytest

from voucher_operator.kube import shared_reads
from voucher_operator.kube.client import Body, KubeApi
from voucher_operator.kube.errors import BusyError, ForbiddenError
from voucher_operator.kube.fairness import Flow
from voucher_operator.kube.shared_reads import SharedReads
from voucher_operator.resources.errors import ApiError, ApiUnavailableError

SHOP: Flow = ("shop", "huda")


class Server:
    """Answers reads by path; an answer may be an error. `gate` holds them back."""

    def __init__(self, **answers: Body | ApiError | None) -> None:
        self.answers = answers
        self.calls: Counter[str] = Counter()
        self.under_way = self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, path: str) -> Body | None:
        self.calls[path] += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        answer = self.answers.get(path)
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
        finally:
            self.under_way -= 1
        if isinstance(answer, ApiError):
            raise answer
        return answer

    @property
    def reads(self) -> SharedReads:
        return SharedReads(cast("KubeApi", self), "Secret")


async def test_callers_that_wait_share_one_call() -> None:
    server = Server(a={"found": True})
    reads = server.reads
    found = await asyncio.gather(*(reads.read("a", ("shop", f"{n}")) for n in range(1000)))
    assert found == [{"found": True}] * 1000
    assert server.calls["a"] == 1


async def test_answer_is_not_older_than_its_caller() -> None:
    """A Secret may be changed while it is read, and a Redemption created afterwards."""
    server = Server(a={"code": "old"})
    reads = server.reads
    server.gate.clear()
    first = asyncio.create_task(reads.read("a", SHOP))
    while not server.under_way:  # noqa: ASYNC110 - a turn of the loop or two
        await asyncio.sleep(0)
    server.answers["a"] = {"code": "new"}
    second = asyncio.create_task(reads.read("a", SHOP))
    await asyncio.sleep(0)
    server.gate.set()
    assert (await first, await second) == ({"code": "old"}, {"code": "new"})
    assert await reads.read("a", SHOP) == {"code": "new"}
    assert server.calls["a"] == 3


@pytest.mark.parametrize("absence", [None, ForbiddenError("forbidden", "why")])
async def test_absence_is_remembered_but_not_for_who_asks_for_a_fresh_answer(absence: ApiError | None) -> None:
    server = Server(a=absence)
    reads = server.reads
    for _ in range(3):
        if absence is None:
            assert await reads.read("a", SHOP) is None
        else:
            with pytest.raises(ForbiddenError) as raised:
                await reads.read("a", SHOP)
            assert raised.value.detail == "why"
    assert server.calls["a"] == 1
    server.answers["a"] = {"found": True}
    assert await reads.read("a", SHOP, fresh=True) == {"found": True}


async def test_absence_is_remembered_for_a_limited_time_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    monkeypatch.setattr(shared_reads, "_REMEMBERED", 1)
    reads = server.reads
    for path in "aba":
        await reads.read(path, SHOP)
    assert server.calls == {"a": 2, "b": 1}
    monkeypatch.setattr(shared_reads, "_ABSENT_SECONDS", 0.0)
    for _ in range(2):
        await reads.read("c", SHOP)
    assert server.calls["c"] == 2


async def test_failure_is_not_remembered() -> None:
    server = Server(a=ApiUnavailableError("down"))
    reads = server.reads
    for _ in range(2):
        with pytest.raises(ApiUnavailableError):
            await reads.read("a", SHOP)
    assert server.calls["a"] == 2


async def test_number_of_concurrent_calls_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_reads, "PER_SECOND", 1e6)
    server = Server()
    reads = server.reads
    await asyncio.gather(*(reads.read(f"{n}", (f"namespace-{n}", "huda")) for n in range(100)))
    assert (server.most, sum(server.calls.values())) == (4, 100)


async def test_number_of_calls_in_a_time_is_limited() -> None:
    """Counted when the time has passed, however long that took."""
    server, loop = Server(), asyncio.get_running_loop()
    reads, start = server.reads, loop.time()
    await asyncio.gather(*(reads.read(f"{n}", (f"namespace-{n}", "huda")) for n in range(30)))
    assert sum(server.calls.values()) == 30 <= 9 + (loop.time() - start) * shared_reads.PER_SECOND


@pytest.mark.parametrize(("customers", "accepted"), [(1, 8 + 8), (1000, 8 + 48)], ids=["one customer", "thousand"])
async def test_call_is_refused_while_many_of_its_customer_or_namespace_wait(
    customers: int, accepted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits holds a worker. The first eight do not wait."""
    monkeypatch.setattr(shared_reads, "PER_SECOND", 0.001)
    reads = Server().reads
    tasks = [asyncio.create_task(reads.read(f"{n}", ("shop", f"{n % customers}"))) for n in range(1000)]
    others = [asyncio.create_task(reads.read(f"{flow}", flow)) for flow in (("shop", "other"), ("other", "fatma"))]
    await asyncio.sleep(0)
    refused = [task for task in tasks if task.done() and isinstance(task.exception(), BusyError)]
    assert len(tasks) - len(refused) == accepted
    assert [task.done() for task in others] == [customers == 1000, False]
    waiting = [task for task in (*tasks, *others) if not task.done()]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*others, *waiting, return_exceptions=True)


async def test_cancelled_caller_leaves_the_call_to_another() -> None:
    server = Server(a={"found": True})
    reads = server.reads
    first, second = (asyncio.create_task(reads.read("a", SHOP)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == {"found": True}
    assert first.cancelled() or first.done()
