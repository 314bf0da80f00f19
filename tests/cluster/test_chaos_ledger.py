"""PostgreSQL is absent, restarted or refuses: the resources report it, and the operator recovers without help."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from testbed.cluster import install_rights, migrate
from testbed.control_plane import ControlPlane
from testbed.kstatus import kstatus
from testbed.operator_process import OperatorProcess
from testbed.postgres import RUNTIME, Database, PostgresServer
from tests.cluster.chaos import ChaosContext, open_context, wait_for_problem
from tests.cluster.chaos_client import until
from tests.conftest import Operators

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("chaos-ledger")]

QUICK = {"VOUCHER_OPERATOR_COUNTER_SYNC_INTERVAL": "0.5", "VOUCHER_OPERATOR_BACKOFF_MAX": "2"}
LEDGER_DOWN = r"the ledger cannot be used"
ROLE_GONE = r"(403 Forbidden|APIForbiddenError)"
"""A deleted namespace takes its Roles along; it is still in the list of served namespaces."""
MANY = 600
MEMORY = 120 * 1024 * 1024


@pytest.fixture(scope="module")
def postgres18() -> Iterator[PostgresServer]:
    """A server that these tests stop."""
    with PostgresServer(18) as server:
        yield server


@pytest.fixture(scope="module")
def template18(postgres18: PostgresServer) -> str:
    template = postgres18.database("migrated")
    with ThreadPoolExecutor(1) as other:
        other.submit(migrate, template).result()
    return template.name


async def ready(operator: OperatorProcess) -> None:
    await asyncio.to_thread(operator.wait_ready, leader=True)


async def wait_for_ledger(context: ChaosContext, *redemptions: str) -> None:
    """Wait until the Voucher and some Redemptions say that they wait for the ledger."""
    down = "LedgerUnavailable"
    assert kstatus(await context.voucher_is(Ready=down, Reconciling=down)) == "InProgress"
    for name in redemptions:
        assert kstatus(await context.redemption_is(name, Ready=down, Reconciling=down)) == "InProgress"


async def test_operator_recovers_when_postgresql_is_absent_and_restarted(
    context: ChaosContext, postgres18: PostgresServer, operators: Operators
) -> None:
    """No PostgreSQL at the start, then one, then none again: each time reported and recovered from, by one process."""
    postgres18.stop()
    operator = operators.start(env=QUICK)
    await context.voucher(maxRedemptions=3)
    await context.redeem(["early", "second"])
    await wait_for_problem(operator, "ledger", "cannot be reached")
    await wait_for_ledger(context, "early", "second")

    postgres18.start()
    await context.finished()
    await ready(operator)
    await context.voucher_is(Ready="Issued", Redeemable="Active", timesRedeemed=2)

    postgres18.stop("immediate")
    await wait_for_problem(operator, "ledger", "cannot be reached")
    await context.redeem(["third", "fourth"])
    await wait_for_ledger(context, "third", "fourth")
    body_before = await context.get("vouchers", "chaos")
    assert body_before["status"]["timesRedeemed"] == 2, "what the ledger said last is forgotten"

    postgres18.start()
    await context.finished()
    await ready(operator)
    await context.voucher_is(Ready="Issued", Redeemable="Exhausted", timesRedeemed=3)
    found = await context.assert_statuses_match_ledger()
    assert sorted(body["status"]["state"] for body in found.values()) == ["Redeemed"] * 3 + ["Rejected"]
    assert operator.running
    operators.allow.append(LEDGER_DOWN)


async def test_postgresql_restarts_under_load_lose_nothing(
    context: ChaosContext, postgres18: PostgresServer, operators: Operators
) -> None:
    """Crashes and restarts in the middle of batches: what was committed counts, what was not is asked again."""
    operator = operators.start(env=QUICK)
    await context.voucher(maxRedemptions=250)
    await context.voucher_is(Ready="Issued")
    feeding = asyncio.create_task(context.redeem(f"r{n}" for n in range(300)))
    for mode in ("immediate", "fast", "immediate"):
        before = await context.granted()

        async def moves_on(before: int = before) -> bool:
            return await context.granted() > before or feeding.done()

        await until(moves_on, "progress under load")
        await asyncio.to_thread(postgres18.restart, mode)
    await feeding
    await context.finished()
    assert operator.running
    await context.assert_statuses_match_ledger()
    assert await context.granted() == 250
    await context.counters_agree()
    operators.allow.append(LEDGER_DOWN)


def _write_secret(folder: Path, url: str, password: str | None = None) -> None:
    """Write what a mounted Secret of CloudNativePG's shape has."""
    parts = urlsplit(url)
    files = {
        "username": parts.username,
        "password": password or parts.password,
        "host": parts.hostname,
        "port": parts.port,
        "dbname": parts.path.lstrip("/"),
    }
    folder.mkdir(exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(str(value))


def _change_password(server: PostgresServer, password: str | None) -> None:
    """Give the operator's role another password and end its sessions."""
    with psycopg.connect(server.admin_url, autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(RUNTIME), sql.Literal(password)))
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (RUNTIME,))


async def test_database_secret_may_come_late_be_wrong_and_rotate(
    context: ChaosContext, postgres18: PostgresServer, operators: Operators, database18: Database, tmp_path: Path
) -> None:
    """No Secret, a wrong password, the right one, another one: each is noticed at the next connection."""
    folder = tmp_path / "database"
    own = {"DATABASE_URL": "", "VOUCHER_OPERATOR_DATABASE_DIR": str(folder)}
    operator = operators.start(env=QUICK | own)
    await context.voucher()
    await context.redeem(["first"])
    await wait_for_problem(operator, "ledger", "Secret")
    await wait_for_ledger(context, "first")
    _write_secret(folder, database18.runtime_url, "wrong")
    await wait_for_problem(operator, "ledger", "refuses the login")
    _write_secret(folder, database18.runtime_url)
    await context.finished()
    await ready(operator)

    right = urlsplit(database18.runtime_url).password
    await asyncio.to_thread(_change_password, postgres18, "rotated")
    try:
        await wait_for_problem(operator, "ledger", "refuses the login")
        await context.redeem(["second"])
        await wait_for_ledger(context, "second")
        _write_secret(folder, database18.runtime_url, "rotated")
        await context.finished()
        await ready(operator)
        await context.voucher_is(Ready="Issued")
    finally:
        await asyncio.to_thread(_change_password, postgres18, right)
    await context.assert_statuses_match_ledger()
    logs = operator.log.read_text()
    assert "wrong" not in logs
    assert "rotated" not in logs
    operators.allow.append(LEDGER_DOWN)


@pytest.fixture
def unmigrated(postgres18: PostgresServer, namespace: str) -> Iterator[Database]:
    database = postgres18.database(f"{namespace}-empty")
    yield database
    postgres18.drop(database)


async def test_operator_waits_for_the_migration(
    control_plane: ControlPlane, namespace: str, operators: Operators, unmigrated: Database
) -> None:
    """An empty database is reported as not migrated; after the migration the operator works."""
    async with open_context(control_plane, namespace, unmigrated) as context:
        operator = operators.start(env=QUICK | {"DATABASE_URL": unmigrated.runtime_url})
        await context.voucher()
        await context.redeem(["first"])
        await wait_for_problem(operator, "ledger", "voucher-operator migrate")
        await wait_for_ledger(context, "first")
        await asyncio.to_thread(migrate, unmigrated)
        await context.finished()
        await ready(operator)
        await context.voucher_is(Ready="Issued", timesRedeemed=1)
        await context.assert_statuses_match_ledger()
    operators.allow.append(LEDGER_DOWN)


async def test_waiting_redemptions_use_at_most_120_megabytes(
    context: ChaosContext, postgres18: PostgresServer, operators: Operators
) -> None:
    """They wait for PostgreSQL, then all finish; the process never takes over 120 MB (`make bench`: with 2,000)."""
    operator = operators.start(interpreter=True)
    await context.voucher()
    await context.voucher_is(Ready="Issued")
    postgres18.stop()
    await context.redeem(f"r{n}" for n in range(MANY))

    await until(lambda: context.none("status.state!=Pending"), "word to all that they wait", 90)
    postgres18.start()
    await context.finished()
    assert operator.peak_memory() < MEMORY
    await context.assert_statuses_match_ledger()
    assert await context.granted() == MANY
    await context.counters_agree()
    operators.allow.append(LEDGER_DOWN)


async def test_namespace_is_deleted_while_postgresql_is_down(
    control_plane: ControlPlane,
    namespace: str,
    postgres18: PostgresServer,
    database18: Database,
    tmp_path: Path,
    operators: Operators,
) -> None:
    """It is deleted, with its Role, after the time limit of its Vouchers; their codes are revoked afterwards."""
    deleted = control_plane.namespace(f"{namespace}-doomed")
    both = Operators(install_rights(control_plane, [namespace, deleted]), database18, tmp_path)
    operator = both.start(env=QUICK | {"VOUCHER_OPERATOR_FINALIZER_TIMEOUT": "2"})
    operators.started.append(operator)
    async with (
        open_context(control_plane, namespace, database18) as context,
        open_context(control_plane, deleted, database18) as there,
    ):
        await context.voucher(code="STAYS")
        await there.voucher("one", "GOES-1")
        await there.voucher("two", "GOES-2")
        for voucher in (there.voucher_is("one", Ready="Issued"), there.voucher_is("two", Ready="Issued")):
            await voucher
        postgres18.stop()
        await wait_for_problem(operator, "ledger", "cannot be reached")
        await there.admin.call("DELETE", f"/api/v1/namespaces/{deleted}")

        async def has_gone() -> bool:
            return await there.admin.find(f"/api/v1/namespaces/{deleted}") is None

        await until(has_gone, "end of the namespace")
        # The operator's cache of the two would be enough: it must not be needed.
        operator.kill()
        postgres18.start()
        operator.start()

        async def revoked() -> bool:
            rows = await context.sql("SELECT code FROM promo_codes WHERE deleted_at IS NULL")
            return rows == [("STAYS",)]

        await until(revoked, "revocation of the codes")
        await context.redeem(["stays"], "STAYS")
        await context.redeem(["goes"], "GOES-1")
        await context.finished()
        found = await context.assert_statuses_match_ledger()
        assert {name: body["status"]["state"] for name, body in found.items()} == {
            "stays": "Redeemed",
            "goes": "Rejected",
        }
    operators.allow += [LEDGER_DOWN, ROLE_GONE, r"revoked the code of a deleted Voucher"]
