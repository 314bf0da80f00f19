"""Helpers to place purchases and to read what they wrote."""

from dataclasses import replace
from typing import Any

from testbed.postgres import Database
from tests.ledger.helpers import redeem_request, rows
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import Line, Purchase, PurchaseRequest, PurchaseResult
from voucher_operator.ledger.types import RedeemRequest
from voucher_operator.resources.reasons import Reason


def purchase_request(
    total: int = 9_000, code: str = "", user: str | None = None, redeem: RedeemRequest | None = None, **changes: Any
) -> PurchaseRequest:
    """Make a request to buy plan `m` and an add-on, with a key of its own. Stripe is there, with OMR's rules."""
    made = PurchaseRequest(
        redeem=redeem or redeem_request(code, user),
        plan_id="m",
        apps=("shop",),
        addons=("waf",),
        lines=(Line("plan", "m", "m", "Medium", total, "price_1"), Line("addon", "waf", "waf", "Firewall", 0)),
        total_minor=total,
        subdomain="kestrel",
        payable=True,
        step_minor=10,
        minimum_minor=200,
        deadline_seconds=900,
        any_tenant=False,
    )
    return replace(made, **changes)


def with_redeem_changes(request: PurchaseRequest, **changes: Any) -> PurchaseRequest:
    """Return the same request with another key, uid or hash."""
    return replace(request, redeem=replace(request.redeem, **changes))


async def place_purchase(ledger: Ledger, request: PurchaseRequest) -> Purchase:
    """Buy, and expect that it is placed."""
    result = await ledger.purchase(request)
    assert result.purchase is not None, result
    return result.purchase


async def undone(ledger: Ledger, redeem: RedeemRequest) -> Purchase:
    """Redeem a code with an order that a card has to pay the rest of, and take both back before there is a checkout."""
    placed = await place_purchase(ledger, purchase_request(50_000_000, redeem=redeem))
    assert placed.redeemed
    taken = await ledger.compensate(placed.key, Reason.ABANDONED)
    assert taken is not None
    return taken


def purchase_outcome(result: PurchaseResult) -> str:
    """Return the refusal of a request, or the purchase's state."""
    return str(result.refusal or (result.purchase and result.purchase.state))


async def add_credit(database: Database, user: str, credit_minor: int, tenant: str = "tenant") -> str:
    """Put credit, or debts, on a customer's account; the customer's id."""
    found = await rows(
        database,
        "WITH c AS (INSERT INTO customers (user_id, tenant_id, email) VALUES (%s, %s, 'first@example.com') "
        "ON CONFLICT (user_id) DO UPDATE SET email = excluded.email RETURNING id), "
        "e AS (INSERT INTO credit_ledger (customer_id, amount_omr, amount_minor, reason) "
        "SELECT id, vouchers.floor_to_major(%s), %s, 'gift' FROM c) SELECT id::text FROM c",
        user,
        tenant,
        credit_minor,
        credit_minor,
    )
    return str(found[0][0])


async def events(database: Database, kind: str = "%") -> list[tuple[str, str, dict[str, Any]]]:
    """Type, tenant and data of the events that wait, in order."""
    return [
        (row[0], row[1], row[2])
        for row in await rows(
            database, "SELECT type, tenant_id, data FROM vouchers.outbox WHERE type LIKE %s ORDER BY seq", kind
        )
    ]


async def row_counts(database: Database) -> dict[str, int]:
    """Count the rows of every table that buying writes."""
    tables = (
        "customers",
        "orders",
        "subscriptions",
        "credit_ledger",
        "promo_redemptions",
        "vouchers.purchase",
        "vouchers.outbox",
    )
    return {name: (await rows(database, f"SELECT count(*) FROM {name}"))[0][0] for name in tables}
