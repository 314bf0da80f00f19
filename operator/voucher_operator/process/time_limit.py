"""Ends the process when something does not end in time, whatever holds it: a library's task, a thread, a lost network.

Kubernetes kills a process only at the end of the pod's grace period after SIGTERM, and never a replica that has lost
its Lease and cannot stop its controllers. See also: `run` limits both.
"""

import asyncio
import logging
import os
import threading
from types import TracebackType
from typing import Final, Self

log = logging.getLogger(__name__)

_EXIT_CODE: Final = 1
_LOGGING: Final = 1.0
"""Seconds for writing the log line; its reader may hang, too."""
_NAMED: Final = 5


class TimeLimit:
    """Limits what happens between `start` and `cancel`, or in a `with` block, to `seconds`; then the process ends.

    The limit is a thread of its own, because the event loop itself may hang.
    """

    def __init__(self, seconds: float, what: str) -> None:
        """`what` is the subject of the log line; a limit is started from an event loop, and once."""
        self._what = what
        self._seconds = seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def start(self) -> None:
        """Start the time."""
        self._loop = asyncio.get_running_loop()
        self._timer.start()

    def cancel(self) -> None:
        """End the limit: what it limits has ended."""
        self._timer.cancel()

    def __enter__(self) -> Self:
        """Start the time."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the limit."""
        self.cancel()

    def _end(self) -> None:
        fallback = threading.Timer(_LOGGING, os._exit, args=(_EXIT_CODE,))
        fallback.daemon = True
        fallback.start()
        extra = {"resource": "process", "reason": "TimeLimit", "detail": ", ".join(self._running())}
        log.error("%s did not stop within %g s: the process ends now", self._what, self._seconds, extra=extra)
        os._exit(_EXIT_CODE)

    def _running(self) -> list[str]:
        """Return the names of some tasks that still run; none when they change while they are read."""
        try:
            return sorted(task.get_name() for task in asyncio.all_tasks(self._loop))[:_NAMED]
        except RuntimeError:
            return []
