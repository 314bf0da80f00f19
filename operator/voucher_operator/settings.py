"""All settings of the process, from the environment, in one class.

See also: `cli` reads them once and hands them down; the chart's Deployment sets them from its values.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import quote, unquote

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from voucher_operator.resources.errors import LedgerUnavailableError

PREFIX: Final = "VOUCHER_OPERATOR_"
RETRY_JITTER: Final = 1.2
"""The factor by which leader election's library wants `renew_deadline` to be more than `retry_period`."""
_ANY_ADDRESS: Final = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not listened at


class Settings(BaseSettings):
    """Environment variables `VOUCHER_OPERATOR_<NAME>`; the database may also be given as `DATABASE_URL`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", allow_inf_nan=False)

    database_url: SecretStr = Field(default=SecretStr(""), validation_alias="DATABASE_URL")
    """A libpq URL. Empty: read from `database_dir` at each connection."""
    database_dir: Path | None = None
    """Folder of a mounted Secret in CloudNativePG's shape (host, port, dbname, username, password, or uri)."""
    runtime_role: str = "voucher_operator"
    """The role that `migrate` grants the operator's rights to."""
    currency: str = Field(default="OMR", pattern=r"^[A-Z]{3}$")
    """The ledger's currency; the first migration fixes it."""
    pool_size: int = Field(default=4, ge=2, le=50)

    namespaces: Annotated[tuple[str, ...], NoDecode, Field(min_length=1)] = ("billing",)
    """Namespaces whose Vouchers and Redemptions are served, separated by commas."""
    closed_secrets: Annotated[tuple[str, ...], NoDecode] = ()
    """Secrets with credentials of our own, separated by commas: no code is read from them, in any namespace."""
    pod_name: str = "voucher-operator"
    """This replica's identity in the Lease and in events."""
    pod_namespace: str = "billing"
    """Where the Lease lives."""
    lease_name: str = "voucher-operator"
    lease_duration: int = Field(default=9, ge=3)
    """A standby takes over when the leader has not renewed for this long, in seconds."""
    renew_deadline: float = Field(default=6.0, ge=2.0)
    """A leader that could not renew for this long stops working, in seconds: before a standby may take over."""
    retry_period: float = Field(default=1.5, gt=1.0)
    """Pause between two tries to get or to renew the Lease, in seconds."""

    http_host: str = "0.0.0.0"  # noqa: S104 - the kubelet and Prometheus come from outside the pod
    http_port: int = Field(default=8080, ge=0, le=65535)
    log_level: str = Field(default="INFO", pattern=r"^(DEBUG|INFO|WARNING|ERROR)$")

    workers: int = Field(default=128, ge=1, le=256)
    """Redemptions under way at once; 20 of them have their status written."""
    backoff_max: float = Field(default=30.0, gt=0)
    """Longest pause between two tries of a resource that waits, in seconds."""
    counter_sync_interval: float = Field(default=5.0, gt=0)
    """Pause between two passes over the counters in the ledger, in seconds."""
    resync_interval: float = Field(default=300.0, gt=0)
    """Pause between two full lists of the resources, in seconds."""
    secret_interval: float = Field(default=15.0, gt=0)
    """Pause between two looks at the Secrets that carry codes, in seconds."""
    not_found_grace: float = Field(default=5.0, ge=0)
    """How long a Redemption waits for a code since the ledger first missed it, in seconds: its Voucher may come."""
    wrong_codes: int = Field(default=10, ge=0, le=10_000)
    """Wrong codes that a customer may try in `wrong_codes_seconds`; then each of their codes waits. 0: no limit."""
    wrong_codes_seconds: float = Field(default=600.0, ge=1, le=86_400)
    release_after: float = Field(default=120.0, ge=0)
    """A deleted Voucher is let go after this many seconds without a ledger; the next resync revokes its code."""

    webhook_host: str = "0.0.0.0"  # noqa: S104 - the payment processor comes from outside the pod
    webhook_port: int = Field(default=8090, ge=0, le=65535)
    stripe_webhook_secret: SecretStr = SecretStr("")
    """What Stripe signs its events with; while it is being changed the new and the old one, separated by commas."""
    stripe_webhook_secret_file: Path | None = None
    """The same in a file, separated by white space or commas; it may come late and change. Wins where it has any."""

    nats_url: SecretStr = SecretStr("")
    """`nats://host:port`, several separated by commas, or tls://; may hold user:password@. Empty: events wait."""
    nats_url_file: Path | None = None
    """The same in a file, which may come late and change. Wins where it has any."""
    nats_stream: str = Field(default="CATALYST", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """The JetStream stream that is made when no stream takes our subjects yet."""
    nats_subject_prefix: str = Field(default="catalyst", pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")
    """An event's subject is this, a dot, and its type."""

    sovereign: str = ""
    """This Sovereign's domain name: goes into the metadata of everything at Stripe, and tells ours from others'."""
    catalog_url: str = ""
    """The catalog service; `/catalog/plans` and `/catalog/addons` are asked below it."""
    catalog_file: Path | None = None
    """A mounted JSON file `{"plans": [...], "addons": [...]}` instead of the service; may come late and change."""
    stripe_api_key: SecretStr = SecretStr("")
    """Stripe's secret key, or a restricted one. Without any, only credit pays."""
    stripe_api_key_file: Path | None = None
    """The same in a file, which may come late and change. Wins where it has any."""
    stripe_api_base: str = "https://api.stripe.com"
    stripe_timeout: float = Field(default=20.0, gt=0, le=80)
    """How long Stripe may take to answer, in seconds."""
    stripe_minimum_minor: int | None = Field(default=None, ge=0)
    """The least that a card is charged, in minor units, where the account's differs from what Stripe publishes."""
    checkout_success_url: str = ""
    """Where Stripe sends a customer who has paid; may hold `{CHECKOUT_SESSION_ID}`."""
    checkout_cancel_url: str = ""
    """Where Stripe sends a customer who turns back; empty: no way back is shown."""
    any_tenant: bool = False
    """Whether a Redemption may spend a customer's credit for another tenant than the one that the ledger has."""
    organizations: bool = True
    """Whether an Organization is made from a paid order, where the cluster has the kind. If not, order.placed tells."""
    payment_deadline: int = Field(default=900, ge=1, le=43_200)
    """How long a checkout that cannot be made is retried before all is rolled back, in seconds."""
    session_lookup_interval: float = Field(default=300.0, gt=0)
    """After this long without a webhook a checkout is looked up at Stripe, in seconds, and as often again."""

    @field_validator("namespaces", "closed_secrets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if found := "; ".join(self._contradictions()):
            raise ValueError(found)
        return self

    def _contradictions(self) -> Iterator[str]:
        """Name each pair of settings with which the process could not do its work, however long it tries."""
        if self.renew_deadline >= self.lease_duration:
            yield (
                f"{PREFIX}RENEW_DEADLINE ({self.renew_deadline:g}) must be less than "
                f"{PREFIX}LEASE_DURATION ({self.lease_duration})"
            )
        if self.renew_deadline <= RETRY_JITTER * self.retry_period:
            yield (
                f"{PREFIX}RETRY_PERIOD ({self.retry_period:g}), times {RETRY_JITTER:g}, must be less than "
                f"{PREFIX}RENEW_DEADLINE ({self.renew_deadline:g})"
            )
        if self.http_port == self.webhook_port != 0 and _overlap(self.http_host, self.webhook_host):
            yield f"{PREFIX}HTTP_PORT and {PREFIX}WEBHOOK_PORT ({self.http_port}) must not be the same"

    def conninfo(self) -> str:
        """Return the libpq URL, read anew at each call, so that a Secret that comes late or rotates is noticed.

        Raises LedgerUnavailableError when there is none yet.
        """
        if url := self.database_url.get_secret_value():
            return url
        if self.database_dir is None:
            raise LedgerUnavailableError(
                "No database is configured: set DATABASE_URL or VOUCHER_OPERATOR_DATABASE_DIR."
            )
        return _from_files(self.database_dir)

    def stripe_key(self) -> str:
        """Return Stripe's secret key, read anew at each call; "" when there is none yet."""
        return _either(self.stripe_api_key_file, self.stripe_api_key).strip()

    def checkout_fault(self) -> str | None:
        """What is missing before a card can pay, in one line; None when nothing is."""
        wanted = {
            "VOUCHER_OPERATOR_STRIPE_API_KEY_FILE": self.stripe_key(),
            "VOUCHER_OPERATOR_CHECKOUT_SUCCESS_URL": self.checkout_success_url,
            "VOUCHER_OPERATOR_SOVEREIGN": self.sovereign,
        }
        missing = [name for name, value in wanted.items() if not value]
        return f"Cards cannot be charged: set {' and '.join(missing)}." if missing else None

    def webhook_secrets(self) -> tuple[str, ...]:
        """Return the secrets of Stripe's signatures, read anew at each call; empty when there is none yet."""
        text = _either(self.stripe_webhook_secret_file, self.stripe_webhook_secret)
        return tuple(dict.fromkeys(text.replace(",", " ").split()))

    def nats_servers(self) -> list[str]:
        """Return the URLs of NATS, read anew at each call; empty when it is not configured (yet)."""
        return _either(self.nats_url_file, self.nats_url).replace(",", " ").split()


def _overlap(host: str, other: str) -> bool:
    """Whether one process cannot listen at the same port of both."""
    return host == other or host in _ANY_ADDRESS or other in _ANY_ADDRESS


def _either(file: Path | None, value: SecretStr) -> str:
    """Return what the file holds, if it is there and not empty, else the value."""
    return (_read(file) if file is not None else "") or value.get_secret_value()


def _from_files(folder: Path) -> str:
    """Build a URL from a mounted Secret of CloudNativePG's shape.

    Single keys win over `uri`; libpq fills those that are left out from PGHOST, PGPORT and PGDATABASE.
    """
    names = ("username", "password", "host", "port", "dbname", "uri")
    found = {name: quote(text, safe="") for name in names if (text := _read(folder / name))}
    if "username" in found:
        port = f":{found['port']}" if "port" in found else ""
        credentials = f"{found['username']}:{found.get('password', '')}"
        return f"postgresql://{credentials}@{found.get('host', '')}{port}/{found.get('dbname', '')}"
    if "uri" in found:
        return unquote(found["uri"])
    raise LedgerUnavailableError(f"The database Secret is not there yet: {folder} needs username and password, or uri.")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeError):
        return ""
