"""From a row of `sql/purchase_read.sql`, or of any statement with the same columns, to a `Purchase`. No I/O.

A row that only a newer version understands is left to it, and keeps no other row. See also: `purchases` and `payments`,
which read such rows.
"""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, Final

from voucher_operator.ledger.errors import NewerVersionError, newer_version
from voucher_operator.ledger.purchase.types import Line, Purchase, PurchaseState
from voucher_operator.resources.keys import Key
from voucher_operator.resources.reasons import Reason

_NAMES: Final = tuple(field.name for field in fields(Purchase))
UNDERSTOOD: Final = {
    "states": [state.value for state in PurchaseState],
    "reasons": [reason.value for reason in Reason],
    "line_fields": [field.name for field in fields(Line)],
}
"""Parameters of the statements that take rows for a pass: what this version understands of a purchase."""


def purchase_from(row: tuple[Any, ...]) -> Purchase:
    """Make a Purchase of a row in the order of its fields.

    Raises NewerVersionError for a state, a reason or a line that only a newer version understands.
    """
    values = dict(zip(_NAMES, row, strict=True))
    try:
        values["key"] = Key(values["key"])
        values["state"] = PurchaseState(values["state"])
        values["reason"] = values["reason"] and Reason(values["reason"])
        values["apps"], values["addons"] = tuple(values["apps"]), tuple(values["addons"])
        values["lines"] = tuple(Line(**line) for line in values["lines"])
    except (ValueError, TypeError):
        raise newer_version() from None
    return Purchase(**values)


def understood(rows: Iterable[tuple[Any, ...]]) -> list[Purchase]:
    """Make Purchases of the rows that this version understands, and leave out the others."""
    found = []
    for row in rows:
        try:
            found.append(purchase_from(row))
        except NewerVersionError:
            # It has changed since the pass took it: `purchases.of_newer_version` counts it.
            continue
    return found
