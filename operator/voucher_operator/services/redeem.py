"""Use case: redeem a code. The ledger checks it, enforces the cap and grants the credit, in one transaction.

See also: `ledger.redemption.redeem` and its `redeem.sql`; `refusals` has the messages; `order` redeems and buys.
"""

from dataclasses import dataclass, field

from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.types import LedgerInfo, RedeemRequest, RedeemResult
from voucher_operator.resources.keys import Key
from voucher_operator.services.code_index import CodeIndex
from voucher_operator.services.refusals import too_many_attempts


@dataclass(slots=True)
class RedeemService:
    """Redeems codes; safe for concurrent use within one event loop."""

    ledger: Ledger
    codes: CodeIndex
    _info: LedgerInfo | None = field(default=None, init=False)

    async def currency(self) -> str:
        """Return the ledger's currency, which never changes. Raises LedgerUnavailableError."""
        if self._info is None:
            self._info = await self.ledger.info()
        return self._info.currency

    async def redeem(self, request: RedeemRequest) -> RedeemResult:
        """Redeem a code, or read the earlier result for this key; a refusal is a result, not an error.

        Raises LedgerUnavailableError, RequestRejectedError, and TooManyAttemptsError, which may pass.
        """
        result = await self.ledger.redeem(request)
        if result.retry_at is not None:
            raise too_many_attempts(result.decided_at, result.retry_at)
        if result.refusal is None:
            self.codes.note_redeemed(request.code)
        return result

    async def find(self, key: Key, request_hash: str, uid: str) -> RedeemResult | None:
        """Read the earlier result of this request; None when there is none. Redeems nothing."""
        return await self.ledger.redemption_of(key, request_hash, uid)
