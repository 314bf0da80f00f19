"""The orders of statements that take too long for every run: more preemptions, more operations, both versions.

See also: tests/ledger/test_interleavings.py and test_purchase_two_replicas.py, which have the operations and run the
orders that find most.
"""

import pytest

from testbed.postgres import Database
from tests.ledger.helpers import open_ledger
from tests.ledger.test_interleavings import (
    PAIRS,
    TWO_GRANTS_AND_AN_ISSUE,
    Given,
    Name,
    check,
    issued_in_lower_case,
    nothing,
    try_all,
)
from tests.ledger.test_purchase_two_replicas import KINDS, check_batches_without_deadlock, check_one_answer

MORE: dict[str, tuple[Given, tuple[Name, ...]]] = {
    "redeem-buy-issue": (nothing, ("redeem", "buy", "issue")),
    "buy-buy-issue": (nothing, ("buy", "buy", "issue")),
    "redeem-buy-normal-spelling": (issued_in_lower_case, ("redeem", "buy", "issue")),
    "redeem-put-respell": (nothing, ("redeem", "put", "respell")),
    "buy-go_redeem-issue": (nothing, ("buy", "go_redeem", "issue")),
}


@pytest.mark.parametrize("name", TWO_GRANTS_AND_AN_ISSUE | MORE)
async def test_cap_holds_in_every_order_of_two_grants_and_an_issue(database: Database, name: str) -> None:
    given, operations = (TWO_GRANTS_AND_AN_ISSUE | MORE)[name]
    assert await try_all(database, given, operations, preemptions=3) > 10
    await check(database)


@pytest.mark.parametrize("name", PAIRS)
async def test_invariants_hold_in_every_order_of_two_operations(database: Database, name: str) -> None:
    given, operations = PAIRS[name]
    assert await try_all(database, given, operations, preemptions=2) > 1
    await check(database, operations)


@pytest.mark.parametrize("kind", KINDS)
async def test_two_replicas_give_one_answer_in_every_order_of_statements(database: Database, kind: str) -> None:
    async with open_ledger(database.runtime_url) as ledger:
        await check_one_answer(ledger, database, kind, preemptions=2)


async def test_two_replicas_with_one_batch_wait_for_each_other_without_deadlock(database: Database) -> None:
    await check_batches_without_deadlock(database, preemptions=2)
