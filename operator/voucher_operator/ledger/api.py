"""The ledger's only door. Controllers know `Ledger`, `types` and the errors of `resources.errors`; SQL stays behind it.

Neighbours: `batch` gathers redemptions, `vouchers` and `accounts` do the rest, `pool` keeps the connections.
"""

from collections.abc import Callable, Sequence

from voucher_operator.ledger import accounts, redeem, vouchers
from voucher_operator.ledger.batch import Batcher
from voucher_operator.ledger.pool import Pool
from voucher_operator.ledger.types import (
    Entry,
    LedgerInfo,
    PutResult,
    RedeemRequest,
    RedeemResult,
    UndoResult,
    VoucherCounters,
    VoucherOwner,
    VoucherTerms,
)


class Ledger:
    """The Sovereign's billing ledger in PostgreSQL. Safe for concurrent use within one event loop.

    `conninfo` gives a libpq URL or keyword string and is called at each new connection. `pool_size` is the most
    connections at once. Every method raises LedgerUnavailableError for what may pass, and RequestRejectedError for a
    value that PostgreSQL cannot store. Amounts are minor units of the ledger's currency.
    """

    def __init__(self, conninfo: Callable[[], str], *, pool_size: int = 4) -> None:
        self._pool = Pool(conninfo, pool_size)
        self._batcher = Batcher(self._redeem, self._held, side_lanes=pool_size - 2)

    async def open(self) -> None:
        """Start connecting in the background. Neither fails nor waits when PostgreSQL is absent."""
        await self._pool.open()

    async def close(self) -> None:
        """Finish the redemptions under way and close the connections. Later calls raise LedgerUnavailableError.

        Call it before the event loop ends: the pool's tasks do not let themselves be cancelled while they connect.
        """
        await self._batcher.close()
        await self._pool.close()

    async def info(self) -> LedgerInfo:
        """Read the ledger's currency and clock."""
        return await self._pool.run(accounts.info)

    async def redeem(self, request: RedeemRequest) -> RedeemResult:
        """Redeem a code, or read what became of this key before. A refusal is a result, not an error.

        Requests that arrive while a commit is under way travel in one statement, in arrival order. A cancelled call may
        have granted: the same request asked again reads the result.
        """
        return await self._batcher.submit(request)

    async def put(self, terms: VoucherTerms) -> PutResult:
        """Make the ledger row of a Voucher what its spec says. Idempotent.

        Raises CurrencyMismatchError, CodeChangedError (the uid owns another code) and CodeConflictError (an older
        Voucher owns the code); their messages hold no code.
        """
        return await self._pool.run(lambda conn: vouchers.put(conn, terms))

    async def revoke(self, owner: VoucherOwner) -> bool:
        """Revoke the code that `owner` owns, by uid. True if a live row was revoked. Idempotent."""
        return await self._pool.run(lambda conn: vouchers.revoke(conn, owner))

    async def counters(self, uids: Sequence[str] | None = None) -> list[VoucherCounters]:
        """Count the live vouchers of these owners; None counts all that have an owner. Unknown uids are left out."""
        return await self._pool.run(lambda conn: vouchers.counters(conn, uids))

    async def owners(self) -> list[VoucherOwner]:
        """List the Vouchers that own a live row."""
        return await self._pool.run(vouchers.owners)

    async def undo(self, key: str) -> UndoResult:
        """Take a redemption back: use, counter and credit. Idempotent. The customer may then redeem under another key.

        Raises CreditSpentError when the credit has been spent; nothing has changed then.
        """
        return await self._pool.run(lambda conn: accounts.undo(conn, key))

    async def balance(self, user_id: str) -> int:
        """Sum a customer's entries, in minor units; 0 for an unknown user."""
        return await self._pool.run(lambda conn: accounts.balance(conn, user_id))

    async def entries(self, user_id: str, limit: int = 20) -> list[Entry]:
        """List a customer's newest entries, the newest first."""
        return await self._pool.run(lambda conn: accounts.entries(conn, user_id, limit))

    async def _redeem(self, requests: Sequence[RedeemRequest]) -> list[RedeemResult]:
        return await self._pool.run(lambda conn: redeem.redeem_batch(conn, requests))

    async def _held(self, requests: Sequence[RedeemRequest]) -> tuple[set[str], set[str]]:
        return await self._pool.run(lambda conn: redeem.held(conn, requests))
