"""Reads which Redemptions say Redeemed, for `voucher-operator verify --namespace`.

See also: `ledger.admin.verify` compares them with the ledger, and checks the ledger's own invariants.
"""

from collections.abc import AsyncIterator, Sequence

from voucher_operator.controllers.kinds import REDEMPTION
from voucher_operator.kube.cache import key_of
from voucher_operator.kube.client import KubeApi

_REDEEMED = "status.state=Redeemed"


async def redeemed_keys(namespaces: Sequence[str]) -> AsyncIterator[list[str]]:
    """Yield the keys of the Redemptions that say Redeemed, page by page, possibly some twice; raises ApiError."""
    api = KubeApi()
    await api.open()
    try:
        for namespace in namespaces:
            async for page in api.pages(REDEMPTION, namespace, _REDEEMED):
                yield [key_of(body) for body in page]
    finally:
        await api.close()
