"""Whether the ledger is known to be unavailable, so that thousands of resources see it at once.

Each would otherwise wait for a connection for a second or more, a few at a time. The counter sync, which asks the
ledger every few seconds anyway, sets the state; the reconcilers only read it.
"""

from voucher_operator.resources.errors import LedgerUnavailableError


class LedgerHealth:
    """Available until `set_unavailable`."""

    def __init__(self) -> None:
        self._error: LedgerUnavailableError | None = None

    @property
    def available(self) -> bool:
        """Whether the ledger answered when it was last asked."""
        return self._error is None

    def set_unavailable(self, error: LedgerUnavailableError) -> None:
        """The ledger could not be asked, for this reason, which may differ from the last."""
        self._error = error

    def set_available(self) -> None:
        """The ledger has answered."""
        self._error = None

    def check(self) -> None:
        """Raise LedgerUnavailableError while it is unavailable."""
        if self._error is not None:
            raise LedgerUnavailableError(*self._error.args)
