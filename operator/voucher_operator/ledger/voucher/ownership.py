"""Decides who owns a code, and what a put writes, from the row of `voucher_put_read.sql`. No I/O.

A code belongs to the namespace that issued it first on the ledger, whatever the age of the objects. A Voucher of
another namespace does not get it, neither while it is issued nor after it is revoked, unless it was released to that
namespace. Within a namespace the older object keeps it; a Voucher that replaces one of its name is as old as that one,
because all objects of a restored cluster are new. See also: `vouchers` reads, calls `decide` and writes;
docs/voucher.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, TypeVar

from voucher_operator.ledger.types import PutOutcome, VoucherOwner, VoucherTerms
from voucher_operator.resources.errors import (
    CodeChangedError,
    CodeConflictError,
    CodeReservedError,
    CurrencyMismatchError,
)

T = TypeVar("T")

_DRIFTING: Final = MappingProxyType(
    {
        "credit": "credit_minor",
        "description": "description",
        "active": "active",
        "maxRedemptions": "max_redemptions",
    }
)
"""Fields of a Voucher's spec that other writers can change in promo_codes: spec name -> name here."""
_TERMS: Final = (*_DRIFTING.values(), "from_secret", "valid_from", "valid_until")
"""What a put writes to vouchers.terms and may change."""


@dataclass(frozen=True, slots=True)
class PromoRow:
    """The row that customers redeem."""

    code: str
    credit_minor: int
    description: str
    active: bool
    max_redemptions: int
    deleted: bool


@dataclass(frozen=True, slots=True)
class Holder:
    """Another Voucher with live terms on the code."""

    uid: str
    namespace: str
    name: str
    created_at: datetime

    @property
    def owner(self) -> VoucherOwner:
        """The Voucher resource."""
        return VoucherOwner(self.uid, self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class OwnTerms:
    """What the ledger has of the Voucher itself. `recent`: written within the last minute."""

    code: str
    norm: str
    generation: int
    from_secret: bool
    credit_minor: int
    description: str
    active: bool
    max_redemptions: int
    valid_from: datetime | None
    valid_until: datetime | None
    revoked: bool
    recent: bool


@dataclass(frozen=True, slots=True)
class Found:
    """The ledger as a put finds it. `norm` is the code's normal form.

    `reserved_for` is the namespace that may issue the code when no Voucher holds it; None when no Voucher ever had it.
    `kept_for` is the name of the Voucher of that namespace that lost the code by its absence a short time ago, if so.
    """

    currency: str
    norm: str
    promo: PromoRow | None
    holder: Holder | None
    own: OwnTerms | None
    reserved_for: str | None
    kept_for: str | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write, if anything: `code` is the spelling to write it under."""

    outcome: PutOutcome
    code: str
    corrected: tuple[str, ...] = ()
    displaced: VoucherOwner | None = None


def found_from(row: Mapping[str, Any]) -> Found:
    """Make a Found of the one row of `voucher_put_read.sql`: the columns of a part begin with its name."""
    return Found(
        currency=row["currency"],
        norm=row["norm"],
        promo=_part(PromoRow, row, "promo_") if row["promo_code"] is not None else None,
        holder=_part(Holder, row, "holder_") if row["holder_uid"] is not None else None,
        own=_part(OwnTerms, row, "own_") if row["own_code"] is not None else None,
        reserved_for=row["reserved_for"],
        kept_for=row["kept_for"],
    )


def _part(cls: type[T], row: Mapping[str, Any], prefix: str) -> T:
    return cls(**{name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)})


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
    if found.holder is None and (found.own is None or found.own.revoked):
        _check_free(terms, found)
    code = found.promo.code if found.promo is not None else found.norm
    if found.own is None or found.own.revoked or found.holder is not None:
        return Decision(PutOutcome.ISSUED, code, displaced=displaced)
    return _same_owner(terms, found, found.own, code)


def _check_free(terms: VoucherTerms, found: Found) -> None:
    """Check that a Voucher may issue a code that no Voucher holds; raises CodeReservedError and CodeConflictError."""
    if found.reserved_for not in (None, terms.namespace):
        raise CodeReservedError(
            "The code was issued in another namespace, whose Voucher is deleted: choose another code, or ask "
            "the operator's administrators to release it to this namespace."
        )
    if found.kept_for not in (None, terms.name):
        raise CodeConflictError(
            f"The code belongs to Voucher {terms.namespace}/{found.kept_for}, which disappeared without a deletion "
            "that the operator has seen: apply that Voucher again, or wait an hour: then this one takes over."
        )


def _displaced(terms: VoucherTerms, holder: Holder | None) -> VoucherOwner | None:
    """Return the Voucher that loses the code to this one.

    A holder of the same name is an earlier Voucher of that name, whose deletion no replica has processed.
    """
    if holder is None or (holder.namespace, holder.name) == (terms.namespace, terms.name):
        return None
    if holder.namespace != terms.namespace:
        raise CodeConflictError(
            "The code belongs to a Voucher of another namespace, which issued it before: choose another code.",
            holder.uid,
        )
    if (holder.created_at, holder.name) < (terms.created_at, terms.name):
        raise CodeConflictError(
            f"The code belongs to the older Voucher {holder.namespace}/{holder.name}: choose another code, "
            "or delete that Voucher.",
            holder.uid,
        )
    return holder.owner


def _same_owner(terms: VoucherTerms, found: Found, own: OwnTerms, code: str) -> Decision:
    if terms.generation < own.generation and own.recent:
        # This replica has lost the lease and does not know it yet. If the row is older than that, the cluster may have
        # been restored from a backup, and generations count from there.
        return Decision(PutOutcome.UNCHANGED, own.code)
    if own.generation != terms.generation or any(getattr(own, name) != getattr(terms, name) for name in _TERMS):
        return Decision(PutOutcome.UPDATED, code)
    if corrected := _drift(terms, found, own, code):
        return Decision(PutOutcome.DRIFT_CORRECTED, code, corrected)
    return Decision(PutOutcome.UNCHANGED, code)


def _drift(terms: VoucherTerms, found: Found, own: OwnTerms, code: str) -> tuple[str, ...]:
    """Return the names of the fields, as in a Voucher's spec, that another writer changed in the ledger."""
    if found.promo is None:
        return ("deleted",)
    drifted = [spec for spec, name in _DRIFTING.items() if getattr(found.promo, name) != getattr(terms, name)]
    if found.promo.deleted:
        drifted.append("deleted")
    if own.code != code:
        drifted.append("code")
    return tuple(drifted)
