"""The only module that uses private names of kopf: for tasks and generators that kopf leaves when it is cancelled.

`tests/unit/test_kopf_internals.py` fails when an upgrade of kopf moves one of the names.

See also: `controllers.watch` uses kopf's public names; `leader_election` overrides methods of the `kubernetes` client's
leader election.
"""

import asyncio
from collections.abc import Collection
from typing import Any

from kopf._cogs.aiokits.aiotasks import guard
from kopf._cogs.clients.scanning import scan_resources
from kopf._cogs.clients.watching import infinite_watch
from kopf._cogs.structs.references import Insights


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
