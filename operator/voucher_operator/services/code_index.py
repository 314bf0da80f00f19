"""Which code belongs to which Voucher, as far as the ledger has confirmed it to this process.

`issue` fills it; it is read for a `voucherRef`, and to record the Vouchers whose counters have just changed. In memory
only, because some codes are secret. See also: `controllers.voucher.counter_sync` reads the recorded Vouchers.
"""

from sys import intern

from voucher_operator.resources.codes import normal_code


class CodeIndex:
    """Codes (normal form) by Voucher (uid), of the Vouchers that this process has put into the ledger."""

    def __init__(self) -> None:
        self._codes: dict[str, str] = {}
        self._uids: dict[str, str] = {}
        self.moved: set[str] = set()
        """uids of Vouchers that this process has just redeemed; the counter sync removes those that it reads."""

    def put(self, uid: str, code: str) -> None:
        """Record that the ledger has this code for this Voucher."""
        # One object for each text, here and in the caches of the same objects.
        uid, code = intern(uid), intern(code)
        self._codes[uid] = code
        self._uids[code] = uid

    def drop(self, uid: str) -> None:
        """Record that the ledger no longer has a code for this Voucher."""
        code = self._codes.pop(uid, None)
        if code is not None and self._uids.get(code) == uid:
            del self._uids[code]

    def code_of(self, uid: str) -> str | None:
        """Return the code that the ledger has for this Voucher; None when unknown."""
        code = self._codes.get(uid)
        return code if code is not None and self._uids.get(code) == uid else None

    def uid_of(self, code: str) -> str | None:
        """Return the uid of the Voucher that owns this code; None when unknown."""
        return self._uids.get(code)

    def note_redeemed(self, code: str) -> None:
        """Record that the counters of the Voucher with this code, in any spelling, have changed."""
        if (owner := self.uid_of(normal_code(code))) is not None:
            self.moved.add(owner)
