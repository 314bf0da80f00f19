"""One cluster, one build of the images, one PostgreSQL server and one installation for the session.

Started by the first test that asks. A test that changes the installation has one of its own, by `releases`. Options:
those of pytest-kind, and `--python-base`.
"""

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e import images
from tests.e2e.cluster import Kind
from tests.e2e.ledger import Login, Server
from tests.e2e.objects import restricted_namespace
from tests.e2e.release import OWNER_SECRET, RUNTIME_SECRET, Release

RUNTIME = "voucher_operator"


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
def runtime(server: Server) -> Callable[[str], Login]:
    """The operator's login, one for the session, for a given database."""
    login = server.login(RUNTIME, "postgres")
    return lambda database: Login(database, login.role, login.password, login.host)


@pytest.fixture(scope="session")
def billing(kind: Kind, server: Server, runtime: Callable[[str], Login], suffix: str) -> Iterator[Release]:
    """The installation that most tests use: two replicas, in a namespace under the restricted profile."""
    release = Release(kind, f"billing-{suffix}")
    kind.apply(restricted_namespace(release.namespace))
    owner = server.database(f"billing_{suffix}")
    secrets_ = owner.secret(OWNER_SECRET), runtime(owner.database).secret(RUNTIME_SECRET)
    kind.apply(*secrets_, namespace=release.namespace)
    release.install()
    release.await_ready()
    yield release
    release.uninstall()
