"""Compares the objects in the database with those that the migrations create, by name and by shape.

The files have IF NOT EXISTS, so that they do not change the billing service's tables. But an object with the right name
may have the wrong shape. An index that an interrupted CREATE INDEX CONCURRENTLY left behind is INVALID: PostgreSQL
maintains it and never reads it. A column with our name may be another program's. What is safe to repair is repaired (an
index of ours that is absent or INVALID is built again); everything else is refused, with a statement that repairs it.

See also: `shapes.txt` has what is expected; `preflight` calls `check_before`, and `migrate` `check_after`.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

import psycopg
from psycopg import errors

from voucher_operator.ledger.schema.session import TOO_SLOW, MigrationError, Plan, connect, retry_on_lock
from voucher_operator.ledger.statements import statement

log = logging.getLogger(__name__)

_SHAPES: Final = statement("migrate_shapes")
_UNFIT_TABLES: Final = statement("migrate_unfit")
BILLING_TABLES: Final = ("credit_ledger", "customers", "orders", "promo_codes", "promo_redemptions", "subscriptions")

Name = tuple[str, str]
"""Kind and name, as in `shapes.txt`: ('index', 'public.promo_codes_normal_code')."""

_UNFIT: Final = MappingProxyType(
    {
        "row_security": "row level security is enabled on {0}: run ALTER TABLE {0} DISABLE ROW LEVEL SECURITY",
        "unlogged": "{0} is unlogged, and empty after a crash: run ALTER TABLE {0} SET LOGGED",
        "child": "{0} is a child table of {1}: run ALTER TABLE {0} NO INHERIT {1} (or DETACH PARTITION)",
        "parent": "{0} also shows the rows of {1}: run ALTER TABLE {1} NO INHERIT {0}",
        "rule": "{0} has the rule {1}, which changes what a statement does: run DROP RULE {1} ON {0}",
        "foreign_key": "foreign keys are disabled on {0}: run, as a superuser, ALTER TABLE {0} ENABLE TRIGGER ALL",
        "required": "{0}.{1} is NOT NULL without a default, and no insert of ours knows it: give it a default",
        "strange_trigger": "the trigger {1} on {0} calls a function of the ledger: run DROP TRIGGER {1} ON {0}",
    }
)
"""Kinds of `migrate_unfit.sql`: what is wrong with table {0} and what to do; {1} is the other object."""


@dataclass(frozen=True, slots=True)
class Found:
    """The object that has a name: its shape as PostgreSQL prints it, and whether it works."""

    shape: str
    working: bool = True


@cache
def expected() -> Mapping[Name, str]:
    """Return `shapes.txt`: what the migrations create."""
    text = files("voucher_operator.ledger.schema").joinpath("shapes.txt").read_text(encoding="utf-8")
    lines = (line.split(" | ", 2) for line in text.splitlines() if not line.startswith("#"))
    return MappingProxyType({(kind, name): shape for kind, name, shape in lines})


def names(*kinds: str) -> list[str]:
    """Return the names of these kinds."""
    return [name for kind, name in expected() if kind in kinds]


def own_tables() -> set[str]:
    """Return the names of the tables that only the operator has."""
    return {_table("column", name) for name in names("column")} - {f"public.{table}" for table in BILLING_TABLES}


def read(connection: psycopg.Connection[Any]) -> dict[Name, Found]:
    """Read the objects that exist. Raises psycopg's errors."""
    indexes = [name.removeprefix("public.") for name in names("index") if name.startswith("public.")]
    rows = connection.execute(_SHAPES, {"tables": list(BILLING_TABLES), "indexes": indexes})
    found = {}
    for kind, name, shape, fault in rows:
        if ("billing", name) in expected():
            # Of the billing service's own columns only the type matters.
            found["billing", name] = Found(shape.partition(" not null")[0].partition(" default ")[0])
        else:
            found[kind, name] = Found(shape, working=not fault)
    return found


def check_before(plan: Plan) -> None:
    """Refuse tables, columns and indexes that have our names and another shape; drop INVALID indexes of ours.

    What is absent is no problem yet. Raises MigrationError before anything is changed, and psycopg's errors.
    """
    with connect(plan) as connection:
        found, problems = retry_on_lock(plan, "comparing the ledger's tables", lambda: _compare(connection))
        tables = {_table(kind, name) for kind, name in found}
        for (kind, name), shape in expected().items():
            it = found.get((kind, name))
            if kind in ("billing", "key") and it is None and _table(kind, name) in tables:
                problems.append(_absent(kind, name, shape))
            elif kind in ("billing", "column", "index") and it is not None and it.shape != shape:
                problems.append(_differs(kind, name, shape, it))
        _raise(problems)
        for name, shape in _broken(found):
            retry_on_lock(plan, f"dropping the INVALID index {name}", partial(_drop, connection, name, shape))


def check_after(plan: Plan) -> None:
    """Build our indexes that are absent; refuse everything else that differs from what the migrations create.

    Raises MigrationError, and psycopg's errors.
    """
    with connect(plan) as connection:
        found, problems = retry_on_lock(plan, "comparing the ledger's tables", lambda: _compare(connection))
        missing = []
        for (kind, name), shape in expected().items():
            it = found.get((kind, name))
            if it is None and _may_build(kind, shape):
                missing.append((name, shape))
            elif it is None:
                problems.append(_absent(kind, name, shape))
            elif it.shape != shape or not it.working:
                problems.append(_differs(kind, name, shape, it))
        _raise(problems)
        for name, shape in missing:
            _build(plan, connection, name, shape)


def _compare(connection: psycopg.Connection[Any]) -> tuple[dict[Name, Found], list[str]]:
    known = {"tables": list(BILLING_TABLES), "columns": names("billing", "column")}
    rows = connection.execute(_UNFIT_TABLES, known)
    return read(connection), [_UNFIT[kind].format(table, what) for kind, table, what in rows.fetchall()]


def _broken(found: Mapping[Name, Found]) -> Iterator[tuple[str, str]]:
    """Yield names and shapes of our indexes that are INVALID and may be built again."""
    for (kind, name), it in found.items():
        if not it.working and expected().get((kind, name)) == it.shape and _may_build(kind, it.shape):
            yield name, it.shape


def _drop(connection: psycopg.Connection[Any], name: str, shape: str) -> None:
    """Drop an INVALID index, unless a session is building it at this moment: then retry, without a lock in between."""
    with connection.transaction():
        table = shape.partition(" ON ")[2].partition(" USING ")[0]
        _run(connection, f"LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE")
        if not read(connection).get(("index", name), Found(shape)).working:
            _run(connection, f"DROP INDEX {name}")
            log.info("the index %s was INVALID and is dropped; it will be built again", name)


def _may_build(kind: str, shape: str) -> bool:
    """Return whether it is an index without a constraint: a unique one may not fit the rows."""
    return kind == "index" and not shape.startswith("CREATE UNIQUE")


def _build(plan: Plan, connection: psycopg.Connection[Any], name: str, shape: str) -> None:
    try:
        retry_on_lock(plan, f"building the index {name}", partial(_run, connection, shape))
    except errors.QueryCanceled as error:
        by_hand = shape.replace("CREATE INDEX ", "CREATE INDEX CONCURRENTLY IF NOT EXISTS ", 1)
        raise MigrationError(
            f"building the index {name} {TOO_SLOW}: run, as the tables' owner and when the Go service is not about to "
            f"start, {by_hand}; and then migrate again"
        ) from error


def _run(connection: psycopg.Connection[Any], command: str) -> None:
    connection.execute(command.encode())


def _table(kind: str, name: str) -> str:
    return name.partition(" ")[0] if kind == "key" else name.rpartition(".")[0]


def _absent(kind: str, name: str, shape: str) -> str:
    table, last = _table(kind, name), name.rpartition(".")[2]
    if kind == "billing":
        return f"column {name} ({shape}) is absent: start the current version of the billing service, which adds it"
    if kind == "key":
        return f"no unique index {name}: run CREATE UNIQUE INDEX ON {name}"
    if kind == "column":
        return f"column {name} is absent: run ALTER TABLE {table} ADD COLUMN {last} {shape}"
    if kind == "check":
        return f"constraint {name} is absent: run ALTER TABLE {table} ADD CONSTRAINT {last} {shape} NOT VALID"
    if kind == "function":
        return f"function {name} is absent: restore it from the migration that creates it"
    return f"{kind} {name} is absent: run {shape}, and verify"


def _differs(kind: str, name: str, shape: str, it: Found) -> str:
    table, last = _table(kind, name), name.rpartition(".")[2]
    if it.shape == shape:
        way = (
            f"ALTER TABLE {table} ENABLE TRIGGER {last}" if kind == "trigger" else f"REINDEX INDEX CONCURRENTLY {name}"
        )
        return f"{kind} {name} is {'disabled' if kind == 'trigger' else 'INVALID'}: run {way}, and verify"
    what = f"{kind.replace('billing', 'column')} {name} is not ours or was changed ({it.shape} instead of {shape})"
    if kind == "billing":
        return f"{what}: this version works only with the billing service's own types"
    if kind == "column":
        return f"{what}: run ALTER TABLE {table} RENAME COLUMN {last} TO another name"
    if kind == "index":
        return f"{what}: run ALTER INDEX {name} RENAME TO another name"
    if kind == "trigger":
        return f"{what}: run {shape.replace('CREATE TRIGGER', 'CREATE OR REPLACE TRIGGER', 1)}, and verify"
    if kind == "function":
        return f"{what}: restore it from the migration that creates it"
    return f"{what}: run ALTER TABLE {table} DROP CONSTRAINT {last}, ADD CONSTRAINT {last} {shape} NOT VALID"


def _raise(problems: Collection[str]) -> None:
    if problems:
        raise MigrationError(f"{'; '.join(problems)}; and then migrate again")
