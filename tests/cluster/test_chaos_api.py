"""The API server goes away and comes back, or does not know the CRDs yet: the operator stays, and finishes the work."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from testbed.cluster import CRDS, install_crds
from testbed.control_plane import ControlPlane
from testbed.operator_process import OperatorProcess
from testbed.postgres import Database
from tests.cluster.chaos import STARVED, Scene, healthy, scene, until
from tests.conftest import Operators

API_DOWN = r"the API server cannot be used"
NO_ROLES_YET = r"(the API server refuses a call.*403 Forbidden|Request attempt.*APIForbiddenError)"
"""An API server answers before it has read its Roles."""
WITHOUT_CRDS = r"waiting for the CRDs"
WHERE = '{range .items[*]}{.metadata.name} -n {.metadata.namespace}{"\\n"}{end}'
BRISK = {
    "VOUCHER_OPERATOR_LEASE_DURATION": "4",
    "VOUCHER_OPERATOR_RENEW_DEADLINE": "3",
    "VOUCHER_OPERATOR_RETRY_PERIOD": "1.1",
}


pytestmark = pytest.mark.xdist_group("own-cluster")


@pytest.fixture
def control_plane(own_cluster: ControlPlane) -> ControlPlane:
    """A cluster whose API server these tests stop."""
    return own_cluster


@pytest.fixture
async def here(control_plane: ControlPlane, namespace: str, database18: Database) -> AsyncIterator[Scene]:
    async with scene(control_plane, namespace, database18) as opened:
        yield opened


async def complains(operator: OperatorProcess, part: str, words: str) -> None:
    """Wait until /readyz says why it is not ready; it is alive all the same."""

    async def says_so() -> bool:
        answer = await asyncio.to_thread(operator.ready)
        return not answer.get("ready", True) and words in answer["problems"].get(part, "")

    await until(says_so, f"{words!r} in /readyz")
    assert await asyncio.to_thread(healthy, operator)


async def leads(operator: OperatorProcess, wanted: bool) -> None:
    async def says_so() -> bool:
        return (await asyncio.to_thread(operator.ready)).get("leader") is wanted

    await until(says_so, f"leader={wanted}")


async def test_restarted_under_load_and_away_for_longer_than_the_lease(
    control_plane: ControlPlane, here: Scene, operators: Operators
) -> None:
    """Killed, then absent until the Lease is lost: the operator says so, leads again, and finishes everything."""
    operator = operators.start(env=BRISK)
    await here.voucher(maxRedemptions=110)
    await here.voucher_is(Ready="Issued")
    feeding = asyncio.create_task(here.redeem(f"r{n}" for n in range(150)))

    async def any_granted() -> bool:
        return await here.granted() > 0

    await until(any_granted, "first grant")
    await asyncio.to_thread(control_plane.restart_apiserver, kill=True)
    await asyncio.to_thread(control_plane.stop_apiserver, kill=True)
    await complains(operator, "api", "cannot be reached")
    await leads(operator, False)
    await asyncio.to_thread(control_plane.start_apiserver)
    await leads(operator, True)
    await feeding
    await here.finished()
    await asyncio.to_thread(operator.wait_ready, leader=True)
    await here.assert_told_as_it_was()
    assert await here.granted() == 110
    await here.counters_agree()
    assert operator.running
    operators.allow += [API_DOWN, STARVED, NO_ROLES_YET]


def remove_crds(cluster: ControlPlane) -> None:
    """Take them away, with whatever operators that are no more have left of Vouchers."""
    for kept in cluster.kubectl("get", "vouchers", "--all-namespaces", f"--output=jsonpath={WHERE}").splitlines():
        cluster.kubectl("patch", "voucher", *kept.split(), "--type=merge", '--patch={"metadata":{"finalizers":null}}')
    cluster.kubectl("delete", f"--filename={CRDS}", "--timeout=60s")


@pytest.fixture
def without_crds(control_plane: ControlPlane) -> Iterator[None]:
    remove_crds(control_plane)
    yield
    install_crds(control_plane)


@pytest.mark.usefixtures("without_crds")
async def test_without_crds_until_they_are_installed(
    control_plane: ControlPlane, namespace: str, database18: Database, operators: Operators
) -> None:
    """No CRDs at the start: not ready, and says why; installed later, it begins to work without help."""
    operator = operators.start()
    await complains(operator, "resources", "not installed")
    await asyncio.to_thread(install_crds, control_plane)
    async with scene(control_plane, namespace, database18) as here:
        await here.voucher()
        await here.redeem(["first"])
        await here.finished()
        await here.voucher_is(Ready="Issued", timesRedeemed=1)
        await here.assert_told_as_it_was()
    await asyncio.to_thread(operator.wait_ready, leader=True)
    operators.allow.append(WITHOUT_CRDS)
