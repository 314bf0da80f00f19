"""`voucher-operator migrate --wait --defer`, as a process: what is late is waited for, and what cannot be is left."""

import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from testbed.fork_server import ForkServer
from testbed.interpreter import environment
from testbed.postgres import Database, PostgresServer
from tests.ledger.test_migrate import ALL

NOWHERE = "postgresql://owner:wrong@127.0.0.1:1/billing"


@pytest.fixture
def database(postgres18: PostgresServer) -> Iterator[Database]:
    """Without a table, on one version: what is waited for is the same on all."""
    fresh = postgres18.database(f"t{secrets.token_hex(6)}")
    yield fresh
    postgres18.drop(fresh)


@contextmanager
def _migration(env: dict[str, str], *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "voucher_operator.cli", "migrate", *options]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str], containing: str) -> str:
    """Return the next line of the log that contains a text; fails when the process ends without one."""
    assert process.stderr is not None
    found = next((line for line in process.stderr if containing in line), None)
    assert found is not None, containing
    return found


def _secret(folder: Path, url: str, **changes: str) -> None:
    """Write a Secret in CloudNativePG's shape."""
    parts = urlsplit(url)
    keys = {"host": parts.hostname, "port": str(parts.port), "dbname": parts.path[1:]}
    keys |= {"username": parts.username, "password": parts.password, **changes}
    for name, value in keys.items():
        (folder / name).write_text(value or "")


def test_migration_waits_for_an_absent_then_wrong_secret(database: Database, tmp_path: Path) -> None:
    """No Secret, then one with a port where nobody listens, then the right one: one process sees it through."""
    env = environment("", {"VOUCHER_OPERATOR_DATABASE_DIR": str(tmp_path)})
    with _migration(env, "--wait", "inf") as process:
        assert "database Secret does not exist yet" in _line(process, "the migration will be retried")
        _secret(tmp_path, database.owner_url, port="1")
        assert "PostgreSQL cannot be reached" in _line(process, "the migration will be retried")
        _secret(tmp_path, database.owner_url)
        output, _ = process.communicate()
        assert (process.returncode, "applied 0001.billing-tables" in output) == (0, True)


def _may_not_create_roles(server: PostgresServer, database: Database) -> str:
    """Give the database to a role with as few rights as CloudNativePG's; return its URL."""
    name = f"o{secrets.token_hex(6)}"
    with psycopg.connect(server.admin_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'".encode())
        connection.execute(f"ALTER DATABASE {database.name} OWNER TO {name}".encode())
    parts = urlsplit(database.owner_url)
    return parts._replace(netloc=f"{name}:x@{parts.netloc.rpartition('@')[2]}").geturl()


def test_migration_waits_for_the_runtime_role(postgres18: PostgresServer, database: Database) -> None:
    """What somebody else must do is said, waited for, and seen."""
    role = f"r{secrets.token_hex(6)}"
    url = _may_not_create_roles(postgres18, database)
    with _migration(environment(url, {"VOUCHER_OPERATOR_RUNTIME_ROLE": role}), "--wait", "inf") as process:
        assert f'CREATE ROLE \\"{role}\\" LOGIN' in _line(process, "the migration will be retried")
        with psycopg.connect(postgres18.admin_url, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {role} LOGIN".encode())
        output, _ = process.communicate()
        assert (process.returncode, "applied 0001.billing-tables" in output) == (0, True)


@pytest.mark.parametrize(
    ("absent", "options", "code", "said"),
    [
        (True, [], 1, "PostgreSQL cannot be reached"),
        (True, ["--defer", "never"], 1, "PostgreSQL cannot be reached"),
        (True, ["--defer", "absent"], 0, "deferred to a later run"),
        (True, ["--defer", "always"], 0, "deferred to a later run"),
        (False, ["--defer", "absent"], 1, "does not exist and may not be created"),
        (False, ["--defer", "always"], 0, "deferred to a later run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_defer_option_decides_the_exit_code(
    fork_server: ForkServer,
    postgres18: PostgresServer,
    database: Database,
    absent: bool,
    options: list[str],
    code: int,
    said: str,
) -> None:
    """A ledger that is away may be left to a later run; one that refuses only where the caller says so."""
    url = NOWHERE if absent else _may_not_create_roles(postgres18, database)
    env = environment(url, {"VOUCHER_OPERATOR_RUNTIME_ROLE": "nobody_makes_it"})
    done = fork_server.run(["migrate", "--wait", "0.1", *options], env)
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True)


def test_defer_option_still_migrates_a_reachable_ledger(fork_server: ForkServer, database: Database) -> None:
    """What can be done is done."""
    done = fork_server.run(["migrate", "--wait", "1", "--defer", "always"], environment(database.owner_url))
    assert (done.returncode, f"applied {ALL[-1]}" in done.stdout) == (0, True)


@pytest.mark.parametrize("text", ["-1", "nan", "soon"])
def test_invalid_wait_option_is_refused(fork_server: ForkServer, text: str) -> None:
    """As wrong use."""
    done = fork_server.run(["migrate", f"--wait={text}"], environment(NOWHERE))
    assert (done.returncode, "--wait" in done.stderr) == (2, True)
