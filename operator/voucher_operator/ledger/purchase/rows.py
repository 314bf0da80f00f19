"""Makes a `Purchase` of a row of `purchase_read.sql`. No I/O.

A row that only a newer version understands is left out, and does not affect the other rows. See also: `purchases` and
`batch`, which read such rows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Final

from voucher_operator.ledger.errors import NewerVersionError, newer_version
from voucher_operator.ledger.purchase.types import Line, Purchase, PurchaseState
from voucher_operator.resources.keys import Key
from voucher_operator.resources.reasons import Reason

UNDERSTOOD: Final = {
    "states": [state.value for state in PurchaseState],
    "reasons": [reason.value for reason in Reason],
    "line_fields": [field.name for field in fields(Line)],
}
"""Parameters of the statements that take purchases: the states, reasons and line fields that this version knows."""


def purchase_from(row: Mapping[str, Any]) -> Purchase:
    """Make a Purchase of a row whose columns have the names of its fields.

    Raises NewerVersionError for a state, a reason or a line that only a newer version understands.
    """
    values = dict(row)
    try:
        values["key"] = Key(values["key"])
        values["state"] = PurchaseState(values["state"])
        values["reason"] = values["reason"] and Reason(values["reason"])
        values["apps"], values["addons"] = tuple(values["apps"]), tuple(values["addons"])
        values["lines"] = tuple(Line(**line) for line in values["lines"])
    except (ValueError, TypeError):
        raise newer_version() from None
    return Purchase(**values)


def understood(rows: Iterable[Mapping[str, Any]]) -> list[Purchase]:
    """Make Purchases of the rows that this version understands, and leave out the others."""
    found = []
    for row in rows:
        try:
            found.append(purchase_from(row))
        except NewerVersionError:
            # It has changed since it was taken: `purchases.of_newer_version` lists it.
            continue
    return found
