"""Events of the outbox as plain frozen values. See also: `events`; `messaging.outbox_relay` publishes them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """One event of the platform's envelope. `seq` orders, `id` deduplicates."""

    seq: int
    id: str
    type: str
    tenant_id: str
    at: datetime
    data: dict[str, Any]
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class OutboxBacklog:
    """The events that are not published yet."""

    waiting: int
    """Number of events, counted up to 100,000."""
    oldest_seconds: float
