"""What is done with a resource that the watch shows: reconciled at once, or when its backoff allows."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from voucher_operator.controllers.feed import Feed, customer_flow
from voucher_operator.kube.cache import Cache
from voucher_operator.kube.work_queue import Result, WorkQueue
from voucher_operator.resources.conditions import format_time

Body = dict[str, Any]
HOUR = timedelta(hours=1)


class Reconciled:
    """Records what is reconciled."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.queue = WorkQueue("Redemption", self._reconcile, workers=2, backoff_max=1e6)

    async def _reconcile(self, key: str) -> Result:
        self.keys.append(key)
        return Result.DONE

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
async def reconciled() -> AsyncIterator[Reconciled]:
    found = Reconciled()
    task = asyncio.create_task(found.queue.run())
    yield found
    found.queue.stop()
    await task


def feed(found: Reconciled) -> Feed:
    return Feed(Cache(), found.queue, Cache(), found.queue, found.queue)


def redemption(reason: str | None = None, *, since: timedelta = HOUR, uid: str = "one", generation: int = 1) -> Body:
    time = format_time(datetime.now(UTC) - since)
    waiting = {"type": "Reconciling", "status": "True", "reason": reason, "lastTransitionTime": time}
    metadata = {"namespace": "shop", "name": "kestrel", "uid": uid, "generation": generation, "resourceVersion": "1"}
    spec = {"codeFrom": {}, "customer": {"userID": "huda"}}
    return {"metadata": metadata, "spec": spec, "status": {"conditions": [waiting] if reason else []}}


@pytest.mark.parametrize("reason", ["SecretNotFound", "SecretUnreadable"])
async def test_redemption_that_waited_under_another_leader_continues_its_backoff(
    reconciled: Reconciled, reason: str
) -> None:
    feed(reconciled).redemption(redemption(reason), gone=False)
    await reconciled.settle()
    assert reconciled.keys == []
    assert reconciled.queue.is_backing_off("shop/kestrel")


@pytest.mark.parametrize("reason", [None, "LedgerUnavailable", "VoucherNotReady", "CatalogUnavailable"])
async def test_redemption_that_is_new_or_waits_for_a_part_of_the_system_is_reconciled_at_once(
    reconciled: Reconciled, reason: str | None
) -> None:
    feed(reconciled).redemption(redemption(reason), gone=False)
    await reconciled.settle()
    assert reconciled.keys == ["shop/kestrel"]


@pytest.mark.parametrize("time", ["2026-12-01T00:00:00x12Z", "2026-12-01T23:59:60Z", "2026-12-01T00:00:00", ""])
async def test_redemption_that_waits_since_no_time_is_reconciled_at_once(reconciled: Reconciled, time: str) -> None:
    """The API server accepts more than Python as a time."""
    body = redemption("SecretNotFound")
    body["status"]["conditions"][0]["lastTransitionTime"] = time
    feed(reconciled).redemption(body, gone=False)
    await reconciled.settle()
    assert reconciled.keys == ["shop/kestrel"]


@pytest.mark.parametrize("time", ["2026-12-01t00:00:00z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00"])
async def test_redemption_that_waits_since_an_odd_time_continues_its_backoff(reconciled: Reconciled, time: str) -> None:
    body = redemption("SecretNotFound")
    body["status"]["conditions"][0]["lastTransitionTime"] = time
    feed(reconciled).redemption(body, gone=False)
    assert reconciled.queue.is_backing_off("shop/kestrel")


async def test_redemption_that_was_created_again_is_reconciled_at_once(reconciled: Reconciled) -> None:
    fed = feed(reconciled)
    fed.redemption(redemption("SecretNotFound"), gone=False)
    fed.redemption(redemption(uid="two"), gone=False)
    await reconciled.settle()
    assert reconciled.keys == ["shop/kestrel"]


@pytest.mark.parametrize("spec", [{}, {"customer": None}, {"customer": "huda"}])
def test_redemption_without_a_readable_customer_has_the_flow_of_its_namespace(spec: Body) -> None:
    assert customer_flow("shop/kestrel", {"spec": spec}) == ("shop", "")
    assert customer_flow("shop/kestrel", None) == ("shop", "")
    assert customer_flow("shop/kestrel", redemption()) == ("shop", "huda")
