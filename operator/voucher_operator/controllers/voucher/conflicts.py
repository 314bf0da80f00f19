"""Which Vouchers wait for a code that another Voucher owns or owned, by code: they are tried when it becomes free.

In memory only, because some codes are secret; a Voucher that is missing here is tried again by
`counter_sync.CounterSync.recheck`. See also: `controller` fills it, and asks when a code is revoked.
"""

from collections.abc import Collection


class Conflicts:
    """Keys of Vouchers by the code (normal form) that they want."""

    def __init__(self) -> None:
        self._codes: dict[str, str] = {}
        self._keys: dict[str, set[str]] = {}

    def add(self, key: str, code: str) -> None:
        """Record which code a Voucher wants; call `drop` when it has it, or wants none."""
        if self._codes.get(key) != code:
            self.drop(key)
            self._codes[key] = code
            self._keys.setdefault(code, set()).add(key)

    def drop(self, key: str) -> None:
        """Record that a Voucher waits for no code."""
        code = self._codes.pop(key, None)
        if code is None:
            return
        self._keys[code].discard(key)
        if not self._keys[code]:
            del self._keys[code]

    def code_of(self, key: str) -> str | None:
        """Return the code for which a Voucher waits; None if it waits for none."""
        return self._codes.get(key)

    def waiting(self, code: str | None) -> Collection[str]:
        """Return the keys of the Vouchers that wait for a code; of all that wait when it is not known which is free."""
        return list(self._codes) if code is None else list(self._keys.get(code, ()))
