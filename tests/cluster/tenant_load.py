"""Thousands of Redemptions of one tenant that cannot be decided, and what they may cost the others.

Nothing here measures a time: calls, attempts and unfinished Redemptions are counted when something else has happened.
See also: test_tenant_load.py runs it with some thousands, tests/stress/test_tenant_load.py with 20,000.
"""

import asyncio
import math
from dataclasses import dataclass
from typing import Any

from testbed.operator_process import OperatorProcess
from tests.cluster.chaos import ChaosContext
from tests.cluster.chaos_client import until
from voucher_operator.kube.shared_reads import PER_SECOND

_ATTEMPTS = 'voucher_operator_queue_wait_seconds_count{resource="Redemption"}'
_QUEUE = 'voucher_operator_queue_length{resource="Redemption"}'
_READS = 'voucher_operator_shared_reads_total{resource="Secret"}'
_WRITES = 'voucher_operator_status_writes_total{resource="Redemption"}'
_BURST = 9
_FIRST_PAUSES = 0.4, 30.0
"""The shortest first pause of the backoff, and the longest of all, in seconds."""


@dataclass
class Load:
    """What a running operator has done."""

    operator: OperatorProcess

    async def value(self, name: str) -> float:
        """Read a metric; 0 before it is there, or while nobody answers."""
        try:
            return (await asyncio.to_thread(self.operator.metrics)).get(name, 0.0)
        except OSError:
            return 0.0

    async def reaches(self, name: str, number: float, within: float = 300.0) -> None:
        """Wait until a metric has reached a number."""

        async def reached() -> bool:
            return await self.value(name) >= number

        await until(reached, f"{name} {number:g}", within)

    async def all_wait(self, number: int, within: float = 300.0) -> None:
        """Wait until as many statuses have been written."""
        await self.reaches(_WRITES, number, within)

    async def all_known(self, number: int, within: float = 300.0) -> None:
        """Wait until as many Redemptions are in the queue."""
        await self.reaches(_QUEUE, number, within)

    async def attempts(self) -> float:
        """Return how often a worker has taken a Redemption."""
        return await self.value(_ATTEMPTS)

    async def reads(self) -> float:
        """Return how often Secrets were read."""
        return await self.value(_READS)

    def lost_the_lease(self) -> bool:
        """Whether it ever lost the Lease."""
        return any(record.get("message") == "no longer leading" for record in self.operator.records())


def source(name: str) -> dict[str, Any]:
    """Return a reference to a Secret."""
    return {"codeFrom": {"secretKeyRef": {"name": name, "key": "code"}}}


async def without_a_secret(context: ChaosContext, number: int, secrets: int) -> None:
    """Create Redemptions: `secrets` of them with an absent Secret each, all others with one for all."""
    await asyncio.gather(*(context.redeem([f"own-{n}"], None, **source(f"absent-{n}")) for n in range(secrets)))
    await context.redeem([f"shared-{n}" for n in range(number - secrets)], None, **source("absent"))


def most_reads(seconds: float) -> float:
    """Return how many reads there may be in so many seconds."""
    return _BURST + PER_SECOND * seconds


def most_attempts(number: int, seconds: float) -> float:
    """Return how many attempts exponential backoff allows for so many Redemptions in so many seconds."""
    first, longest = _FIRST_PAUSES
    growing = math.log2(1 + min(seconds, 2 * longest) / first)
    return number * (2 + growing + max(0.0, seconds - longest) / (0.8 * longest))


async def lease_transitions(context: ChaosContext) -> int:
    """Return how often the Lease has changed hands."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{context.namespace}/leases/voucher-operator"
    return int((await context.admin.call("GET", path))["spec"].get("leaseTransitions", 0))
