"""One connection to NATS JetStream: publishes events in the platform's envelope, with acknowledgement and message id.

A lost connection is not reopened; `outbox_relay` opens the next one, with the current settings. (The library's own
reconnect would buffer unacknowledged messages and send them later, out of order.) See also: `ledger.outbox.events`.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

from voucher_operator.ledger.outbox.types import OutboxEvent
from voucher_operator.settings.messaging import NatsLogin

if TYPE_CHECKING:
    from nats.js import JetStreamContext

_ANONYMOUS: Final = NatsLogin()
_SOURCE: Final = "billing"
_ACK_TIMEOUT: Final = 5.0
"""Seconds in which JetStream must acknowledge."""
_CONNECT: Final = 3
_PING: Final = 5
"""Seconds between two pings; two missing responses end the connection."""
_DEDUPLICATION: Final = 3600.0
"""Seconds: the duplicate window of the stream. The ledger may be unavailable for so long between the acknowledgement
of an event and its mark."""
_MAX_AGE: Final = 30 * 86_400.0
"""Seconds for which the stream keeps its messages."""
_REPLICAS: Final = 3
_NO_CLUSTER: Final = 10074
"""JetStream's code for replicas on a server without a cluster."""

_NOT_CONFIGURED = "NATS is not configured: set VOUCHER_OPERATOR_NATS_URL. Until then events stay in the ledger."
_UNREACHABLE = "NATS cannot be reached: check that it runs, and its URL in the settings."
_LOGIN = "NATS refuses the login: check user and password, or the token, in the settings."
_NO_JETSTREAM = "JetStream is not available: enable it in NATS, and permit the operator's user to use it."
_FORBIDDEN = (
    "NATS denies a subject: permit the operator's user to publish to its subjects, and to subscribe to _INBOX.>."
)
_NO_STREAM = (
    "JetStream cannot create the stream (three replicas in a cluster): create a stream with the operator's subjects."
)
_LOST = "The connection to NATS was lost."
_NO_ACK = "JetStream does not acknowledge messages: check its load and its disk."
_NO_STREAM_FOR_SUBJECT = "No JetStream stream has the subject {subject}: add {prefix}.> (or this subject) to a stream."
_REFUSED = "JetStream refuses an event: check the stream's limits (message size, disk)."


class NatsError(Exception):
    """NATS is not usable now; the message is one constant line without credentials."""


class NatsNotConfiguredError(NatsError):
    """NATS is not configured, or its Secret does not exist yet."""

    def __init__(self) -> None:
        super().__init__(_NOT_CONFIGURED)


class EventRefusedError(Exception):
    """JetStream refuses this event now; others may succeed. The message is one line."""


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


class NatsConnection:
    """An open connection; it is not reopened when it ends."""

    def __init__(self, client: Client, prefix: str, errors: deque[Exception]) -> None:
        self._jetstream: JetStreamContext = client.jetstream(timeout=_ACK_TIMEOUT)
        self._prefix = prefix
        self._errors = errors

    async def ensure_stream(self, name: str) -> None:
        """Create the stream `name`, unless another stream has some of the subjects already. Raises NatsError.

        Beside such a stream none can be created with all subjects; for a missing subject `publish` raises. A user who
        may not look streams up may still publish: then nothing is created.
        """
        try:
            await self._jetstream.find_stream_name_by_subject(f"{self._prefix}.>")
        except nats.js.errors.ServiceUnavailableError:
            raise NatsError(_NO_JETSTREAM) from None
        except nats.js.errors.NotFoundError:
            await self._make_stream(name)
        except nats.errors.Error:
            if not self._is_forbidden():
                raise self._no_response() from None
            self._errors.clear()

    async def publish(self, event: OutboxEvent) -> None:
        """Return when JetStream has stored the event, now or before. Raises NatsError and EventRefusedError."""
        subject = f"{self._prefix}.{event.type}"
        try:
            await self._jetstream.publish(subject, envelope(event), headers={"Nats-Msg-Id": event.id})
        except nats.js.errors.NoStreamResponseError:
            raise EventRefusedError(_NO_STREAM_FOR_SUBJECT.format(subject=subject, prefix=self._prefix)) from None
        except (nats.js.errors.APIError, nats.errors.MaxPayloadError):
            raise EventRefusedError(_REFUSED) from None
        except (nats.errors.Error, OSError):
            raise self._no_response() from None

    async def _make_stream(self, name: str) -> None:
        config = StreamConfig(
            name=name,
            subjects=[f"{self._prefix}.>"],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            max_age=_MAX_AGE,
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
            raise NatsError(_NO_STREAM) from None

    def _no_response(self) -> NatsError:
        """Return the error for a missing response; NATS reports a denial separately, to the client's error callback."""
        return NatsError(_FORBIDDEN if self._is_forbidden() else _NO_ACK)

    def _is_forbidden(self) -> bool:
        return any("permissions violation" in str(error).lower() for error in self._errors)


def _without_login(servers: Sequence[str], login: NatsLogin) -> tuple[list[str], NatsLogin]:
    """Return the URLs without credentials, and the credentials: the library would not decode those in a URL."""
    urls = []
    for server in reversed(servers):
        scheme, separator, rest = server.partition("://") if "://" in server else ("", "", server)
        credentials, at, host = rest.rpartition("@")
        urls.append(f"{scheme}{separator}{host}")
        if at:
            user, colon, password = credentials.partition(":")
            login = NatsLogin(unquote(user), unquote(password)) if colon else NatsLogin(token=unquote(user))
    return urls[::-1], login


class _Link:
    """A client with the errors that it reports to callbacks instead of raising them."""

    def __init__(self) -> None:
        self.client = Client()
        self.limit = asyncio.timeout(None)
        self.errors: deque[Exception] = deque(maxlen=8)
        self.used = False

    async def on_error(self, error: Exception) -> None:
        """Record an error that no call raises."""
        self.errors.append(error)

    async def on_closed(self) -> None:
        """Cancel the code that uses the connection."""
        if self.used:
            self.limit.reschedule(asyncio.get_running_loop().time())

    async def open(self, servers: Sequence[str], login: NatsLogin) -> None:
        """Connect once. Raises NatsError."""
        urls, login = _without_login(servers, login)
        try:
            async with asyncio.timeout(_CONNECT):
                await self.client.connect(
                    servers=urls,
                    user=login.user,
                    password=login.password,
                    token=login.token,
                    name="voucher-operator",
                    error_cb=self.on_error,
                    closed_cb=self.on_closed,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=1,
                    connect_timeout=_CONNECT,
                    ping_interval=_PING,
                    max_outstanding_pings=2,
                )
        except (nats.errors.Error, OSError, ValueError) as error:
            refused = any("authorization" in str(one).lower() for one in (error, *self.errors))
            raise NatsError(_LOGIN if refused else _UNREACHABLE) from None

    async def close(self) -> None:
        """Close the connection, within a time limit."""
        self.used = False
        # AssertionError: raised by the client when it has not connected.
        with suppress(nats.errors.Error, OSError, AssertionError):
            async with asyncio.timeout(_CONNECT):
                await self.client.close()


@asynccontextmanager
async def connected(
    servers: Sequence[str], prefix: str, login: NatsLogin = _ANONYMOUS
) -> AsyncIterator[NatsConnection]:
    """Connect; when the connection is lost, the body is cancelled and NatsError is raised.

    The credentials are those in the first URL that contains some, or else `login`. Raises NatsError when the connection
    fails, NatsNotConfiguredError without servers.
    """
    if not servers:
        raise NatsNotConfiguredError
    link = _Link()
    try:
        await link.open(servers, login)
        link.used = True
        async with link.limit:
            yield NatsConnection(link.client, prefix, link.errors)
    except TimeoutError:
        if link.limit.expired():
            raise NatsError(_LOST) from None
        raise
    finally:
        await link.close()
