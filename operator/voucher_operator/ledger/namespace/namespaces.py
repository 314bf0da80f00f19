"""Records which namespaces an operator serves, and finds those that nobody serves any more.

An operator is a release in one cluster: its replicas have one name here, so that the next leader continues. See also:
`controllers.unserved` handles what is found; `admin.verify` reports it; migrations/0033.
"""

from collections.abc import Sequence
from typing import Final

from psycopg.rows import class_row

from voucher_operator.ledger.arrays import text_array
from voucher_operator.ledger.connector import Connection
from voucher_operator.ledger.fetch import fetch_all
from voucher_operator.ledger.statements import statement
from voucher_operator.ledger.types import UnservedNamespace

_SERVE: Final = statement("namespace_serve")
_UNSERVED: Final = statement("namespace_unserved")
_CLEARED: Final = statement("namespace_cleared")


async def report(conn: Connection, operator: str, namespaces: Sequence[str]) -> list[UnservedNamespace]:
    """Record that `operator` serves exactly `namespaces`, and list what it must handle beside them. Idempotent.

    Raises psycopg's errors.
    """
    values = {"operator": operator, "namespaces": text_array(namespaces)}
    await conn.execute(_SERVE, values)
    return await fetch_all(conn, _UNSERVED, values, rows=class_row(UnservedNamespace))


async def cleared(conn: Connection, namespaces: Sequence[str]) -> None:
    """Record that nothing is left in dropped namespaces. Idempotent. Raises psycopg's errors."""
    await conn.execute(_CLEARED, {"namespaces": text_array(namespaces)})
