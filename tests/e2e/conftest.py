"""One cluster, one build of the images, one PostgreSQL server and one installation for the session.

Started by the first test that asks. A test that changes the installation has one of its own, by `releases`. Options:
those of pytest-kind, and `--python-base`.
"""

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.e2e import images
from tests.e2e.cluster import Kind
from tests.e2e.ledger import Login, Server
from tests.e2e.load import Load, api
from tests.e2e.objects import restricted_namespace
from tests.e2e.release import NAME, OWNER_SECRET, RUNTIME_SECRET, Release
from tests.e2e.workloads import SHOP, shop_rights

RUNTIME = "voucher_operator"
ADMIN = "sovereign-admin"
"""A ServiceAccount to which the installation gives the role of that name."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what building needs."""
    group = parser.getgroup("e2e")
    group.addoption("--python-base", help="Image with python3 to build on; default: what the recipes name.")


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
    cluster = Kind(request.getfixturevalue("kind_cluster"), tmp_path_factory.mktemp("kind"))
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(cluster.load, images.OPERATOR, images.POSTGRES), pool.submit(cluster.await_names)]:
            done.result()
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
def prepare(
    kind: Kind, server: Server, runtime: Login, suffix: str, pytestconfig: pytest.Config
) -> Iterator[Callable[[str], Release]]:
    """Makes a namespace under the restricted profile, with an empty ledger and the Secrets for it."""
    made: list[Release] = []

    def prepared(name: str) -> Release:
        owner = server.database(f"{name}_{suffix}")
        # Roles for people are the cluster's, and named after the release.
        release = Release(kind, f"{name}-{suffix}", owner, NAME if name == "billing" else f"{name}-voucher-operator")
        made.append(release)
        kind.apply(restricted_namespace(release.namespace))
        login = replace(runtime, database=owner.database)
        kind.apply(owner.secret(OWNER_SECRET), login.secret(RUNTIME_SECRET), namespace=release.namespace)
        kind.apply(*shop_rights(release.namespace), namespace=release.namespace)
        return release

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
