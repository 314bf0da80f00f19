"""Use cases: issue a Voucher's code, and revoke it.

A running put never commits after the revocation of the same Voucher: that would make the code redeemable again. See
also: `ledger.voucher` writes; `code_index` records the confirmed codes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final
from weakref import WeakValueDictionary

from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.types import PutResult, VoucherOwner, VoucherTerms
from voucher_operator.resources.codes import check_prefix
from voucher_operator.services.code_index import CodeIndex

_MAX_REVOKED: Final = 10_000
"""Revoked Vouchers that are remembered; lists and events that still have one are at most minutes old."""


class IssueService:
    """Issues and revokes codes; safe for concurrent use within one event loop."""

    def __init__(self, ledger: Ledger, codes: CodeIndex, prefixes: Mapping[str, Sequence[str]] | None = None) -> None:
        """`prefixes`: with what the codes of each namespace must begin; as for `check_prefix`."""
        self._ledger = ledger
        self._prefixes = prefixes or {}
        self.codes = codes
        self._revoked: dict[str, None] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def is_revoked(self, uid: str) -> bool:
        """Whether this process has revoked this Voucher: it is never put again, also not for an old list or event."""
        return uid in self._revoked

    async def issue(self, uid: str, read_terms: Callable[[], Awaitable[VoucherTerms]]) -> PutResult | None:
        """Make the ledger row of a Voucher equal to its terms; None when it is revoked. Idempotent.

        The terms are read under the Voucher's lock, so that older terms never follow newer ones. Raises as `Ledger.put`
        and as `read_terms`, and CodeNotAllowedError before the ledger is asked; `deactivate` is allowed all the same.
        """
        async with self._lock(uid):
            if self.is_revoked(uid):
                return None
            terms = await read_terms()
            check_prefix(terms.namespace, terms.code, self._prefixes)
            result = await self._ledger.put(terms)
            self.codes.put(uid, terms.code)
            return result

    async def deactivate(self, owner: VoucherOwner) -> bool:
        """Stop redemptions of a Voucher whose terms cannot be put; True when it was active. Idempotent.

        Nobody is prevented from stopping a code: neither by a prefix that is no longer allowed, nor by a Secret that
        was deleted. Raises LedgerUnavailableError.
        """
        async with self._lock(owner.uid):
            return await self._ledger.deactivate(owner)

    async def revoke(self, owner: VoucherOwner) -> bool:
        """Revoke the code of a Voucher; redemptions and entries stay. True if a live row was revoked. Idempotent.

        Raises LedgerUnavailableError.
        """
        async with self._lock(owner.uid):
            self._remember_revoked(owner.uid)
            return await self._ledger.revoke(owner)

    async def owners_named(self, owner: VoucherOwner) -> list[VoucherOwner]:
        """List what has a live row under the name of `owner`, whatever its uid. Raises LedgerUnavailableError."""
        return await self._ledger.owners_named(owner.namespace, owner.name)

    async def revoke_orphan(self, owner: VoucherOwner) -> bool:
        """Revoke the code of a Voucher that does not exist; as `revoke`, but a Voucher seen later is put again.

        It may be created again soon, from a backup: the code is kept for its name for some time.
        """
        return await self._ledger.revoke(owner, absent=True)

    def _lock(self, uid: str) -> asyncio.Lock:
        return self._locks.setdefault(uid, asyncio.Lock())

    def _remember_revoked(self, uid: str) -> None:
        self.codes.drop(uid)
        self._revoked[uid] = None
        if len(self._revoked) > _MAX_REVOKED:
            del self._revoked[next(iter(self._revoked))]
