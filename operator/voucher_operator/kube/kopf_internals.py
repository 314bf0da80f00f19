"""The only module that uses private names of kopf.

For tasks and generators that kopf leaves when it is cancelled; and for its memory: of tens of thousands of objects it
would queue all bodies of the first list at once, and then remember two kilobytes of each for ever.

`tests/unit/test_kopf_internals.py` fails when an upgrade of kopf moves one of the names.

See also: `controllers.watch` uses kopf's public names; `leader_election` overrides methods of the `kubernetes` client's
leader election.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from copy import copy
from typing import Any, Final
from weakref import WeakValueDictionary

from kopf._cogs.aiokits.aiotasks import guard
from kopf._cogs.clients import fetching
from kopf._cogs.clients.scanning import scan_resources
from kopf._cogs.clients.watching import infinite_watch
from kopf._cogs.structs.references import Insights
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory

_fetch_objs: Final = fetching.fetch_objs
_LISTED: Final = 100
"""Listed objects that may wait for their handler when the next page is asked for."""
_LONGEST: Final = 5.0
"""Seconds after which a page is asked for all the same: kopf calls no handler for an object that it has failed on."""


def orphaned_tasks() -> set[asyncio.Task[Any]]:
    """Return what kopf leaves running when it is cancelled or fails; cancel it together with kopf's other tasks.

    Discovery, when kopf is cancelled during it: it would continue with a new session that is never closed. Watches,
    when another one fails: they would handle events beside those of the next start, and their workers, cancelled
    without them at the end of the event loop, keep the process from ending.
    """
    return {task for task in asyncio.all_tasks() if _is_of_kopf(task.get_coro())}


class Discovery:
    """What kopf finds when it starts: it looks for its resources only once, and leaves out what it does not find.

    One of several API servers may still list a CRD as it was.
    """

    def __init__(self) -> None:
        self.insights = Insights()
        """For `kopf.spawn_tasks`."""

    async def check(self, plurals: Collection[str]) -> None:
        """Wait for kopf's discovery; raise RuntimeError when it left out one of these resources, else never end."""
        await self.insights.ready_resources.wait()
        if missing := set(plurals) - {one.plural for one in self.insights.watched_resources}:
            raise RuntimeError(f"kopf found no {' and '.join(sorted(missing))} to watch")
        await asyncio.Event().wait()


def handle_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Handle an exception of the event loop by default, except one from kopf's stream of watch events.

    kopf leaves the stream open when it is cancelled while it delivers an event, and Python cannot always close it later
    ("generator didn't stop after athrow()"); the stream is no longer used then.
    """
    if getattr(context.get("asyncgen"), "ag_code", None) is not infinite_watch.__code__:
        loop.default_exception_handler(context)


def _is_of_kopf(coro: object) -> bool:
    code = getattr(coro, "cr_code", None)
    return code is not None and (code is guard.__code__ or code.co_filename == scan_resources.__code__.co_filename)


class ListPace:
    """Lets kopf list as fast as its handlers work. Install it before kopf's tasks are spawned.

    kopf starts a worker for each object that it lists, and queues the workers above its limit with their bodies.
    """

    def __init__(self) -> None:
        self._listings: list[_Listing] = []

    def install(self) -> None:
        """Have kopf list through this one."""
        fetching.fetch_objs = self._fetch

    def seen(self, uid: str) -> None:
        """Record that the handler of an object was called."""
        for listing in self._listings:
            listing.seen(uid)

    async def _fetch(self, **kwargs: Any) -> AsyncIterator[tuple[Collection[Any], str]]:
        listing = _Listing()
        self._listings.append(listing)
        try:
            async for page, version in _fetch_objs(**kwargs):
                body: Any
                for body in page:
                    # Most of a body's size, and nothing that anybody reads.
                    body["metadata"].pop("managedFields", None)
                    listing.waiting.add(body["metadata"]["uid"])
                yield page, version
                await listing.wait()
        finally:
            self._listings.remove(listing)


class _Listing:
    """The list of one kind in one namespace: the others do not wait for it."""

    def __init__(self) -> None:
        self.waiting: set[str] = set()
        self._changed = asyncio.Event()

    def seen(self, uid: str) -> None:
        self.waiting.discard(uid)
        if len(self.waiting) <= _LISTED:
            self._changed.set()

    async def wait(self) -> None:
        try:
            async with asyncio.timeout(_LONGEST):
                while len(self.waiting) > _LISTED:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            self.waiting.clear()


class TransientMemories(ResourceMemories):
    """What kopf knows of an object, for as long as it works on it, or has a patch left for it; not for ever.

    The rest is of use for what this operator does not have: daemons, indices, handlers of resumption.
    """

    def __init__(self) -> None:
        super().__init__()
        self._items: Any = WeakValueDictionary()
        self._with_patch: dict[str, ResourceMemory] = {}

    async def recall(
        self, raw_body: Any, *, memobase: Any = None, noticed_by_listing: bool = False, ephemeral: bool = False
    ) -> ResourceMemory:
        """Return what is known of an object, or begin to know it."""
        key = self._build_key(raw_body)
        memory: ResourceMemory | None = self._items.get(key)
        if memory is None:
            memory = _Memory(memo=copy(memobase), noticed_by_listing=noticed_by_listing)
            memory.keep_in(self._with_patch, key)
            if not ephemeral:
                self._items[key] = memory
        return memory

    async def forget(self, raw_body: Any) -> None:
        """Drop an object that is deleted."""
        await super().forget(raw_body)
        self._with_patch.pop(self._build_key(raw_body), None)


class _Memory(ResourceMemory):
    """Keeps itself in a dictionary while it has a patch that was not applied whole."""

    def keep_in(self, place: dict[str, ResourceMemory], key: str) -> None:
        self.__dict__["place"] = (place, key)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "remaining_patch" and "place" in self.__dict__:
            place, key = self.__dict__["place"]
            if value is None:
                place.pop(key, None)
            else:
                place[key] = self
