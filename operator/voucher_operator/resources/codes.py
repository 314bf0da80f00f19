"""The normal form of a voucher code, and its validation.

A code is a bearer secret: no message from here contains it. See also: the CRDs validate plain codes by the same rule;
`controllers.secret_codes` validates codes from Secrets; `vouchers.normal_code` is the normal form in SQL.
"""

import re
from typing import Final

from voucher_operator.resources.errors import InvalidCodeError

_CODE: Final = re.compile(r"[A-Z0-9-]{3,64}")
_MAX_LENGTH: Final = 4096
"""Maximum length of a text with padding; longer ones are refused without a further check."""


def normal_code(text: str) -> str:
    """Return the text without white space at both ends, in upper case."""
    return text.strip().upper()


def validate_code(text: str) -> str:
    """Return the normal form of `text`, which may come from a Secret: in any case, with a trailing line feed.

    Raises InvalidCodeError when the normal form is not 3 to 64 characters of A-Z, 0-9 and '-'. Only ASCII is accepted,
    so that converting to upper case cannot turn another letter into a letter of a code.
    """
    if len(text) <= _MAX_LENGTH and text.isascii() and _CODE.fullmatch(code := normal_code(text)):
        return code
    raise InvalidCodeError("A code is 3 to 64 characters of A-Z, 0-9 and '-': put such a code into the Secret.")
