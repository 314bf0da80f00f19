"""Shares a limited resource between flows, so that one namespace, or one customer in it, does not delay the others.

A flow is a group and a member of it, such as a namespace and a customer; nothing here knows which. Whoever waits is
served in round robin over the groups, then over the members of a group, then first in, first out. A group with many
thousand items therefore delays an item of another group by one turn. See also: `work_queue` shares workers,
`shared_reads` a rate of calls, `controllers.redemption.backpressure` connections.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

T = TypeVar("T")

Flow = tuple[str, str]
"""Group and member."""


def namespace_of(key: str) -> Flow:
    """Return the flow of a key `namespace/name`: one for each namespace."""
    return key.rpartition("/")[0], ""


class FairQueue(Generic[T]):
    """Items that wait, by flow."""

    def __init__(self) -> None:
        self._groups: OrderedDict[str, OrderedDict[str, deque[T]]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def groups(self) -> int:
        """Number of groups that have an item."""
        return len(self._groups)

    def push(self, flow: Flow, item: T) -> None:
        """Add an item at the end of its flow."""
        group, member = flow
        self._groups.setdefault(group, OrderedDict()).setdefault(member, deque()).append(item)
        self._length += 1

    def pop(self, is_allowed: Callable[[str], bool] = lambda _: True) -> tuple[Flow, T] | None:
        """Take the next item of the next group that is allowed; None when there is none."""
        group = next((one for one in self._groups if is_allowed(one)), None)
        if group is None:
            return None
        members = self._groups.pop(group)
        member, items = members.popitem(last=False)
        item = items.popleft()
        if items:
            members[member] = items
        if members:
            self._groups[group] = members
        self._length -= 1
        return (group, member), item


class FairSlots:
    """A semaphore with `size` slots, whose waiters are served fairly."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()

    @asynccontextmanager
    async def held(self, flow: Flow) -> AsyncIterator[None]:
        """Wait for a slot, and hold it."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.push(flow, turn)
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()  # the slot was given in the same turn of the event loop
            raise
        try:
            yield
        finally:
            self._release()

    def _release(self) -> None:
        self._free += 1
        self._serve()

    def _serve(self) -> None:
        while self._free and (found := self._waiting.pop()) is not None:
            if not found[1].done():
                self._free -= 1
                found[1].set_result(None)


class FairRate:
    """A limit of `per_second` turns, of which at most `burst` come together; waiters are served fairly."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._pause = 1 / per_second
        self._burst = burst
        self._full_at = 0.0
        """When all of the burst is available again, by the clock of the event loop."""
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()
        self._timer: asyncio.TimerHandle | None = None

    async def turn(self, flow: Flow) -> None:
        """Wait for a turn."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.push(flow, turn)
        if self._timer is None:
            self._serve()
        await turn

    def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._waiting:
            now = loop.time()
            due = max(self._full_at, now) - (self._burst - 1) * self._pause
            if due > now:
                self._timer = loop.call_at(due, self._serve)
                return
            found = self._waiting.pop()
            if found is not None and not found[1].done():
                self._full_at = max(self._full_at, now) + self._pause
                found[1].set_result(None)
