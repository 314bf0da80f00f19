"""Starts and ends the tasks of the process. See also: `run` has them."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from voucher_operator.resources.errors import AddressInUseError

CANCEL_AGAIN: Final = 10.0
"""Seconds after which a task that has not ended is cancelled again; kopf's tasks take up to two seconds to end."""


class EndedError(RuntimeError):
    """A task that must not end has ended."""


def ended(tasks: set[asyncio.Task[Any]]) -> BaseException:
    """Return the exception to raise when these tasks have ended: AddressInUseError itself, any other as the cause."""
    result = EndedError(", ".join(sorted(task.get_name() for task in tasks)))
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            if isinstance(error, AddressInUseError):
                return error
            result.__cause__ = error
    return result


def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Start a task that must not end by itself."""
    return asyncio.create_task(work, name=name)


async def cancel(*tasks: asyncio.Task[Any], again_after: float = CANCEL_AGAIN) -> None:
    """Cancel tasks and wait until they have ended.

    Repeatedly: before Python 3.12 `asyncio.wait_for`, which libraries use, may lose a cancellation.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=again_after)


async def uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Do the work to its end although this task is cancelled meanwhile; the cancellation is raised afterwards.

    A clean-up that is cancelled half-way would leave kopf's watches to the end of the event loop, which cancels them
    together with the tasks that they wait for: they would never end.
    """
    task, cancelled = asyncio.ensure_future(work), False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        task.exception()
        raise asyncio.CancelledError
    task.result()
