"""One connection to NATS JetStream: events in the platform's envelope go out, acknowledged, with a deduplication id.

A connection that is lost stays lost; `relay` makes the next one, with the settings of that moment. (The library's own
reconnecting would keep what was not acknowledged in a buffer and send it later, out of order.)
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC
from typing import TYPE_CHECKING, Final

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

from voucher_operator.ledger.purchase.types import OutboxEvent

if TYPE_CHECKING:
    from nats.js import JetStreamContext

_SOURCE: Final = "billing"
_ANSWER: Final = 5.0
"""Seconds that JetStream has to acknowledge."""
_CONNECT: Final = 3
_PING: Final = 5
"""Seconds between two pings; two that are not answered end the connection."""
_DEDUPLICATION: Final = 3600.0
"""Seconds for which a stream that we make knows an event again: the ledger may stay away for so long between the
acknowledgement of an event and its mark."""
_KEPT: Final = 30 * 86_400.0
"""Seconds for which a stream that we make keeps its messages."""
_REPLICAS: Final = 3
_NO_CLUSTER: Final = 10074
"""JetStream's code for replicas on a server without a cluster."""

_NOT_CONFIGURED = "NATS is not configured: set VOUCHER_OPERATOR_NATS_URL; events wait in the ledger until then."
_UNREACHABLE = "NATS cannot be reached: check that it runs and that the settings name it."
_LOGIN = "NATS refuses the login: check user and password in the settings."
_NO_JETSTREAM = "NATS has no JetStream for us: enable it, and give our user the right to use it."
_FORBIDDEN = "NATS forbids us its JetStream API or our subjects: give our user the rights."
_NO_STREAM = "JetStream cannot make the stream (three replicas in a cluster): make one that takes our subjects."
_LOST = "The connection to NATS was lost."
_SILENT = "JetStream does not acknowledge: check its load and its disk."
_NOT_TAKEN = "No stream of JetStream takes {subject}: let one take {prefix}.> (or this subject)."
_REFUSED = "JetStream refuses an event: look at the stream's limits (size of a message, disk)."


class BusError(Exception):
    """NATS cannot be used now; the text is one constant line without credentials."""


class BusAbsentError(BusError):
    """No NATS is configured: a choice, or a Secret that comes late."""

    def __init__(self) -> None:
        super().__init__(_NOT_CONFIGURED)


class EventRefusedError(Exception):
    """JetStream takes no event like this one now; others may pass. The text is one line."""


def envelope(event: OutboxEvent) -> bytes:
    """Return the platform's envelope as JSON; the time is UTC."""
    return json.dumps(
        {
            "id": event.id,
            "type": event.type,
            "source": _SOURCE,
            "timestamp": event.at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "tenant_id": event.tenant_id,
            "data": event.data,
            "metadata": event.metadata,
        },
        ensure_ascii=False,
    ).encode()


class Bus:
    """A connection that works, or has ended for good."""

    def __init__(self, client: Client, prefix: str, noted: Sequence[Exception]) -> None:
        self._jetstream: JetStreamContext = client.jetstream(timeout=_ANSWER)
        self._prefix = prefix
        self._noted = noted

    async def ensure_stream(self, name: str) -> None:
        """Make the stream `name`, unless some stream takes some of our subjects already. Raises BusError.

        Beside such a one none could be made that takes them all; what it does not take, `publish` refuses.
        """
        try:
            await self._jetstream.find_stream_name_by_subject(f"{self._prefix}.>")
        except nats.js.errors.ServiceUnavailableError:
            raise BusError(_NO_JETSTREAM) from None
        except nats.js.errors.NotFoundError:
            await self._make_stream(name)
        except nats.errors.Error:
            raise self._silent() from None

    async def publish(self, event: OutboxEvent) -> None:
        """Return when JetStream has stored the event, or knows that it had. Raises BusError and EventRefusedError."""
        subject = f"{self._prefix}.{event.type}"
        try:
            await self._jetstream.publish(subject, envelope(event), headers={"Nats-Msg-Id": event.id})
        except nats.js.errors.NoStreamResponseError:
            raise EventRefusedError(_NOT_TAKEN.format(subject=subject, prefix=self._prefix)) from None
        except (nats.js.errors.APIError, nats.errors.MaxPayloadError):
            raise EventRefusedError(_REFUSED) from None
        except (nats.errors.Error, OSError):
            raise self._silent() from None

    async def _make_stream(self, name: str) -> None:
        config = StreamConfig(
            name=name,
            subjects=[f"{self._prefix}.>"],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            max_age=_KEPT,
            duplicate_window=_DEDUPLICATION,
            num_replicas=_REPLICAS,
        )
        try:
            try:
                await self._jetstream.add_stream(config)
            except nats.js.errors.APIError as error:
                if error.err_code != _NO_CLUSTER:
                    raise
                await self._jetstream.add_stream(config.evolve(num_replicas=1))
        except nats.errors.Error:
            raise BusError(_NO_STREAM) from None

    def _silent(self) -> BusError:
        """No answer: what NATS forbids, it says beside the point."""
        forbidden = any("permissions violation" in str(error).lower() for error in self._noted)
        return BusError(_FORBIDDEN if forbidden else _SILENT)


class _Link:
    """What the client says of a connection outside of any call."""

    def __init__(self) -> None:
        self.client = Client()
        self.limit = asyncio.timeout(None)
        self.noted: deque[Exception] = deque(maxlen=8)
        self.used = False

    async def note(self, error: Exception) -> None:
        """An error that no call raises."""
        self.noted.append(error)

    async def lost(self) -> None:
        """The connection has ended: end what uses it."""
        if self.used:
            self.limit.reschedule(asyncio.get_running_loop().time())

    async def open(self, servers: Sequence[str]) -> None:
        """Connect once. Raises BusError."""
        try:
            async with asyncio.timeout(_CONNECT):
                await self.client.connect(
                    servers=list(servers),
                    name="voucher-operator",
                    error_cb=self.note,
                    closed_cb=self.lost,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=1,
                    connect_timeout=_CONNECT,
                    ping_interval=_PING,
                    max_outstanding_pings=2,
                )
        except (nats.errors.Error, OSError, ValueError) as error:
            refused = any("authorization" in str(told).lower() for told in (error, *self.noted))
            raise BusError(_LOGIN if refused else _UNREACHABLE) from None

    async def close(self) -> None:
        """End the connection; one that is dead may keep what it has."""
        self.used = False
        # AssertionError: the client's way to say that it did not come so far as to have anything to end.
        with suppress(nats.errors.Error, OSError, AssertionError):
            async with asyncio.timeout(_CONNECT):
                await self.client.close()


@asynccontextmanager
async def connected(servers: Sequence[str], prefix: str) -> AsyncIterator[Bus]:
    """Connect; as soon as the connection is lost, what runs inside is cancelled and BusError raised.

    Raises BusError when there is no connection to be had, BusAbsentError without servers.
    """
    if not servers:
        raise BusAbsentError
    link = _Link()
    try:
        await link.open(servers)
        link.used = True
        async with link.limit:
            yield Bus(link.client, prefix, link.noted)
    except TimeoutError:
        if link.limit.expired():
            raise BusError(_LOST) from None
        raise
    finally:
        await link.close()
