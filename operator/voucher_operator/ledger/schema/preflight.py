"""Checks before a migration changes anything, and refuses what cannot work: server, rights, owners, currency.

The functions of our triggers run as their owner (SECURITY DEFINER), so their owner decides about rights: all objects of
ours belong to the role that owns the billing service's tables, whichever role migrates. A superuser, or another member
of that role, therefore acts as that role (SET ROLE). Objects that an earlier version left to another role change their
owner; where this role may not do that, the migration is refused, with the statements that do it.

See also: `migrate` applies the files afterwards; `shapes` compares the database with what the files create.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast

import psycopg
from psycopg import errors, sql
from psycopg.rows import dict_row

from voucher_operator.ledger.schema.session import MigrationError, Plan, connect, retry_on_lock
from voucher_operator.ledger.schema.shapes import check_before, names, own_tables
from voucher_operator.ledger.statements import statement
from voucher_operator.resources.errors import CurrencyMismatchError

log = logging.getLogger(__name__)

_PREFLIGHT: Final = statement("migrate_preflight")
_APPLIED: Final = statement("migrate_applied")
_FOREIGN: Final = statement("migrate_foreign")
_FORMER_TABLES: Final = frozenset({"vouchers.inbox", "vouchers.summing", "vouchers.summed"})
_FORMER_FUNCTIONS: Final = ("vouchers.promo_codes_in_step()",)
"""Names from before the migrations 0024 to 0027, which only their owner can rename; the tables are views since."""

Facts = dict[str, Any]
"""One row of `migrate_preflight.sql`."""


def prepare(plan: Plan, known: Set[str]) -> Plan:
    """Refuse what cannot work before anything is changed; create what the first migration needs.

    `known`: ids of the migrations that this version has. Returns the plan with the role to act as. Raises
    MigrationError, CurrencyMismatchError, and psycopg's errors.
    """
    with connect(plan) as connection, connection.cursor(row_factory=dict_row) as cursor:
        connection.execute("RESET search_path")  # the role's own search_path is one of the facts
        cursor.execute(_PREFLIGHT, {"runtime_role": plan.runtime_role})
        facts = cast("Facts", cursor.fetchone())
        for problem in _problems(facts):
            raise MigrationError(problem)
        acting = replace(plan, acting_as=facts["owner"])
        _try_to_act(acting, facts)
        _transfer_ownership(plan, connection, facts["owner"])
        if facts["has_sovereign"]:
            _check_currency(acting)
        if not (facts["has_marks"] and is_newer(acting, known)):
            check_before(acting)
        if not facts["role_exists"]:
            _create_role(plan.runtime_role, connection, allowed=facts["may_create_role"])
        # Not CREATE SCHEMA IF NOT EXISTS alone: that needs a right on the database even when the schema exists.
        if not facts["has_schema"]:
            command = sql.SQL("CREATE SCHEMA IF NOT EXISTS vouchers AUTHORIZATION {}")
            connection.execute(command.format(sql.Identifier(facts["owner"])))
    if facts["owner_is_superuser"]:
        log.warning(
            "the ledger's tables belong to %s, a superuser, and so do the functions of their triggers: "
            "change their owner to a role that is not one",
            facts["owner"],
        )
    return acting


def is_newer(plan: Plan, known: Set[str]) -> bool:
    """Return whether a version with more migrations than `known` was here: then the shapes are not checked."""
    with connect(plan) as connection:
        return any(name not in known for (name,) in connection.execute(_APPLIED))


def _problems(facts: Facts) -> Iterator[str]:
    role, owner = facts["role"], facts["owner"]
    if facts["read_only"]:
        yield "this server is a read-only standby: give the address of the primary"
    if facts["encoding"] == "SQL_ASCII":
        yield (
            f"the encoding of database {facts['database']} is SQL_ASCII, in which PostgreSQL takes any bytes for text: "
            "restore a dump of it into a database that is created with TEMPLATE template0 ENCODING 'UTF8'"
        )
    if facts["replication_role"] != "origin":
        yield (
            f"session_replication_role is {facts['replication_role']} for role {role} or its database, so that no "
            "trigger fires: reset it there (ALTER ROLE or ALTER DATABASE ... RESET session_replication_role)"
        )
    if facts["not_tables"]:
        yield f"not tables: {', '.join(facts['not_tables'])}; the billing service's tables have these names"
    yield from _owners(facts)
    if role == owner and facts["home"] != "public":
        yield (
            f"role {role} has the default schema {facts['home']}, but the billing service's tables belong in public: "
            f"run ALTER ROLE {role} SET search_path TO public"
        )
    if facts["cannot_create_schema"]:
        yield f'role {role} may not create a schema: GRANT CREATE ON DATABASE "{facts["database"]}" TO "{role}"'
    if facts["cannot_create_tables"]:
        yield f'role {owner} may not create tables: GRANT CREATE ON SCHEMA public TO "{owner}"'


def _owners(facts: Facts) -> Iterator[str]:
    """Yield a problem when the tables have several owners, or this role may not act as their owner."""
    role, owner, tables = facts["role"], facts["owner"], cast("dict[str, str]", facts["tables"])
    numbers = Counter(tables.values())
    if len(numbers) > 1:
        heir = role if role in numbers and not facts["is_superuser"] else numbers.most_common(1)[0][0]
        whose = ", ".join(f"{table} to {tables[table]}" for table in sorted(tables))
        yield f"the billing service's tables have several owners ({whose}): {_give(tables, heir)}"
    elif not facts["is_member"]:
        what = ", ".join(sorted(tables)) or "the schema vouchers"
        other = (
            f", or, to make {role} the owner, {_give(tables, role)}" if tables and facts["owner_is_superuser"] else ""
        )
        yield f"role {role} does not own {what}: migrate as the role that does, {owner}{other}"


def _give(tables: dict[str, str], heir: str) -> str:
    commands = (
        sql.SQL("ALTER TABLE public.{} OWNER TO {}").format(sql.Identifier(table), sql.Identifier(heir)).as_string(None)
        for table in sorted(tables)
        if tables[table] != heir
    )
    return f"run, as an administrator, {'; '.join(commands)}; and then migrate again"


def _try_to_act(acting: Plan, facts: Facts) -> None:
    """Connect as the owner. Since PostgreSQL 16 a member of a role may be without the right to act as that role."""
    try:
        connect(acting).close()
    except errors.InsufficientPrivilege as error:
        role, owner = facts["role"], facts["owner"]
        raise MigrationError(
            f"role {role} may not act as {owner}, who owns the ledger: migrate as {owner}, "
            f'or run, as an administrator, GRANT "{owner}" TO "{role}" WITH SET TRUE; and then migrate again'
        ) from error


def _transfer_ownership(plan: Plan, connection: psycopg.Connection[Any], owner: str) -> None:
    """Make the owner own what another role's migration created: as a superuser, or as that role when it is a member."""
    tables, functions = sorted(own_tables() | _FORMER_TABLES), sorted({*names("function"), *_FORMER_FUNCTIONS})
    parameters = {"owner": owner, "tables": tables, "functions": functions}
    foreign = connection.execute(_FOREIGN, parameters).fetchall()
    if not foreign:
        return
    whose = ", ".join(sorted({other for other, _ in foreign}))
    commands = "; ".join(command for _, command in foreign)
    try:
        retry_on_lock(plan, "changing the owner of the schema vouchers", partial(_run, connection, commands))
    except errors.InsufficientPrivilege as error:
        raise MigrationError(
            f"what is in the schema vouchers belongs to {whose} instead of {owner}, who owns the billing service's "
            f"tables: migrate once as a superuser, or run, as an administrator, {commands}; and then migrate again"
        ) from error
    log.info("what belonged to %s in the schema vouchers belongs to %s now", whose, owner)


def _run(connection: psycopg.Connection[Any], commands: str) -> None:
    with connection.transaction():
        connection.execute(commands.encode())


def _check_currency(plan: Plan) -> None:
    with connect(plan) as connection:
        query = "SELECT currency, minor_digits FROM vouchers.sovereign"
        for currency, digits in connection.execute(query):
            if (currency, digits) != (plan.currency, plan.minor_digits):
                raise CurrencyMismatchError(
                    f"this ledger counts in {currency} with {digits} decimals, fixed by its first migration: "
                    f"it cannot become {plan.currency} with {plan.minor_digits}"
                )


def _create_role(name: str, connection: psycopg.Connection[Any], *, allowed: bool) -> None:
    command = sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name))
    if not allowed:
        raise MigrationError(
            f"the runtime role does not exist and may not be created from here: run, as an administrator, "
            f"{command.as_string(connection).replace('NOLOGIN', 'LOGIN')}; and then migrate again"
        )
    try:
        connection.execute(command)
    except (errors.DuplicateObject, errors.UniqueViolation):
        log.info("the runtime role was created by another session meanwhile")
