"""The servers behave as the tests need it: versions, roles, data that outlives a crash."""

import psycopg
import pytest

from testbed.postgres import Database, PostgresServer, StopMode


def test_server_has_its_version_and_roles(postgres: PostgresServer, empty_database: Database) -> None:
    with psycopg.connect(empty_database.owner_url) as connection:
        assert connection.info.server_version // 10000 == postgres.version
        connection.execute("CREATE SCHEMA vouchers")
        row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
        assert row == (False,)
    with psycopg.connect(empty_database.runtime_url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("CREATE TABLE public.mine (i int)")


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_data_outlives_a_restart(mode: StopMode) -> None:
    with PostgresServer(18) as server:
        database = server.database("kept")
        with psycopg.connect(database.owner_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
        server.stop(mode)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(database.owner_url)
        server.start()
        with psycopg.connect(database.owner_url) as connection:
            assert connection.execute("SELECT value FROM kept").fetchone() == (7,)
