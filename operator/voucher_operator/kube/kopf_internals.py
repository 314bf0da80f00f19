"""The one module that uses kopf's private names: what kopf leaves behind when it is cancelled.

`tests/unit/test_kopf_internals.py` fails when an upgrade of kopf moves one of the names. See also: `controllers.watch`
uses kopf's public names; `leader_election` overrides methods of the `kubernetes` client's election, which the same test
checks.
"""

import asyncio
from typing import Any

from kopf._cogs.clients.scanning import scan_resources
from kopf._cogs.clients.watching import infinite_watch


def orphaned_tasks() -> set[asyncio.Task[Any]]:
    """Return kopf's requests of what the cluster serves, which it leaves running when it is cancelled meanwhile.

    They would go on, with a new session that nobody closes; cancel them together with kopf's own tasks.
    """
    return {task for task in asyncio.all_tasks() if _is_scan(task.get_coro())}


def handle_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Handle what the event loop reports as usual, except for kopf's stream of events.

    kopf leaves it open when it is cancelled while it delivers an event, and Python cannot always close it later
    ("generator didn't stop after athrow()"); nothing of it is needed any more.
    """
    if getattr(context.get("asyncgen"), "ag_code", None) is not infinite_watch.__code__:
        loop.default_exception_handler(context)


def _is_scan(coro: object) -> bool:
    code = getattr(coro, "cr_code", None)
    return code is not None and code.co_filename == scan_resources.__code__.co_filename
