"""The one exception tree: who has to act decides the branch.

    OperatorError
    ├── TerminalError             the user must act            -> Stalled
    │   ├── CodeConflictError     an older Voucher owns the code
    │   ├── CurrencyMismatchError the ledger counts in another currency
    │   ├── CodeChangedError      the Secret now holds another code
    │   ├── InvalidCodeError      what the Secret holds is no code
    │   └── InvalidSpecError      the CRD is newer than the operator
    └── TransientError            it may pass, retry           -> Reconciling
        ├── LedgerUnavailableError
        ├── SecretNotFoundError
        ├── SecretUnreadableError
        └── VoucherNotReadyError

Refusals of a redemption are results, not exceptions: see `voucher_operator.ledger.types.RedeemResult`.
Messages are one line, deterministic, say what to do, and hold no secret, no counter and no time, for they become
condition messages.
"""

from typing import ClassVar

from voucher_operator.resources.reasons import Reason


class OperatorError(Exception):
    """Something went wrong that a user or an engineer is to be told about."""

    reason: ClassVar[Reason]

    @property
    def message(self) -> str:
        """One line for a condition."""
        return " ".join(str(self).split())


class TerminalError(OperatorError):
    """Retrying cannot help: the user must change something."""


class TransientError(OperatorError):
    """It may pass: retry with backoff, never drop."""


class CodeConflictError(TerminalError):
    """An older Voucher owns the code."""

    reason = Reason.CODE_CONFLICT


class CurrencyMismatchError(TerminalError):
    """The Sovereign's ledger counts in another currency."""

    reason = Reason.CURRENCY_MISMATCH


class CodeChangedError(TerminalError):
    """A code is immutable, also when a Secret carries it."""

    reason = Reason.CODE_CHANGED


class InvalidCodeError(TerminalError):
    """The Secret's value is not 3 to 64 characters of A-Z, 0-9 and '-'."""

    reason = Reason.INVALID_CODE


class InvalidSpecError(TerminalError):
    """The spec has something in it that this version does not know."""

    reason = Reason.INVALID_SPEC


class RequestRejectedError(TerminalError):
    """A value cannot be stored: a NUL character, an amount beyond the ledger's columns."""

    reason = Reason.REQUEST_REJECTED


class CreditSpentError(TerminalError):
    """The redemption cannot be undone: the customer has spent its credit."""

    reason = Reason.CREDIT_SPENT


class LedgerUnavailableError(TransientError):
    """PostgreSQL cannot be reached, refuses us, is busy, or has no schema yet."""

    reason = Reason.LEDGER_UNAVAILABLE


class SecretNotFoundError(TransientError):
    """The Secret or its key does not exist yet."""

    reason = Reason.SECRET_NOT_FOUND


class SecretUnreadableError(TransientError):
    """The API server refused or failed to show the Secret."""

    reason = Reason.SECRET_UNREADABLE


class VoucherNotReadyError(TransientError):
    """The Voucher exists but its code is not in the ledger yet."""

    reason = Reason.VOUCHER_NOT_READY
