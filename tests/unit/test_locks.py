"""`ledger.locks` has what the SQL locks: each statement with the same tables, each use case in the one order."""

import re
from collections.abc import Iterator

import pytest

from voucher_operator.ledger.locks import EXCEPTIONS, SKIP_LOCKED, STATEMENTS, USE_CASES, Lock, locks_of, sequence
from voucher_operator.ledger.statements import registry, statement

NEW_IDS = {"credit_ledger", "orders", "outbox"}
"""Tables whose new rows have a random id: an INSERT into them waits for nobody."""
FUNCTIONS = {
    "pg_advisory_xact_lock": Lock.VOUCHER,
    "vouchers.lock_account": Lock.ACCOUNT,
    "vouchers.open_account": Lock.ACCOUNT,
    "vouchers.take_back_redemption": Lock.PROMO_REDEMPTIONS,
}
CLAUSE = re.compile(r"\bFOR (?:NO KEY UPDATE|UPDATE|KEY SHARE|SHARE)\b(?: OF (\w+))?")


def sql(name: str) -> str:
    """Return a statement without its comments, on one line."""
    return " ".join(re.sub(r"--.*", "", statement(name).decode()).split())


def lock_of(table: str) -> Lock:
    return Lock[table.removeprefix("vouchers.").upper()]


def selected(text: str, clause: re.Match[str]) -> Iterator[str]:
    """Return the tables of the SELECT that a locking clause ends; those of its subqueries are not locked."""
    depth, level = 0, []
    for character in reversed(text[: clause.start()]):
        depth += {")": 1, "(": -1}.get(character, 0)
        if depth < 0:
            break
        if depth == 0:
            level.append(character)
    for table, alias in re.findall(r"\b(?:FROM|JOIN) ([\w.]+) AS (\w+)", "".join(reversed(level))):
        if clause[1] in (None, alias):
            yield table


def found_locks(text: str) -> set[Lock]:
    """Return what a statement locks, by its text."""
    found = {lock_of(table) for clause in CLAUSE.finditer(text) for table in selected(text, clause)}
    found |= {lock_of(table) for table in re.findall(r"\bDELETE FROM ([\w.]+)", text)}
    found |= {lock_of(table) for table in re.findall(r"(?<!FOR )(?<!KEY )(?<!DO )UPDATE ([\w.]+)", text)}
    inserted = re.findall(r"INSERT INTO ([\w.]+)(?: AS \w+)? \(([^)]*)\)", text)
    found |= {lock_of(table) for table, _ in inserted if table.removeprefix("vouchers.") not in NEW_IDS}
    # By trigger: a new customer gets an account, and an entry without the balance after it is added to one.
    if any(
        table == "customers" or (table == "credit_ledger" and "balance_minor" not in names) for table, names in inserted
    ):
        found.add(Lock.ACCOUNT)
    return found | {lock for name, lock in FUNCTIONS.items() if f"{name}(" in text}


def writes(text: str) -> bool:
    return bool(found_locks(text)) or "INSERT INTO" in text


@pytest.mark.parametrize("name", sorted(registry()))
def test_listed_locks_are_those_of_the_text(name: str) -> None:
    text = sql(name)
    assert writes(text) is (name in STATEMENTS)
    assert found_locks(text) == set(STATEMENTS.get(name, ()))
    assert ("SKIP LOCKED" in text) is (name in SKIP_LOCKED)


def test_every_listed_statement_exists_and_has_a_use_case() -> None:
    assert set(STATEMENTS) <= set(registry())
    assert set(STATEMENTS) <= {name for names in USE_CASES.values() for name in names}


def out_of_order(use_case: str) -> set[Lock]:
    taken = sequence(use_case)
    return {lock for n, lock in enumerate(taken) if any(before > lock for before in taken[:n])}


@pytest.mark.parametrize("use_case", USE_CASES)
def test_use_case_takes_its_locks_in_order_or_is_an_explained_exception(use_case: str) -> None:
    assert out_of_order(use_case) == {lock for name, lock in EXCEPTIONS if name == use_case}


def test_exceptions_are_of_use_cases_that_exist() -> None:
    assert {use_case for use_case, _ in EXCEPTIONS} <= set(USE_CASES)


@pytest.mark.parametrize(
    ("text", "locked"),
    [
        (
            "SELECT 1 FROM promo_codes AS p WHERE p.code = (SELECT t.code FROM vouchers.terms AS t) FOR NO KEY UPDATE",
            "PROMO_CODES",
        ),
        ("SELECT 1 FROM orders AS o JOIN customers AS c ON true FOR UPDATE OF c", "CUSTOMERS"),
        ("WITH x AS (UPDATE orders AS o SET status = 'failed' RETURNING 1) SELECT 1 FROM promo_codes AS p", "ORDERS"),
        ("INSERT INTO credit_ledger (id, customer_id) VALUES (1, 2)", "ACCOUNT"),
    ],
)
def test_reader_of_the_text_finds_the_locked_table_alone(text: str, locked: str) -> None:
    assert found_locks(text) == {Lock[locked]}


def test_name_that_is_not_listed_is_refused() -> None:
    with pytest.raises(KeyError):
        locks_of("voucher_put_read")
