"""Logs and metrics: JSON lines on standard error, Prometheus metrics; never with a code, a credential or a customer.

See also: `cli` calls `configure_logging` once; every layer above `resources` updates metrics; `web.probes` serves them.
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
    "Finished Redemption resources, each counted once, by outcome and reason at that time.",
    ["outcome", "reason"],
    registry=REGISTRY,
)
"""A finished one is not counted again when its payment changes or it is undone."""
ATTEMPTS_LIMITED = Counter(
    "voucher_operator_attempts_limited_total",
    "Requests that were not judged because their customer has tried too many wrong codes; each try counts.",
    registry=REGISTRY,
)
BATCH_SIZE = Histogram(
    "voucher_operator_ledger_batch_size",
    "Requests in one ledger statement.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    registry=REGISTRY,
)
BATCH_SECONDS = Histogram(
    "voucher_operator_ledger_batch_seconds",
    "Duration of one ledger statement with its commit, in seconds.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
    registry=REGISTRY,
)
LEDGER_ERRORS = Counter(
    "voucher_operator_ledger_errors_total", "Calls of the ledger that failed with a transient error.", registry=REGISTRY
)
CLOCK_OFFSET = Gauge(
    "voucher_operator_clock_offset_seconds",
    "PostgreSQL's clock minus this machine's, in seconds, at the last health check.",
    registry=REGISTRY,
)
LEDGER_UP = Gauge(
    "voucher_operator_ledger_up", "1 when the last health check of the ledger succeeded.", registry=REGISTRY
)
QUEUE_LENGTH = Gauge(
    "voucher_operator_queue_length",
    "Resources that are queued, running or in backoff.",
    ["resource"],
    registry=REGISTRY,
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
EVENTS_DROPPED = Counter(
    "voucher_operator_events_dropped_total", "Kubernetes Events that were not posted.", registry=REGISTRY
)
WATCH_MISSED = Counter(
    "voucher_operator_watch_missed_total", "Resources that a list found and the watch had missed.", registry=REGISTRY
)
DRIFT_CORRECTED = Counter(
    "voucher_operator_drift_corrected_total",
    "Ledger rows that were changed outside Git and restored.",
    registry=REGISTRY,
)
UNSERVED_VOUCHERS = Gauge(
    "voucher_operator_unserved_vouchers",
    "Vouchers that can be redeemed, in namespaces that no operator serves, as the leader has seen them last.",
    registry=REGISTRY,
)
OUTBOX_PENDING = Gauge(
    "voucher_operator_outbox_pending",
    "Outbox events that are not published yet, counted up to 100000.",
    registry=REGISTRY,
)
OUTBOX_AGE = Gauge(
    "voucher_operator_outbox_oldest_seconds",
    "Age of the oldest outbox event that is not published yet, in seconds.",
    registry=REGISTRY,
)
EVENTS_PUBLISHED = Counter(
    "voucher_operator_events_published_total",
    "Events that JetStream has stored and the ledger has marked as published, by type.",
    ["type"],
    registry=REGISTRY,
)
"""An event that is published again, because it could not be marked, is counted once."""
NATS_UP = Gauge("voucher_operator_nats_up", "1 while the leader is connected to JetStream.", registry=REGISTRY)
WEBHOOKS = Counter("voucher_operator_webhooks_total", "Webhook calls, by result.", ["result"], registry=REGISTRY)
MISMATCHES = Counter(
    "voucher_operator_payment_mismatches_total",
    "Payments that do not match an order, reported by a webhook or found by a look-up at Stripe.",
    registry=REGISTRY,
)
"""Without labels, so that it is exported as 0 before the first one: `increase` ignores the first sample of a series.

Webhook and look-up both count: a payment that both report is counted twice. `verify` lists each once.
"""
DISPUTES = Counter("voucher_operator_payment_disputes_total", "Disputes of payments of orders.", registry=REGISTRY)
UNSETTLED_PAYMENTS = Gauge(
    "voucher_operator_unsettled_payments",
    "Payments that need a person, by kind: mismatch, dispute (not closed), refund (failed) and outstanding.",
    ["kind"],
    registry=REGISTRY,
)
"""Of the leader. It falls when a payment is settled, by whatever settles it."""
UNSUPPORTED_PURCHASES = Gauge(
    "voucher_operator_unsupported_purchases",
    "Unfinished purchases that need a newer version of the operator.",
    registry=REGISTRY,
)
LEADER = Gauge("voucher_operator_leader", "1 while this replica leads.", registry=REGISTRY)

_VERBOSE = ("kopf", "kubernetes", "yoyo", "asyncio")
"""Loggers that log each object at INFO, or tracebacks at ERROR for calls that are retried: WARNING, except at DEBUG."""
_CONFIDENTIAL = ("stripe", "httpx", "httpcore")
"""Loggers that log the content of requests, with customers, at DEBUG: always WARNING."""


_FORBIDDEN_CALLS = 1000
_FORBIDDEN_ATTEMPTS = 5
"""Attempts, about seven seconds, after which a forbidden call is logged."""
_IGNORED = ("failed temporarily", "Unprocessed streams left")
"""A revocation that is retried (`ledger.pool` logs the cause once), and streams left at a stop."""


class _KopfRetryFilter(logging.Filter):
    """Drops kopf's ERROR record for each attempt of a call that it retries: `kube.client` logs the cause once.

    A call that stays forbidden is logged once, because somebody must grant the permission. An API server that has just
    started forbids everything for a moment. A watch whose resource is no longer served is not logged: `process.crds`
    says what is wrong with the CRDs.
    """

    def __init__(self) -> None:
        super().__init__()
        self._forbidden: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log the record."""
        message = record.getMessage()
        tried, retried, call = message.partition("will retry")
        if not record.name.startswith("kopf."):
            return True
        if record.exc_info and type(record.exc_info[1]).__name__ == "APINotFoundError":
            return False
        if not retried:
            return not any(ignored in message for ignored in _IGNORED)
        attempt = re.search(r"attempt #(\d+)", tried)
        if (
            attempt is None
            or int(attempt[1]) < _FORBIDDEN_ATTEMPTS
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
            # kopf adds its settings to each record; they are not JSON, and the record would be lost.
            reserved_attrs=[*RESERVED_ATTRS, "settings", "k8s_skip"],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _CONFIDENTIAL:
        logging.getLogger(name).setLevel(logging.WARNING)
    if level != "DEBUG":
        handler.addFilter(_KopfRetryFilter())
        for name in _VERBOSE:
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
