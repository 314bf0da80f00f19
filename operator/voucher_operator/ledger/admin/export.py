"""Writes the ledger to a file for people and other systems: `voucher-operator export`.

The server materializes the result (a cursor WITH HOLD) and sends it in portions. So memory here does not grow with the
ledger, the rows are one snapshot, and a slow reader holds no lock on any table. Behind a connection pooler in
transaction mode a cursor ends with its transaction, so the time limit of the statement includes the sending.

See also: `export_*.sql` are the queries; `reader` has the session, and masks the codes that come from Secrets.
"""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row, scalar_row

from voucher_operator.ledger.admin.reader import STATEMENT_LIMIT, CodeMask, limited, read_only
from voucher_operator.ledger.fetch import fetch_one
from voucher_operator.ledger.statements import statement
from voucher_operator.ledger.transactions import shared_session, unit
from voucher_operator.resources.errors import LedgerUnavailableError
from voucher_operator.resources.money import format_amount

What = Literal["vouchers", "redemptions", "entries", "purchases"]
Format = Literal["jsonl", "csv"]

_Value = str | int | bool | None
_CURRENCY: Final = statement("read_currency")
_AMOUNTS: Final = frozenset({"credit", "granted", "amount", "total", "held", "due"})
"""Columns of minor units: each becomes a decimal `x` and an integer `x_minor`."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_PORTION: Final = 1000


async def export(
    database_url: str, what: What, fmt: Format, out: TextIO, *, statement_limit: float = STATEMENT_LIMIT
) -> int:
    """Write all vouchers, redemptions, ledger entries or purchases to `out`, oldest first; return the number of rows.

    An amount is a decimal of major units, with the integer of minor units (`<name>_minor`) beside it; the last column
    is the `currency`. Times are RFC 3339 in UTC. A code from a Secret is shown as its Voucher. CSV has a header, and a
    text that a spreadsheet would take for a formula gets a leading apostrophe. `statement_limit` bounds the query, in
    seconds; sending has no limit, except behind a pooler. Raises LedgerUnavailableError.
    """
    async with read_only(database_url, "voucher-operator export", statement_limit=statement_limit) as connection:
        mask = await CodeMask.load(connection)
        currency = await _currency(connection)
        own_session = shared_session(connection) is None
        async with AsyncExitStack() as stack:
            if not own_session:
                await stack.enter_async_context(limited(statement_limit))
            await stack.enter_async_context(unit(connection))
            cursor = connection.cursor("export", row_factory=dict_row, withhold=own_session)
            await stack.enter_async_context(cursor)
            cursor.itersize = _PORTION
            async with limited(statement_limit):
                await cursor.execute(statement(f"export_{what}"))
            write = _writer(fmt, out, _header(column.name for column in cursor.description or ()))
            number = 0
            async for row in cursor:
                write(dict(_record(row, currency, mask)))
                number += 1
            return number


async def _currency(connection: AsyncConnection[Any]) -> str:
    async with unit(connection):
        currency: str | None = await fetch_one(connection, _CURRENCY, rows=scalar_row)
    if currency is None:
        raise LedgerUnavailableError("this ledger has no currency yet: run voucher-operator migrate")
    return currency


def _header(columns: Iterator[str]) -> list[str]:
    names: list[str] = []
    for column in columns:
        names.extend((column, f"{column}_minor") if column in _AMOUNTS else (column,))
    return [*names, "currency"]


def _record(row: dict[str, Any], currency: str, mask: CodeMask) -> Iterator[tuple[str, _Value]]:
    for name, value in row.items():
        if name in _AMOUNTS:
            yield name, format_amount(value, currency)
            yield f"{name}_minor", value
        elif name == "code" and value is not None:
            yield name, mask.code(value)
        elif name == "reason" and value is not None:
            yield name, mask.reason(value)
        else:
            yield name, _plain(value)
    yield "currency", currency


def _plain(value: Any) -> _Value:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, UUID):
        return str(value)
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"cannot write a {type(value).__name__}")


def _writer(fmt: Format, out: TextIO, header: list[str]) -> Callable[[dict[str, _Value]], object]:
    if fmt == "jsonl":
        return lambda record: out.write(json.dumps(record, ensure_ascii=False) + "\n")
    rows = csv.DictWriter(out, header, lineterminator="\n")
    rows.writeheader()
    return lambda record: rows.writerow({name: _cell(name, value) for name, value in record.items()})


def _cell(name: str, value: _Value) -> _Value:
    """Prevent a spreadsheet from running a customer's text as a formula. Amounts keep their minus sign."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and name not in _AMOUNTS and value.startswith(_FORMULA):
        return f"'{value}"
    return value
