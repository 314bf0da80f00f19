"""etcd takes half a second for each answer: all that the operator does takes long, the renewal of its Lease too."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from testbed.cluster import install_crds
from testbed.control_plane import ControlPlane
from tests.cluster.chaos import SLOW_PROCESS_LOG, ChaosContext
from tests.cluster.proxy import Proxy
from tests.conftest import Operators

LATENCY = 250
"""Milliseconds, in each direction."""

pytestmark = [pytest.mark.xdist_group("slow-etcd"), pytest.mark.long]


@pytest.fixture(scope="module")
def proxies() -> list[Proxy]:
    return []


@pytest.fixture(scope="module")
def slow_cluster(tmp_path_factory: pytest.TempPathFactory, proxies: list[Proxy]) -> Iterator[ControlPlane]:
    """A cluster whose API server reaches etcd through a proxy."""
    with ExitStack() as stack:

        def through_proxy(port: int) -> int:
            proxy = Proxy(f"127.0.0.1:{port}", tmp_path_factory.mktemp("etcd"))
            proxies.append(stack.enter_context(proxy))
            return int(proxy.address.rpartition(":")[2])

        cluster = stack.enter_context(ControlPlane(through_proxy))
        install_crds(cluster)
        yield cluster


@pytest.fixture
def control_plane(slow_cluster: ControlPlane) -> ControlPlane:
    return slow_cluster


async def test_slow_etcd_loses_no_lease_and_no_redemption(
    context: ChaosContext, operators: Operators, proxies: list[Proxy]
) -> None:
    """With two replicas; the Lease has the chart's times."""
    operators.start()
    operators.start()
    operators.allow.append(SLOW_PROCESS_LOG)
    await context.voucher(maxRedemptions=30)
    await context.voucher_is(Ready="Issued")
    (proxy,) = proxies
    await asyncio.to_thread(proxy.add_latency, LATENCY)
    try:
        await context.redeem(f"r{n}" for n in range(40))
        await context.finished(within=120)
    finally:
        await asyncio.to_thread(proxy.remove_latency)
    await context.assert_statuses_match_ledger()
    assert await context.granted() == 30
