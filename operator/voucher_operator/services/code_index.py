"""Which code belongs to which Voucher, as far as the ledger has confirmed it to this process.

Filled by `issue`, read for a `voucherRef`, and to mark the Vouchers whose counters have just moved. Memory only, for
some of these codes are secrets. See also: `controllers.voucher.counter_sync` takes the marks.
"""

from voucher_operator.resources.codes import normal_code


class CodeIndex:
    """Which Voucher (uid) the ledger holds which code (normal form) for, as far as this process has put it."""

    def __init__(self) -> None:
        self._codes: dict[str, str] = {}
        self._uids: dict[str, str] = {}
        self.moved: set[str] = set()
        """uids of Vouchers that this process has just redeemed; whoever reads their counters takes them out."""

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

    def note_redeemed(self, code: str) -> None:
        """Mark the Voucher of this code, in any spelling: its counters have moved."""
        if (owner := self.uid_of(normal_code(code))) is not None:
            self.moved.add(owner)
