"""Backpressure: ledger requests wait only while many statuses wait to be written."""

import asyncio

import pytest

from voucher_operator.controllers.redemption.backpressure import Backpressure


async def write(pace: Backpressure, begun: list[int], end: asyncio.Event) -> None:
    async with pace.writing():
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
        await pace.wait()
    end.set()
    await asyncio.gather(*writing)


async def test_requests_wait_for_many_statuses_and_continue_together() -> None:
    pace, asked, ends = Backpressure(4), [], [asyncio.Event() for _ in range(6)]
    writing = [asyncio.create_task(write(pace, [], end)) for end in ends]
    await turns()

    async def ask() -> None:
        await pace.wait()
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
        async with pace.writing():
            raise ValueError("refused")
    end = asyncio.Event()
    first, waiting = (asyncio.create_task(write(pace, [], end)) for _ in range(2))
    await turns()
    waiting.cancel()
    end.set()
    await asyncio.gather(first, waiting, return_exceptions=True)
    async with asyncio.timeout(10):
        await pace.wait()
        async with pace.writing():
            pass
