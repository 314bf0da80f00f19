"""One cluster, one build of the images, one PostgreSQL server and one installation for the session.

Started by the first test that asks. A test that changes the installation has one of its own, by `releases`. Options:
those of pytest-kind, and `--python-base`.
"""

import hashlib
import secrets
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from testbed.repository import ROOT
from tests.e2e import images
from tests.e2e.cluster import Kind
from tests.e2e.ledger import Login, Server
from tests.e2e.load import Load, api
from tests.e2e.objects import restricted_namespace
from tests.e2e.release import NAME, OWNER_SECRET, RUNTIME_SECRET, Release
from tests.e2e.workloads import SHOP, shop_rights

CLUSTER = pytest.StashKey[Kind]()
RUNTIME = "voucher_operator"
ADMIN = "sovereign-admin"
"""A ServiceAccount to which the installation gives the role of that name."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what building needs."""
    group = parser.getgroup("e2e")
    group.addoption("--cnpg", help="Folder with CloudNativePG's manifest, see failover.py.")
    group.addoption("--python-base", help="Image with python3 to build on; default: what the recipes name.")


def pytest_configure(config: pytest.Config) -> None:
    """Two checkouts on one machine have a cluster each."""
    if config.getoption("cluster_name") == "pytest-kind":
        config.option.cluster_name = f"voucher-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell what the cluster looks like when a test fails: it is gone soon after."""
    report = yield
    if report.failed and (cluster := item.config.stash.get(CLUSTER, None)) is not None:
        report.sections += [("pods and events", cluster.scene()), ("operators", cluster.logs())]
    return report


@pytest.fixture(scope="session")
def built(request: pytest.FixtureRequest) -> None:
    """The images, built once. Without a Docker engine the session ends here: no other test could pass either."""
    if why := images.missing_engine():
        pytest.exit(f"the end-to-end tests need a Docker engine: {why}", returncode=1)
    base = request.config.getoption("python_base")
    images.build_operator(images.OPERATOR, base)
    images.build_postgres(base)


@pytest.fixture(scope="session")
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kind:
    """The cluster with the images."""
    request.getfixturevalue("built")
    if not request.config.getoption("keep_cluster"):
        # One that a killed run has left would be taken for a new one.
        images.remove_node(request.config.getoption("cluster_name"))
    cluster = Kind(request.getfixturevalue("kind_cluster"), tmp_path_factory.mktemp("kind"))
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(cluster.load, images.OPERATOR, images.POSTGRES), pool.submit(cluster.await_names)]:
            done.result()
    request.config.stash[CLUSTER] = cluster
    return cluster


@pytest.fixture(scope="session")
def suffix() -> str:
    """Tells the namespaces of this session from those of another one in a cluster that was kept."""
    return secrets.token_hex(2)


@pytest.fixture(scope="session")
def server(kind: Kind, suffix: str) -> Server:
    """PostgreSQL in the cluster."""
    ledger = Server(kind, f"ledger-{suffix}")
    ledger.install()
    ledger.await_ready()
    return ledger


@pytest.fixture(scope="session")
def runtime(server: Server) -> Login:
    """The operator's login; it has no database of its own."""
    return server.login(RUNTIME, "postgres")


@pytest.fixture(scope="session")
def renew(kind: Kind, runtime: Login) -> Callable[[Release], None]:
    """Makes the namespace of a release, under the restricted profile, with the Secrets of its ledger."""

    def made(release: Release) -> None:
        kind.apply(restricted_namespace(release.namespace))
        login = replace(runtime, database=release.database)
        kind.apply(release.owner.secret(OWNER_SECRET), login.secret(RUNTIME_SECRET), namespace=release.namespace)
        kind.apply(*shop_rights(release.namespace), namespace=release.namespace)

    return made


@pytest.fixture(scope="session")
def prepare(
    kind: Kind, server: Server, renew: Callable[[Release], None], suffix: str, pytestconfig: pytest.Config
) -> Iterator[Callable[[str], Release]]:
    """Makes all that a release needs, with an empty ledger; a cluster that is kept is left without releases."""
    made: list[Release] = []

    def prepared(name: str) -> Release:
        # Roles for people are the cluster's, and named after the release.
        own = NAME if name == "billing" else f"{name}-voucher-operator"
        made.append(Release(kind, f"{name}-{suffix}", server.database(f"{name}_{suffix}"), own))
        renew(made[-1])
        return made[-1]

    yield prepared
    if pytestconfig.getoption("keep_cluster"):
        for release in made:
            release.helm("uninstall", release.name, "--ignore-not-found")


@pytest.fixture(scope="session")
def billing(prepare: Callable[[str], Release], suffix: str) -> Release:
    """The installation that most tests use: two replicas, as the chart has it."""
    admin = {"kind": "ServiceAccount", "name": ADMIN, "namespace": f"billing-{suffix}"}
    release = replace(prepare("billing"), values={"sovereignAdmins": [admin]})
    release.install()
    release.await_ready()
    return release


@pytest.fixture(scope="session")
def loads() -> Callable[[Release, str], Load]:
    """Load on a release by a shop's ServiceAccount, for a code."""

    def load(release: Release, code: str) -> Load:
        kubeconfig = release.kind.service_account_kubeconfig(release.namespace, SHOP)
        return Load(api(kubeconfig), release.namespace, code, code.lower())

    return load
