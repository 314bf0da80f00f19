"""Flux with an operator and a ledger for each test. See also: sovereign.py is what the tests are handed."""

from collections.abc import Iterator

import pytest
from kubernetes.client import ApiClient

from testbed.control_plane import ControlPlane
from testbed.flux import Flux
from testbed.postgres import Database
from tests.cluster.conftest import sound_ledger
from tests.cluster.ledger_reader import LedgerReader
from tests.conftest import Operators
from tests.gitops.sovereign import Sovereign


@pytest.fixture(scope="session")
def admin(control_plane: ControlPlane) -> Iterator[ApiClient]:
    """An administrator's client."""
    with control_plane.client() as client:
        yield client


@pytest.fixture(scope="session")
def flux(control_plane: ControlPlane) -> Iterator[Flux]:
    """Flux's CRDs, and its controller for the namespaces of all tests."""
    with Flux(control_plane) as running:
        yield running


@pytest.fixture
def ledger(database18: Database) -> Iterator[LedgerReader]:
    """The ledger; sound after the test."""
    with sound_ledger(database18) as opened:
        yield opened


@pytest.fixture
def sovereign(
    control_plane: ControlPlane,
    admin: ApiClient,
    flux: Flux,
    namespace: str,
    operators: Operators,
    ledger: LedgerReader,
) -> Iterator[Sovereign]:
    """A Sovereign whose repository is empty; its operator leads."""
    made = Sovereign(control_plane, admin, flux, namespace, operators, ledger)
    made.operator.wait_ready(leader=True)
    yield made
    made.end()
