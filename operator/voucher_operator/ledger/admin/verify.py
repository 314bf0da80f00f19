"""Checks the invariants of a live ledger: `voucher-operator verify`.

Each invariant is one SQL query that returns the rows that break it. A query is one statement, hence one snapshot: it is
consistent in itself while others redeem, and needs no transaction that would keep the Go service from starting.

See also: `sql/verify_*.sql` are the queries; the tests run them after every fault; `reader` has the session and the
mask over codes from Secrets.
"""

from collections.abc import Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from psycopg.rows import dict_row

from voucher_operator.ledger.admin.reader import STATEMENT_LIMIT, CodeMask, read_only
from voucher_operator.ledger.statements import statement
from voucher_operator.ledger.types import Violation


class Invariant(StrEnum):
    """What holds at every moment; the value names the query `sql/verify_<value>.sql`."""

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
    SPELLING = "spelling"
    ORDERS = "orders"
    HOLDS = "holds"
    OUTBOX = "outbox"
    WEBHOOK_EVENTS = "webhook_events"
    CHECKOUTS = "checkouts"
    PAYMENTS = "payments"


_KEYS: Final = statement("verify_keys")
EXPLANATIONS: Final = MappingProxyType(
    {
        Invariant.COUNTER: "A code's counter is the number of its redemption rows.",
        Invariant.CAP: "A code has no more redemptions than its cap, or than it had when the cap was last set.",
        Invariant.ONCE_PER_CUSTOMER: "A customer redeems a code once, in whatever spelling.",
        Invariant.GRANT: "A request that was granted has one grant entry of its amount, and its redemption row.",
        Invariant.ENTRIES: "Each redemption row has one grant that stands; no grant stands without a redemption row.",
        Invariant.REVERSAL: "A request that was undone by the operator has an entry that negates its grant.",
        Invariant.BALANCE: "A customer's balance is not negative (two checkouts of the Go service at once can do it).",
        Invariant.ACCOUNTS: "A customer's account is the sum of the entries; the whole units sum to its floor.",
        Invariant.GRANTED: "What a code has granted is the sum of its entries that belong to no order.",
        Invariant.COLUMNS: "Whole units and minor units of a code's credit differ by less than one whole unit.",
        Invariant.TERMS: "The code of a live Voucher has its row (the operator puts a missing one back).",
        Invariant.SPELLING: "No two codes have one normal form: only the one in normal spelling can be redeemed.",
        Invariant.ORDERS: "A purchase has its order, amounts and state alike; a completed one has spent what it held.",
        Invariant.HOLDS: "An open purchase holds its credit, once; one that came to nothing holds none.",
        Invariant.OUTBOX: "What a purchase became is told by one event, and no event waits for over an hour.",
        Invariant.WEBHOOK_EVENTS: "No payment waits for a person (a full refund settles one), or was applied in vain.",
        Invariant.CHECKOUTS: "What Stripe is to be asked was asked in time: how a checkout ended, and to end no more.",
        Invariant.PAYMENTS: "What was refunded fits payment and order, and no dispute waits for anybody.",
    }
)
"""One sentence each, for people and for the docs."""


async def verify(database_url: str, *, statement_limit: float = STATEMENT_LIMIT) -> list[Violation]:
    """Return every row that breaks an invariant, in the order of `Invariant`; none when the ledger is sound.

    `statement_limit` bounds each query, in seconds. Raises LedgerUnavailableError.
    """
    async with read_only(database_url, "voucher-operator verify", statement_limit=statement_limit) as connection:
        mask = await CodeMask.load(connection)
        found: list[Violation] = []
        for invariant in Invariant:
            async with connection.cursor(row_factory=dict_row) as cursor:
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
    """Return those of `keys` (`namespace/name` of Redemptions that say Redeemed) that the ledger has no grant for.

    `statement_limit` is in seconds. Raises LedgerUnavailableError.
    """
    async with read_only(database_url, "voucher-operator verify", statement_limit=statement_limit) as connection:
        cursor = await connection.execute(_KEYS, {"keys": list(keys)})
        return [
            Violation("resource", f"redemption {key}", "says Redeemed, and the ledger has no grant for it")
            async for (key,) in cursor
        ]
