"""Makes the operator's connections: with its session settings, to a server that takes writes; and notes why one failed.

It also asks every few seconds whether a new connection reaches the server of the open ones. They would otherwise stay
for as long as they live with a server that new clients do not reach any more: one that shuts down in the "smart" mode
(CloudNativePG: for three minutes), or a former primary that does not know of its successor and goes on taking writes.

See also: `pool` uses the connections; `session.sql` has the settings; `errors` has the messages.
"""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from voucher_operator.ledger import errors
from voucher_operator.ledger.session import CLIENT_ENCODING, OPERATOR_SETTINGS, Pooler
from voucher_operator.ledger.transactions import LedgerConnection, configure
from voucher_operator.resources.errors import LedgerUnavailableError

Connection = psycopg.AsyncConnection[TupleRow]

_log = logging.getLogger(__name__)

CONNECT_SECONDS: Final = 3
"""How long one connection may take to be made."""
PROBE_SECONDS: Final = 5.0
"""How often a new connection is tried."""
_PROBES: Final = 3
"""How many of them must fail, one after the other, before the open connections are closed."""
OPTIONS: Final[dict[str, Any]] = {"autocommit": True, "prepare_threshold": 0}
_LINK: Final[dict[str, str | int]] = {
    "application_name": "voucher-operator",
    "client_encoding": CLIENT_ENCODING,
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


class Connector:
    """One for each pool. `source` is called at each new connection, so that a rotated password is used.

    `leave` is called when the open connections lead to a server that new ones do not reach.
    """

    def __init__(self, source: Callable[[], str], pooler: Pooler, leave: Callable[[], Awaitable[None]]) -> None:
        self._cause: LedgerUnavailableError | None = None
        self.read_only = 0
        """How often a session turned out to be read-only."""
        self._source = source
        self._leave = leave
        self._server: str | None = None
        self._pooler = pooler
        self._pooler_reported = False
        self._failed_probes = 0
        self.connection_class = _reporting(self._set_cause)
        self._probe_class = _reporting(lambda _: None)

    def cause(self) -> LedgerUnavailableError | None:
        """Return why the last try to connect failed, in an error for one caller; None after a success.

        Errors of `source` are among them.
        """
        return None if self._cause is None else LedgerUnavailableError(*self._cause.args)

    async def conninfo(self) -> str:
        """Return the parameters of a new connection. Raises what `source` raises."""
        try:
            return make_conninfo(self._source(), **_LINK)
        except Exception as error:
            self._set_cause(error)
            raise

    async def configure(self, conn: LedgerConnection) -> None:
        """Set what the session needs, and refuse one that may not write: it would stay so for as long as it lives.

        The connections to another server than this one are left.
        """
        try:
            server = await self._set_session(conn)
        except Exception as error:
            self._set_cause(error)
            await conn.close()
            raise
        self._set_cause(None)
        if self._server not in (None, server):
            await self._leave()
        self._server = server

    async def probe_forever(self) -> None:
        """Try a new connection every PROBE_SECONDS, until cancelled."""
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            await self.probe()

    async def probe(self) -> None:
        """Try a new connection; leave the open ones when several tries have failed."""
        try:
            async with await self._probe_class.connect(await self.conninfo(), **OPTIONS) as conn:
                await self.configure(conn)
            self._failed_probes = 0
        except Exception as error:
            self._failed_probes = self._failed_probes + 1 if errors.is_unreachable(error) else 0
            if self._failed_probes >= _PROBES or errors.is_shutting_down(error):
                await self._leave()

    async def _set_session(self, conn: LedgerConnection) -> str:
        session = await configure(conn, OPERATOR_SETTINGS, self._pooler)
        if session.read_only:
            self.read_only += 1
            raise psycopg.errors.ReadOnlySqlTransaction("the session is read-only")
        self._report_pooler(conn)
        return session.server

    def _report_pooler(self, conn: LedgerConnection) -> None:
        """Log once that a pooler was found, and what is faster if it is in session mode."""
        if self._pooler == "auto" and conn.shared is not None and not self._pooler_reported:
            self._pooler_reported = True
            _log.info(
                "a connection pooler is between the operator and PostgreSQL: each transaction sets what it needs, and "
                "no statement is prepared; if every connection has a session of its own there (session mode), set "
                "VOUCHER_OPERATOR_POOLER (chart: database.pooler) to session, which is faster"
            )

    def _set_cause(self, error: Exception | None) -> None:
        self._cause = None if error is None else errors.no_connection(error)


def _reporting(report: Callable[[Exception], None]) -> type[LedgerConnection]:
    """Return a connection class that reports why it could not connect; the pool itself only logs it."""

    class Reporting(LedgerConnection):
        @classmethod
        async def connect(cls, *args: Any, **kwargs: Any) -> Self:
            try:
                return await super().connect(*args, **kwargs)
            except Exception as error:
                # psycopg's frames and its error refer to each other, and to the socket of a connection that took too
                # long: until the garbage collector comes, the server would keep a place for it.
                traceback.clear_frames(error.__traceback__)
                report(error)
                raise

    return Reporting
