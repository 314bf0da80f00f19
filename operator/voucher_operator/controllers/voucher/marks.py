"""By what some Vouchers are found again among all that are cached, without a look at each.

See also: `kube.cache` keeps the marks; `counter_sync` asks for them; `wiring` gives them to the cache.
"""

from collections.abc import Iterator
from typing import Final

from voucher_operator.kube.client import Body
from voucher_operator.resources import conditions

DEPENDS: Final = "depends"
"""It depends on another object, which sends no event: a Secret, or another owner of the code."""


def marks(body: Body) -> Iterator[str]:
    """Return the marks of a Voucher."""
    status = body["status"]
    if "codeFrom" in body["spec"] or any(one["type"] == conditions.STALLED for one in status.get("conditions", ())):
        yield DEPENDS
