"""Faults at random moments while an operator handles orders: cut connections, a Stripe that fails, SIGKILL.

The moments are spread over the steps that the purchases take, not over time, so that a slow machine meets as many
faults as a fast one. See also: `order_load` has the orders, `test_order_chaos` runs both.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from testbed.operator_process import OperatorProcess
from testbed.scripted_stripe import Fault, ScriptedStripe
from tests.cluster.chaos import ChaosContext
from tests.cluster.chaos_client import until
from tests.cluster.order_load import OrderLoad, Progress
from tests.cluster.proxy import Proxy

_KILLS: Final = 3
_CUTS: Final = 6
_STEPS: Final = 500
"""Faults happen before this step, of about 560 that all purchases take."""
_PASSING: Final = (
    Fault.BUSY,
    Fault.UNAVAILABLE,
    Fault.IN_USE,
    Fault.CUT,
    Fault.CUT_AFTER,
    Fault.CUT_AFTER,
    Fault.SILENT_AFTER,
    Fault.EMPTY,
    Fault.GARBAGE,
    Fault.GATEWAY,
)
_LASTING: Final = (Fault.DECLINED, Fault.INVALID, Fault.FORBIDDEN)
_PATHS: Final = ("/v1/customers", "/v1/coupons", "/v1/checkout/sessions")


@dataclass
class FaultInjector:
    """Cuts and kills at random, as long as there is something under way."""

    context: ChaosContext
    progress: Progress
    load: OrderLoad
    operator: OperatorProcess
    stripe: ScriptedStripe
    proxies: Mapping[str, Proxy]
    """To postgres, nats and stripe."""
    rng: random.Random
    kills: list[int] = field(default_factory=list)
    """How many orders were not at their end at each kill."""
    cuts: list[str] = field(default_factory=list)
    stripe_faults: list[str] = field(default_factory=list)

    async def run_until_settled(self) -> None:
        """Inject faults from the first step to nearly the last, then clear them."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._kill())
            for name in self.proxies:
                group.create_task(self._cut(name))
        self.stripe.clear_faults()

    async def _moments(self, number: int) -> AsyncIterator[int]:
        """Wait for that many moments in the course of all orders, or until all orders are settled."""
        for moment in sorted(self.rng.sample(range(1, _STEPS), number)):

            async def has_come(moment: int = moment) -> bool:
                return await self.progress.steps() >= moment or not await self.load.unsettled()

            await until(has_come, f"step {moment} of purchases", 120)
            yield moment

    async def _kill(self) -> None:
        deleted = [one.name for one in self.load.orders.values() if one.deleted]
        async for _ in self._moments(_KILLS):
            await asyncio.to_thread(self.operator.kill)
            for name in deleted[len(self.kills) :: _KILLS]:
                await self.context.delete("redemptions", name)
            self.kills.append(len(await self.load.unsettled()))
            self.operator.start()

    async def _cut(self, name: str) -> None:
        async for moment in self._moments(_CUTS):
            if name == "stripe" and moment % 2:
                self._order_faults()
                continue
            if name == "nats":
                await self._publishing()
            self.cuts.append(name)
            await asyncio.to_thread(self.proxies[name].cut)
            await asyncio.sleep(self.rng.uniform(0.05, 1))
            await asyncio.to_thread(self.proxies[name].restore)

    async def _publishing(self) -> None:
        """Wait until a batch of events is through: the next one is on its way then."""
        before = await self.progress.published()

        async def has_published() -> bool:
            return await self.progress.published() > before or not await self.load.unsettled()

        await until(has_published, "event that is published", 120)
        await asyncio.sleep(self.rng.uniform(0, 0.2))

    def _order_faults(self) -> None:
        path = self.rng.choice(_PATHS)
        faults = [*self.rng.sample(_PASSING, 3), self.rng.choice(_LASTING)]
        self.stripe_faults += faults
        self.stripe.fail(path, *faults)
