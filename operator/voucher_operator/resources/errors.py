"""The exception tree: the branch says who must act.

    OperatorError
    ├── TerminalError             a user must act              -> Stalled
    │   ├── CodeConflictError     another Voucher owns the code
    │   ├── CodeReservedError     another namespace issued the code first
    │   ├── CurrencyMismatchError the ledger has another currency
    │   ├── CodeChangedError      the Secret has another code now
    │   ├── InvalidCodeError      the Secret's value is not a code
    │   ├── CodeNotAllowedError   the namespace may not issue codes with this prefix
    │   ├── NamespaceNotServedError  the operator does not serve the namespace any more
    │   ├── InvalidSpecError      the CRD is newer than the operator
    │   ├── InvalidOrderError     the order is not in the catalog, or cannot be paid
    │   ├── PaymentRejectedError  Stripe refuses the checkout, or our key
    │   └── PaymentProcessorNotConfiguredError
    └── TransientError            retry                        -> Reconciling
        ├── LedgerUnavailableError
        ├── SecretNotFoundError
        ├── SecretUnreadableError
        ├── VoucherNotReadyError
        ├── TooManyAttemptsError      it is known when it passes
        ├── CatalogUnavailableError
        └── PaymentProcessorUnavailableError

    ProcessError                  reported in the log, or by the command
    ├── ApiError                  a call of the API server failed; its response: `kube.errors`
    │   ├── ApiUnavailableError   the API server is unavailable, retry
    │   └── LeaseExpiredError     this replica no longer leads: nothing is written
    └── AddressInUseError         the port is in use: whoever starts the process must act

Refusals of a redemption are results, not exceptions: see `voucher_operator.ledger.types.RedeemResult`.
Messages are one line, deterministic, say what to do, and contain no secret, no counter and no time, because they become
condition messages. See also: `reasons`; `ledger.errors` and `kube.errors` raise most of them.
"""

import os
from typing import ClassVar

from voucher_operator.resources.reasons import Reason


class _OneLineError(Exception):
    @property
    def message(self) -> str:
        """The message as one line."""
        return " ".join(str(self).split())


class OperatorError(_OneLineError):
    """An error that is reported in a condition."""

    reason: ClassVar[Reason]


class ProcessError(_OneLineError):
    """An error of the process' environment, which is not reported in a condition."""


class ApiError(ProcessError):
    """A call of the API server failed."""


class ApiUnavailableError(ApiError):
    """The API server could not be reached or failed; retry."""


class LeaseExpiredError(ApiError):
    """The Lease has expired, and another replica may lead: the leader's work does not write."""

    def __init__(
        self, message: str = "this replica's Lease has expired: nothing is written until it leads again"
    ) -> None:
        super().__init__(message)


class AddressInUseError(ProcessError):
    """The process cannot listen on a port."""

    def __init__(self, port: int, setting: str, error: OSError) -> None:
        """`setting` is the environment variable with the port."""
        why = os.strerror(error.errno) if error.errno else type(error).__name__
        super().__init__(f"cannot listen on port {port} ({why}): free the port, or set {setting}")


class TerminalError(OperatorError):
    """A retry cannot succeed: a user must change something."""


class TransientError(OperatorError):
    """A retry may succeed: retry with backoff, never drop."""

    retry_after: float | None = None
    """Seconds after which to retry, instead of the backoff, when that is known."""


class CodeConflictError(TerminalError):
    """Another Voucher owns the code: one of another namespace, or an older one of the same."""

    reason = Reason.CODE_CONFLICT

    def __init__(self, message: str, holder_uid: str = "") -> None:
        """`holder_uid` is the uid of the Voucher that owns the code."""
        super().__init__(message)
        self.holder_uid = holder_uid


class CodeReservedError(TerminalError):
    """A deleted Voucher of another namespace had the code: it must be released first."""

    reason = Reason.CODE_RESERVED


class CurrencyMismatchError(TerminalError):
    """The Sovereign's ledger has another currency."""

    reason = Reason.CURRENCY_MISMATCH


class CodeChangedError(TerminalError):
    """The value in the Secret has changed; a code is immutable."""

    reason = Reason.CODE_CHANGED


class InvalidCodeError(TerminalError):
    """The Secret's value is not 3 to 64 characters of A-Z, 0-9 and '-'."""

    reason = Reason.INVALID_CODE


class CodeNotAllowedError(TerminalError):
    """The settings do not allow the namespace to issue codes with this prefix."""

    reason = Reason.CODE_NOT_ALLOWED


class NamespaceNotServedError(TerminalError):
    """The operator served the Voucher's namespace before, and does not now."""

    reason = Reason.NAMESPACE_NOT_SERVED


class InvalidSpecError(TerminalError):
    """The spec has fields or values that this version does not know."""

    reason = Reason.INVALID_SPEC


class RequestRejectedError(TerminalError):
    """The ledger cannot store a value: a NUL character, or an amount that is too large."""

    reason = Reason.REQUEST_REJECTED


class InvalidOrderError(TerminalError):
    """The order has an item that is not in the catalog, or has it twice, or cannot be paid or provisioned."""

    reason = Reason.INVALID_ORDER


class PaymentRejectedError(TerminalError):
    """The payment processor refuses the checkout or the API key; a retry cannot succeed."""

    reason = Reason.PAYMENT_REJECTED


class PaymentProcessorNotConfiguredError(TerminalError):
    """The credit does not cover the order, and no payment processor is configured to charge the rest."""

    reason = Reason.PAYMENT_PROCESSOR_NOT_CONFIGURED


class LedgerUnavailableError(TransientError):
    """PostgreSQL cannot be reached, refuses the login, is busy, or has no schema yet."""

    reason = Reason.LEDGER_UNAVAILABLE


class SecretNotFoundError(TransientError):
    """The Secret or its key does not exist yet."""

    reason = Reason.SECRET_NOT_FOUND


class SecretUnreadableError(TransientError):
    """The API server refused or failed to return the Secret."""

    reason = Reason.SECRET_UNREADABLE


class VoucherNotReadyError(TransientError):
    """The Voucher exists but its code is not in the ledger yet."""

    reason = Reason.VOUCHER_NOT_READY


class TooManyAttemptsError(TransientError):
    """The customer has tried too many wrong codes. The message has the time of the next try, which does not move."""

    reason = Reason.TOO_MANY_ATTEMPTS

    def __init__(self, message: str, retry_after: float) -> None:
        """`retry_after` is the number of seconds until then."""
        super().__init__(message)
        self.retry_after = retry_after


class CatalogUnavailableError(TransientError):
    """The catalog cannot be read, or its content is invalid."""

    reason = Reason.CATALOG_UNAVAILABLE


class PaymentProcessorUnavailableError(TransientError):
    """The payment processor cannot be reached, is busy or failed."""

    reason = Reason.PAYMENT_PROCESSOR_UNAVAILABLE
