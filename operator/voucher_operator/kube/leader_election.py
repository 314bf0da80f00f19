"""Leader election by a Lease, so that one replica watches and writes at a time.

The `kubernetes` client does the election. Two things are added: a failed call of any kind counts as "not renewed"
instead of ending the election, and a leader that stops releases the Lease, so that a standby takes over at once.
The Lease only avoids duplicate work: with two leaders at once the result is still correct, because the ledger
decides. A process that was stopped for longer than its Lease learns of it late: its leader's work calls
`Leadership.check` before each write. See also: `process.run` supplies the work of the leader.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, V1Lease, V1ObjectMeta
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from voucher_operator import telemetry
from voucher_operator.resources.errors import LeaseExpiredError
from voucher_operator.settings import Settings

log = logging.getLogger(__name__)

_FAILURES = (ApiException, aiohttp.ClientError, TimeoutError, asyncio.TimeoutError, OSError)


class TimedLeaseLock(LeaseLock):
    """A LeaseLock whose calls have a time limit and never raise.

    Without `asyncio.wait_for`: before Python 3.12 it loses a cancellation that arrives together with the response.
    """

    def __init__(self, settings: Settings, client: ApiClient) -> None:
        super().__init__(settings.lease_name, settings.pod_namespace, settings.pod_name, client)
        self._timeout = settings.renew_deadline / 2
        self.held_since = -math.inf
        """When the last call that took or renewed the Lease was sent, by the monotonic clock, in seconds."""

    async def get(self, name: str, namespace: str) -> Any:
        """Read the Lease; a network failure is returned like a failure of the API."""
        try:
            async with asyncio.timeout(self._timeout):
                response = await super().get(name, namespace)
        except _FAILURES as error:
            return False, ApiException(status=0, reason=type(error).__name__)
        telemetry.API_LIVENESS.record_response()
        return response

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        """Create the Lease; False when that failed.

        Replaces the library's method: in 37.0.2 it passes `pretty=True`, which the library's own validation refuses.
        """
        body = V1Lease(metadata=V1ObjectMeta(name=name), spec=self.update_lease(election_record))
        return await self._try(self._create(namespace, body))

    async def _create(self, namespace: str, body: V1Lease) -> bool:
        await self.api_instance.create_namespaced_lease(namespace, body)
        return True

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        """Renew or acquire the Lease; False when that failed."""
        return await self._try(super().update(name, namespace, updated_record))

    async def release(self) -> None:
        """Release the Lease if this replica still holds it, so that a standby does not wait until it expires."""
        try:
            async with asyncio.timeout(self._timeout):
                lease = await self.api_instance.read_namespaced_lease(self.name, self.namespace)
                if lease.spec is not None and lease.spec.holder_identity == self.identity:
                    lease.spec.holder_identity = ""
                    await self.api_instance.replace_namespaced_lease(self.name, self.namespace, lease)
        except _FAILURES as error:
            log.info("Lease not released, it will expire", extra={"key": self.name, "reason": type(error).__name__})

    async def _try(self, call: Awaitable[bool]) -> bool:
        sent = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                done = await call
        except _FAILURES:
            return False
        if done:
            self.held_since = sent
        return done


class Leadership:
    """Runs `work` while this replica holds the Lease, until cancelled."""

    def __init__(self, settings: Settings, client: ApiClient, work: Callable[[], Awaitable[None]]) -> None:
        self._settings = settings
        self._work = work
        self._lock = TimedLeaseLock(settings, client)
        self._leading: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        """The work that is cancelled and has not ended yet."""
        # The library logs a traceback for each failed attempt to acquire the Lease; the results are logged here.
        logging.getLogger("kubernetes.aio.leaderelection").setLevel(logging.CRITICAL)

    @property
    def leads(self) -> bool:
        """Whether this replica is the leader now."""
        return self._leading is not None

    def check(self) -> None:
        """Raise LeaseExpiredError when the Lease has passed by this process's monotonic clock.

        That clock goes on while the process is stopped. No standby takes the Lease earlier: it counts from when it saw
        the renewal, which is later than when that was sent.
        """
        if time.monotonic() >= self._lock.held_since + self._settings.lease_duration:
            raise LeaseExpiredError

    async def run(self) -> None:
        """Take part in the election until cancelled; then stop the work first, and release the Lease afterwards."""
        try:
            while True:
                try:
                    await self._elect()
                except Exception:
                    log.exception("election failed", extra={"resource": "lease", "key": self._lock.name})
                    await self._stop_work()
                    await asyncio.sleep(self._settings.retry_period)
        finally:
            await self._stop_work()
            await self._lock.release()

    async def _elect(self) -> None:
        """Wait for the Lease, lead, and return when the Lease is lost."""
        config = Config(
            self._lock,
            lease_duration=self._settings.lease_duration,
            renew_deadline=self._settings.renew_deadline,
            retry_period=self._settings.retry_period,
            onstarted_leading=self._lead,
            onstopped_leading=self._stop_work,
        )
        await LeaderElection(config).run()

    async def _lead(self) -> None:
        log.info("leading", extra={"resource": "lease", "key": self._lock.name, "reason": "LeaseAcquired"})
        telemetry.LEADER.set(1)
        self._leading = asyncio.create_task(self._run_work(), name="leading")

    async def _run_work(self) -> None:
        """Run the work; when it fails, start it again instead of ending the process."""
        while True:
            try:
                await self._work()
            except Exception:
                log.exception("restarting the controllers", extra={"resource": "process", "reason": "InternalError"})
            await asyncio.sleep(self._settings.retry_period)

    async def _stop_work(self) -> None:
        """Stop the work, and wait for its end: again, when the process stops while the end is waited for."""
        task, self._leading = self._leading, None
        if task is not None:
            telemetry.LEADER.set(0)
            task.cancel()
            self._ending = task
        if self._ending is None:
            return
        await asyncio.wait([self._ending])
        self._ending = None
        log.info("no longer leading", extra={"resource": "lease", "key": self._lock.name, "reason": "LeaseReleased"})
