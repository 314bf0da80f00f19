"""A status equal to an old read may still differ from the present object."""

from typing import Any

from voucher_operator.controllers.kinds import REDEMPTION
from voucher_operator.kube.cache import Cache
from voucher_operator.kube.client import KubeApi
from voucher_operator.kube.status_writer import StatusWriter


def body(version: str, reason: str) -> dict[str, Any]:
    metadata = {"namespace": "billing", "name": "one", "uid": "u", "generation": 1, "resourceVersion": version}
    return {"metadata": metadata, "spec": {}, "status": {"reason": reason}}


async def test_status_that_changed_meanwhile_is_written() -> None:
    cache = Cache()
    writer = StatusWriter(KubeApi(), REDEMPTION, cache)
    seen = cache.put(body("1", "AwaitingPayment"))
    assert await writer.write("billing/one", seen, {"reason": "AwaitingPayment"})
    cache.put(body("2", "LedgerUnavailable"))
    assert not await writer.write("billing/one", seen, {"reason": "AwaitingPayment"})
