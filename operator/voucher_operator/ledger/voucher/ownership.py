"""Who owns a code, and what a put has to write: decided here, on what `voucher_put_read.sql` has found under locks.

A code is the namespace's that issued it first on the ledger, whatever the age of the objects: a Voucher of another
namespace gets it neither while it is issued nor when it is revoked, unless it was released to that namespace. Within a
namespace the older object keeps it. See also: `vouchers` reads, asks `decide`, and writes; docs/voucher.md.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from voucher_operator.ledger.types import PutOutcome, VoucherOwner, VoucherTerms
from voucher_operator.resources.errors import (
    CodeChangedError,
    CodeConflictError,
    CodeReservedError,
    CurrencyMismatchError,
)

_FIELDS: Final = ("credit", "description", "active", "maxRedemptions")


@dataclass(frozen=True, slots=True)
class PromoRow:
    """The row that customers redeem: `values` in the order of `_FIELDS`, in minor units."""

    code: str
    values: tuple[int, str, bool, int]
    deleted: bool


@dataclass(frozen=True, slots=True)
class Holder:
    """Another Voucher with live terms on the code."""

    owner: VoucherOwner
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OwnTerms:
    """What the ledger has of the Voucher itself. `recent`: written within the last minute."""

    code: str
    norm: str
    generation: int
    values: tuple[Any, ...]
    revoked: bool
    recent: bool


@dataclass(frozen=True, slots=True)
class Found:
    """The ledger as a put finds it. `norm` is the code's normal form.

    `reserved_for` is the namespace that may issue the code when nobody holds it; None when no Voucher ever had it.
    """

    currency: str
    norm: str
    promo: PromoRow | None
    holder: Holder | None
    own: OwnTerms | None
    reserved_for: str | None

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Self:
        """Read the one row of `voucher_put_read.sql`."""
        promo = None if row[2] is None else PromoRow(row[2], (row[3], row[4], row[5], row[6]), row[7])
        holder = None if row[8] is None else Holder(VoucherOwner(row[8], row[9], row[10]), row[11])
        own = None if row[12] is None else OwnTerms(row[12], row[13], row[14], row[15:22], row[22], bool(row[23]))
        return cls(row[0], row[1], promo, holder, own, row[24])


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write, if anything: `code` is the spelling to write it under."""

    outcome: PutOutcome
    code: str
    corrected: tuple[str, ...] = ()
    displaced: VoucherOwner | None = None


def decide(terms: VoucherTerms, found: Found) -> Decision:
    """Decide a put.

    Raises CurrencyMismatchError, CodeChangedError, CodeConflictError and CodeReservedError; their messages hold no
    code, and no name of another namespace.
    """
    if terms.currency != found.currency:
        raise CurrencyMismatchError(
            f"The ledger counts in {found.currency}, this Voucher in {terms.currency}: write {found.currency}."
        )
    if found.own is not None and found.own.norm != found.norm:
        raise CodeChangedError(
            "A Voucher keeps its code: put the old code back, or make a new Voucher for the new one."
        )
    displaced = _displaced(terms, found.holder)
    issued = found.own is not None and not found.own.revoked
    if found.holder is None and not issued and found.reserved_for not in (None, terms.namespace):
        raise CodeReservedError(
            "The code was issued in another namespace, whose Voucher is deleted: choose another code, or ask "
            "the operator's administrators to release it to this namespace."
        )
    code = found.promo.code if found.promo is not None else found.norm
    if found.own is None or found.own.revoked or found.holder is not None:
        return Decision(PutOutcome.ISSUED, code, displaced=displaced)
    return _same_owner(terms, found, found.own, code)


def _displaced(terms: VoucherTerms, holder: Holder | None) -> VoucherOwner | None:
    """Who loses the code to this Voucher. A holder of the same name is its predecessor, whose deletion nobody saw."""
    if holder is None or (holder.owner.namespace, holder.owner.name) == (terms.namespace, terms.name):
        return None
    if holder.owner.namespace != terms.namespace:
        raise CodeConflictError(
            "The code belongs to a Voucher of another namespace, which issued it before: choose another code.",
            holder.owner.uid,
        )
    if (holder.created_at, holder.owner.name) < (terms.created_at, terms.name):
        raise CodeConflictError(
            f"The code belongs to the older Voucher {holder.owner.namespace}/{holder.owner.name}: choose another code, "
            "or delete that Voucher.",
            holder.owner.uid,
        )
    return holder.owner


def _same_owner(terms: VoucherTerms, found: Found, own: OwnTerms, code: str) -> Decision:
    if terms.generation < own.generation and own.recent:
        # A replica that is about to learn that it no longer leads. An older row is another matter: the cluster may have
        # been restored from a backup, and generations count from there.
        return Decision(PutOutcome.UNCHANGED, own.code)
    if own.generation != terms.generation or own.values != _wanted(terms):
        return Decision(PutOutcome.UPDATED, code)
    if corrected := _drift(terms, found, own, code):
        return Decision(PutOutcome.DRIFT_CORRECTED, code, corrected)
    return Decision(PutOutcome.UNCHANGED, code)


def _wanted(terms: VoucherTerms) -> tuple[Any, ...]:
    return (
        terms.from_secret,
        terms.credit_minor,
        terms.description,
        terms.active,
        terms.max_redemptions,
        terms.valid_from,
        terms.valid_until,
    )


def _drift(terms: VoucherTerms, found: Found, own: OwnTerms, code: str) -> tuple[str, ...]:
    """Names of the fields, as in a Voucher's spec, that somebody changed in the ledger."""
    if found.promo is None:
        return ("deleted",)
    wanted = (terms.credit_minor, terms.description, terms.active, terms.max_redemptions)
    drifted = [name for name, is_, ought in zip(_FIELDS, found.promo.values, wanted, strict=True) if is_ != ought]
    if found.promo.deleted:
        drifted.append("deleted")
    if own.code != code:
        drifted.append("code")
    return tuple(drifted)
