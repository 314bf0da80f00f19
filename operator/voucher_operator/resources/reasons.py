"""Every reason that a condition or an event may carry, in one enum, so that docs and tests can hold the list.

Neighbours: `conditions` puts them into a status, `errors` carries them, the pages docs/voucher.md and
docs/redemption.md explain each one to people.
"""

from enum import StrEnum


class Reason(StrEnum):
    """A CamelCase word for machines; the message beside it is for people."""

    # Voucher: Ready
    ISSUED = "Issued"
    """The ledger row equals the spec."""
    CODE_CONFLICT = "CodeConflict"
    """An older Voucher owns the code."""
    CURRENCY_MISMATCH = "CurrencyMismatch"
    """The ledger counts in another currency."""
    CODE_CHANGED = "CodeChanged"
    """The Secret now holds another code than the one that was issued."""
    INVALID_CODE = "InvalidCode"
    """What the Secret holds is no code."""

    # Voucher: Redeemable
    ACTIVE = "Active"
    """A customer could redeem it now."""
    SCHEDULED = "Scheduled"
    """`validFrom` is still to come."""
    INACTIVE = "Inactive"
    """`active: false`."""
    EXHAUSTED = "Exhausted"
    """As many redemptions as the cap allows, or more."""
    EXPIRED = "Expired"
    """`validUntil` has passed."""
    NOT_ISSUED = "NotIssued"
    """The code is not in the ledger for this Voucher."""

    # Both kinds: something that may pass
    LEDGER_UNAVAILABLE = "LedgerUnavailable"
    """PostgreSQL cannot be reached, is busy, or has not been migrated yet."""
    SECRET_NOT_FOUND = "SecretNotFound"
    """The Secret, or the key in it, is absent."""
    SECRET_UNREADABLE = "SecretUnreadable"
    """The API server refused to show the Secret or could not."""
    VOUCHER_NOT_READY = "VoucherNotReady"
    """The Voucher exists but is not in the ledger yet."""

    INVALID_SPEC = "InvalidSpec"
    """The spec has something in it that this version of the operator does not know: its CRD is newer."""

    REQUEST_REJECTED = "RequestRejected"
    """The ledger cannot store a value of the resource."""

    # Redemption: done
    REDEEMED = "Redeemed"
    """The credit is on the customer's ledger."""
    ROLLED_BACK = "RolledBack"
    """The redemption was undone; the customer may redeem again."""

    CREDIT_SPENT = "CreditSpent"
    """The redemption cannot be undone: its credit has been spent."""

    # Redemption: refused for good (design section 3)
    VOUCHER_NOT_FOUND = "VoucherNotFound"
    """No such code, or it was revoked: the two are never told apart."""
    VOUCHER_INACTIVE = "VoucherInactive"
    """`active: false`."""
    VOUCHER_NOT_YET_VALID = "VoucherNotYetValid"
    """Before `validFrom`, by the clock of PostgreSQL."""
    VOUCHER_EXPIRED = "VoucherExpired"
    """After `validUntil`, by the clock of PostgreSQL."""
    REDEMPTION_LIMIT_REACHED = "RedemptionLimitReached"
    """The cap is used up."""
    ALREADY_REDEEMED = "AlreadyRedeemed"
    """This customer has redeemed this code before."""
    IDEMPOTENCY_CONFLICT = "IdempotencyConflict"
    """A Redemption of this name was redeemed with another spec."""

    # Events only
    REVOKED = "Revoked"
    """The Voucher was deleted; its code can no longer be redeemed."""
    DRIFT_CORRECTED = "DriftCorrected"
    """The ledger row was edited outside Git and has been put back."""
