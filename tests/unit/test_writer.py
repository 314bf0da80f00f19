"""A status equal to an old read may still differ from the present object."""

from typing import Any

import pytest

from voucher_operator.controllers.kinds import REDEMPTION
from voucher_operator.kube.cache import Cache
from voucher_operator.kube.client import KubeApi
from voucher_operator.kube.errors import ConflictError, NotFoundError
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


@pytest.mark.parametrize("live", ["1", "2", None])
@pytest.mark.parametrize("error", [NotFoundError("404"), ConflictError("409")])
async def test_patch_that_is_refused_for_an_unchanged_object_is_not_repeated_at_once(
    error: Exception, live: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CRD without a subresource for the status: 404 for the same version of the object is an error, with backoff."""

    async def refuse(*_: Any) -> None:
        raise error

    async def read(*_: Any) -> dict[str, Any] | None:
        return None if live is None else body(live, "AwaitingPayment")

    api, cache = KubeApi(), Cache()
    monkeypatch.setattr(api, "patch_status", refuse)
    monkeypatch.setattr(api, "get", read)
    writer = StatusWriter(api, REDEMPTION, cache)
    seen = cache.put(body("1", "AwaitingPayment"))
    patch = {"reason": "LedgerUnavailable"}
    if live == "1" and isinstance(error, NotFoundError):
        with pytest.raises(NotFoundError):
            await writer.write("billing/one", seen, patch)
    else:
        assert not await writer.write("billing/one", seen, patch)
