"""Buying: what is held, what is due, and what is written."""

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.helpers import issue, open_ledger, redeem_request, rows, terms
from tests.ledger.purchase_helpers import (
    add_credit,
    events,
    place_purchase,
    purchase_outcome,
    purchase_request,
    row_counts,
)
from tests.ledger.test_purchase_refused import NOTHING
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import PurchaseState
from voucher_operator.ledger.types import Outcome
from voucher_operator.resources.reasons import Reason


async def test_credit_of_the_code_covers_the_order(ledger18: Ledger, database18: Database) -> None:
    await ledger18.put(terms())
    request = purchase_request(9_500, "code", "ahmed")
    result = await ledger18.purchase(request)
    purchase = result.purchase
    assert purchase is not None
    assert (result.key, result.replayed, result.refusal) == (request.key, False, None)
    assert result.redeemed is not None
    assert (result.redeemed.outcome, result.redeemed.credit_minor) == (Outcome.REDEEMED, 25_500)
    assert (purchase.state, purchase.held_minor, purchase.due_minor) == (PurchaseState.COMPLETED, 9_500, 0)
    assert (purchase.total_minor, purchase.granted_minor, purchase.overdue) == (9_500, 25_500, False)
    assert (purchase.lines, purchase.apps, purchase.addons) == (request.lines, ("shop",), ("waf",))
    assert (purchase.settled_at, purchase.deadline_at > purchase.placed_at) == (purchase.placed_at, True)
    assert await ledger18.balance("ahmed") == 16_000
    assert await rows(
        database18,
        "SELECT id::text, tenant_id, plan_id, apps, addons, amount_omr, amount_baisa, status, promo_code, "
        "stripe_session_id FROM orders",
    ) == [(purchase.order_id, "tenant", "m", ["shop"], ["waf"], 10, 9_500, "completed", "CODE", None)]
    assert await rows(
        database18, "SELECT amount_omr, amount_minor, order_id FROM credit_ledger WHERE reason = 'order-payment'"
    ) == [(-9, -9_500, purchase.order_id)]
    assert await rows(database18, "SELECT id::text, plan_id, status, stripe_subscription_id FROM subscriptions") == [
        (purchase.order_id, "m", "active", None)
    ]


async def test_covered_order_writes_its_events(ledger18: Ledger, database18: Database) -> None:
    await ledger18.put(terms())
    request = purchase_request(9_500, "CODE", "ahmed")
    purchase = await place_purchase(ledger18, request)
    voucher = {"code": "CODE", "namespace": "billing", "name": "first", "credit_minor": 25_500, "currency": "OMR"}
    assert await events(database18) == [
        ("voucher.issued", "", voucher),
        (
            "voucher.redeemed",
            "tenant",
            {**voucher, "key": request.key, "customer_id": purchase.customer_id, "user_id": "ahmed"},
        ),
        (
            "order.placed",
            "tenant",
            {
                "id": purchase.order_id,
                "customer_id": purchase.customer_id,
                "tenant_id": "tenant",
                "plan_id": "m",
                "apps": ["shop"],
                "addons": ["waf"],
                "amount_omr": 10,
                "amount_baisa": 9_500,
                "status": "completed",
                "subdomain": "kestrel",
            },
        ),
    ]


async def test_partly_covered_order_holds_credit_and_waits_for_payment(ledger18: Ledger, database18: Database) -> None:
    await ledger18.put(terms(credit_minor=10_000))
    await add_credit(database18, "ahmed", 1_000)
    request = purchase_request(50_000, "CODE", "ahmed")
    purchase = await place_purchase(ledger18, request)
    assert (purchase.state, purchase.held_minor, purchase.due_minor) == (PurchaseState.PENDING, 11_000, 39_000)
    assert (purchase.granted_minor, purchase.settled_at, purchase.session_id) == (10_000, None, None)
    assert await ledger18.balance("ahmed") == 0
    assert await rows(database18, "SELECT status, amount_omr, amount_baisa FROM orders") == [("pending", 50, 50_000)]
    assert await rows(database18, "SELECT 1 FROM subscriptions") == []
    assert await events(database18, "order.placed") == []
    assert await ledger18.open_purchases(10) == [purchase]
    assert await ledger18.purchase_of(request.key) == purchase


# balance, total, the card's step and minimum; what is held and what is due
ALLOWED = [
    (10_000, 50_000, 10, 200, 10_000, 40_000),
    (10_001, 50_000, 10, 200, 10_000, 40_000),
    (10_009, 50_000, 10, 200, 10_000, 40_000),
    (49_999, 50_000, 10, 200, 49_800, 200),
    (49_801, 50_000, 10, 200, 49_800, 200),
    (49_800, 50_000, 10, 200, 49_800, 200),
    (49_799, 50_000, 10, 200, 49_790, 210),
    (49_999, 50_000, 10, 195, 49_800, 200),
    (49_999, 50_000, 1, 0, 49_999, 1),
    (50_000, 50_000, 10, 200, 50_000, 0),
    (0, 50_000, 10, 200, 0, 50_000),
    (0, 50_005, 10, 200, None, None),
    (5, 205, 10, 200, 5, 200),
    (100, 205, 10, 200, 5, 200),
    (205, 205, 10, 200, 205, 0),
    (0, 0, 10, 200, 0, 0),
    (7, 0, 10, 200, 0, 0),
    # The least that a card can pay is more than the order: holding less credit does not help.
    (0, 199, 10, 200, None, None),
    (198, 199, 10, 200, None, None),
    (0, 205, 10, 200, None, None),
    (4, 205, 10, 200, None, None),
]


async def test_due_amount_follows_the_currency_rules(ledger18: Ledger, database18: Database) -> None:
    for n, (balance, total, step, minimum, held, due) in enumerate(ALLOWED):
        await add_credit(database18, f"user-{n}", balance)
        result = await ledger18.purchase(
            purchase_request(total, "", f"user-{n}", step_minor=step, minimum_minor=minimum)
        )
        if held is None:
            assert (result.refusal, result.purchase) == (Reason.INVALID_ORDER, None), ALLOWED[n]
        else:
            assert result.purchase is not None, ALLOWED[n]
            assert (result.purchase.held_minor, result.purchase.due_minor) == (held, due), ALLOWED[n]
        assert await ledger18.balance(f"user-{n}") == balance - (held or 0)


async def test_order_of_price_zero_is_completed(ledger18: Ledger, database18: Database) -> None:
    purchase = await place_purchase(ledger18, purchase_request(0, "", "ahmed", payable=False))
    assert (purchase.state, purchase.held_minor, purchase.due_minor) == (PurchaseState.COMPLETED, 0, 0)
    assert await row_counts(database18) == NOTHING | {
        "customers": 1,
        "orders": 1,
        "subscriptions": 1,
        "vouchers.purchase": 1,
        "vouchers.outbox": 1,
    }


async def test_order_without_code_is_paid_from_the_balance(ledger18: Ledger, database18: Database) -> None:
    await add_credit(database18, "ahmed", 10_000)
    result = await ledger18.purchase(purchase_request(9_000, "", "ahmed", payable=False))
    assert (purchase_outcome(result), result.redeemed) == ("completed", None)
    assert result.purchase is not None
    assert result.purchase.granted_minor == 0
    assert await rows(database18, "SELECT promo_code FROM orders") == [(None,)]
    assert await ledger18.balance("ahmed") == 1_000


async def test_order_does_not_change_tenant_and_email_of_the_customer(ledger18: Ledger, database18: Database) -> None:
    """They are those of the first checkout; the order has its own."""
    await add_credit(database18, "ahmed", 10_000, "first")
    purchase = await place_purchase(ledger18, purchase_request(9_000, "", "ahmed", any_tenant=True))
    assert (purchase.tenant_id, purchase.email) == ("tenant", "someone@example.com")
    assert await rows(database18, "SELECT tenant_id, email FROM customers") == [("first", "first@example.com")]


async def test_negative_balance_holds_nothing(database18: Database) -> None:
    """Two of its checkouts at once can spend more than there is: nothing is held then, and `verify` reports it."""
    async with open_ledger(database18.runtime_url) as ledger, GoService.connect(database18.owner_url) as go:
        await issue(database18, "TEN", 10)
        customer = await go.customer("ahmed")
        await go.redeem(customer, "TEN")
        await go.spend(customer, 9)
        await go.spend(customer, 9)
        purchase = await place_purchase(ledger, purchase_request(50_000, "", "ahmed"))
        assert (purchase.held_minor, purchase.due_minor) == (0, 50_000)
        await issue(database18, "MORE", 20)
        purchase = await place_purchase(ledger, purchase_request(50_000, "MORE", "ahmed"))
        assert (purchase.held_minor, purchase.due_minor) == (12_000, 38_000)
        assert (
            purchase_outcome(await ledger.purchase(purchase_request(1_000, "", "ahmed", payable=False)))
            == "PaymentProcessorNotConfigured"
        )


async def test_events_contain_no_secret_code(ledger18: Ledger, database18: Database) -> None:
    await ledger18.put(terms("HUSH-1", from_secret=True, credit_minor=1_000))
    request = purchase_request(50_000, "HUSH-1", "ahmed")
    await place_purchase(ledger18, request)
    await ledger18.compensate(request.key, Reason.PAYMENT_REJECTED)
    await ledger18.revoke((await ledger18.owners())[0])
    seen = await events(database18)
    assert [kind for kind, _, _ in seen] == [
        "voucher.issued",
        "voucher.redeemed",
        "redemption.rolled_back",
        "voucher.revoked",
    ]
    for _, _, data in seen:
        assert (data["namespace"], data["name"], data["credit_minor"]) == ("billing", "first", 1_000)
        assert "HUSH" not in str(data)
    # Whoever brings the code back: it is the same secret, though the window that its Voucher had is no longer one.
    await rows(database18, "UPDATE promo_codes SET deleted_at = NULL, active = true")
    await rows(database18, "UPDATE vouchers.terms SET valid_until = now() - interval '1 day'")
    assert (await ledger18.redeem(redeem_request("HUSH-1"))).refusal is None
    assert len(await events(database18, "voucher.redeemed")) == 2
    assert "HUSH" not in str(await events(database18))


async def test_voucher_events_are_written_once_per_change(ledger18: Ledger, database18: Database) -> None:
    await ledger18.put(terms())
    await ledger18.put(terms())
    await ledger18.put(terms(generation=2, credit_minor=1_000))
    owner = (await ledger18.owners())[0]
    await ledger18.revoke(owner)
    await ledger18.revoke(owner)
    await ledger18.put(terms(generation=2, credit_minor=1_000))
    data = {"code": "CODE", "namespace": "billing", "name": "first", "currency": "OMR"}
    assert await events(database18) == [
        ("voucher.issued", "", data | {"credit_minor": 25_500}),
        ("voucher.revoked", "", data | {"credit_minor": 1_000}),
        ("voucher.issued", "", data | {"credit_minor": 1_000}),
    ]
