"""What Stripe cannot charge by card, found before an order is placed: otherwise it would fail afterwards. No I/O.

An order that the credit covers completely is not affected. See also: `currency` has the rules of amounts;
`services.order` refuses; `stripe_requests` builds what is charged.
"""

from collections.abc import Sequence
from typing import Final

from voucher_operator.ledger.purchase.types import Line
from voucher_operator.payments.currency import CurrencyRules
from voucher_operator.resources.money import format_amount

MAX_LINES: Final = 20
"""Lines with a recurring price in one Checkout Session of a subscription (Stripe's API reference, `line_items`)."""
_COVERED: Final = "or order with credit that covers the order"


def fault(lines: Sequence[Line], rules: CurrencyRules) -> str | None:
    """Return why no card can pay these lines, whatever the credit; None when one can. One line, with what to do."""
    priced = [line for line in lines if line.price_minor > 0]
    total = sum(line.price_minor for line in priced)
    if len(priced) > MAX_LINES:
        return f"A card can pay at most {MAX_LINES} items with a price in one order: order fewer, {_COVERED}."
    # A price at Stripe has its own amount there.
    amounts = (total, *(line.price_minor for line in priced if line.stripe_price_id is None))
    if any(amount % rules.step_minor for amount in amounts):
        step = format_amount(rules.step_minor, rules.currency)
        return f"A card is charged in steps of {step} {rules.currency}: change the prices in the catalog, {_COVERED}."
    if total > rules.maximum_minor:
        largest = format_amount(rules.maximum_minor, rules.currency)
        return f"A card is charged at most {largest} {rules.currency}: order less, {_COVERED}."
    return None


def too_small(rules: CurrencyRules) -> str:
    """Return the message for an order whose total is below the smallest charge of a card."""
    least = format_amount(rules.minimum_minor, rules.currency)
    return f"A card is charged at least {least} {rules.currency}, more than this order costs: order more, {_COVERED}."
