"""Checks the invariants of a live ledger: `voucher-operator verify`.

Each invariant is one SQL query that returns the rows that break it. A query is one statement, hence one snapshot: it is
consistent while other sessions redeem, and needs no transaction that would block the start of the Go service.

See also: `verify_*.sql` are the queries; the tests run them after every fault; `reader` has the session, and masks the
codes that come from Secrets.
"""

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from psycopg.rows import dict_row, scalar_row

from voucher_operator.ledger.admin.reader import STATEMENT_LIMIT, CodeMask, read_only
from voucher_operator.ledger.fetch import fetch_all
from voucher_operator.ledger.statements import statement
from voucher_operator.ledger.transactions import unit
from voucher_operator.ledger.types import Violation


class Invariant(StrEnum):
    """What holds at every moment; the value names the query `verify_<value>.sql`."""

    COUNTER = "counter"
    CAP = "cap"
    ONCE_PER_CUSTOMER = "once_per_customer"
    GRANT = "grant"
    ENTRIES = "entries"
    REVERSAL = "reversal"
    BALANCE = "balance"
    ACCOUNTS = "accounts"
    GRANTED = "granted"
    COLUMNS = "columns"
    TERMS = "terms"
    NAMESPACES = "namespaces"
    SPELLING = "spelling"
    ORDERS = "orders"
    HOLDS = "holds"
    OUTBOX = "outbox"
    WEBHOOK_EVENTS = "webhook_events"
    CHECKOUTS = "checkouts"
    PAYMENTS = "payments"


_KEYS: Final = statement("verify_keys")
_REJECTED: Final = statement("verify_wrongly_rejected")
_ABSENT: Final = statement("verify_absent_vouchers")
EXPLANATIONS: Final = MappingProxyType(
    {
        Invariant.COUNTER: "A code's counter is the number of its redemption rows.",
        Invariant.CAP: "A code has no more redemptions than its cap, or than it had when the cap was last set.",
        Invariant.ONCE_PER_CUSTOMER: "A customer redeems a code once, in whatever spelling.",
        Invariant.GRANT: "A request that was granted has one grant entry of its amount, and its redemption row.",
        Invariant.ENTRIES: "Each redemption row has one grant in force; no grant is in force without a redemption row.",
        Invariant.REVERSAL: "A request that was undone by the operator has an entry that negates its grant.",
        Invariant.BALANCE: "A customer's balance is not negative (two checkouts of the Go service at once can do it).",
        Invariant.ACCOUNTS: "A customer's account is the sum of the entries; the major units add up to its floor.",
        Invariant.GRANTED: "The credit that a code has granted is the sum of its entries that belong to no order.",
        Invariant.COLUMNS: "Major units and minor units of a code's credit differ by less than one major unit.",
        Invariant.TERMS: "The code of a live Voucher has its row (the operator restores a missing one).",
        Invariant.NAMESPACES: "An operator serves the namespace of each live Voucher.",
        Invariant.SPELLING: "No two codes have one normal form: only the one in normal spelling can be redeemed.",
        Invariant.ORDERS: "A purchase has an order with its amounts and state; a completed one has spent what it held.",
        Invariant.HOLDS: "An open purchase holds its credit, once; only a completed or charged back one keeps it.",
        Invariant.OUTBOX: "A completed or rolled back purchase has one event; none stays unpublished for over an hour.",
        Invariant.WEBHOOK_EVENTS: "No payment needs a person (its full refund resolves it), and none has no effect.",
        Invariant.CHECKOUTS: "Stripe was asked in time how a checkout ended, and to end what must not continue.",
        Invariant.PAYMENTS: "Refunds match payment and order, nothing is outstanding, no dispute needs an answer.",
    }
)
"""One sentence for each, for people and for the docs."""


async def verify(database_url: str, *, statement_limit: float = STATEMENT_LIMIT) -> list[Violation]:
    """Return every row that breaks an invariant, in the order of `Invariant`; none when the ledger is sound.

    `statement_limit` bounds each query, in seconds. Raises LedgerUnavailableError.
    """
    session = read_only(database_url, "voucher-operator verify", statement_limit=statement_limit)
    async with session as connection, unit(connection):
        mask = await CodeMask.load(connection)
        found: list[Violation] = []
        for invariant in Invariant:
            async with unit(connection), connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(statement(f"verify_{invariant}"))
                found += [Violation(invariant.value, _subject(row, mask), row["detail"]) async for row in cursor]
        return found


def _subject(row: dict[str, Any], mask: CodeMask) -> str:
    parts = []
    if row["key"] is not None:
        parts.append(f"redemption {row['key']}")
    if row["code"] is not None:
        shown = mask.code(row["code"])
        parts.append(f"code {shown}" if shown != row["code"] else f"code {shown!r}")
    if row["customer_id"] is not None:
        parts.append(f"customer {row['customer_id']}")
    return ", ".join(parts) or "the ledger"


async def ungranted(
    database_url: str, keys: Sequence[str], *, statement_limit: float = STATEMENT_LIMIT
) -> list[Violation]:
    """Return those of `keys` (`namespace/name` of Redemptions whose status is Redeemed) that have no grant.

    `statement_limit` is in seconds. Raises LedgerUnavailableError.
    """
    session = read_only(database_url, "voucher-operator verify", statement_limit=statement_limit)
    async with session as connection, unit(connection):
        missing = await fetch_all(connection, _KEYS, {"keys": list(keys)}, rows=scalar_row)
    detail = "says Redeemed, and the ledger has no grant for it"
    return [Violation("resource", f"redemption {key}", detail) for key in missing]


async def wrongly_rejected(
    database_url: str, requests: Mapping[str, str], *, statement_limit: float = STATEMENT_LIMIT
) -> list[Violation]:
    """Return those of `requests` that have a grant: key -> hash of the spec of Redemptions whose status is Rejected.

    `statement_limit` is in seconds. Raises LedgerUnavailableError.
    """
    values = {"keys": list(requests), "hashes": list(requests.values())}
    session = read_only(database_url, "voucher-operator verify", statement_limit=statement_limit)
    async with session as connection, unit(connection):
        granted = await fetch_all(connection, _REJECTED, values, rows=scalar_row)
    return [
        Violation("resource", f"redemption {key}", "says Rejected, and the ledger has granted it") for key in granted
    ]


async def absent_vouchers(
    database_url: str, namespaces: Sequence[str], present: Collection[str], *, statement_limit: float = STATEMENT_LIMIT
) -> list[Violation]:
    """Return the live Vouchers of `namespaces` that are not among `present` (`namespace/name` of all that exist).

    `statement_limit` is in seconds. Raises LedgerUnavailableError.
    """
    values = {"namespaces": list(namespaces), "present": list(present)}
    detail = "can be redeemed, and its Voucher does not exist: the next resync of an operator revokes it"
    session = read_only(database_url, "voucher-operator verify", statement_limit=statement_limit)
    async with session as connection, unit(connection):
        mask = await CodeMask.load(connection)
        found = await fetch_all(connection, _ABSENT, values, rows=dict_row)
    return [Violation("resource", f"voucher {row['voucher']}, code {mask.code(row['code'])}", detail) for row in found]
