"""Owner of the ledger after a migration by a superuser, by a member of the owner, or on tables of several owners."""

import re
import secrets
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest

from testbed.postgres import OWNER, RUNTIME, Database
from tests.ledger.go_service import STARTUP, GoService
from tests.ledger.helpers import ON_POSTGRESQL_16
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.schema.migrate import migrate
from voucher_operator.ledger.schema.session import MigrationError

pytestmark = ON_POSTGRESQL_16

OWNERS = """
SELECT DISTINCT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'vouchers'
UNION SELECT pg_get_userbyid(relowner) FROM pg_class
    WHERE relnamespace IN ('vouchers'::regnamespace, 'public'::regnamespace)
UNION SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE pronamespace = 'vouchers'::regnamespace
"""
# What a version that did not look made of a superuser's first migration.
LEFT_BY_A_SUPERUSER = """
DO $$
DECLARE command text;
BEGIN
    FOR command IN
        SELECT format('ALTER TABLE %s OWNER TO postgres', c.oid::regclass) FROM pg_class AS c
        WHERE c.relnamespace = 'vouchers'::regnamespace AND c.relkind = 'r'
        UNION ALL SELECT format('ALTER ROUTINE %s OWNER TO postgres', p.oid::regprocedure) FROM pg_proc AS p
        WHERE p.pronamespace = 'vouchers'::regnamespace
    LOOP
        EXECUTE command;
    END LOOP;
END $$;
ALTER SCHEMA vouchers OWNER TO postgres;
REVOKE ALL ON SCHEMA vouchers FROM ledger_owner;
"""


@pytest.fixture
def admin(empty_database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(empty_database.admin_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def deployer(admin: psycopg.Connection, empty_database: Database) -> Iterator[str]:
    """The URL of a role that is a member of the tables' owner and may make schemas."""
    name = f"d{secrets.token_hex(6)}"
    admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x' IN ROLE {OWNER}".encode())
    admin.execute(f"GRANT CREATE ON DATABASE {empty_database.name} TO {name}".encode())
    parts = urlsplit(empty_database.owner_url)
    yield parts._replace(netloc=f"{name}:x@{parts.netloc.rpartition('@')[2]}").geturl()
    admin.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


def go_tables(database: Database) -> None:
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        for statement in STARTUP:
            owner.execute(statement.encode())


async def up(url: str) -> list[str]:
    return await migrate(url, currency="OMR", runtime_role=RUNTIME, retry_seconds=5)


def owners(admin: psycopg.Connection) -> set[str]:
    return {name for (name,) in admin.execute(OWNERS.encode())}


async def works(database: Database) -> None:
    """The Go service starts and redeems, the owner migrates, and nothing is wrong."""
    async with GoService.connect(database.owner_url) as go:
        await go.start()
        await go.issue("CODE", 5)
        await go.redeem(await go.customer("somebody"), "CODE")
    assert await up(database.owner_url) == []
    assert await verify(database.runtime_url) == []


async def test_superuser_on_the_go_services_tables_acts_as_their_owner(
    empty_database: Database, admin: psycopg.Connection
) -> None:
    go_tables(empty_database)
    assert await up(empty_database.admin_url)
    assert owners(admin) == {OWNER}
    await works(empty_database)


async def test_superuser_on_an_empty_database_acts_as_its_owner(
    empty_database: Database, admin: psycopg.Connection
) -> None:
    assert await up(empty_database.admin_url)
    assert owners(admin) == {OWNER}
    await works(empty_database)


async def test_member_of_the_owner_acts_as_the_owner(
    empty_database: Database, admin: psycopg.Connection, deployer: str
) -> None:
    go_tables(empty_database)
    assert await up(deployer)
    assert owners(admin) == {OWNER}
    await works(empty_database)


async def test_member_without_set_role_right_is_refused_with_the_command(
    empty_database: Database, admin: psycopg.Connection, deployer: str
) -> None:
    """PostgreSQL 16 and later know the difference."""
    go_tables(empty_database)
    name = urlsplit(deployer).username
    admin.execute(f"GRANT {OWNER} TO {name} WITH SET FALSE, INHERIT TRUE".encode())
    with pytest.raises(MigrationError) as raised:
        await up(deployer)
    command = f'GRANT "{OWNER}" TO "{name}" WITH SET TRUE'
    assert str(raised.value).endswith(f"run, as an administrator, {command}; and then migrate again")
    assert admin.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'vouchers'").fetchone() == (0,)
    admin.execute(command.encode())
    assert await up(deployer)


async def test_owner_gets_the_commands_for_objects_of_a_superuser(
    empty_database: Database, admin: psycopg.Connection
) -> None:
    await up(empty_database.owner_url)
    admin.execute(LEFT_BY_A_SUPERUSER)
    with pytest.raises(MigrationError) as raised:
        await up(empty_database.owner_url)
    message = str(raised.value)
    assert message.startswith(f"what is in the schema vouchers belongs to postgres instead of {OWNER}")
    assert "\n" not in message
    for command in re.findall(r"ALTER [^;]* OWNER TO \w+", message):
        admin.execute(command.encode())
    assert owners(admin) == {OWNER}
    await works(empty_database)


async def test_superuser_gives_objects_of_a_superuser_to_the_owner(
    empty_database: Database, admin: psycopg.Connection
) -> None:
    await up(empty_database.owner_url)
    admin.execute(LEFT_BY_A_SUPERUSER)
    assert await up(empty_database.admin_url) == []
    assert owners(admin) == {OWNER}
    await works(empty_database)


async def test_member_gives_its_own_objects_to_the_owner(
    empty_database: Database, admin: psycopg.Connection, deployer: str
) -> None:
    await up(empty_database.owner_url)
    admin.execute(LEFT_BY_A_SUPERUSER.replace("postgres", str(urlsplit(deployer).username)).encode())
    assert await up(deployer) == []
    assert owners(admin) == {OWNER}
    await works(empty_database)


@pytest.mark.parametrize("as_superuser", [True, False], ids=["superuser", "owner"])
async def test_tables_of_several_owners_are_refused_with_the_commands(
    empty_database: Database, admin: psycopg.Connection, as_superuser: bool
) -> None:
    go_tables(empty_database)
    admin.execute("ALTER TABLE credit_ledger OWNER TO postgres; ALTER TABLE orders OWNER TO postgres")
    url = empty_database.admin_url if as_superuser else empty_database.owner_url
    with pytest.raises(MigrationError, match="have several owners") as raised:
        await up(url)
    assert admin.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'vouchers'").fetchone() == (0,)
    for command in re.findall(r'ALTER TABLE [^;]* OWNER TO "\w+"', str(raised.value)):
        admin.execute(command.encode())
    assert await up(url)


async def test_role_without_tables_is_refused_with_the_owner_named(
    empty_database: Database, admin: psycopg.Connection
) -> None:
    for statement in STARTUP:
        admin.execute(statement.encode())
    with pytest.raises(MigrationError, match="migrate as the role that does, postgres") as raised:
        await up(empty_database.owner_url)
    for command in re.findall(r'ALTER TABLE [^;]* OWNER TO "\w+"', str(raised.value)):
        admin.execute(command.encode())
    assert await up(empty_database.owner_url)
    assert admin.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'orders'").fetchone() == (OWNER,)


async def test_tables_of_a_superuser_cause_a_warning(
    empty_database: Database, admin: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    for statement in STARTUP:
        admin.execute(statement.encode())
    assert await up(empty_database.admin_url)
    assert "the ledger's tables belong to postgres, a superuser" in caplog.text
