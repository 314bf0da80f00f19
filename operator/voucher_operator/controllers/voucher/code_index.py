"""Which code belongs to which Voucher, as far as the ledger has confirmed it to this process.

Filled by `vouchers`, asked by `redemptions`: for a `voucherRef`, and to hint at the counter that has moved. Memory
only, for some of these codes are secrets.
"""


class CodeIndex:
    """Which Voucher (uid) the ledger holds which code (normal form) for, as far as this process has put it."""

    def __init__(self) -> None:
        self._codes: dict[str, str] = {}
        self._uids: dict[str, str] = {}

    def put(self, uid: str, code: str) -> None:
        """The ledger holds this code for this Voucher."""
        self._codes[uid] = code
        self._uids[code] = uid

    def drop(self, uid: str) -> None:
        """The ledger holds no code for this Voucher any more."""
        code = self._codes.pop(uid, None)
        if code is not None and self._uids.get(code) == uid:
            del self._uids[code]

    def code_of(self, uid: str) -> str | None:
        """Return the code that the ledger holds for this Voucher, if it is known to hold one."""
        code = self._codes.get(uid)
        return code if code is not None and self._uids.get(code) == uid else None

    def uid_of(self, code: str) -> str | None:
        """Return the Voucher that owns this code, if one is known."""
        return self._uids.get(code)
