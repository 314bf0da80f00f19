"""A migration that waits: for Jobs that start before the ledger, its Secret or its roles are there.

It waits in the process: a container that ends and is started again would look like a crash loop, and after a while only
be tried every five minutes. See also: `ledger.schema.migrate` tries once; `cli` reads the options; the chart's hook
and Job give them.
"""

import asyncio
import logging
import math
import time
from itertools import chain, repeat

from voucher_operator.ledger.schema.migrate import migrate
from voucher_operator.resources.errors import OperatorError, TransientError
from voucher_operator.settings import Settings

log = logging.getLogger(__name__)

DEFER = ("never", "absent", "always")
"""What may be left to a later run: nothing, a ledger that cannot be reached, or also one that refuses."""


async def migrate_with_retries(settings: Settings, *, wait: float = 0.0, defer: str = "never") -> list[str] | None:
    """Try for `wait` seconds (`inf`: for ever) and return the ids of the migrations applied.

    None: it could not be done, and `defer` says that somebody else does it later. The Secret is read anew at each try.
    Raises as `ledger.schema.migrate.migrate`, and LedgerUnavailableError without a Secret.
    """
    deadline = time.monotonic() + wait
    told = ""
    for pause in chain((1.0, 2.0, 5.0), repeat(10.0)):
        try:
            return await _once(settings)
        except OperatorError as error:
            if time.monotonic() + pause > deadline:
                _leave(error, defer)
                return None
            if error.message != told:
                log.warning("the migration waits: %s", error.message, extra={"reason": error.reason})
            told = error.message
        await asyncio.sleep(pause)
    raise AssertionError("repeat() ended")


def seconds(text: str) -> float:
    """Read `--wait`. Raises ValueError for what is no time to wait."""
    value = float(text)
    if math.isnan(value) or value < 0:
        raise ValueError(text)
    return value


async def _once(settings: Settings) -> list[str]:
    return await migrate(settings.conninfo(), currency=settings.currency, runtime_role=settings.runtime_role)


def _leave(error: OperatorError, defer: str) -> None:
    if not (defer == "always" or (defer == "absent" and isinstance(error, TransientError))):
        raise error
    log.warning("the migration is left to a later run: %s", error.message, extra={"reason": error.reason})
