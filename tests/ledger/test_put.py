"""Issue, change, revoke: who owns a code, and what is put back when the row was edited outside Git."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.helpers import ON_POSTGRESQL_16, issue, open_ledger, redeem_outcome, redeem_request, rows, terms
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.types import PutOutcome, VoucherOwner, VoucherState, VoucherTerms
from voucher_operator.resources.errors import (
    CodeChangedError,
    CodeConflictError,
    CurrencyMismatchError,
    RequestRejectedError,
)

pytestmark = ON_POSTGRESQL_16

PROMO = "SELECT code, credit_omr, credit_minor, description, active, max_redemptions, deleted_at FROM promo_codes"
NEWER = datetime(2026, 2, 1, tzinfo=UTC)
FIRST = VoucherOwner("voucher-1", "billing", "first")


def second(**changes: Any) -> VoucherTerms:
    """Make the terms of another Voucher on the same code."""
    return replace(terms(uid="voucher-2", name="second", created_at=NEWER), **changes)


async def test_put_of_new_terms_issues_the_code(ledger: Ledger, database: Database) -> None:
    result = await ledger.put(terms(max_redemptions=50))
    assert (result.outcome, result.corrected, result.displaced) == (PutOutcome.ISSUED, (), None)
    assert (result.counters.uid, result.counters.state, result.counters.drifted) == (
        "voucher-1",
        VoucherState.ACTIVE,
        False,
    )
    assert await rows(database, PROMO) == [("CODE", 25, 25_500, "a voucher", True, 50, None)]
    assert await ledger.owners() == [FIRST]


async def test_put_of_the_same_terms_writes_nothing(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms())
    versions = "SELECT p.xmin, t.xmin FROM promo_codes p JOIN vouchers.terms t USING (code)"
    before = await rows(database, versions)
    assert (await ledger.put(terms())).outcome is PutOutcome.UNCHANGED
    assert await rows(database, versions) == before


@pytest.mark.parametrize(
    "change",
    [
        {"credit_minor": 1},
        {"description": "other"},
        {"active": False},
        {"max_redemptions": 7},
        {"valid_from": NEWER},
        {"valid_until": NEWER},
        {},
    ],
)
async def test_put_of_a_new_generation_updates(ledger: Ledger, change: dict[str, Any]) -> None:
    await ledger.put(terms())
    changed = terms(generation=2, **change)
    result = await ledger.put(changed)
    assert (result.outcome, result.counters.generation) == (PutOutcome.UPDATED, 2)
    assert (await ledger.put(changed)).outcome is PutOutcome.UNCHANGED


async def test_changed_credit_applies_to_later_redemptions_only(ledger: Ledger) -> None:
    await ledger.put(terms(credit_minor=10_000))
    await ledger.redeem(redeem_request(user="ahmed"))
    await ledger.put(terms(credit_minor=20_000, generation=2))
    await ledger.redeem(redeem_request(user="sara"))
    assert (await ledger.balance("ahmed"), await ledger.balance("sara")) == (10_000, 20_000)
    (counted,) = await ledger.counters()
    assert (counted.times_redeemed, counted.granted_minor) == (2, 30_000)


async def test_put_of_an_old_generation_changes_nothing(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms(generation=5, credit_minor=5_000))
    assert (await ledger.put(terms(generation=4))).outcome is PutOutcome.UNCHANGED
    assert await rows(database, "SELECT credit_minor FROM promo_codes") == [(5_000,)]
    # A cluster restored from a backup counts from an older generation: after a while it is believed.
    await rows(database, "UPDATE vouchers.terms SET updated_at = now() - interval '2 minutes'")
    assert (await ledger.put(terms(generation=4))).outcome is PutOutcome.UPDATED
    assert await rows(database, "SELECT credit_minor FROM promo_codes") == [(25_500,)]


@pytest.mark.parametrize(
    ("edit", "fields"),
    [
        ("UPDATE promo_codes SET credit_omr = 99", ("credit",)),
        ("UPDATE promo_codes SET credit_minor = 25501", ("credit",)),
        ("UPDATE promo_codes SET description = 'mine'", ("description",)),
        ("UPDATE promo_codes SET max_redemptions = 9, active = false", ("active", "maxRedemptions")),
        ("UPDATE promo_codes SET deleted_at = now(), active = false", ("active", "deleted")),
        ("DELETE FROM promo_codes", ("deleted",)),
    ],
)
async def test_drift_is_corrected(ledger: Ledger, database: Database, edit: str, fields: tuple[str, ...]) -> None:
    await ledger.put(terms())
    await rows(database, edit)
    (drifted,) = await ledger.counters()
    assert drifted.drifted
    result = await ledger.put(terms())
    assert (result.outcome, result.corrected) == (PutOutcome.DRIFT_CORRECTED, fields)
    assert not result.counters.drifted
    assert await rows(database, PROMO) == [("CODE", 25, 25_500, "a voucher", True, 0, None)]


async def test_counter_changes_are_not_drift(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms())
    await ledger.redeem(redeem_request())
    async with GoService.connect(database.owner_url) as go:
        await go.redeem(await go.customer("sara"), "CODE")
    result = await ledger.put(terms())
    assert result.outcome is PutOutcome.UNCHANGED
    assert (result.counters.times_redeemed, result.counters.granted_minor) == (2, 51_000)


async def test_negative_cap_of_the_go_service_is_not_drift(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms())
    await rows(database, "UPDATE promo_codes SET max_redemptions = -1")
    result = await ledger.put(terms())
    assert (result.outcome, result.counters.max_redemptions) == (PutOutcome.UNCHANGED, 0)


async def test_single_legacy_row_is_adopted_with_its_counter(ledger: Ledger, database: Database) -> None:
    async with GoService.connect(database.owner_url) as go:
        await go.issue(" code ", 3, max_redemptions=5)
        await go.redeem(await go.customer("ahmed"), " code ")
    result = await ledger.put(terms(max_redemptions=5))
    assert (result.outcome, result.counters.times_redeemed) == (PutOutcome.ISSUED, 1)
    assert await rows(database, PROMO) == [(" code ", 25, 25_500, "a voucher", True, 5, None)]
    assert redeem_outcome(await ledger.redeem(redeem_request("CODE", "ahmed"))) == "AlreadyRedeemed"
    assert (await ledger.put(terms(max_redemptions=5))).outcome is PutOutcome.UNCHANGED


async def test_voucher_moves_to_the_normal_spelling_when_it_appears(ledger: Ledger, database: Database) -> None:
    await issue(database, "code")
    await ledger.put(terms())
    await issue(database, "CODE", 1)
    (drifted,) = await ledger.counters()
    assert drifted.drifted
    result = await ledger.put(terms())
    assert (result.outcome, result.corrected) == (PutOutcome.DRIFT_CORRECTED, ("credit", "description", "code"))
    assert await rows(database, "SELECT code FROM vouchers.terms WHERE revoked_at IS NULL") == [("CODE",)]
    assert (await ledger.put(terms())).outcome is PutOutcome.UNCHANGED
    assert await ledger.revoke(FIRST)
    assert await ledger.counters() == []


async def test_two_other_spellings_are_not_adopted(ledger: Ledger, database: Database) -> None:
    await issue(database, "code", 1)
    await issue(database, "Code", 2)
    await ledger.put(terms())
    found = await rows(database, 'SELECT code, credit_omr FROM promo_codes ORDER BY code COLLATE "C"')
    assert found == [("CODE", 25), ("Code", 2), ("code", 1)]
    assert (await ledger.redeem(redeem_request("code"))).credit_minor == 25_500


async def test_revoked_code_is_reissued_with_its_counter(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms())
    await ledger.redeem(redeem_request())
    assert await ledger.revoke(FIRST)
    assert not await ledger.revoke(FIRST)
    assert await rows(database, "SELECT active, deleted_at IS NOT NULL FROM promo_codes") == [(False, True)]
    assert redeem_outcome(await ledger.redeem(redeem_request())) == "VoucherNotFound"
    assert (await ledger.counters(), await ledger.owners()) == ([], [])
    again = await ledger.put(terms(uid="voucher-9"))
    assert (again.outcome, again.counters.times_redeemed, again.counters.granted_minor) == (
        PutOutcome.ISSUED,
        1,
        25_500,
    )
    assert redeem_outcome(await ledger.redeem(redeem_request())) == "redeemed"


async def test_revoke_of_a_deleted_row_succeeds(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms())
    await rows(database, "DELETE FROM promo_codes")
    assert await ledger.revoke(FIRST)
    assert await ledger.owners() == []


async def test_older_voucher_keeps_its_code(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms())
    before = await rows(database, PROMO)
    with pytest.raises(CodeConflictError) as error:
        await ledger.put(second(credit_minor=1))
    assert "billing/first" in error.value.message
    assert "CODE" not in error.value.message
    assert await rows(database, PROMO) == before
    assert not await ledger.revoke(VoucherOwner("voucher-2", "billing", "second"))
    assert await ledger.owners() == [FIRST]


async def test_older_voucher_takes_the_code_from_a_newer_one(ledger: Ledger) -> None:
    newer = second()
    await ledger.put(newer)
    await ledger.redeem(redeem_request())
    result = await ledger.put(terms())
    assert (result.outcome, result.displaced) == (
        PutOutcome.ISSUED,
        VoucherOwner("voucher-2", "billing", "second"),
    )
    assert result.counters.times_redeemed == 1
    with pytest.raises(CodeConflictError):
        await ledger.put(newer)
    assert not await ledger.revoke(VoucherOwner("voucher-2", "billing", "second"))
    assert await ledger.owners() == [FIRST]


async def test_name_decides_between_vouchers_of_the_same_age(ledger: Ledger) -> None:
    await ledger.put(terms())
    assert (await ledger.put(second(created_at=terms().created_at, name="a"))).displaced == FIRST
    with pytest.raises(CodeConflictError):
        await ledger.put(terms())


async def test_recreated_voucher_keeps_the_code_and_counter(ledger: Ledger) -> None:
    """Its predecessor's deletion was never seen; its late revoke does no harm."""
    await ledger.put(terms())
    await ledger.redeem(redeem_request())
    result = await ledger.put(terms(uid="voucher-9", created_at=NEWER))
    assert (result.outcome, result.displaced, result.counters.times_redeemed) == (PutOutcome.ISSUED, None, 1)
    assert not await ledger.revoke(FIRST)
    assert redeem_outcome(await ledger.redeem(redeem_request())) == "redeemed"


async def test_revoked_code_can_be_issued_by_another_voucher(ledger: Ledger) -> None:
    await ledger.put(terms())
    await ledger.revoke(FIRST)
    result = await ledger.put(second())
    assert (result.outcome, result.displaced) == (PutOutcome.ISSUED, None)


async def test_change_of_the_code_is_refused(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms())
    with pytest.raises(CodeChangedError) as error:
        await ledger.put(terms("OTHER", generation=2))
    assert "OTHER" not in error.value.message
    assert "CODE" not in error.value.message
    assert await rows(database, "SELECT code FROM promo_codes") == [("CODE",)]


async def test_another_currency_is_refused(ledger: Ledger, database: Database) -> None:
    with pytest.raises(CurrencyMismatchError, match="OMR"):
        await ledger.put(terms(currency="USD"))
    assert await rows(database, "SELECT 1 FROM promo_codes") == []


@pytest.mark.parametrize("change", [{"description": "a\0b"}, {"credit_minor": 2**62}])
async def test_terms_that_cannot_be_stored_are_rejected(ledger: Ledger, change: dict[str, Any]) -> None:
    with pytest.raises(RequestRejectedError):
        await ledger.put(terms(**change))


async def test_states_follow_the_clock_of_postgresql(ledger: Ledger, database: Database) -> None:
    now = (await ledger.info()).now
    hour = timedelta(hours=1)
    wanted: dict[str, tuple[dict[str, Any], VoucherState]] = {
        "ACTIVE": ({"valid_from": now - hour, "valid_until": now + hour}, VoucherState.ACTIVE),
        "SCHEDULED": ({"valid_from": now + hour}, VoucherState.SCHEDULED),
        "EXPIRED": ({"valid_until": now - hour}, VoucherState.EXPIRED),
        "INACTIVE": ({"active": False, "valid_until": now - hour}, VoucherState.INACTIVE),
        "EXHAUSTED": ({"max_redemptions": 1}, VoucherState.EXHAUSTED),
        "GONE": ({}, VoucherState.INACTIVE),
    }
    for code, (change, _) in wanted.items():
        await ledger.put(terms(code, uid=code, name=code.lower(), **change))
    await ledger.redeem(redeem_request("EXHAUSTED"))
    await rows(database, "DELETE FROM promo_codes WHERE code = 'GONE'")
    assert {c.uid: c.state for c in await ledger.counters()} == {code: state for code, (_, state) in wanted.items()}
    assert [c.uid for c in await ledger.counters(["EXPIRED", "nobody"])] == ["EXPIRED"]
    assert await ledger.counters([]) == []
    assert await ledger.revoke(VoucherOwner("GONE", "billing", "gone"))


async def test_concurrent_issue_of_one_code_ends_with_the_older_voucher(ledger: Ledger, database: Database) -> None:
    async with open_ledger(database.runtime_url) as other:
        for n in range(10):
            older = terms(f"RACE-{n}", uid=f"older-{n}", name=f"older-{n}")
            newer = replace(older, uid=f"newer-{n}", name=f"newer-{n}", created_at=NEWER)
            answers = await asyncio.gather(ledger.put(older), other.put(newer), return_exceptions=True)
            assert isinstance(answers[1], CodeConflictError) or getattr(answers[0], "displaced", None) is not None
    assert {owner.name for owner in await ledger.owners()} == {f"older-{n}" for n in range(10)}


async def test_concurrent_put_of_one_voucher_issues_once(ledger: Ledger, database: Database) -> None:
    async with open_ledger(database.runtime_url) as other:
        results = await asyncio.gather(*(one_ledger.put(terms()) for one_ledger in (ledger, other) * 4))
    assert sorted(result.outcome for result in results) == ["issued"] + ["unchanged"] * 7
