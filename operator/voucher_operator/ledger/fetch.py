"""Runs a statement and makes its rows by column name: a dataclass has fields named as the columns of its statement.

The batches do not use this: they read positions, because building a dictionary for each row costs more than reading it.
See also: `psycopg.rows` has the row factories; `statements` finds the statements.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from psycopg.rows import BaseRowFactory

from voucher_operator.ledger.connector import Connection

T = TypeVar("T")


async def fetch_one(
    conn: Connection, query: bytes, values: Mapping[str, Any] | None = None, *, rows: BaseRowFactory[T]
) -> T | None:
    """Return the first row as `rows` makes it; None when there is none. Raises psycopg's errors."""
    cursor = conn.cursor(row_factory=rows)
    await cursor.execute(query, values)
    return await cursor.fetchone()


async def fetch_all(
    conn: Connection,
    query: bytes,
    values: Mapping[str, Any] | None = None,
    *,
    rows: BaseRowFactory[T],
    binary: bool = False,
) -> list[T]:
    """Return all rows as `rows` makes them; `binary` for the many. Raises psycopg's errors."""
    cursor = conn.cursor(binary=binary, row_factory=rows)
    await cursor.execute(query, values)
    return await cursor.fetchall()
