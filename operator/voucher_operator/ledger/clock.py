"""How far PostgreSQL's clock and this machine's are apart.

PostgreSQL's clock decides windows and deadlines. What another system must accept, as the end of a checkout at Stripe,
has to fit the time of the world, and nobody here knows which of the two clocks has it: `payments.stripe_requests`
chooses by the difference. See also: `credit.accounts` measures; `process.run` shows it.
"""

from datetime import timedelta
from typing import Final

TOLERATED: Final = timedelta(seconds=30)
"""A smaller difference has no effect, and is reported nowhere but in the metric."""


def difference(offset: timedelta) -> str | None:
    """Say in one line how far the clocks are apart; None when that is tolerated.

    `offset` is PostgreSQL's time minus this machine's.
    """
    if abs(offset) <= TOLERATED:
        return None
    word = "ahead of" if offset > timedelta() else "behind"
    return (
        f"PostgreSQL's clock is {abs(offset).total_seconds():.0f} s {word} this machine's: "
        "check the time synchronisation of both."
    )
