"""Configures kopf to watch both kinds, and to keep a deleted Voucher by a finalizer until its code is revoked.

The handlers only put keys into the work queues: a kopf handler that fails sleeps in one of `worker_limit` slots, so
fifty waiting resources would block all others (docs/adr/0001). `status.observedGeneration` is the only record of what
was handled, and it is written together with the conditions: kopf itself writes only the finalizer, and a field that
causes the next attempt while a deleted Voucher cannot be revoked (`kopf_progress`). See also: `feed`;
`voucher.revocation`; `kube.kopf_internals`; `process.run` runs what `build` returns.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import kopf

from voucher_operator.controllers.feed import Feed
from voucher_operator.controllers.kinds import GROUP, REDEMPTION, UNFINISHED, VERSION, VOUCHER
from voucher_operator.controllers.kopf_progress import NoProgress
from voucher_operator.controllers.voucher.controller import FINALIZER, VoucherController
from voucher_operator.controllers.voucher.revocation import Revocations
from voucher_operator.kube.kopf_internals import ListPace
from voucher_operator.resources.errors import ApiError, TransientError

_REVOKE_RETRY = 3.0


class GenerationMark(kopf.DiffBaseStorage):
    """Reports an object to kopf as handled when `status.observedGeneration` says so; stores nothing itself."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> Any:  # noqa: ARG002 - kopf's signature
        """Return the generation, the only thing that counts as a change."""
        return {"generation": body["metadata"].get("generation")}

    def fetch(self, *, body: kopf.Body) -> Any:
        """Return the generation that was handled last, or None."""
        seen = (body.get("status") or {}).get("observedGeneration", -1)
        return None if seen < 0 else {"generation": seen}

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: Any) -> None:
        """Write nothing: the controllers write observedGeneration in the same patch as the conditions."""


class UnboundedBackoff(Iterable[float]):
    """The pauses between kopf's attempts of one call, in seconds; kopf's own list of pauses ends.

    When kopf gives up, it ends the watches of all namespaces: a namespace whose Role was deleted would stop the others.
    """

    def __iter__(self) -> Iterator[float]:
        """Start from the first pause."""
        return itertools.chain((0.5, 1.0, 2.0, 3.0), itertools.repeat(5.0))


def build(feed: Feed, controller: VoucherController, revocations: Revocations) -> kopf.OperatorRegistry:
    """Build kopf's registry: two watch handlers and one delete handler."""
    registry = kopf.OperatorRegistry()
    pace = ListPace()
    pace.install()

    @kopf.on.event(GROUP, VERSION, VOUCHER.plural, registry=registry)
    async def voucher_seen(event: kopf.RawEvent, **_: Any) -> None:
        pace.seen(event["object"]["metadata"]["uid"])
        feed.voucher(event["object"], gone=event["type"] == "DELETED")

    @kopf.on.event(GROUP, VERSION, REDEMPTION.plural, registry=registry)
    async def redemption_seen(event: kopf.RawEvent, **_: Any) -> None:
        pace.seen(event["object"]["metadata"]["uid"])
        feed.redemption(event["object"], gone=event["type"] == "DELETED")

    @kopf.on.delete(GROUP, VERSION, VOUCHER.plural, registry=registry, id="revoke")
    async def voucher_deleted(body: kopf.Body, **_: Any) -> None:
        try:
            await revocations.revoke(controller, dict(body))
        except (TransientError, ApiError) as error:
            raise kopf.TemporaryError(error.message, delay=_REVOKE_RETRY) from None

    @kopf.on.login(registry=registry)
    async def login(
        **kwargs: Any,
    ) -> kopf.ConnectionInfo | None:  # async, for a handler in a thread cannot be cancelled
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    return registry


def settings() -> kopf.OperatorSettings:
    """The settings of kopf; docs/architecture.md has the reasons."""
    chosen = kopf.OperatorSettings()
    chosen.scanning.disabled = True
    chosen.posting.enabled = False
    chosen.peering.standalone = True
    chosen.persistence.finalizer = FINALIZER
    chosen.persistence.diffbase_storage = GenerationMark()
    chosen.persistence.progress_storage = NoProgress()
    # Otherwise kopf kills the whole process ten minutes after a lost Lease.
    chosen.process.ultimate_exiting_timeout = None
    chosen.networking.error_backoffs = UnboundedBackoff()
    chosen.queueing.worker_limit = 50
    chosen.queueing.idle_timeout = 0.02
    # After a patch kopf would hold a worker for seconds, until the watch shows it. During the first list there is no
    # watch yet: ten objects a second would get their finalizer. An older state does no harm: handlers are idempotent.
    chosen.persistence.consistency_timeout = 0
    # A single list of all unfinished Redemptions would be the largest object in memory.
    chosen.watching.chunk_size = 200
    chosen.watching.server_timeout = 300
    chosen.watching.client_timeout = 310
    chosen.watching.connect_timeout = 10
    chosen.watching.inactivity_timeout = 70
    chosen.watching.reconnect_backoff = 0.5
    chosen.watching.field_selectors[GROUP, REDEMPTION.plural] = UNFINISHED
    return chosen
