"""What the commands say when something is wrong: neither a password nor a row's values, and in one line."""

import asyncio
from collections.abc import Awaitable, Callable

import psycopg
import pytest

from testbed.fork_server import ForkServer
from testbed.interpreter import environment
from testbed.postgres import RUNTIME, Database
from tests.ledger.ledger_rows import fill
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.schema.migrate import migrate
from voucher_operator.ledger.schema.session import MigrationError
from voucher_operator.resources.errors import LedgerUnavailableError

COMMANDS = (["migrate"], ["verify"], ["export", "entries"], ["balance", "somebody"])
# libpq repeats, in its own words, what it cannot read.
UNREADABLE = (
    "postgres:/app:S3cretPw@127.0.0.1/x",
    "postgresql://app:S3cr%zzPw@127.0.0.1/x",
    "postgresql://app:S3cr etPw@127.0.0.1/x",
)
ODD = (
    *UNREADABLE,
    "postgresql://app:S3cr%00Pw@127.0.0.1/x",
    "postgresql://app:S3cretPw@[::1/x",
    "postgresql://app:S3cretPw@127.0.0.1:1/x",
    "postgresql://app:x@127.0.0.1:1/x?sslmode=S3cretPw",
    "host=127.0.0.1 port=S3cretPw",
    "postgresql://app:S3cr\udcffPw@127.0.0.1/x",
)


Command = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def command(fork_server: ForkServer) -> Command:
    """Runs a command in a process of its own; its exit code and what it printed."""

    async def run(url: str, *arguments: str) -> tuple[int, str, str]:
        done = await asyncio.to_thread(fork_server.run, arguments, environment(url))
        return done.returncode, done.stdout, done.stderr

    return run


def silent(text: str) -> bool:
    return "S3cr" not in text and "Pw" not in text and "127.0.0.1" not in text


@pytest.mark.parametrize("url", UNREADABLE)
async def test_no_command_prints_the_password(command: Command, url: str) -> None:
    for code, out, err in await asyncio.gather(*(command(url, *arguments) for arguments in COMMANDS)):
        assert code == 1
        assert silent(out + err), out + err
        assert "The database settings are missing or incomplete" in err.splitlines()[-1]


@pytest.mark.parametrize("url", ODD)
async def test_error_messages_contain_no_password(url: str) -> None:
    with pytest.raises(LedgerUnavailableError) as migration:
        await migrate(url, currency="OMR", runtime_role=RUNTIME)
    with pytest.raises(LedgerUnavailableError) as check:
        await verify(url)
    for raised in (migration, check):
        assert silent(str(raised.value))
        assert "\n" not in str(raised.value)
    assert migration.value.__cause__ is None


async def test_error_messages_contain_no_row_values(database: Database) -> None:
    await fill(database)
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        owner.execute("UPDATE credit_ledger SET amount_minor = NULL")
        owner.execute(
            "UPDATE vouchers.backfill_progress SET upto = '00000000-0000-0000-0000-000000000000', finished = false"
        )
        owner.execute("ALTER TABLE promo_codes ADD CHECK (granted_minor < 0) NOT VALID")
    with pytest.raises(MigrationError) as raised:
        await migrate(database.owner_url, currency="OMR", runtime_role=RUNTIME)
    assert str(raised.value) == "PostgreSQL refuses a statement (SQLSTATE 23514); check its log"


async def test_error_messages_contain_schema_names(database: Database) -> None:
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        owner.execute(
            "CREATE FUNCTION stray() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nothing; END $$; "
            "CREATE TRIGGER stray BEFORE UPDATE ON vouchers.backfill_progress FOR EACH ROW EXECUTE FUNCTION stray(); "
            "ALTER TABLE vouchers.backfill_progress DISABLE TRIGGER stray; "
            "UPDATE vouchers.backfill_progress SET finished = false; "
            "ALTER TABLE vouchers.backfill_progress ENABLE TRIGGER stray"
        )
    with pytest.raises(MigrationError, match=r'SQLSTATE 42703\): column "nothing" does not exist; check its log$'):
        await migrate(database.owner_url, currency="OMR", runtime_role=RUNTIME)


async def test_statement_limit_option_applies_to_commands(command: Command, database18: Database) -> None:
    await fill(database18)
    url = database18.runtime_url
    for arguments in (["verify"], ["export", "entries"]):
        with psycopg.connect(database18.owner_url) as owner:
            owner.execute("LOCK TABLE credit_ledger")
            code, _, err = await command(url, *arguments, "--statement-limit", "0.2")
        assert code == 1
        assert "took longer than 0.2 s" in err
        assert "--statement-limit SECONDS" in err
        code, out, _ = await command(url, *arguments, "--statement-limit", "600")
        assert (code, bool(out)) == (0, True)
    code, _, err = await command(url, "verify", "--statement-limit", "0")
    assert (code, "not a number of seconds" in err) == (2, True)
