"""Whether the ledger is known to be away, so that thousands of resources are told so at once.

Each would otherwise wait for a connection for a second or more, a few at a time. `projection`, which asks the ledger
every few seconds anyway, begins and ends an outage; the reconcilers only look.
"""

from voucher_operator.resources.errors import LedgerUnavailableError


class LedgerHealth:
    """One flag, with the words to tell."""

    def __init__(self) -> None:
        self._error: LedgerUnavailableError | None = None

    @property
    def lasts(self) -> bool:
        """Whether the ledger is away."""
        return self._error is not None

    def begin(self, error: LedgerUnavailableError) -> None:
        """The ledger could not be asked, for this reason, which may differ from the last."""
        self._error = error

    def end(self) -> None:
        """The ledger has answered."""
        self._error = None

    def check(self) -> None:
        """Raise LedgerUnavailableError while it lasts."""
        if self._error is not None:
            raise LedgerUnavailableError(*self._error.args)
