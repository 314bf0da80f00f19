"""Migrates with retries: for Jobs that start before the ledger, its Secret or its roles exist.

The retries are in the process: a container that exits and is restarted would look like a crash loop, and would be
restarted only every five minutes after some time. See also: `ledger.schema.migrate` migrates once; `cli` reads the
options; the chart's hook and Job set them.
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
"""When to defer the migration to a later run: never, when the ledger cannot be reached, or after any error."""


async def migrate_with_retries(settings: Settings, *, wait: float = 0.0, defer: str = "never") -> list[str] | None:
    """Retry for `wait` seconds (`inf`: without limit) and return the ids of the migrations applied.

    Returns None when it failed and `defer` allows to leave it to a later run. The Secret is read at each attempt.
    Raises as `ledger.schema.migrate.migrate`, and LedgerUnavailableError without a Secret.
    """
    deadline = time.monotonic() + wait
    logged = ""
    for pause in chain((1.0, 2.0, 5.0), repeat(10.0)):
        try:
            return await _once(settings)
        except OperatorError as error:
            if time.monotonic() + pause > deadline:
                _defer_or_raise(error, defer)
                return None
            if error.message != logged:
                log.warning("the migration will be retried: %s", error.message, extra={"reason": error.reason})
            logged = error.message
        await asyncio.sleep(pause)
    raise AssertionError("repeat() ended")


def seconds(text: str) -> float:
    """Parse the value of `--wait`. Raises ValueError for a negative value and for NaN."""
    value = float(text)
    if math.isnan(value) or value < 0:
        raise ValueError(text)
    return value


async def _once(settings: Settings) -> list[str]:
    return await migrate(settings.conninfo(), currency=settings.currency, runtime_role=settings.runtime_role)


def _defer_or_raise(error: OperatorError, defer: str) -> None:
    if not (defer == "always" or (defer == "absent" and isinstance(error, TransientError))):
        raise error
    log.warning("the migration is deferred to a later run: %s", error.message, extra={"reason": error.reason})
