"""Backpressure: ledger requests wait only while many statuses of their namespace wait to be written."""

import asyncio
from typing import Final

import pytest

from voucher_operator.controllers.redemption.backpressure import Backpressure
from voucher_operator.kube.fairness import Flow

SHOP: Final = ("shop", "huda")
OTHER: Final = ("other", "fatma")


async def write(
    pace: Backpressure, begun: list[int], end: asyncio.Event, flow: Flow = SHOP, *, undecided: bool = False
) -> None:
    async with pace.writing(flow, undecided=undecided):
        begun.append(1)
        await end.wait()


async def turns() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_requests_do_not_wait_while_few_statuses_wait() -> None:
    pace, end = Backpressure(4), asyncio.Event()
    writing = [asyncio.create_task(write(pace, [], end)) for _ in range(5)]
    await turns()
    async with asyncio.timeout(10):
        await pace.wait(SHOP)
    end.set()
    await asyncio.gather(*writing)


async def test_requests_wait_for_many_statuses_and_continue_together() -> None:
    pace, asked, ends = Backpressure(4), [], [asyncio.Event() for _ in range(6)]
    writing = [asyncio.create_task(write(pace, [], end)) for end in ends]
    await turns()

    async def ask() -> None:
        await pace.wait(SHOP)
        asked.append(1)

    asking = [asyncio.create_task(ask()) for _ in range(10)]
    await turns()
    assert asked == []
    ends[0].set()
    await turns()
    assert len(asked) == 10
    for end in ends:
        end.set()
    await asyncio.gather(*writing, *asking)


async def test_no_more_statuses_are_written_at_once_than_there_are_connections() -> None:
    pace, begun, end = Backpressure(4), list[int](), asyncio.Event()
    writing = [asyncio.create_task(write(pace, begun, end)) for _ in range(9)]
    await turns()
    assert len(begun) == 4
    end.set()
    await asyncio.gather(*writing)
    assert len(begun) == 9


async def test_failed_or_cancelled_write_frees_its_slot() -> None:
    pace = Backpressure(1)
    with pytest.raises(ValueError, match="refused"):
        async with pace.writing(SHOP):
            raise ValueError("refused")
    end = asyncio.Event()
    first, waiting = (asyncio.create_task(write(pace, [], end)) for _ in range(2))
    await turns()
    waiting.cancel()
    end.set()
    await asyncio.gather(first, waiting, return_exceptions=True)
    async with asyncio.timeout(10):
        await pace.wait(SHOP)
        async with pace.writing(SHOP):
            pass


async def test_requests_do_not_wait_for_statuses_of_another_namespace() -> None:
    pace, end = Backpressure(4), asyncio.Event()
    writing = [asyncio.create_task(write(pace, [], end)) for _ in range(1000)]
    await turns()
    async with asyncio.timeout(10):
        await pace.wait(OTHER)
    end.set()
    await asyncio.gather(*writing)


async def test_status_of_another_namespace_is_written_next() -> None:
    pace, begun, ends = Backpressure(1), list[int](), [asyncio.Event() for _ in range(100)]
    writing = [asyncio.create_task(write(pace, [], end)) for end in ends]
    await turns()
    other = asyncio.create_task(write(pace, begun, ends[0], OTHER))
    await turns()
    assert begun == []
    for end in ends[:2]:
        end.set()
    await turns()
    assert begun == [1]
    for end in ends:
        end.set()
    await asyncio.gather(*writing, other)


async def test_undecided_statuses_leave_connections_and_delay_no_request() -> None:
    pace, end = Backpressure(4), asyncio.Event()
    waiting, begun = list[int](), list[int]()
    undecided = [asyncio.create_task(write(pace, waiting, end, undecided=True)) for _ in range(1000)]
    await turns()
    assert len(waiting) == 2
    async with asyncio.timeout(10):
        await pace.wait(SHOP)
    results = [asyncio.create_task(write(pace, begun, end)) for _ in range(4)]
    await turns()
    assert len(begun) == 2
    end.set()
    await asyncio.gather(*undecided, *results)
