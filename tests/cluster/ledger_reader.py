"""The ledger behind an operator, in SQL. See also: resources.py has the API server's side."""

from typing import Any, LiteralString

import psycopg
from psycopg.rows import tuple_row

from testbed.postgres import Database
from tests.cluster.resources import CustomObject, ResourceClient, state, until


class LedgerReader:
    """A ledger, as its owner sees it in SQL."""

    def __init__(self, database: Database) -> None:
        """Connect."""
        self.database = database
        self._connection = psycopg.connect(database.admin_url, autocommit=True, row_factory=tuple_row)

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    def rows(self, query: LiteralString, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement; return its rows, none when it returns none."""
        cursor = self._connection.execute(query, values)
        return cursor.fetchall() if cursor.description else []

    def row(self, query: LiteralString, *values: Any) -> tuple[Any, ...]:
        """Run a statement that returns one row."""
        (only,) = self.rows(query, *values)
        return only

    def promo(self, code: str) -> tuple[Any, ...]:
        """Return a code's credit in minor units, active, cap, counter and whether it is deleted; empty if unknown."""
        found = self.rows(
            "SELECT credit_minor, active, max_redemptions, times_redeemed, deleted_at IS NOT NULL "
            "FROM promo_codes WHERE code = %s",
            code,
        )
        return found[0] if found else ()

    def balance(self, user: str) -> int:
        """Sum a user's entries, in minor units."""
        (total,) = self.row(
            "SELECT coalesce(sum(amount_minor), 0)::bigint FROM credit_ledger "
            "WHERE customer_id = (SELECT id FROM customers WHERE user_id = %s)",
            user,
        )
        return int(total)

    def entries(self, user: str) -> int:
        """Count a user's entries."""
        (number,) = self.row(
            "SELECT count(*) FROM credit_ledger WHERE customer_id = (SELECT id FROM customers WHERE user_id = %s)", user
        )
        return int(number)


def wait_for_full_passes(
    api: ResourceClient, ledger: LedgerReader, number: int = 3, probe: CustomObject | None = None
) -> None:
    """Wait for so many full resyncs of the ledger, by a row that the operator corrects each time.

    The row is that of `probe`, a Voucher without a description, or of a new one.
    """
    probe = probe or api.voucher()
    probe.wait(state("Active"))
    for turn in range(number):
        ledger.rows("UPDATE promo_codes SET description = %s WHERE code = %s", f"turn {turn}", probe.code)
        until(
            lambda: ledger.row("SELECT description FROM promo_codes WHERE code = %s", probe.code) == ("",),
            "pass over the ledger",
        )
