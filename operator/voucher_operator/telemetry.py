"""Logs and metrics.

JSON lines on standard error, Prometheus counters; never a code, a credential or a customer in either.

See also: `cli` calls `configure_logging` once; every layer above `resources` may count; `web.probes` serves the
metrics.
"""

import logging
import re
import sys
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

REGISTRY = CollectorRegistry()

REDEMPTIONS = Counter(
    "voucher_operator_redemptions_total",
    "Redemption resources that became finished, each once, by the outcome and reason that they had then.",
    ["outcome", "reason"],
    registry=REGISTRY,
)
"""A finished one whose payment goes on, or that is undone, is not counted again."""
ATTEMPTS_LIMITED = Counter(
    "voucher_operator_attempts_limited_total",
    "Requests that were not judged because their customer has tried too many wrong codes; each try counts.",
    registry=REGISTRY,
)
BATCH_SIZE = Histogram(
    "voucher_operator_ledger_batch_size",
    "Requests that travelled in one ledger statement.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    registry=REGISTRY,
)
BATCH_SECONDS = Histogram(
    "voucher_operator_ledger_batch_seconds",
    "Time of one ledger statement with its commit, in seconds.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
    registry=REGISTRY,
)
LEDGER_ERRORS = Counter(
    "voucher_operator_ledger_errors_total", "Calls to the ledger that failed and may pass.", registry=REGISTRY
)
LEDGER_UP = Gauge(
    "voucher_operator_ledger_up", "1 when the ledger answered the last time it was asked.", registry=REGISTRY
)
QUEUE_LENGTH = Gauge(
    "voucher_operator_queue_length", "Resources queued, under way or backing off.", ["resource"], registry=REGISTRY
)
QUEUE_WAIT = Histogram(
    "voucher_operator_queue_wait_seconds",
    "Time that a resource was queued before a worker took it, in seconds.",
    ["resource"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300),
    registry=REGISTRY,
)
SHARED_READS = Counter(
    "voucher_operator_shared_reads_total",
    "Reads of Secrets and Vouchers that other resources refer to; several waiting resources share one.",
    ["resource"],
    registry=REGISTRY,
)
STATUS_WRITES = Counter("voucher_operator_status_writes_total", "Status patches sent.", ["resource"], registry=REGISTRY)
EVENTS_DROPPED = Counter("voucher_operator_events_dropped_total", "Kubernetes events not posted.", registry=REGISTRY)
WATCH_MISSED = Counter(
    "voucher_operator_watch_missed_total", "Resources that a list found and no watch had told.", registry=REGISTRY
)
DRIFT_CORRECTED = Counter(
    "voucher_operator_drift_corrected_total",
    "Ledger rows that were edited outside Git and put back.",
    registry=REGISTRY,
)
OUTBOX_PENDING = Gauge(
    "voucher_operator_outbox_pending", "Events that wait to be published, counted up to 100000.", registry=REGISTRY
)
OUTBOX_AGE = Gauge(
    "voucher_operator_outbox_oldest_seconds", "Age of the oldest event that waits to be published.", registry=REGISTRY
)
EVENTS_PUBLISHED = Counter(
    "voucher_operator_events_published_total",
    "Events that JetStream has stored and the ledger has marked as published, by type.",
    ["type"],
    registry=REGISTRY,
)
"""One that is published again, because it could not be marked, is counted once."""
NATS_UP = Gauge("voucher_operator_nats_up", "1 while the leader is connected to JetStream.", registry=REGISTRY)
WEBHOOKS = Counter(
    "voucher_operator_webhooks_total", "Calls of the webhook, by what became of them.", ["result"], registry=REGISTRY
)
MISMATCHES = Counter(
    "voucher_operator_payment_mismatches_total",
    "Reports of payments that fit no order: events of a webhook, and findings of a look at Stripe.",
    registry=REGISTRY,
)
"""Without labels, so that it is there and 0 before the first one: `increase` does not see a series begin.

Each event and each look with news counts: one payment that both report is counted twice. `verify` names each once.
"""
DISPUTES = Counter(
    "voucher_operator_payment_disputes_total", "Payments of orders that became disputed.", registry=REGISTRY
)
NEWER_PURCHASES = Gauge(
    "voucher_operator_newer_purchases",
    "Purchases that wait for something and that only a newer version of the operator understands.",
    registry=REGISTRY,
)
LEADER = Gauge("voucher_operator_leader", "1 while this replica leads.", registry=REGISTRY)

_QUIET = ("kopf", "kubernetes", "yoyo", "asyncio")
"""Loggers of libraries that say at INFO what every object does, or print tracebacks at ERROR for what we retry."""
_SILENT = ("stripe", "httpx", "httpcore")
"""Loggers that say at DEBUG what is sent, customers and all: never below WARNING."""


_FORBIDDEN_CALLS = 1000
_LASTING = 5
"""Attempts after which a call is forbidden in earnest: seven seconds."""
_HANDLED = ("failed temporarily", "Unprocessed streams left")
"""A revocation that waits for the ledger, which `ledger.pool` says once; what a stop leaves to the next start."""


class _Retried(logging.Filter):
    """Drops what kopf says at ERROR of each try of a call that it repeats: `kube.client` says it once.

    A call that stays forbidden is another matter: it is said once for each call, for somebody must give the right. An
    API server that has just started forbids everything for a moment.
    """

    def __init__(self) -> None:
        super().__init__()
        self._forbidden: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log it."""
        message = record.getMessage()
        tried, retried, call = message.partition("will retry")
        if not record.name.startswith("kopf."):
            return True
        if not retried:
            return not any(handled in message for handled in _HANDLED)
        attempt = re.search(r"attempt #(\d+)", tried)
        if (
            attempt is None
            or int(attempt[1]) < _LASTING
            or "Forbidden" not in call
            or call in self._forbidden
            or len(self._forbidden) >= _FORBIDDEN_CALLS
        ):
            return False
        self._forbidden.add(call)
        return True


def configure_logging(level: str) -> None:
    """Log JSON lines to standard error at `level` (DEBUG, INFO, WARNING, ERROR)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter(
            "{asctime}{levelname}{name}{message}",
            style="{",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            # kopf hangs its whole settings on what it says of an object: no JSON, and the line would be lost.
            reserved_attrs=[*RESERVED_ATTRS, "settings", "k8s_skip"],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.WARNING)
    if level != "DEBUG":
        handler.addFilter(_Retried())
        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.WARNING)


class _ApiLiveness:
    """Time since the last response of the API server, for the liveness probe."""

    def __init__(self) -> None:
        self.at = time.monotonic()

    def record_response(self) -> None:
        """Record that the API server has just responded."""
        self.at = time.monotonic()

    def age(self) -> float:
        """Seconds since the last response of the API server, or since the process started."""
        return time.monotonic() - self.at


API_LIVENESS = _ApiLiveness()
API_RESPONSE_AGE = Gauge(
    "voucher_operator_api_last_response_age_seconds",
    "Seconds since the last response of the API server.",
    registry=REGISTRY,
)
API_RESPONSE_AGE.set_function(API_LIVENESS.age)
