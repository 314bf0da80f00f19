"""Stripe's rules for amounts: the unit, the allowed steps, and the smallest and largest charge of each currency.

Source: Stripe's page "Supported currencies" (docs.stripe.com/currencies), its sections "Zero-decimal currencies",
"Three-decimal currencies", "Special cases" and "Minimum and maximum charge amounts", as of November 2026. The ledger
uses the minor units of ISO 4217, Stripe uses them for most currencies but not all: every amount is converted here.
See also: `stripe_requests` and `stripe_events` convert; a purchase is placed with `step_minor` and `minimum_minor`.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
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
        # Not on the page, as those below. These currencies have a fixed rate to the dollar: the value is 2.00 AED or
        # 0.50 USD, whichever is more, plus 20 %.
        "BHD": "0.250",
        "JOD": "0.470",
        "OMR": "0.260",
        "QAR": "2.40",
        "SAR": "2.50",
    }
)
_LEAST_DOLLARS: Final = Decimal("0.75")
_PER_DOLLAR: Final = (
    "AFN 70 ALL 90 AMD 400 AOA 930 ARS 1500 AWG 1.8 AZN 1.7 BAM 1.8 BBD 2 BDT 123 BIF 3000 BMD 1 BND 1.35 BOB 7 BSD 1 "
    "BWP 14.5 BYN 3.4 BZD 2.1 CDF 2900 CLP 980 CNY 7.3 COP 4300 CRC 530 CVE 106 DJF 178 DOP 64 DZD 135 EGP 52 ETB 155 "
    "FJD 2.4 FKP 0.8 GEL 2.8 GIP 0.8 GMD 74 GNF 8800 GTQ 7.9 GYD 210 HNL 26.7 HTG 132 IDR 17000 ILS 3.8 IQD 1320 "
    "ISK 140 JMD 162 KES 131 KGS 88 KHR 4100 KMF 460 KRW 1480 KWD 0.32 KYD 0.85 KZT 550 LAK 22000 LBP 90000 LKR 310 "
    "LRD 195 LSL 18.5 LYD 5.6 MAD 10 MDL 17.8 MGA 4700 MKD 58 MMK 2110 MNT 3600 MOP 8.1 MRU 40 MUR 47 MVR 15.5 "
    "MWK 1750 MZN 64 NAD 18.5 NGN 1600 NIO 37 NPR 144 PAB 1 PEN 3.8 PGK 4.4 PHP 60 PKR 285 PYG 7900 RSD 110 RUB 95 "
    "RWF 1470 SBD 8.5 SCR 15 SHP 0.8 SLE 24 SOS 575 SRD 40 STN 23 SZL 18.5 TJS 11 TND 3.2 TOP 2.5 TRY 48 TTD 6.8 "
    "TWD 33 TZS 2700 UAH 44 UGX 3750 UYU 42 UZS 12800 VND 26800 VUV 123 WST 2.8 XAF 620 XCD 2.7 XOF 620 XPF 112 "
    "YER 250 ZAR 19 ZMW 28"
)
"""Units of each other currency that Stripe charges in for one US dollar, rounded up, as of November 2026. No account
settles in them, so the page has no minimum: a charge is converted, and must then reach the minimum of the account's own
currency. It is _LEAST_DOLLARS here: 0.50 USD and half as much again, because rates move. (An account that settles in
another currency has the setting.)"""
_RATES: Final = MappingProxyType(
    dict(zip(_PER_DOLLAR.split()[::2], map(Decimal, _PER_DOLLAR.split()[1::2]), strict=True))
)

_LARGEST: Final = 99_999_999
"""Largest charge in Stripe's unit: eight digits."""
_LARGEST_OF_SMALL_UNITS: Final = 999_999_999_999
"""Where a dollar has so many units that eight digits are a usual price, Stripe takes up to twelve."""
_SMALL_UNITS: Final = 10_000
"""The minimum, in Stripe's unit, from which a currency has such small units."""


@dataclass(frozen=True, slots=True)
class CurrencyRules:
    """Rules of one currency, in the ledger's minor units.

    A card is charged 0, or a multiple of `step_minor` that is at least `minimum_minor` and at most `maximum_minor`.
    """

    currency: str
    step_minor: int
    minimum_minor: int
    maximum_minor: int
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

    The minimum of a currency in which Stripe charges nobody is one step. Raises ValueError for an unknown currency.
    """
    digits = minor_digits(currency)
    at_stripe = _digits_at_stripe(currency, digits)
    step = 10 if digits == 3 else 10 ** max(0, digits - at_stripe)
    least = _minimum(currency, digits, step)
    times, per = 10 ** max(0, at_stripe - digits), 10 ** max(0, digits - at_stripe)
    largest = _LARGEST if least * times // per < _SMALL_UNITS else _LARGEST_OF_SMALL_UNITS
    return CurrencyRules(
        currency,
        step_minor=step,
        minimum_minor=least if minimum_minor is None else minimum_minor,
        maximum_minor=largest * per // times // step * step,
        _times=times,
        _per=per,
    )


def _minimum(currency: str, digits: int, step: int) -> int:
    """Return the minimum charge in minor units, a multiple of the step."""
    if currency in _MINIMUM:
        return parse_amount(_MINIMUM[currency], currency)
    steps = _RATES.get(currency, Decimal(0)) * _LEAST_DOLLARS * 10**digits / step
    return max(1, int(steps.to_integral_value(ROUND_CEILING))) * step


def _digits_at_stripe(currency: str, digits: int) -> int:
    if currency in _ZERO_DECIMAL.split():
        return 0
    return 2 if currency in _WHOLE_BUT_TWO_DECIMALS.split() else digits
