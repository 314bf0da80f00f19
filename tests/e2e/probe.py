"""Writes to PostgreSQL from outside, several times a second: shows when it takes writes and when not.

See also: `test_failover` compares it with when the operator finishes a Redemption.
"""

import itertools
import threading
import time
from types import TracebackType
from typing import Final, Self

import psycopg

_THREADS: Final = 6
"""An attempt at a server that hangs takes two seconds, libpq's shortest time limit."""
_LIMITS: Final = {"connect_timeout": 2, "options": "-c statement_timeout=1s", "tcp_user_timeout": 2000}


class WriteProbe:
    """A context manager; the times are those of `time.monotonic`, in seconds."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._written: list[float] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(_THREADS)]

    def __enter__(self) -> Self:
        """Start."""
        with psycopg.connect(self._url, autocommit=True) as conn:
            conn.execute("CREATE SCHEMA IF NOT EXISTS probe; CREATE TABLE IF NOT EXISTS probe.write (at timestamptz)")
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def longest_gap(self) -> tuple[float, float]:
        """Return the longest time without a write: the last write before it, the first after it."""
        return max(itertools.pairwise(sorted(self._written)), key=lambda pair: pair[1] - pair[0])

    def wrote_since(self, moment: float) -> bool:
        """Whether a write succeeded after that time."""
        return any(at > moment for at in list(self._written))

    def _work(self, number: int) -> None:
        self._stop.wait(number * 0.05)
        while not self._stop.wait(0.2):
            try:
                with psycopg.connect(self._url, autocommit=True, **_LIMITS) as conn:  # type: ignore[arg-type]
                    conn.execute("INSERT INTO probe.write VALUES (now())")
                self._written.append(time.monotonic())
            except psycopg.Error:
                continue
