"""Real parts for all tests, each started when the first test asks for it; one that cannot start fails the test.

Servers live for the session; databases and namespaces belong to one test. Tests that run in several processes share
one cluster, which the xdist controller process runs: it is the most expensive part. A test that stops a server or
changes what others see starts its own PostgreSQL, or takes `own_cluster`.
"""

import asyncio
import os
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from testbed.cluster import Installation, install_crds, install_rights
from testbed.control_plane import ControlPlane
from testbed.fork_server import ForkServer
from testbed.operator_process import OperatorProcess
from testbed.postgres import RUNTIME, Database, PostgresServer
from testbed.processes import TestbedError, temporary_folder, wait_until
from voucher_operator.ledger.schema.migrate import migrate

_CLUSTER, _OUTCOME, _FORK_SERVER = "cluster", "outcome", "fork-server"
# For etcd and the API server, which are not measured here: processors are scarcer than memory.
os.environ.setdefault("GOGC", "400")


class Shared:
    """Runs the cluster and the fork server of all worker processes, in the xdist controller process.

    They start while those collect their tests; then a file appears with the error, if there was one.
    """

    def __init__(self) -> None:
        self._resources = ExitStack()
        self._folder = Path()
        self._cluster = ControlPlane()
        self._fork_server = ForkServer()
        self._starter = ThreadPoolExecutor(1)

    def pytest_sessionstart(self) -> None:
        self._folder = self._resources.enter_context(temporary_folder("shared-cluster"))
        self._resources.callback(self._cluster.stop)
        self._resources.callback(self._fork_server.close)
        self._fork_server.start()
        self._cluster.prepare()
        self._starter.submit(self._start)

    def _start(self) -> None:
        fault = "its start was interrupted"
        try:
            self._cluster.start()
            install_crds(self._cluster)
            self._fork_server.wait_ready()
            fault = ""
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        finally:
            (self._folder / "written").write_text(fault)
            (self._folder / "written").rename(self._folder / _OUTCOME)

    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput[_CLUSTER] = self._cluster.connection_details()
        node.workerinput[_FORK_SERVER] = str(self._fork_server.address)
        node.workerinput[_OUTCOME] = str(self._folder / _OUTCOME)

    def pytest_unconfigure(self) -> None:
        if not (self._folder / _OUTCOME).exists():
            # Interrupted: what waits for the API server sees that it has ended.
            self._cluster.stop()
        self._starter.shutdown()
        self._resources.close()


def _shared(config: pytest.Config, part: str) -> Any:
    """Return how to join a part that is shared, when it has started; None without other processes."""
    given = getattr(config, "workerinput", {})
    if part not in given:
        return None
    outcome = Path(given[_OUTCOME])
    wait_until(outcome.exists, "start of what all processes share", 180)
    if fault := outcome.read_text():
        raise TestbedError(f"what all processes share did not start: {fault}")
    return given[part]


def pytest_configure(config: pytest.Config) -> None:
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Shared(), "shared")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first: they wait while the other processes work.

    The order of the others is random, which also spreads those that load the processors.
    """
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def postgres16() -> Iterator[PostgresServer]:
    """What the Go service runs on."""
    with PostgresServer(16) as server:
        yield server


@pytest.fixture(scope="session")
def postgres18() -> Iterator[PostgresServer]:
    with PostgresServer(18) as server:
        yield server


@pytest.fixture(params=[16, 18], ids=["pg16", "pg18"])
def postgres(request: pytest.FixtureRequest) -> PostgresServer:
    """Each version in turn."""
    server = request.getfixturevalue(f"postgres{request.param}")
    assert isinstance(server, PostgresServer)
    return server


@pytest.fixture(scope="session")
def template16(postgres16: PostgresServer) -> str:
    return _migrated(postgres16)


@pytest.fixture(scope="session")
def template18(postgres18: PostgresServer) -> str:
    return _migrated(postgres18)


@pytest.fixture
def empty_database(postgres: PostgresServer) -> Iterator[Database]:
    """A database without a table, on each version."""
    yield from _fresh(postgres, None)


@pytest.fixture
def database(request: pytest.FixtureRequest, postgres: PostgresServer) -> Iterator[Database]:
    """A migrated ledger without a row, on each version."""
    yield from _fresh(postgres, request.getfixturevalue(f"template{postgres.version}"))


@pytest.fixture
def database18(postgres18: PostgresServer, template18: str) -> Iterator[Database]:
    """A migrated ledger without a row, on the newest version alone: for tests of what is above the ledger."""
    yield from _fresh(postgres18, template18)


@pytest.fixture(scope="session")
def control_plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """A cluster that has the CRDs. Nobody stops or restarts it."""
    connection_details = _shared(request.config, _CLUSTER)
    if connection_details is not None:
        yield ControlPlane.attached(connection_details)
        return
    with ControlPlane() as cluster:
        install_crds(cluster)
        yield cluster


@pytest.fixture(scope="session")
def own_cluster(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """A cluster that one test at a time may stop or change; it leaves it running with the present CRDs.

    Those tests are marked `xdist_group("own-cluster")`, so that one process runs them all.
    """
    if hasattr(request.config, "workerinput"):
        # Some versions ignored the groups, and every process started such a cluster.
        current = os.environ["PYTEST_CURRENT_TEST"]
        assert "own-cluster" in current.rpartition("@")[2], f"run with --dist=loadgroup, as `make test` does: {current}"
    with ControlPlane() as cluster:
        install_crds(cluster)
        yield cluster


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    return control_plane.namespace(f"t-{secrets.token_hex(5)}")


@pytest.fixture
def installation(control_plane: ControlPlane, namespace: str) -> Installation:
    """The chart's ServiceAccount with the chart's rights in `namespace`, and nothing else."""
    return install_rights(control_plane, [namespace])


@pytest.fixture(scope="session")
def fork_server(request: pytest.FixtureRequest) -> Iterator[ForkServer]:
    """Starts most replicas of the tests; the shared operator starts as the image does it."""
    address = _shared(request.config, _FORK_SERVER)
    if address is not None:
        yield ForkServer.attached(Path(address))
        return
    with ForkServer() as fork_server:
        yield fork_server


class Operators:
    """Starts replicas for one test, all on its namespace and its ledger."""

    def __init__(
        self, installation: Installation, database: Database, folder: Path, fork_server: ForkServer | None = None
    ) -> None:
        self.allow: list[str] = []
        """Regular expressions of the warnings that the test provokes; any other fails it."""
        self.started: list[OperatorProcess] = []
        self._installation = installation
        self._database = database
        self._folder = folder
        self._fork_server = fork_server

    def start(
        self, pod_name: str | None = None, env: Mapping[str, str] | None = None, *, interpreter: bool = False
    ) -> OperatorProcess:
        """Start a replica, in an `interpreter` of its own if that matters; returns at once."""
        operator = OperatorProcess(
            kubeconfig=self._installation.kubeconfig,
            database_url=self._database.runtime_url,
            namespaces=self._installation.namespaces,
            folder=self._folder,
            pod_name=pod_name,
            env={**self._installation.env, **(env or {})},
            fork_server=None if interpreter else self._fork_server,
        )
        operator.start()
        self.started.append(operator)
        return operator


@pytest.fixture
def operators(
    installation: Installation, database18: Database, tmp_path: Path, fork_server: ForkServer
) -> Iterator[Operators]:
    """Stops all replicas after the test, and fails it for an unexpected line in a log."""
    started = Operators(installation, database18, tmp_path, fork_server)
    yield started
    for operator in started.started:
        if operator.running:
            operator.sigcont()
            operator.stop()
    for operator in started.started:
        assert operator.unexpected(started.allow) == [], operator.pod_name


def _migrated(server: PostgresServer) -> str:
    """Migrate once a server; a copy takes 30 ms."""
    template = server.database("migrated")
    # Not in this thread: the event loop of an async test may belong to it.
    with ThreadPoolExecutor(1) as other:
        other.submit(asyncio.run, migrate(template.owner_url, currency="OMR", runtime_role=RUNTIME)).result()
    return template.name


def _fresh(server: PostgresServer, template: str | None) -> Iterator[Database]:
    fresh = server.database(f"t{secrets.token_hex(6)}", template)
    yield fresh
    server.drop(fresh)
