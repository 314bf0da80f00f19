"""Reads of single objects that tenants may cause by the thousand: shared, bounded in rate and number, and fair.

Thousands of resources may refer to one object, or each to another object, that does not exist. Callers that wait for
the same object share one call. An object that was read is never older than the call that asked for it; that an object
is absent, or must not be read, is remembered for some seconds, because whoever asks then tries again. See also:
`fairness` has the order; `client` makes the calls; `controllers.secret_codes` and `redemption.request_builder` use it.
"""

import asyncio
from collections import OrderedDict
from copy import copy
from typing import Final

from voucher_operator import telemetry
from voucher_operator.kube.client import Body, KubeApi
from voucher_operator.kube.errors import ForbiddenError
from voucher_operator.kube.fairness import FairRate, FairSlots, Flow
from voucher_operator.resources.errors import ApiError

PER_SECOND: Final = 40.0
"""Calls a second, for all callers together."""
_BURST: Final = 8
_AT_ONCE: Final = 4
"""Concurrent calls; the client has many more connections, which are for status patches."""
_ABSENT_SECONDS: Final = 3.0
_REMEMBERED: Final = 10_000
"""Absent objects; a path has up to a few hundred characters."""

_Answer = Body | ApiError | None


class SharedReads:
    """Reads objects of one kind by their paths; `resource` is its name in the metric."""

    def __init__(self, api: KubeApi, resource: str) -> None:
        self._api = api
        self._calls = telemetry.SHARED_READS.labels(resource)
        self._rate = FairRate(PER_SECOND, _BURST)
        self._slots = FairSlots(_AT_ONCE)
        self._waiting: dict[str, asyncio.Future[_Answer]] = {}
        """Calls that have not begun yet, by path: whoever asks now may share them."""
        self._absent: OrderedDict[str, tuple[float, ForbiddenError | None]] = OrderedDict()

    async def read(self, path: str, flow: Flow, *, fresh: bool = False) -> Body | None:
        """Read an object; None when it does not exist. Raises ApiError.

        `fresh`: that it is absent is not older than this call either. `flow` is who asks.
        """
        if not fresh and (known := self._absent.get(path)) is not None:
            until, error = known
            if asyncio.get_running_loop().time() < until:
                return _result(error)
            del self._absent[path]
        while (call := self._waiting.get(path)) is not None:
            await asyncio.wait([call])
            if not call.cancelled():
                return _result(call.result())
        return _result(await self._call(path, flow))

    async def _call(self, path: str, flow: Flow) -> _Answer:
        """Make the call for all who ask before it begins; when this caller is cancelled, another one makes it."""
        call = self._waiting[path] = asyncio.get_running_loop().create_future()
        try:
            await self._rate.turn(flow)
            async with self._slots.held(flow):
                await asyncio.sleep(0)  # who asks in the same turn of the event loop shares the call
                del self._waiting[path]
                answer = await self._answer(path)
        except BaseException:
            if self._waiting.get(path) is call:
                del self._waiting[path]
            call.cancel()
            raise
        call.set_result(answer)
        return answer

    async def _answer(self, path: str) -> _Answer:
        self._calls.inc()
        try:
            answer: _Answer = await self._api.read(path)
        except ApiError as error:
            answer = error
        if answer is None or isinstance(answer, ForbiddenError):
            self._remember(path, answer)
        return answer

    def _remember(self, path: str, error: ForbiddenError | None) -> None:
        self._absent[path] = (asyncio.get_running_loop().time() + _ABSENT_SECONDS, error)
        self._absent.move_to_end(path)
        if len(self._absent) > _REMEMBERED:
            self._absent.popitem(last=False)


def _result(answer: _Answer) -> Body | None:
    if isinstance(answer, ApiError):
        # One instance for each caller: a shared one would collect the tracebacks of all.
        raise copy(answer)
    return answer
