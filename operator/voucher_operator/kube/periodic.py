"""What is done again and again while this replica leads. See also: `projection` and `purchases` are made of it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from voucher_operator.resources.errors import ApiError, OperatorError

log = logging.getLogger(__name__)


async def every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do the work now and after each pause; a failure is logged and waits for the next turn."""
    while True:
        try:
            await work()
        except (ApiError, OperatorError) as error:
            log.info("pass postponed", extra={"resource": "pass", "key": work.__name__, "reason": str(error)})
        except Exception:
            log.exception("pass failed", extra={"resource": "pass", "key": work.__name__, "reason": "InternalError"})
        await asyncio.sleep(seconds)
