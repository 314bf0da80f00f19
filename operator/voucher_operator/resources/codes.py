"""The normal form of a voucher code, and its validation.

A code is a bearer secret: no message from here contains it. See also: the CRDs validate plain codes by the same rule;
`controllers.secret_codes` validates codes from Secrets; `vouchers.normal_code` is the normal form in SQL.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from voucher_operator.resources.errors import CodeNotAllowedError, InvalidCodeError

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


def check_prefix(namespace: str, code: str, prefixes: Mapping[str, Sequence[str]]) -> None:
    """Check that the namespace may issue a code (normal form); `prefixes` has what each namespace may issue.

    Without any prefixes every namespace may issue every code; otherwise a namespace without prefixes may issue none.
    Raises CodeNotAllowedError, whose message contains neither the code nor another namespace.
    """
    if not prefixes:
        return
    allowed = prefixes.get(namespace, ())
    if not allowed:
        raise CodeNotAllowedError(
            "This namespace may not issue codes: ask the operator's administrators to add it to codes.prefixes."
        )
    if not code.startswith(tuple(allowed)):
        raise CodeNotAllowedError(
            f"Codes of this namespace must begin with {' or '.join(allowed)}: choose such a code in another Voucher, "
            "or ask the operator's administrators to change codes.prefixes."
        )
