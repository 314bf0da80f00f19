"""Stripe's own mock accepts every request that we make, in the API version that we name."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from testbed.stripe import StripeMock
from tests.payments.helpers import LINES, settings
from voucher_operator.ledger.purchase.types import Purchase, PurchaseState
from voucher_operator.payments import stripe_calls, stripe_requests
from voucher_operator.payments.currency import rules
from voucher_operator.payments.stripe_gateway import StripeGateway
from voucher_operator.resources.errors import PaymentRejectedError
from voucher_operator.resources.keys import Key

OMR = rules("OMR")


def purchase(**changes: Any) -> Purchase:
    now = datetime.now(UTC)
    made = Purchase(
        key=Key("billing/kestrel-1"),
        uid="uid",
        order_id="0e6f0f9e-5c4c-4d5e-9d0e-000000000001",
        state=PurchaseState.PENDING,
        reason=None,
        user_id="ahmed",
        customer_id="0e6f0f9e-5c4c-4d5e-9d0e-000000000002",
        tenant_id="kestrel",
        email="ahmed@example.com",
        plan_id="l",
        apps=(),
        addons=("backup", "waf"),
        lines=LINES,
        subdomain="kestrel",
        total_minor=19_000,
        held_minor=10_000,
        due_minor=9_000,
        granted_minor=0,
        stripe_customer_id=None,
        session_id=None,
        checkout_url=None,
        session_expires_at=None,
        placed_at=now,
        deadline_at=now + timedelta(minutes=15),
        settled_at=None,
        overdue=False,
        request_hash="hash",
        redeemed=False,
    )
    return replace(made, **changes)


@pytest.fixture
async def gateway(stripe_mock: StripeMock) -> AsyncIterator[StripeGateway]:
    made = StripeGateway(settings(stripe_mock.url, stripe_api_key="sk_test_123"))
    yield made
    await made.close()


async def test_mock_accepts_customer_and_coupon(gateway: StripeGateway) -> None:
    assert (await gateway.customer(purchase())).startswith("cus_")
    assert await gateway.coupon(purchase(), OMR) == "credit-0e6f0f9e-5c4c-4d5e-9d0e-000000000001"
    assert await gateway.coupon(purchase(held_minor=0), OMR) is None


@pytest.mark.parametrize("coupon", ["credit-1", None])
@pytest.mark.parametrize("price", ["price_1", None])
async def test_mock_accepts_the_session(gateway: StripeGateway, coupon: str | None, price: str | None) -> None:
    """The mock answers with a fixture without an amount: that answer shows that it accepted the parameters."""
    lines = (replace(LINES[0], stripe_price_id=price), *LINES[1:])
    with pytest.raises(PaymentRejectedError, match="another amount"):
        await gateway.session(purchase(lines=lines), "cus_1", coupon, OMR)


async def test_mock_accepts_reads_expire_and_cancel(gateway: StripeGateway) -> None:
    assert (await gateway.retrieve("cs_test_1")).id.startswith("cs_")
    assert await gateway.open_sessions(purchase(stripe_customer_id="cus_1")) == []
    assert await gateway.first_payment("pi_1") is None
    assert not (await gateway.money("in_1")).refunded
    assert await gateway.session_of("sub_1") is None
    await gateway.expire("cs_test_1")
    assert await gateway.subscriptions(purchase(stripe_customer_id="cus_1")) == []
    await gateway.unsubscribe("sub_1")


async def test_mock_refuses_an_unknown_parameter(gateway: StripeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the tests above could not fail."""
    asked = stripe_requests.customer(purchase(), "x")
    monkeypatch.setattr(stripe_requests, "customer", lambda *_: {**asked, "favourite_colour": "green"})
    with pytest.raises(PaymentRejectedError, match="Stripe refuses the checkout"):
        await gateway.customer(purchase())


async def test_mock_refuses_another_api_version(gateway: StripeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe_calls, "API_VERSION", "2020-01-01")
    with pytest.raises(PaymentRejectedError):
        await gateway.customer(purchase())


def test_idempotency_keys_are_opaque_and_one_per_step() -> None:
    long = purchase(key="n" * 253 + "/" + "m" * 253)
    keys = [
        str(stripe_requests.once(one, step)["idempotency_key"]) for one in (purchase(), long) for step in ("a", "b")
    ]
    assert len(set(keys)) == 4
    assert all(len(key) <= 255 and "kestrel" not in key and "nnn" not in key for key in keys)
    assert keys[0] == stripe_requests.once(replace(purchase(), email="other@example.com"), "a")["idempotency_key"]


def test_session_request_has_labels_amounts_and_urls() -> None:
    asked = stripe_requests.session(purchase(), "cus_1", "credit-1", settings(), OMR)
    labels = {
        "order_id": "0e6f0f9e-5c4c-4d5e-9d0e-000000000001",
        "tenant_id": "kestrel",
        "sovereign": "omantel.example.com",
    }
    assert asked["metadata"] == asked["subscription_data"]["metadata"] == labels
    assert asked["discounts"] == [{"coupon": "credit-1"}]
    assert "allow_promotion_codes" not in asked
    assert [item["price_data"]["unit_amount"] for item in asked["line_items"]] == [16_000, 3_000]
    assert {item["price_data"]["currency"] for item in asked["line_items"]} == {"omr"}
    assert "discounts" not in stripe_requests.session(purchase(), "cus_1", None, settings(), OMR)
    assert "cancel_url" not in stripe_requests.session(purchase(), "cus_1", None, settings(checkout_cancel_url=""), OMR)


def test_requests_depend_on_the_purchase_alone() -> None:
    """A second try an hour later must say the same under the same key."""
    one = purchase()
    later = replace(one, overdue=True, deadline_at=one.deadline_at + timedelta(hours=1))
    assert stripe_requests.session(one, "c", None, settings(), OMR) == stripe_requests.session(
        later, "c", None, settings(), OMR
    )
