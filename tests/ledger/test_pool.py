"""The ledger without PostgreSQL, with a wrong one, and through its restarts: it reports it in one line and recovers."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from testbed.postgres import RUNTIME, Database, PostgresServer, StopMode
from testbed.processes import free_port
from tests.ledger.helpers import issue, open_ledger, redeem_outcome, redeem_request, rows, terms
from voucher_operator.ledger import connector
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.schema.migrate import migrate
from voucher_operator.ledger.types import RedeemRequest
from voucher_operator.resources.errors import LedgerUnavailableError


@pytest.fixture(autouse=True)
async def quiet(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """No log line may hold an address or a password, and none may repeat itself."""
    caplog.set_level(logging.INFO)
    yield
    ours = [record for record in caplog.records if record.name.startswith(("voucher_operator.ledger", "psycopg"))]
    assert [r.getMessage() for r in ours if "127.0.0.1" in r.getMessage() or "password" in r.getMessage()] == []
    warnings = [record.getMessage() for record in ours if record.levelno >= logging.WARNING]
    assert len(warnings) == len(set(warnings))


async def error_message(ledger: Ledger) -> str:
    with pytest.raises(LedgerUnavailableError) as error:
        await ledger.info()
    assert "\n" not in error.value.message
    return error.value.message


async def test_every_call_reports_an_unreachable_postgresql() -> None:
    async with open_ledger(f"postgresql://nobody:secret@127.0.0.1:{free_port()}/none") as ledger:
        calls = (
            ledger.redeem(redeem_request()),
            ledger.put(terms()),
            ledger.counters(),
            ledger.owners(),
            ledger.balance("a"),
        )
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(answer) for answer in answers} == {LedgerUnavailableError}
    (message,) = {str(answer) for answer in answers}
    assert "cannot be reached" in message
    assert "secret" not in message


async def test_connection_that_takes_too_long_is_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when the garbage collector comes: until then the server would keep a place for it."""
    monkeypatch.setitem(connector._LINK, "connect_timeout", 2)
    closed = asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            pass
        writer.close()
        closed.set()

    gc.disable()
    async with await asyncio.start_server(never_answer, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        try:
            async with open_ledger(f"postgresql://nobody:secret@127.0.0.1:{port}/none") as ledger:
                assert "cannot be reached" in await error_message(ledger)
                async with asyncio.timeout(5):
                    await closed.wait()
        finally:
            gc.enable()


async def test_missing_settings_are_reported() -> None:
    def missing() -> str:
        raise FileNotFoundError("/etc/ledger/uri")

    async with open_ledger(missing) as ledger:
        assert "settings are missing" in await error_message(ledger)


@pytest.mark.parametrize(
    ("change", "line"),
    [({"password": "wrong"}, "refuses the login"), ({"dbname": "nowhere"}, "no such database")],
)
async def test_wrong_settings_are_reported(database18: Database, change: dict[str, str], line: str) -> None:
    async with open_ledger(make_conninfo(database18.runtime_url, **change)) as ledger:
        assert line in await error_message(ledger)


async def test_ledger_without_schema_is_reported_until_migrated(empty_database: Database) -> None:
    async with open_ledger(empty_database.owner_url) as ledger:
        assert "voucher-operator migrate" in await error_message(ledger)
        with pytest.raises(LedgerUnavailableError, match="voucher-operator migrate"):
            await ledger.redeem(redeem_request())
        with pytest.raises(LedgerUnavailableError, match="voucher-operator migrate"):
            await ledger.put(terms())
        await migrate(empty_database.owner_url, currency="OMR", runtime_role=RUNTIME)
        assert (await ledger.info()).currency == "OMR"


async def test_missing_rights_are_reported(database18: Database) -> None:
    await rows(database18, f"REVOKE USAGE ON SCHEMA vouchers FROM {RUNTIME}")
    async with open_ledger(database18.runtime_url) as ledger:
        assert "lacks rights" in await error_message(ledger)
        with pytest.raises(LedgerUnavailableError, match="lacks rights"):
            await ledger.redeem(redeem_request())


async def test_read_only_server_is_reported(database18: Database) -> None:
    await issue(database18)
    await rows(database18, f"ALTER DATABASE {database18.name} SET default_transaction_read_only = on")
    async with open_ledger(database18.runtime_url) as ledger:
        with pytest.raises(LedgerUnavailableError, match="read-only"):
            await ledger.redeem(redeem_request())


async def test_full_server_is_reported_until_a_connection_is_free(database18: Database) -> None:
    await rows(database18, f"ALTER DATABASE {database18.name} CONNECTION LIMIT 0")
    async with open_ledger(database18.runtime_url) as ledger:
        assert "no connection left" in await error_message(ledger)
        await rows(database18, f"ALTER DATABASE {database18.name} CONNECTION LIMIT -1")
        await ledger.info()


async def test_rotated_password_is_used_at_the_next_connection(
    own_server: PostgresServer, own_database: Database
) -> None:
    url = own_database.runtime_url
    old = str(psycopg.conninfo.conninfo_to_dict(url)["password"])
    async with open_ledger(lambda: url) as ledger:
        await ledger.info()
        set_password(own_server, "rotated")
        try:
            await asyncio.to_thread(own_server.restart)
            assert "refuses the login" in await error_message(ledger)
            url = make_conninfo(url, password="rotated")
            await ledger.info()
        finally:
            set_password(own_server, old)


def set_password(server: PostgresServer, password: str) -> None:
    with psycopg.connect(server.admin_url, autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(RUNTIME), password))


async def test_calls_succeed_once_postgresql_starts(own_server: PostgresServer, own_database: Database) -> None:
    own_server.stop()
    async with open_ledger(own_database.runtime_url) as ledger:
        try:
            assert "cannot be reached" in await error_message(ledger)
            assert "cannot be reached" in await error_message(ledger)
        finally:
            await asyncio.to_thread(own_server.start)
        assert (await ledger.info()).currency == "OMR"


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_first_call_after_a_restart_succeeds(
    own_server: PostgresServer, own_database: Database, mode: StopMode
) -> None:
    """All connections of the pool are closed by the restart, and the first call succeeds."""
    await issue(own_database)
    async with open_ledger(own_database.runtime_url) as ledger:
        await asyncio.gather(*(ledger.info() for _ in range(20)))
        await asyncio.to_thread(own_server.restart, mode)
        assert redeem_outcome(await ledger.redeem(redeem_request())) == "redeemed"


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_restart_under_load_loses_no_redemption(
    own_server: PostgresServer, own_database: Database, mode: StopMode
) -> None:
    await issue(own_database)
    stop = asyncio.Event()

    async with open_ledger(own_database.runtime_url) as ledger:

        async def redeem(request: RedeemRequest) -> str:
            while True:
                try:
                    return redeem_outcome(await ledger.redeem(request))
                except LedgerUnavailableError:
                    await asyncio.sleep(0.05)

        async def caller() -> list[str]:
            answers = []
            while not stop.is_set():
                answers.append(await redeem(redeem_request()))
            return answers

        callers = [asyncio.create_task(caller()) for _ in range(20)]
        for _ in range(3):
            await asyncio.to_thread(own_server.restart, mode)
            await redeem(redeem_request())
        stop.set()
        answers = [answer for each in await asyncio.gather(*callers) for answer in each]
    assert set(answers) == {"redeemed"}
    assert await rows(own_database, "SELECT times_redeemed, granted_minor FROM promo_codes") == [
        (len(answers) + 3, (len(answers) + 3) * 10_000)
    ]
    assert await verify(own_database.admin_url) == []


async def test_killed_backend_is_replaced(ledger: Ledger, database: Database) -> None:
    await issue(database)
    for _ in range(5):
        await rows(
            database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'voucher-operator'",
        )
        assert redeem_outcome(await ledger.redeem(redeem_request())) == "redeemed"


async def test_sessions_have_limits_and_a_name(ledger: Ledger) -> None:
    async def settings(conn: psycopg.AsyncConnection[tuple[object, ...]]) -> list[object]:
        names = ("application_name", "lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
        return [(await (await conn.execute(f"SHOW {name}".encode())).fetchone() or ("",))[0] for name in names]

    assert await ledger._pool.run(settings) == ["voucher-operator", "1s", "8s", "5s"]


async def test_cancelled_calls_end(own_database: Database) -> None:
    """In a queue for connections, too, where a library may lose it: each is cancelled once, and ends."""
    async with open_ledger(own_database.runtime_url) as ledger:

        async def ask_for_ever() -> None:
            while True:
                await ledger.info()

        for _ in range(6):
            asking = [asyncio.create_task(ask_for_ever()) for _ in range(30)]
            for _ in range(10):
                await ledger.info()
            for task in asking:
                task.cancel()
            _, still_running = await asyncio.wait(asking, timeout=20)
            for task in still_running:
                task.cancel()
            assert not still_running
