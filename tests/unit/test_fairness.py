"""Fair order: a group, or a member of it, with thousands of items does not delay the others."""

import asyncio
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voucher_operator.kube.fairness import FairQueue, FairRate, FairSlots, Flow, namespace_of

FLOWS = st.tuples(st.sampled_from("ABC"), st.sampled_from("xyz"))


def order(queue: FairQueue[str]) -> list[str]:
    taken = []
    while (found := queue.pop()) is not None:
        taken.append(found[1])
    return taken


def test_item_of_another_group_waits_for_one_item() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(20_000):
        queue.push(("many", f"customer-{number}"), "bad")
    queue.push(("one", "customer"), "good")
    assert order(queue).index("good") == 1


def test_item_of_another_member_waits_for_one_item() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(20_000):
        queue.push(("shop", "many"), "bad")
    queue.push(("shop", "one"), "good")
    assert order(queue).index("good") == 1


def test_items_of_one_flow_keep_their_order() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in "abc":
        queue.push(("shop", "one"), item)
    assert order(queue) == ["a", "b", "c"]


def test_group_that_is_not_allowed_is_passed_over_and_keeps_its_turn() -> None:
    queue: FairQueue[str] = FairQueue()
    for group, item in (("A", "a1"), ("A", "a2"), ("B", "b1")):
        queue.push((group, ""), item)
    assert queue.pop(lambda group: group != "A") == (("B", ""), "b1")
    assert queue.pop(lambda group: group != "A") is None
    assert (len(queue), queue.groups) == (2, 1)
    assert order(queue) == ["a1", "a2"]


@given(st.lists(st.one_of(FLOWS, st.none()), max_size=60))
def test_order_is_that_of_the_model(actions: list[Flow | None]) -> None:
    """A flow is pushed, None takes one. The model: who of those that wait was served longest ago, or began to wait."""
    queue: FairQueue[int] = FairQueue()
    waiting: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    turns: dict[str | Flow, int] = {}
    for now, flow in enumerate(actions):
        if flow is not None:
            group, member = flow
            if not any(waiting[group].values()):
                turns[group] = now
            if not waiting[group][member]:
                turns[flow] = now
            waiting[group][member].append(now)
            queue.push(flow, now)
            continue
        groups = [group for group, members in waiting.items() if any(members.values())]
        if not groups:
            assert queue.pop() is None
            continue
        group = min(groups, key=lambda one: turns[one])
        member = min((m for m, items in waiting[group].items() if items), key=lambda m: turns[group, m])
        turns[group] = turns[group, member] = now
        assert queue.pop() == ((group, member), waiting[group][member].pop(0))
    assert len(queue) == sum(len(items) for members in waiting.values() for items in members.values())


@pytest.mark.parametrize(("key", "group"), [("shop/a", "shop"), ("http:a", ""), ("a", "")])
def test_flow_of_a_key_is_its_namespace(key: str, group: str) -> None:
    assert namespace_of(key) == (group, "")


async def test_slots_are_given_in_turn_to_the_groups() -> None:
    slots = FairSlots(1)
    served: list[str] = []

    async def hold(flow: Flow) -> None:
        async with slots.held(flow):
            served.append(flow[0])
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(hold(("many", "")))
        group.create_task(hold(("one", "")))
    assert served.index("one") <= 2
    assert len(served) == 51


async def test_cancelled_waiter_leaves_its_slot_to_the_next() -> None:
    """Whether it still waits, or was given the slot in the turn of the loop in which it is cancelled."""
    slots = FairSlots(1)
    release, entered = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with slots.held(("shop", "")):
            await release.wait()

    async def enter() -> None:
        async with slots.held(("shop", "")):
            entered.set()

    holder = asyncio.create_task(hold())
    await asyncio.sleep(0)
    waiting, chosen = asyncio.create_task(enter()), asyncio.create_task(enter())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    release.set()
    await holder
    chosen.cancel()
    await asyncio.wait([chosen])
    await enter()
    assert entered.is_set()


async def test_rate_gives_a_burst_and_then_one_turn_in_each_interval() -> None:
    loop = asyncio.get_running_loop()
    rate, start, times = FairRate(per_second=50, burst=4), loop.time(), []
    for _ in range(10):
        await rate.turn(("shop", ""))
        times.append(loop.time() - start)
    assert all(now >= (n - 3) / 50 - 0.005 for n, now in enumerate(times))


async def test_rate_serves_another_group_next() -> None:
    rate, served = FairRate(per_second=500, burst=1), []

    async def call(name: str) -> None:
        await rate.turn((name, ""))
        served.append(name)

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(call("many"))
        group.create_task(call("one"))
    assert served.index("one") <= 2


async def test_cancelled_turn_is_not_used_up() -> None:
    rate = FairRate(per_second=1e-3, burst=2)
    await rate.turn(("shop", ""))
    await rate.turn(("shop", ""))
    waiting = asyncio.create_task(rate.turn(("shop", "")))
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
