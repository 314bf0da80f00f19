"""The one exception tree: who has to act decides the branch. And beside it what no condition can tell of.

    OperatorError
    ├── TerminalError             the user must act            -> Stalled
    │   ├── CodeConflictError     another Voucher owns the code
    │   ├── CodeReservedError     another namespace issued the code first
    │   ├── CurrencyMismatchError the ledger counts in another currency
    │   ├── CodeChangedError      the Secret now holds another code
    │   ├── InvalidCodeError      what the Secret holds is no code
    │   ├── InvalidSpecError      the CRD is newer than the operator
    │   ├── InvalidOrderError     what the catalog does not sell, or nobody can pay
    │   ├── PaymentRejectedError  Stripe refuses the checkout, or our key
    │   └── PaymentProcessorNotConfiguredError
    └── TransientError            it may pass, retry           -> Reconciling
        ├── LedgerUnavailableError
        ├── SecretNotFoundError
        ├── SecretUnreadableError
        ├── VoucherNotReadyError
        ├── TooManyAttemptsError      it is known when it passes
        ├── CatalogUnavailableError
        └── PaymentProcessorUnavailableError

    ProcessError                  a line of the log, or of the command
    ├── ApiError                  a call of the API server failed; what it answered: `kube.errors`
    │   └── ApiUnavailableError   the API server is away, retry
    └── AddressTakenError         whoever starts the process must act

Refusals of a redemption are results, not exceptions: see `voucher_operator.ledger.types.RedeemResult`.
Messages are one line, deterministic, say what to do, and hold no secret, no counter and no time that moves, for they
become condition messages.
"""

import os
from typing import ClassVar

from voucher_operator.resources.reasons import Reason


class _OneLineError(Exception):
    @property
    def message(self) -> str:
        """One line for people."""
        return " ".join(str(self).split())


class OperatorError(_OneLineError):
    """Something went wrong that a user or an engineer is to be told about."""

    reason: ClassVar[Reason]


class ProcessError(_OneLineError):
    """Something went wrong with what this process stands on."""


class ApiError(ProcessError):
    """A call of the API server was not done."""


class ApiUnavailableError(ApiError):
    """The API server could not be reached or failed; retry."""


class AddressTakenError(ProcessError):
    """A port cannot be listened at."""

    def __init__(self, host: str, port: int, setting: str, error: OSError) -> None:
        """`setting` is the environment variable that has the port."""
        why = os.strerror(error.errno) if error.errno else type(error).__name__
        super().__init__(f"cannot listen at {host} port {port} ({why}): end what listens there, or set {setting}")


class TerminalError(OperatorError):
    """Retrying cannot help: the user must change something."""


class TransientError(OperatorError):
    """It may pass: retry with backoff, never drop."""

    retry_after: float | None = None
    """Seconds after which to retry, instead of the backoff, when that is known."""


class CodeConflictError(TerminalError):
    """Another Voucher owns the code: one of another namespace, or an older one of the same."""

    reason = Reason.CODE_CONFLICT

    def __init__(self, message: str, holder_uid: str = "") -> None:
        """`holder_uid` is that of the Voucher that owns it."""
        super().__init__(message)
        self.holder_uid = holder_uid


class CodeReservedError(TerminalError):
    """A Voucher of another namespace had the code: it is not handed to this one by itself."""

    reason = Reason.CODE_RESERVED


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


class InvalidOrderError(TerminalError):
    """The order names what the catalog does not sell, names it twice, or cannot be paid or provisioned."""

    reason = Reason.INVALID_ORDER


class PaymentRejectedError(TerminalError):
    """The payment processor refuses the checkout or our key: trying again changes nothing."""

    reason = Reason.PAYMENT_REJECTED


class PaymentProcessorNotConfiguredError(TerminalError):
    """The credit does not cover all, and there is no payment processor to charge the rest."""

    reason = Reason.PAYMENT_PROCESSOR_NOT_CONFIGURED


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


class TooManyAttemptsError(TransientError):
    """The customer has tried too many wrong codes. The message has the time of the next try, which does not move."""

    reason = Reason.TOO_MANY_ATTEMPTS

    def __init__(self, message: str, retry_after: float) -> None:
        """`retry_after` is the number of seconds until then."""
        super().__init__(message)
        self.retry_after = retry_after


class CatalogUnavailableError(TransientError):
    """The catalog cannot be read, or says nothing that can be relied on."""

    reason = Reason.CATALOG_UNAVAILABLE


class PaymentProcessorUnavailableError(TransientError):
    """The payment processor cannot be reached, is busy or failed."""

    reason = Reason.PAYMENT_PROCESSOR_UNAVAILABLE
