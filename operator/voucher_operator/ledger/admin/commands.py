"""The commands `balance` and `release`: each in a session of its own, without a pool.

A pool gives up after a short wait, because a controller tries again; a command runs once.

See also: `reader` opens the sessions of all commands; `verify` and `export` are the larger ones.
"""

from typing import Final

from voucher_operator.ledger.admin.reader import command_session, read_only
from voucher_operator.ledger.credit import accounts
from voucher_operator.ledger.transactions import unit
from voucher_operator.ledger.types import Entry, LedgerInfo
from voucher_operator.ledger.voucher import vouchers

_ENTRIES: Final = 20


async def account(database_url: str, user_id: str) -> tuple[LedgerInfo, int, list[Entry]]:
    """Read the ledger's identity, a customer's balance in minor units, and the newest entries, the newest first.

    Raises LedgerUnavailableError and RequestRejectedError.
    """
    async with read_only(database_url, "voucher-operator balance") as connection, unit(connection):
        info = await accounts.info(connection)
        balance = await accounts.balance(connection, user_id)
        return info, balance, await accounts.entries(connection, user_id, _ENTRIES)


async def release(database_url: str, namespace: str, name: str, to: str) -> int:
    """Let namespace `to` issue the code that the last deleted Voucher of this name had; 0 or 1. Idempotent.

    Raises LedgerUnavailableError and RequestRejectedError.
    """
    async with command_session(database_url, "voucher-operator release") as connection, unit(connection):
        return await vouchers.release(connection, namespace, name, to)
