"""Stripe's rules for amounts: the unit, the allowed steps, and the minimum charge of each currency.

Source: Stripe's page "Supported currencies" (docs.stripe.com/currencies), its sections "Zero-decimal currencies",
"Three-decimal currencies", "Special cases" and "Minimum and maximum charge amounts", as of November 2026. The ledger
uses the minor units of ISO 4217, Stripe uses them for most currencies but not all: every amount is converted here.
See also: `stripe_requests` and `stripe_events` convert; a purchase is placed with `step_minor` and `minimum_minor`.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from voucher_operator.resources.errors import PaymentRejectedError
from voucher_operator.resources.money import minor_digits, parse_amount

_ZERO_DECIMAL: Final = "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF"
_WHOLE_BUT_TWO_DECIMALS: Final = "ISK UGX"
"""Charged in whole units, but written with two decimals that are 0."""

_MINIMUM: Final = MappingProxyType(
    {
        "AED": "2.00",
        "AUD": "0.50",
        "BRL": "0.50",
        "CAD": "0.50",
        "CHF": "0.50",
        "CZK": "15.00",
        "DKK": "2.50",
        "EUR": "0.50",
        "GBP": "0.30",
        "HKD": "4.00",
        "HUF": "175.00",
        "INR": "0.50",
        "JPY": "50",
        "MXN": "10.00",
        "MYR": "2.00",
        "NOK": "3.00",
        "NZD": "0.50",
        "PLN": "2.00",
        "RON": "2.00",
        "SEK": "3.00",
        "SGD": "0.50",
        "THB": "10.00",
        "USD": "0.50",
        # Not on the page: no account settles in them. Such a charge is converted and must then reach the minimum of the
        # account's own currency. These currencies have a fixed rate to the dollar: the value is 2.00 AED or 0.50 USD,
        # whichever is more, plus 20 %.
        "BHD": "0.250",
        "JOD": "0.470",
        "OMR": "0.260",
        "QAR": "2.40",
        "SAR": "2.50",
    }
)


@dataclass(frozen=True, slots=True)
class CurrencyRules:
    """Rules of one currency, in the ledger's minor units.

    A card is charged 0, or a multiple of `step_minor` that is at least `minimum_minor`.
    """

    currency: str
    step_minor: int
    minimum_minor: int
    _times: int
    _per: int

    def to_stripe(self, minor: int) -> int:
        """Convert minor units to Stripe's unit. Raises PaymentRejectedError if it is not a multiple of the step."""
        if minor % self.step_minor:
            raise PaymentRejectedError(
                f"Stripe accepts {self.currency} only in steps of {self.step_minor} minor units."
            )
        return minor * self._times // self._per

    def from_stripe(self, amount: int) -> int:
        """Convert an amount in Stripe's unit to minor units."""
        return amount * self._per // self._times


def rules(currency: str, minimum_minor: int | None = None) -> CurrencyRules:
    """Look up the rules of a currency; `minimum_minor` replaces the published minimum.

    Without a published minimum it is one step: Stripe itself then refuses smaller amounts. Raises ValueError for an
    unknown currency.
    """
    digits = minor_digits(currency)
    at_stripe = _digits_at_stripe(currency, digits)
    step = 10 if digits == 3 else 10 ** max(0, digits - at_stripe)
    least = parse_amount(_MINIMUM[currency], currency) if currency in _MINIMUM else step
    return CurrencyRules(
        currency,
        step_minor=step,
        minimum_minor=least if minimum_minor is None else minimum_minor,
        _times=10 ** max(0, at_stripe - digits),
        _per=10 ** max(0, digits - at_stripe),
    )


def _digits_at_stripe(currency: str, digits: int) -> int:
    if currency in _ZERO_DECIMAL.split():
        return 0
    return 2 if currency in _WHOLE_BUT_TWO_DECIMALS.split() else digits
