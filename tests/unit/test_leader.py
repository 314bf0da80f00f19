"""A cancelled call of the election ends at once; a leader whose Lease has passed may not write."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kubernetes.aio.client import ApiClient
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from voucher_operator.kube.leader_election import Leadership, TimedLeaseLock
from voucher_operator.process import run
from voucher_operator.process.tasks import cancel
from voucher_operator.resources.errors import LeaseExpiredError
from voucher_operator.settings import Settings

SETTINGS = cast("Settings", SimpleNamespace(lease_name="l", pod_namespace="n", pod_name="p", renew_deadline=10.0))
RECORD = LeaderElectionRecord("p", "15", "", "")


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("verb", ["get", "update"])
async def test_call_cancelled_together_with_its_result_ends(
    verb: str, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def late(*_: Any) -> bool:
        return await answer

    monkeypatch.setattr(LeaseLock, verb, late)
    lock = TimedLeaseLock(SETTINGS, ApiClient())
    call = asyncio.create_task(lock.get("l", "n") if verb == "get" else lock.update("l", "n", RECORD))
    await asyncio.sleep(0)  # the call waits
    answer.set_result(True)
    for _ in range(turns):  # an inner task, if there is one, is done after some
        await asyncio.sleep(0)
    cancelled = not call.done() and call.cancel()
    await asyncio.wait([call])
    assert call.cancelled() == cancelled


async def test_task_that_ignores_a_cancellation_is_cancelled_again() -> None:
    async def ignores_first_cancellation() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    task = asyncio.create_task(ignores_first_cancellation())
    await asyncio.sleep(0)
    await cancel(task, again_after=0.01)
    assert task.cancelled()


async def test_write_is_refused_once_the_lease_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted from when the renewal was sent; a renewal that failed does not count."""
    received, answers = 0.0, True

    async def answer(*_: Any) -> bool:
        nonlocal received
        received = time.monotonic()
        return answers

    async def work() -> None: ...

    monkeypatch.setattr(LeaseLock, "update", answer)
    settings = cast("Settings", SimpleNamespace(**vars(SETTINGS), lease_duration=60))
    leadership = Leadership(settings, ApiClient(), work)
    lock = leadership._lock
    with pytest.raises(LeaseExpiredError):
        leadership.check()  # it never had the Lease
    assert await lock.update("l", "n", RECORD)
    assert lock.held_since <= received
    leadership.check()
    lock.held_since -= 60
    with pytest.raises(LeaseExpiredError):
        leadership.check()
    answers = False
    assert not await lock.update("l", "n", RECORD)
    with pytest.raises(LeaseExpiredError):
        leadership.check()
    answers = True
    assert await lock.update("l", "n", RECORD)
    leadership.check()


class _TakenError(Exception):
    """The election has begun."""


async def test_election_shares_no_connection_with_other_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tenants cause may fill the connections of all other calls; a renewal must not wait behind them."""
    taken: list[object] = []

    def begin(_: Settings, client: object, __: object) -> None:
        taken.append(client)
        raise _TakenError

    operator = run.Operator(Settings())
    operator.kube.client, operator.election_api.client = ApiClient(), ApiClient()
    monkeypatch.setattr(run, "Leadership", begin)
    probes = asyncio.create_task(asyncio.sleep(0))
    with pytest.raises(_TakenError):
        await operator._serve(probes)
    assert taken == [operator.election_api.client]
    await asyncio.gather(operator.kube.close(), operator.election_api.close())
    await cancel(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task()))
