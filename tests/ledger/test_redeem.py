"""What a redemption is granted or refused for, one rule a test, in a batch and alone."""

from datetime import UTC, datetime, timedelta

import pytest

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.helpers import ON_POSTGRESQL_16, in_one_batch, issue, redeem_outcome, redeem_request, rows, terms
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.types import Outcome
from voucher_operator.resources.errors import RequestRejectedError
from voucher_operator.resources.reasons import Reason

pytestmark = ON_POSTGRESQL_16


async def test_grant_writes_each_table_once(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms(credit_minor=25_500))
    asked = redeem_request(user="ahmed", tenant_id="kestrel", email="ahmed@example.com")
    result = await ledger.redeem(asked)
    assert (result.key, result.outcome, result.refusal, result.code) == (asked.key, Outcome.REDEEMED, None, "CODE")
    assert (result.credit_minor, result.replayed) == (25_500, False)
    assert await rows(database, "SELECT user_id, tenant_id, email FROM customers") == [
        ("ahmed", "kestrel", "ahmed@example.com")
    ]
    assert await rows(database, "SELECT amount_omr, amount_minor, reason, order_id FROM credit_ledger") == [
        (25, 25_500, "promo:CODE", None)
    ]
    assert await rows(database, "SELECT times_redeemed, granted_minor, last_redeemed_at FROM promo_codes") == [
        (1, 25_500, result.decided_at)
    ]
    assert await rows(database, "SELECT code FROM promo_redemptions") == [("CODE",)]
    assert await rows(
        database,
        "SELECT r.key, r.request_hash, r.uid, r.outcome, r.user_id, r.credit_minor, r.decided_at, e.amount_minor "
        "FROM vouchers.redemption r JOIN credit_ledger e ON e.id = r.grant_entry_id AND e.customer_id = r.customer_id",
    ) == [(asked.key, asked.request_hash, asked.uid, "redeemed", "ahmed", 25_500, result.decided_at, 25_500)]


async def test_balance_and_entries_show_all_grants(ledger: Ledger, database: Database) -> None:
    await issue(database, "ONE", 10)
    await issue(database, "TWO", 1, credit_minor=1_999)
    assert await ledger.balance("ahmed") == 0
    assert await ledger.entries("ahmed") == []
    await ledger.redeem(redeem_request("ONE", "ahmed"))
    await ledger.redeem(redeem_request("TWO", "ahmed"))
    assert await ledger.balance("ahmed") == 11_999
    assert [(e.amount_minor, e.reason) for e in await ledger.entries("ahmed")] == [
        (1_999, "promo:TWO"),
        (10_000, "promo:ONE"),
    ]
    assert [e.reason for e in await ledger.entries("ahmed", limit=1)] == ["promo:TWO"]


async def test_entries_of_the_same_time_have_a_stable_order(ledger: Ledger, database: Database) -> None:
    await issue(database)
    await ledger.redeem(redeem_request(user="ahmed"))
    await rows(
        database,
        "INSERT INTO credit_ledger (customer_id, amount_omr, reason, created_at) "
        "SELECT c.id, 1, 'gift', now() + interval '1 hour' FROM customers AS c, generate_series(1, 9)",
    )
    found = [e.id for e in await ledger.entries("ahmed", limit=20)]
    assert found[:9] == sorted(found[:9])
    for limit in (1, 5, 9, 10):
        assert [e.id for e in await ledger.entries("ahmed", limit)] == found[:limit]


async def test_redemption_does_not_change_tenant_and_email_of_the_customer(ledger: Ledger, database: Database) -> None:
    await rows(database, "INSERT INTO customers (user_id, tenant_id, email) VALUES ('ahmed', 'first', 'a@example.com')")
    await issue(database)
    await ledger.redeem(redeem_request(user="ahmed", tenant_id="second", email="b@example.com"))
    assert await rows(database, "SELECT tenant_id, email FROM customers") == [("first", "a@example.com")]


async def test_refused_request_creates_no_customer(ledger: Ledger, database: Database) -> None:
    await issue(database, active=False)
    await ledger.redeem(redeem_request())
    assert await rows(database, "SELECT 1 FROM customers") == []


async def test_unknown_and_revoked_codes_get_the_same_result(ledger: Ledger, database: Database) -> None:
    await issue(database, "REVOKED", deleted_at=datetime(2026, 1, 1, tzinfo=UTC), active=False)
    await issue(database, "  ")
    answers = await in_one_batch(ledger, [redeem_request(code) for code in ("UNKNOWN", "REVOKED", "", " \t")])
    assert {(a.outcome, a.refusal, a.code, a.credit_minor, a.replayed, a.decided_at) for a in answers} == {
        (Outcome.REFUSED, Reason.VOUCHER_NOT_FOUND, None, 0, False, answers[0].decided_at)
    }
    recorded = await rows(database, "SELECT DISTINCT code, customer_id, reason FROM vouchers.redemption")
    assert recorded == [(None, None, "VoucherNotFound")]


async def test_provisional_refusal_is_not_kept(ledger: Ledger, database: Database) -> None:
    early = redeem_request("LATE", provisional=True)
    assert redeem_outcome(await ledger.redeem(early)) == "VoucherNotFound"
    assert await rows(database, "SELECT 1 FROM vouchers.redemption") == []
    await issue(database, "LATE")
    assert redeem_outcome(await ledger.redeem(early)) == "redeemed"


async def test_any_other_provisional_refusal_is_kept(ledger: Ledger, database: Database) -> None:
    await issue(database, active=False)
    await ledger.redeem(redeem_request(provisional=True))
    assert await rows(database, "SELECT reason, code FROM vouchers.redemption") == [("VoucherInactive", "CODE")]


async def test_inactive_code_is_refused(ledger: Ledger, database: Database) -> None:
    await issue(database, active=False)
    assert redeem_outcome(await ledger.redeem(redeem_request())) == "VoucherInactive"


@pytest.mark.parametrize(
    ("begins", "ends", "answer"),
    [
        (timedelta(hours=1), None, "VoucherNotYetValid"),
        (timedelta(hours=-1), timedelta(hours=1), "redeemed"),
        (None, timedelta(hours=-1), "VoucherExpired"),
    ],
)
async def test_validity_window_decides_the_result(
    ledger: Ledger, begins: timedelta | None, ends: timedelta | None, answer: str
) -> None:
    now = (await ledger.info()).now
    await ledger.put(terms(valid_from=begins and now + begins, valid_until=ends and now + ends))
    assert redeem_outcome(await ledger.redeem(redeem_request())) == answer


async def test_window_of_revoked_terms_is_ignored(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms(valid_until=datetime(2020, 1, 1, tzinfo=UTC)))
    await rows(database, "UPDATE vouchers.terms SET revoked_at = now()")
    assert redeem_outcome(await ledger.redeem(redeem_request())) == "redeemed"


async def test_refusal_reasons_have_a_fixed_priority(ledger: Ledger) -> None:
    """Inactive before the window, the window before an earlier use, an earlier use before the cap."""
    live = terms(max_redemptions=1)
    await ledger.put(live)
    await ledger.redeem(redeem_request(user="ahmed"))
    assert redeem_outcome(await ledger.redeem(redeem_request(user="ahmed"))) == "AlreadyRedeemed"
    assert redeem_outcome(await ledger.redeem(redeem_request(user="other"))) == "RedemptionLimitReached"
    over = terms(max_redemptions=1, generation=2, valid_until=datetime(2020, 1, 1, tzinfo=UTC))
    await ledger.put(over)
    assert redeem_outcome(await ledger.redeem(redeem_request(user="ahmed"))) == "VoucherExpired"
    await ledger.put(terms(max_redemptions=1, generation=3, valid_until=over.valid_until, active=False))
    assert redeem_outcome(await ledger.redeem(redeem_request(user="ahmed"))) == "VoucherInactive"


async def test_cap_is_used_in_order_of_arrival(ledger: Ledger, database: Database) -> None:
    await issue(database, "CAPPED", max_redemptions=3, times_redeemed=0)
    await issue(database, "OTHER", max_redemptions=1)
    batch = [
        redeem_request("CAPPED"),
        redeem_request("OTHER"),
        redeem_request("CAPPED"),
        redeem_request("OTHER"),
        redeem_request("CAPPED"),
        redeem_request("CAPPED"),
    ]
    assert [redeem_outcome(a) for a in await in_one_batch(ledger, batch)] == [
        "redeemed",
        "redeemed",
        "redeemed",
        "RedemptionLimitReached",
        "redeemed",
        "RedemptionLimitReached",
    ]


async def test_refused_requests_do_not_use_the_cap(ledger: Ledger, database: Database) -> None:
    await issue(database, max_redemptions=2)
    await ledger.redeem(redeem_request(user="ahmed"))
    batch = [redeem_request(user="ahmed"), redeem_request(user="ahmed"), redeem_request(user="sara")]
    assert [redeem_outcome(a) for a in await in_one_batch(ledger, batch)] == [
        "AlreadyRedeemed",
        "AlreadyRedeemed",
        "redeemed",
    ]


@pytest.mark.parametrize("cap", [0, -1])
async def test_cap_of_zero_or_less_means_no_cap(ledger: Ledger, database: Database, cap: int) -> None:
    await issue(database, max_redemptions=cap)
    assert {redeem_outcome(a) for a in await in_one_batch(ledger, [redeem_request() for _ in range(30)])} == {
        "redeemed"
    }


async def test_same_customer_twice_in_a_batch_is_granted_once(ledger: Ledger, database: Database) -> None:
    await issue(database)
    await issue(database, "FULL", max_redemptions=1, times_redeemed=1, uses_at_cap=1)
    batch = [
        redeem_request(user="ahmed"),
        redeem_request(" code ", user="ahmed"),
        redeem_request("FULL", "ahmed"),
        redeem_request("FULL", "ahmed"),
    ]
    assert [redeem_outcome(a) for a in await in_one_batch(ledger, batch)] == [
        "redeemed",
        "AlreadyRedeemed",
        "RedemptionLimitReached",
        "RedemptionLimitReached",
    ]
    await rows(database, "UPDATE promo_codes SET times_redeemed = 0 WHERE code = 'FULL'")


async def test_new_customer_with_two_codes_in_a_batch_is_created_once(ledger: Ledger, database: Database) -> None:
    await issue(database, "ONE")
    await issue(database, "TWO")
    batch = [redeem_request("ONE", "ahmed"), redeem_request("TWO", "ahmed", tenant_id="second")]
    assert [redeem_outcome(a) for a in await in_one_batch(ledger, batch)] == ["redeemed", "redeemed"]
    assert await rows(database, "SELECT user_id, tenant_id FROM customers") == [("ahmed", "tenant")]
    assert await ledger.balance("ahmed") == 20_000


async def test_single_other_spelling_is_found(ledger: Ledger, database: Database) -> None:
    await issue(database, " summer ")
    result = await ledger.redeem(redeem_request("SUMMER", "ahmed"))
    assert (redeem_outcome(result), result.code) == ("redeemed", " summer ")
    assert redeem_outcome(await ledger.redeem(redeem_request("Summer\n", "ahmed"))) == "AlreadyRedeemed"
    assert [e.reason for e in await ledger.entries("ahmed")] == ["promo: summer "]


async def test_normal_spelling_wins_over_another(ledger: Ledger, database: Database) -> None:
    await issue(database, "summer", 1)
    async with GoService.connect(database.owner_url) as go:
        await go.redeem(await go.customer("ahmed"), "summer")
    await issue(database, "SUMMER", 5)
    result = await ledger.redeem(redeem_request("summer", "sara"))
    assert (redeem_outcome(result), result.code, result.credit_minor) == ("redeemed", "SUMMER", 5_000)
    assert redeem_outcome(await ledger.redeem(redeem_request("SUMMER", "ahmed"))) == "AlreadyRedeemed"


async def test_two_other_spellings_are_not_found(ledger: Ledger, database: Database) -> None:
    await issue(database, "summer")
    await issue(database, "Summer")
    assert redeem_outcome(await ledger.redeem(redeem_request("SUMMER"))) == "VoucherNotFound"


async def test_legacy_row_without_credit_grants_zero(ledger: Ledger, database: Database) -> None:
    """The Go service takes such codes, so it counts as used; a negative one takes nothing from the customer."""
    await issue(database, "ZERO", 0)
    await issue(database, "MINUS", -5)
    results = await in_one_batch(ledger, [redeem_request("ZERO", "ahmed"), redeem_request("MINUS", "ahmed")])
    assert [(redeem_outcome(r), r.credit_minor) for r in results] == [("redeemed", 0), ("redeemed", 0)]
    assert await ledger.balance("ahmed") == 0


@pytest.mark.parametrize("field", ["code", "user_id", "tenant_id", "email", "uid", "key", "request_hash"])
async def test_special_characters_are_stored_unchanged(ledger: Ledger, database: Database, field: str) -> None:
    await issue(database)
    strange = 'NULL", \\"{}\' %s %(key)s $1 \n\t\x01\u00e9\U0001f600'
    asked = redeem_request(**{field: strange})
    await ledger.redeem(asked)
    if field == "code":
        assert await rows(database, "SELECT reason FROM vouchers.redemption") == [("VoucherNotFound",)]
    else:
        table = "customers" if field in ("tenant_id", "email") else "vouchers.redemption"
        assert await rows(database, f"SELECT {field} FROM {table}") == [(strange,)]


@pytest.mark.parametrize("bad", ["\0", "a\0b", "\ud800"])
async def test_request_that_cannot_be_stored_is_rejected(ledger: Ledger, database: Database, bad: str) -> None:
    await issue(database)
    for field in ("code", "user_id", "tenant_id", "email", "uid", "key", "request_hash"):
        with pytest.raises(RequestRejectedError) as error:
            await ledger.redeem(redeem_request(**{field: bad}))
        assert "\0" not in error.value.message
    assert await rows(database, "SELECT 1 FROM vouchers.redemption") == []


async def test_credit_beyond_the_column_type_is_rejected(ledger: Ledger, database: Database) -> None:
    await issue(database, granted_minor=2**63 - 1)
    with pytest.raises(RequestRejectedError):
        await ledger.redeem(redeem_request())
    await rows(database, "UPDATE promo_codes SET granted_minor = 0")
