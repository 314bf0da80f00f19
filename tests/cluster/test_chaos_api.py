"""The API server restarts, or does not serve the CRDs yet: the operator keeps running, and finishes the work."""

import asyncio
from collections.abc import Iterator

import pytest

from testbed.cluster import CRDS, install_crds
from testbed.control_plane import ControlPlane
from testbed.operator_process import OperatorProcess
from testbed.postgres import Database
from tests.cluster.chaos import SLOW_PROCESS_LOG, ChaosContext, open_context, wait_for_problem
from tests.cluster.chaos_client import until
from tests.conftest import Operators

API_DOWN = r"the API server cannot be used"
NO_ROLES_YET = r"Request attempt.*APIForbiddenError"
"""An API server answers before it has read its Roles."""
WITHOUT_CRDS = r"waiting for the CRDs"
WHERE = '{range .items[*]}{.metadata.name} -n {.metadata.namespace}{"\\n"}{end}'
BRISK = {
    "VOUCHER_OPERATOR_LEASE_DURATION": "4",
    "VOUCHER_OPERATOR_RENEW_DEADLINE": "3",
    "VOUCHER_OPERATOR_RETRY_PERIOD": "1.1",
}


pytestmark = [pytest.mark.xdist_group("own-cluster"), pytest.mark.long]


@pytest.fixture
def control_plane(own_cluster: ControlPlane) -> ControlPlane:
    """A cluster whose API server these tests stop."""
    return own_cluster


async def leads(operator: OperatorProcess, wanted: bool) -> None:
    async def reason_is_set() -> bool:
        return (await asyncio.to_thread(operator.ready)).get("leader") is wanted

    await until(reason_is_set, f"leader={wanted}")


async def test_api_server_restart_and_long_outage_under_load_lose_nothing(
    control_plane: ControlPlane, context: ChaosContext, operators: Operators
) -> None:
    """Killed, then absent until the Lease is lost: the operator says so, leads again, and finishes everything."""
    operator = operators.start(env=BRISK)
    await context.voucher(maxRedemptions=110)
    await context.voucher_is(Ready="Issued")
    feeding = asyncio.create_task(context.redeem(f"r{n}" for n in range(150)))

    async def any_granted() -> bool:
        return await context.granted() > 0

    await until(any_granted, "first grant")
    await asyncio.to_thread(control_plane.restart_apiserver, kill=True)
    await asyncio.to_thread(control_plane.stop_apiserver, kill=True)
    await wait_for_problem(operator, "api", "cannot be reached")
    await leads(operator, False)
    await asyncio.to_thread(control_plane.start_apiserver)
    await leads(operator, True)
    await feeding
    await context.finished()
    await asyncio.to_thread(operator.wait_ready, leader=True)
    await context.assert_statuses_match_ledger()
    assert await context.granted() == 110
    await context.counters_agree()
    assert operator.running
    operators.allow += [API_DOWN, SLOW_PROCESS_LOG, NO_ROLES_YET]


def release_vouchers(cluster: ControlPlane) -> None:
    """Remove the finalizers of the Vouchers that earlier operators have left: they would keep the CRD."""
    for kept in cluster.kubectl("get", "vouchers", "--all-namespaces", f"--output=jsonpath={WHERE}").splitlines():
        cluster.kubectl("patch", "voucher", *kept.split(), "--type=merge", '--patch={"metadata":{"finalizers":null}}')


def remove_crds(cluster: ControlPlane) -> None:
    """Delete the CRDs, with the Vouchers that earlier operators have left."""
    release_vouchers(cluster)
    cluster.kubectl("delete", f"--filename={CRDS}", "--timeout=60s")


@pytest.fixture
def without_crds(control_plane: ControlPlane) -> Iterator[None]:
    remove_crds(control_plane)
    yield
    install_crds(control_plane)


@pytest.mark.usefixtures("without_crds")
async def test_operator_without_crds_waits_until_they_are_installed(
    control_plane: ControlPlane, namespace: str, database18: Database, operators: Operators
) -> None:
    """No CRDs at the start: not ready, and says why; installed later, it starts to work without a restart."""
    operator = operators.start()
    await wait_for_problem(operator, "resources", "not installed")
    await asyncio.to_thread(install_crds, control_plane)
    async with open_context(control_plane, namespace, database18) as context:
        await context.voucher()
        await context.redeem(["first"])
        await context.finished()
        await context.voucher_is(Ready="Issued", timesRedeemed=1)
        await context.assert_statuses_match_ledger()
    await asyncio.to_thread(operator.wait_ready, leader=True)
    operators.allow.append(WITHOUT_CRDS)
