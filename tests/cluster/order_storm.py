"""A storm around an operator that handles orders: cut ways, a Stripe that fails, SIGKILL; thrown by dice.

Its moments are spread over the steps that the purchases take, not over time, so that a slow machine meets as much of
it as a fast one. Neighbours: `order_chaos` has the orders, `test_order_chaos` lets it rage.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from testbed.operator_process import OperatorProcess
from testbed.scripted_stripe import Fault, ScriptedStripe
from tests.cluster.chaos import Proxy, Scene, until
from tests.cluster.order_chaos import Crowd, Progress

_DEATHS: Final = 3
_CUTS: Final = 6
_STEPS: Final = 500
"""Of the some 560 steps that all purchases take: what is to be disturbed is disturbed before."""
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
class Storm:
    """Cuts and kills at random, as long as there is something under way."""

    here: Scene
    progress: Progress
    crowd: Crowd
    operator: OperatorProcess
    stripe: ScriptedStripe
    ways: Mapping[str, Proxy]
    """To postgres, nats and stripe."""
    dice: random.Random
    deaths: list[int] = field(default_factory=list)
    """How many orders were not at their end at each death."""
    cuts: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    async def rage(self) -> None:
        """Rage from the first step to nearly the last, then heal everything."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._kill())
            for name in self.ways:
                group.create_task(self._cut(name))
        self.stripe.heal()

    async def _moments(self, number: int) -> AsyncIterator[int]:
        """Wait for that many moments in the course of all orders, or until nothing is left to be disturbed."""
        for moment in sorted(self.dice.sample(range(1, _STEPS), number)):

            async def has_come(moment: int = moment) -> bool:
                return await self.progress.steps() >= moment or not await self.crowd.unsettled()

            await until(has_come, f"step {moment} of purchases", 120)
            yield moment

    async def _kill(self) -> None:
        doomed = [one.name for one in self.crowd.orders.values() if one.deleted]
        async for _ in self._moments(_DEATHS):
            await asyncio.to_thread(self.operator.kill)
            for name in doomed[len(self.deaths) :: _DEATHS]:
                await self.here.delete("redemptions", name)
            self.deaths.append(len(await self.crowd.unsettled()))
            self.operator.start()

    async def _cut(self, name: str) -> None:
        async for moment in self._moments(_CUTS):
            if name == "stripe" and moment % 2:
                self._order_faults()
                continue
            if name == "nats":
                await self._publishing()
            self.cuts.append(name)
            await asyncio.to_thread(self.ways[name].cut)
            await asyncio.sleep(self.dice.uniform(0.05, 1))
            await asyncio.to_thread(self.ways[name].mend)

    async def _publishing(self) -> None:
        """Wait until a batch of events is through: the next one is on its way then."""
        before = await self.progress.published()

        async def has_published() -> bool:
            return await self.progress.published() > before or not await self.crowd.unsettled()

        await until(has_published, "event that is published", 120)
        await asyncio.sleep(self.dice.uniform(0, 0.2))

    def _order_faults(self) -> None:
        path = self.dice.choice(_PATHS)
        faults = [*self.dice.sample(_PASSING, 3), self.dice.choice(_LASTING)]
        self.faults += faults
        self.stripe.fail(path, *faults)
