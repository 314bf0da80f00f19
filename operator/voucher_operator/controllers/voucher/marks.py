"""By what some Vouchers are found again among all that are cached, without a look at each.

See also: `kube.cache` keeps the marks; `controller` and `counter_sync` ask for them; `wiring` gives them to the cache.
"""

from collections.abc import Iterator
from typing import Final

from voucher_operator.kube.client import Body
from voucher_operator.resources import conditions
from voucher_operator.resources.voucher import State

CONFLICT: Final = "conflict"
"""Its code belonged to another Voucher when it was last reconciled."""
DEPENDS: Final = "depends"
"""It depends on another object, which sends no event: a Secret, or another owner of the code."""


def marks(body: Body) -> Iterator[str]:
    """Return the marks of a Voucher."""
    status = body["status"]
    if status.get("state") == State.CONFLICT:
        yield CONFLICT
    if "codeFrom" in body["spec"] or any(one["type"] == conditions.STALLED for one in status.get("conditions", ())):
        yield DEPENDS
