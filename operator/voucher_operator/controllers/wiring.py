"""Builds everything that runs while this replica leads: use cases, caches, queues, controllers and periodic tasks.

See also: `process.run` supplies the objects of the process, and runs what is returned.
"""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final

from voucher_operator.controllers.feed import Feed, customer_flow
from voucher_operator.controllers.kinds import VOUCHER
from voucher_operator.controllers.organization import Organizations
from voucher_operator.controllers.purchase.controller import PurchaseController
from voucher_operator.controllers.purchase.payment_reporter import PaymentReporter
from voucher_operator.controllers.purchase.periodic import PurchaseTasks
from voucher_operator.controllers.redemption.backpressure import Backpressure
from voucher_operator.controllers.redemption.controller import RedemptionController
from voucher_operator.controllers.redemption.request_builder import RequestBuilder
from voucher_operator.controllers.redemption.result_writer import ResultWriter
from voucher_operator.controllers.resync import Resync
from voucher_operator.controllers.samples import REDEMPTION_SAMPLE, VOUCHER_SAMPLE
from voucher_operator.controllers.secret_codes import SecretCodes
from voucher_operator.controllers.status_check import StatusCheck
from voucher_operator.controllers.undo_reporter import UndoReporter
from voucher_operator.controllers.unserved import UnservedNamespaces
from voucher_operator.controllers.voucher.controller import VoucherController
from voucher_operator.controllers.voucher.counter_sync import CounterSync
from voucher_operator.controllers.voucher.events import VoucherEvents
from voucher_operator.controllers.voucher.marks import marks
from voucher_operator.kube.cache import Cache
from voucher_operator.kube.client import KubeApi
from voucher_operator.kube.event_recorder import EventRecorder
from voucher_operator.kube.fairness import Flow
from voucher_operator.kube.shared_reads import SharedReads
from voucher_operator.kube.work_queue import WorkQueue
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.health import LedgerHealth
from voucher_operator.payments.catalog import Catalog
from voucher_operator.payments.purchase_saga import Checkout
from voucher_operator.services.checkout_slots import CheckoutSlots
from voucher_operator.services.code_index import CodeIndex
from voucher_operator.services.issue import IssueService
from voucher_operator.services.order import OrderService
from voucher_operator.services.redeem import RedeemService
from voucher_operator.settings import Settings

_STATUSES: Final = 20
"""Maximum number of concurrent status patches of Redemptions: more connections make the API server slower, and leave
none for the Lease."""
_VOUCHER_WORKERS: Final = 8


@dataclass(frozen=True, slots=True)
class Process:
    """The objects that live as long as the process."""

    ledger: Ledger
    kube: KubeApi
    recorder: EventRecorder
    catalog: Catalog
    checkout: Checkout
    settings: Settings


@dataclass(frozen=True, slots=True)
class Controllers:
    """The controllers and periodic tasks of one term as leader; `feed` has the queues."""

    feed: Feed
    vouchers: VoucherController
    redemptions: RedemptionController
    purchases: PurchaseController
    counter_sync: CounterSync
    resync: Resync
    purchase_tasks: PurchaseTasks
    payment_reporter: PaymentReporter
    undo_reporter: UndoReporter
    unserved: UnservedNamespaces
    status_check: StatusCheck

    @property
    def ledger_tasks(self) -> Mapping[str, Callable[[], Coroutine[Any, Any, None]]]:
        """The same for those that need no Voucher and no Redemption: they run whatever the state of the CRDs."""
        return {"payments": self.purchase_tasks.run_payments}

    @property
    def tasks(self) -> Mapping[str, Callable[[], Coroutine[Any, Any, None]]]:
        """The periodic tasks, by name; each runs until it is cancelled."""
        return {
            "counter sync": self.counter_sync.run,
            "resync": self.resync.run,
            "purchases": self.purchase_tasks.run,
            "payment reporter": self.payment_reporter.run,
            "undo reporter": self.undo_reporter.run,
            "unserved namespaces": self.unserved.run,
            "status check": self.status_check.run,
        }


@dataclass(frozen=True, slots=True)
class _Services:
    """The use cases, and the objects that they share with the controllers."""

    health: LedgerHealth
    codes: CodeIndex
    organizations: Organizations
    issuing: IssueService
    redeems: RedeemService
    orders: OrderService


def build_controllers(process: Process) -> Controllers:
    """Build all controllers, with empty caches."""
    services = _services(process)
    settings = process.settings
    secrets = SecretCodes(
        SharedReads(process.kube, "Secret"), settings.excluded_secrets, settings.unlabelled_code_secrets
    )
    voucher_cache, redemption_cache = Cache(VOUCHER_SAMPLE, marks), Cache(REDEMPTION_SAMPLE)
    vouchers = VoucherController(
        services.issuing,
        services.health,
        process.kube,
        secrets,
        VoucherEvents(process.recorder, voucher_cache),
        voucher_cache,
    )
    redemptions, purchases = _redemptions(process, services, secrets, voucher_cache, redemption_cache)
    feed = _feed(process.settings, voucher_cache, redemption_cache, vouchers, redemptions, purchases)
    vouchers.requeue = feed.voucher_queue.add
    return _with_tasks(process, services, feed, vouchers, redemptions, purchases)


def _services(process: Process) -> _Services:
    ledger, settings, codes = process.ledger, process.settings, CodeIndex()
    organizations = Organizations(
        process.kube,
        settings.counter_sync_interval,
        namespace=settings.namespaces[0],
        wanted=settings.organizations,
    )
    redeems = RedeemService(ledger, codes)
    orders = OrderService(
        ledger,
        process.catalog,
        process.checkout,
        redeems,
        organizations,
        settings.payment_deadline,
        settings.any_tenant,
        CheckoutSlots(settings.workers // 2),
    )
    return _Services(
        LedgerHealth(), codes, organizations, IssueService(ledger, codes, settings.code_prefixes), redeems, orders
    )


def _redemptions(
    process: Process, services: _Services, secrets: SecretCodes, voucher_cache: Cache, redemption_cache: Cache
) -> tuple[RedemptionController, PurchaseController]:
    backpressure = Backpressure(_STATUSES)
    writer = ResultWriter(process.kube, process.recorder, redemption_cache, backpressure)
    requests = RequestBuilder(
        SharedReads(process.kube, VOUCHER.kind),
        secrets,
        redemption_cache,
        voucher_cache,
        services.codes,
        process.settings.not_found_grace,
        backpressure,
        services.health,
    )
    return (
        RedemptionController(services.redeems, redemption_cache, requests, writer),
        PurchaseController(
            services.orders, services.health, redemption_cache, requests, writer, services.organizations
        ),
    )


def _feed(
    settings: Settings,
    voucher_cache: Cache,
    redemption_cache: Cache,
    vouchers: VoucherController,
    redemptions: RedemptionController,
    purchases: PurchaseController,
) -> Feed:
    longest, workers = settings.backoff_max, settings.workers

    def flow(key: str) -> Flow:
        return customer_flow(key, redemption_cache.get(key))

    return Feed(
        voucher_cache,
        WorkQueue("Voucher", vouchers.reconcile, workers=_VOUCHER_WORKERS, backoff_max=longest),
        redemption_cache,
        WorkQueue("Redemption", redemptions.reconcile, workers=workers, backoff_max=longest, flow=flow),
        WorkQueue("Order", purchases.reconcile, workers=workers, backoff_max=longest, flow=flow),
    )


def _with_tasks(
    process: Process,
    services: _Services,
    feed: Feed,
    vouchers: VoucherController,
    redemptions: RedemptionController,
    purchases: PurchaseController,
) -> Controllers:
    ledger, api, settings, health = process.ledger, process.kube, process.settings, services.health
    resync = Resync(ledger, api, feed, vouchers, settings)
    return Controllers(
        feed,
        vouchers,
        redemptions,
        purchases,
        CounterSync(ledger, health, feed, vouchers, settings, services.codes.moved, resync.resync),
        resync,
        PurchaseTasks(
            ledger,
            api,
            feed.redemption_cache,
            feed.order_queue,
            purchases,
            process.checkout,
            health,
            settings,
            notify=lambda body: feed.redemption(body, gone=False),
        ),
        PaymentReporter(ledger, api, process.recorder, health, settings),
        UndoReporter(ledger, api, redemptions, feed.redemption_queue, purchases, feed.order_queue, health, settings),
        UnservedNamespaces(ledger, api, services.issuing, vouchers, settings),
        StatusCheck(ledger, api, redemptions, feed.redemption_queue, purchases, feed.order_queue, settings),
    )
