"""From a row of `sql/purchase_read.sql`, or of any statement with the same columns, to a `Purchase`. No I/O.

Neighbours: `purchases` and `payments` read such rows.
"""

from dataclasses import fields
from typing import Any, Final

from voucher_operator.ledger.purchase_types import Line, Purchase, PurchaseState
from voucher_operator.resources.errors import LedgerUnavailableError
from voucher_operator.resources.reasons import Reason

_NAMES: Final = tuple(field.name for field in fields(Purchase))


def purchase_from(row: tuple[Any, ...]) -> Purchase:
    """Make a Purchase of a row in the order of its fields.

    Raises LedgerUnavailableError for a state or reason that only a newer version knows.
    """
    values = dict(zip(_NAMES, row, strict=True))
    try:
        values["state"] = PurchaseState(values["state"])
        values["reason"] = values["reason"] and Reason(values["reason"])
    except ValueError:
        raise LedgerUnavailableError(
            "A newer version of the operator has settled this purchase: upgrade this one."
        ) from None
    values["apps"], values["addons"] = tuple(values["apps"]), tuple(values["addons"])
    values["lines"] = tuple(Line(**line) for line in values["lines"])
    return Purchase(**values)
