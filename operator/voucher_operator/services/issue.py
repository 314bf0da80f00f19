"""Use cases: issue a Voucher's code, and revoke it.

A put that is under way never comes after the revocation of the same Voucher: it would bring the code back. See also:
`ledger.voucher` writes; `code_index` remembers which codes are confirmed.
"""

import asyncio
from typing import Final
from weakref import WeakValueDictionary

from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.types import PutResult, VoucherOwner, VoucherTerms
from voucher_operator.services.code_index import CodeIndex

_ENDED: Final = 10_000
"""Revoked Vouchers that are remembered; what still names one is at most minutes old."""


class IssueService:
    """Issues and revokes codes; safe for concurrent use within one event loop."""

    def __init__(self, ledger: Ledger, codes: CodeIndex) -> None:
        self._ledger = ledger
        self.codes = codes
        self._ended: dict[str, None] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def lock(self, uid: str) -> asyncio.Lock:
        """Return the lock of a Voucher, by uid: hold it from before its terms are read until they are put."""
        return self._locks.setdefault(uid, asyncio.Lock())

    def is_revoked(self, uid: str) -> bool:
        """Whether this Voucher was revoked here: it is never put again, whatever an old list or late event shows."""
        return uid in self._ended

    async def issue(self, terms: VoucherTerms) -> PutResult:
        """Make the ledger row of a Voucher what its terms say. Idempotent. Raises as `Ledger.put`."""
        result = await self._ledger.put(terms)
        self.codes.put(terms.uid, terms.code)
        return result

    async def revoke(self, owner: VoucherOwner) -> bool:
        """Revoke the code of a Voucher; redemptions and entries stay. True if a live row was revoked. Idempotent.

        Raises LedgerUnavailableError.
        """
        async with self.lock(owner.uid):
            self._end(owner.uid)
            return await self._ledger.revoke(owner)

    async def revoke_orphan(self, owner: VoucherOwner) -> bool:
        """Revoke the code of a Voucher that is gone; as `revoke`, but one that comes back is put again."""
        return await self._ledger.revoke(owner)

    def _end(self, uid: str) -> None:
        self.codes.drop(uid)
        self._ended[uid] = None
        if len(self._ended) > _ENDED:
            del self._ended[next(iter(self._ended))]
