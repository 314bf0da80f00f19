"""A voucher code's normal form, and what counts as a code at all.

A code is a bearer secret: no message made here contains it. See also: the CRDs check plain codes at apply by the same
rule, the controllers check what a Secret holds with `validate_code`, `vouchers.normal_code` is the normal form in SQL.
"""

import re
from typing import Final

from voucher_operator.resources.errors import InvalidCodeError

_CODE: Final = re.compile(r"[A-Z0-9-]{3,64}")
_LONGEST: Final = 4096
"""Nothing longer is even looked at: no padding makes sense beyond it."""


def normal_code(text: str) -> str:
    """Trimmed of white space at both ends and upper-case."""
    return text.strip().upper()


def validate_code(text: str) -> str:
    """Return the normal form of `text`, which may come from a Secret: any case, with the line feed that tools leave.

    Raises InvalidCodeError when the normal form is not 3 to 64 characters of A-Z, 0-9 and '-'. Only ASCII is looked at,
    so that upper-casing turns no other letter into a code's letter.
    """
    if len(text) <= _LONGEST and text.isascii() and _CODE.fullmatch(code := normal_code(text)):
        return code
    raise InvalidCodeError("A code is 3 to 64 characters of A-Z, 0-9 and '-': put such a code into the Secret.")
