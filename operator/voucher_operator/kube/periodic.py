"""Runs a task periodically while this replica leads.

See also: `controllers.resync`, `controllers.voucher.counter_sync` and `controllers.purchase.periodic` use it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from voucher_operator.resources.errors import ApiError, OperatorError

log = logging.getLogger(__name__)


async def every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` now, and again `seconds` after each run; a failure is logged, and the next run tries again."""
    while True:
        try:
            await work()
        except (ApiError, OperatorError) as error:
            log.info("task will be retried", extra={"resource": "task", "key": work.__name__, "reason": str(error)})
        except Exception:
            log.exception("task failed", extra={"resource": "task", "key": work.__name__, "reason": "InternalError"})
        await asyncio.sleep(seconds)
