"""Puts the controllers together: caches, queues, reconcilers and passes for one time of leading.

See also: `process.run` supplies what lives as long as the process, and runs what is returned.
"""

import asyncio
from dataclasses import dataclass

from voucher_operator.controllers.organization import Organizations
from voucher_operator.controllers.purchase.controller import PurchaseController
from voucher_operator.controllers.purchase.periodic import PurchaseTasks
from voucher_operator.controllers.redemption.backpressure import Backpressure
from voucher_operator.controllers.redemption.controller import RedemptionController
from voucher_operator.controllers.redemption.request_builder import RequestBuilder
from voucher_operator.controllers.redemption.result_writer import ResultWriter
from voucher_operator.controllers.redemption.undo_reporter import UndoReporter
from voucher_operator.controllers.voucher.controller import VoucherController
from voucher_operator.controllers.voucher.counter_sync import CounterSync
from voucher_operator.controllers.watch import Feed
from voucher_operator.kube.cache import Cache
from voucher_operator.kube.client import KubeApi
from voucher_operator.kube.event_recorder import EventRecorder
from voucher_operator.kube.work_queue import WorkQueue
from voucher_operator.ledger.api import Ledger
from voucher_operator.payments.catalog import Catalog
from voucher_operator.payments.purchase_saga import Checkout
from voucher_operator.settings import Settings

_STATUSES = 20
"""Statuses of Redemptions that are written at once: more connections make the API server slower, and leave none to the
Lease."""


@dataclass(frozen=True, slots=True)
class Process:
    """What lives as long as the process."""

    ledger: Ledger
    kube: KubeApi
    recorder: EventRecorder
    catalog: Catalog
    checkout: Checkout
    settings: Settings


@dataclass(frozen=True, slots=True)
class Controllers:
    """What works while this replica leads; `feed` has the queues."""

    feed: Feed
    vouchers: VoucherController
    projection: CounterSync
    purchases: PurchaseTasks
    undone: UndoReporter


def assemble(process: Process) -> Controllers:
    """Make everything anew, with empty caches."""
    ledger, api, settings = process.ledger, process.kube, process.settings
    voucher_cache, redemption_cache = Cache(), Cache()
    vouchers = VoucherController(ledger, api, process.recorder, voucher_cache)
    pace = Backpressure(_STATUSES)
    answers = ResultWriter(api, process.recorder, redemption_cache, pace)
    requests = RequestBuilder(
        api, redemption_cache, voucher_cache, vouchers.codes, settings.not_found_grace, pace, vouchers.outage
    )
    redemptions = RedemptionController(ledger, redemption_cache, requests, answers)
    organizations = Organizations(api, settings.counter_sync_interval, wanted=settings.organizations)
    orders = PurchaseController(
        ledger,
        redemption_cache,
        requests,
        answers,
        process.catalog,
        process.checkout,
        organizations,
        settings.payment_deadline,
        settings.any_tenant,
        asyncio.Semaphore(max(1, settings.workers // 2)),
    )
    longest = settings.backoff_max
    feed = Feed(
        voucher_cache,
        WorkQueue("Voucher", vouchers.reconcile, workers=8, backoff_max=longest),
        redemption_cache,
        WorkQueue("Redemption", redemptions.reconcile, workers=settings.workers, backoff_max=longest),
        WorkQueue("Order", orders.reconcile, workers=settings.workers, backoff_max=longest),
    )
    vouchers.requeue = feed.voucher_queue.add
    return Controllers(
        feed,
        vouchers,
        CounterSync(ledger, api, feed, vouchers, settings, requests.hints),
        _passes(process, feed, orders, vouchers),
        UndoReporter(
            ledger,
            api,
            redemptions,
            feed.redemption_queue,
            orders,
            feed.order_queue,
            vouchers.outage,
            settings,
        ),
    )


def _passes(process: Process, feed: Feed, orders: PurchaseController, vouchers: VoucherController) -> PurchaseTasks:
    return PurchaseTasks(
        process.ledger,
        process.kube,
        feed.redemption_cache,
        feed.order_queue,
        orders,
        process.checkout,
        vouchers.outage,
        process.settings,
        tell=lambda body: feed.redemption(body, gone=False),
    )
