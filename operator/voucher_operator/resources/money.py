"""Money: an integer of minor units plus an ISO 4217 currency; decimals of major units only in specs and messages.

No floats are used. See also: the CRDs in `crds/` refuse the same amounts as `parse_amount` (a test compares them); the
model `voucher` and the ledger use minor units.

The table is "List one: current currency and funds code list" of ISO 4217 (published by SIX Financial Information),
edition of 1 January 2026. Entries without a minor unit (metals, bond units, XDR, XSU, XUA, XTS, XXX) are left out:
nobody can pay in them. Changes go here and into `crds/vouchers.billing.openova.io.yaml`; a test compares the two.
"""

import re
from decimal import Decimal
from types import MappingProxyType
from typing import Final

MAX_WHOLE_UNITS: Final = 1_000_000_000
"""The largest credit in major units: the Go billing service stores whole units as int4."""

_NO_DIGITS: Final = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_TWO_DIGITS: Final = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW "
    "CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF "
    "IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK "
    "MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP "
    "SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG "
    "YER ZAR ZMW ZWG"
)
_THREE_DIGITS: Final = "BHD IQD JOD KWD LYD OMR TND"
_FOUR_DIGITS: Final = "CLF UYW"

MINOR_DIGITS: Final = MappingProxyType(
    {
        currency: digits
        for digits, currencies in ((0, _NO_DIGITS), (2, _TWO_DIGITS), (3, _THREE_DIGITS), (4, _FOUR_DIGITS))
        for currency in currencies.split()
    }
)
"""Currency code -> number of decimals."""

_DECIMAL: Final = re.compile(r"(?:0|[1-9][0-9]{0,9})(?:\.([0-9]+))?", re.ASCII)


def minor_digits(currency: str) -> int:
    """Return the number of decimals of a currency (OMR 3, USD 2, JPY 0). Raises ValueError for an unknown code."""
    try:
        return MINOR_DIGITS[currency]
    except KeyError:
        raise ValueError(
            f"unknown currency {currency!r}: write an active ISO 4217 code in capitals, such as OMR, USD or EUR"
        ) from None


def scale(currency: str) -> int:
    """Return the minor units of one major unit (OMR 1000, USD 100, JPY 1). Raises ValueError for an unknown code."""
    return int(10 ** minor_digits(currency))


def parse_amount(value: int | str, currency: str) -> int:
    """Convert an amount in major units, as written in a spec, to minor units: 200 or "25.500" OMR to 200000 or 25500.

    Raises ValueError, with a correct example, for anything but a positive decimal of at most `MAX_WHOLE_UNITS` with no
    more decimals than the currency has.
    """
    digits = minor_digits(currency)
    amount = _decimal(value, currency, digits)
    if not 0 < amount <= MAX_WHOLE_UNITS:
        raise ValueError(f"amount {value} is out of bounds: write more than 0 and at most {MAX_WHOLE_UNITS} {currency}")
    return int(amount.scaleb(digits))


def _decimal(value: int | str, currency: str, digits: int) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"amount must be an integer or a string: write {_example(currency)}")
    match = _DECIMAL.fullmatch(value if isinstance(value, str) else _digits(value))
    if match is None:
        raise ValueError(
            f"amount is not a decimal number of major units: write {_example(currency)}, "
            f"at most {MAX_WHOLE_UNITS}, without sign, exponent, blanks or leading zeros"
        )
    if len(match[1] or "") > digits:
        raise ValueError(f"amount has too many decimals: {currency} has {digits}, write {_example(currency)}")
    return Decimal(match[0])


def _digits(value: int) -> str:
    return str(value) if abs(value) < 10**11 else ""


def _example(currency: str) -> str:
    return f'200 or "{format_amount(25 * scale(currency) + scale(currency) // 2, currency)}"'


def format_amount(minor: int, currency: str) -> str:
    """Format an amount in major units with all decimals of the currency: 25500 OMR -> "25.500".

    Raises ValueError for an unknown currency.
    """
    digits = minor_digits(currency)
    whole, rest = divmod(abs(minor), 10**digits)
    sign = "-" if minor < 0 else ""
    return f"{sign}{whole}.{rest:0{digits}d}" if digits else f"{sign}{whole}"
