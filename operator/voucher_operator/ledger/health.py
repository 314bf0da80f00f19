"""Whether the ledger is known to be unavailable, so that the reconcilers of all resources know it at once.

Each of them would otherwise wait for a connection for a second or more, a few at a time. The counter sync, which reads
the ledger every few seconds, sets the state; the reconcilers only read it.
"""

from voucher_operator.resources.errors import LedgerUnavailableError


class LedgerHealth:
    """Available until `set_unavailable`."""

    def __init__(self) -> None:
        self._error: LedgerUnavailableError | None = None

    @property
    def available(self) -> bool:
        """Whether the last read of the ledger succeeded."""
        return self._error is None

    def set_unavailable(self, error: LedgerUnavailableError) -> None:
        """Record that a read failed, with its error, which may differ from the one before."""
        self._error = error

    def set_available(self) -> None:
        """Record that a read succeeded."""
        self._error = None

    def check(self) -> None:
        """Raise LedgerUnavailableError while it is unavailable."""
        if self._error is not None:
            raise LedgerUnavailableError(*self._error.args)
