"""Operators for the tests: one for the whole session, or one for a test, each with its API client and ledger reader.

See also: tests/conftest.py has the servers, resources.py the API client and the ledger reader.
"""

import asyncio
import contextlib
import json
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kubernetes.client import ApiClient

from testbed.cluster import install_rights
from testbed.control_plane import ControlPlane
from testbed.operator_process import OperatorProcess
from testbed.postgres import Database, PostgresServer
from testbed.scripted_stripe import ScriptedStripe
from tests.cluster.chaos import ChaosContext, open_context
from tests.cluster.controller_harness import ControllerHarness
from tests.cluster.controller_harness import opened as open_harness
from tests.cluster.ledger_reader import LedgerReader
from tests.cluster.resources import EXCLUDED_SECRET, FAST, ResourceClient
from tests.cluster.stripe_fixture import StripeFixture
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.types import Violation


@dataclass
class Sovereign:
    """One operator with its namespace and its ledger."""

    api: ResourceClient
    ledger: LedgerReader
    operator: OperatorProcess
    stripe_fixture: StripeFixture
    allow: list[str] = field(default_factory=list)
    """Regular expressions of the warnings that the test provokes; any other fails it."""


def violations(database: Database) -> list[Violation]:
    """Check a ledger's invariants, whether or not an event loop is running."""
    with ThreadPoolExecutor(1) as other:
        return other.submit(lambda: asyncio.run(verify(database.admin_url))).result()


@contextmanager
def sound_ledger(database: Database) -> Iterator[LedgerReader]:
    """Open a ledger; every invariant holds at the end."""
    with contextlib.closing(LedgerReader(database)) as opened:
        yield opened
    assert violations(database) == []


@pytest.fixture(scope="session")
def admin(control_plane: ControlPlane) -> Iterator[ApiClient]:
    """An administrator's client."""
    with control_plane.client() as client:
        yield client


@pytest.fixture(scope="session")
def common_database(postgres18: PostgresServer, template18: str) -> Iterator[Database]:
    made = postgres18.database(f"everyday{secrets.token_hex(4)}", template18)
    yield made
    postgres18.drop(made)


@pytest.fixture(scope="session")
def common_stripe_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StripeFixture]:
    with ScriptedStripe() as stripe:
        yield StripeFixture(stripe, tmp_path_factory.mktemp("stripe"))


@contextmanager
def run_shared_operator(
    cluster: ControlPlane, database: Database, stripe_fixture: StripeFixture, folder: Path
) -> Iterator[tuple[OperatorProcess, str]]:
    """Run an operator that leads, under the chart's ServiceAccount, with short pauses between its passes.

    It comes with the namespace that it works in, a new one.
    """
    installed = install_rights(cluster, [cluster.namespace(f"everyday-{secrets.token_hex(4)}")])
    operator = OperatorProcess(
        kubeconfig=installed.kubeconfig,
        database_url=database.runtime_url,
        namespaces=installed.namespaces,
        folder=folder,
        env={
            **installed.env,
            **FAST,
            **stripe_fixture.env,
            "VOUCHER_OPERATOR_EXCLUDED_SECRETS": EXCLUDED_SECRET,
        },
    )
    operator.start()
    try:
        operator.wait_ready(leader=True)
        yield operator, installed.namespaces[0]
    finally:
        if operator.running:
            operator.stop()


@contextmanager
def sovereign_for_one_test(
    admin: ApiClient, running: tuple[OperatorProcess, str], database: Database, stripe_fixture: StripeFixture
) -> Iterator[Sovereign]:
    """Give a running operator to one test, which may not stop it.

    Fails the test for an unexpected line in the log (a call that RBAC refused is one), or a ledger that is not sound.
    """
    operator, namespace = running
    since = len(operator.records())
    ledger = LedgerReader(database)
    sovereign = Sovereign(ResourceClient(admin, namespace), ledger, operator, stripe_fixture)
    try:
        yield sovereign
        sovereign.api.clear()
        assert violations(database) == []
        assert stripe_fixture.stripe.invalid_requests == []
    finally:
        stripe_fixture.stripe.clear_faults()
        ledger.close()
    new = operator.records()[since:]
    loud = [one for one in new if one.get("level") in ("WARNING", "ERROR", "CRITICAL")]
    assert [one for one in loud if not any(re.search(rule, json.dumps(one)) for rule in sovereign.allow)] == []


@pytest.fixture(scope="session")
def common_operator(
    control_plane: ControlPlane,
    common_database: Database,
    common_stripe_fixture: StripeFixture,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[OperatorProcess, str]]:
    folder = tmp_path_factory.mktemp("everyday")
    with run_shared_operator(control_plane, common_database, common_stripe_fixture, folder) as running:
        yield running


@pytest.fixture
def sovereign(
    admin: ApiClient,
    common_operator: tuple[OperatorProcess, str],
    common_database: Database,
    common_stripe_fixture: StripeFixture,
) -> Iterator[Sovereign]:
    """The session's operator; a test finds nothing of the others but what they left in the ledger."""
    with sovereign_for_one_test(admin, common_operator, common_database, common_stripe_fixture) as sovereign:
        yield sovereign


@pytest.fixture
def api(admin: ApiClient, namespace: str) -> ResourceClient:
    """A namespace of the test's own; `operators` starts operators on it."""
    return ResourceClient(admin, namespace)


@pytest.fixture
async def context(control_plane: ControlPlane, namespace: str, database18: Database) -> AsyncIterator[ChaosContext]:
    """A namespace and a ledger of the test's own, with a client for many calls at once."""
    async with open_context(control_plane, namespace, database18) as opened:
        yield opened


@pytest.fixture
def ledger(database18: Database) -> Iterator[LedgerReader]:
    """The ledger of the operators that `operators` starts; sound after the test."""
    with sound_ledger(database18) as opened:
        yield opened


@pytest.fixture
async def harness(
    request: pytest.FixtureRequest, database18: Database, tmp_path: Path
) -> AsyncIterator[ControllerHarness]:
    """The controllers of orders on a ledger of their own, sound after the test; a parameter is more settings."""
    async with open_harness(database18, tmp_path, **getattr(request, "param", {})) as harness:
        yield harness
    assert await verify(database18.admin_url) == []
