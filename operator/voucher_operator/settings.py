"""All settings of the process, from environment variables, in one class.

See also: `cli` reads them once and passes them on; the chart's Deployment sets them from its values.
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
"""The leader election library requires `renew_deadline` > this factor * `retry_period`."""
_ANY_ADDRESS: Final = ("", "0.0.0.0", "::")  # noqa: S104 - only compared


class Settings(BaseSettings):
    """Environment variables `VOUCHER_OPERATOR_<NAME>`; the database can also be set by `DATABASE_URL`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", allow_inf_nan=False)

    database_url: SecretStr = Field(default=SecretStr(""), validation_alias="DATABASE_URL")
    """A libpq URL. If empty, it is read from `database_dir` at each connection."""
    database_dir: Path | None = None
    """Directory of a mounted Secret in CloudNativePG's format (host, port, dbname, username, password, or uri)."""
    runtime_role: str = "voucher_operator"
    """The role to which `migrate` grants the operator's privileges."""
    currency: str = Field(default="OMR", pattern=r"^[A-Z]{3}$")
    """The ledger's currency; the first migration fixes it."""
    pool_size: int = Field(default=4, ge=2, le=50)

    namespaces: Annotated[tuple[str, ...], NoDecode, Field(min_length=1)] = ("billing",)
    """Namespaces whose Vouchers and Redemptions are served, separated by commas."""
    excluded_secrets: Annotated[tuple[str, ...], NoDecode] = ()
    """Secrets with the operator's own credentials, separated by commas: no code is read from them, in any namespace."""
    pod_name: str = "voucher-operator"
    """This replica's identity in the Lease and in events."""
    pod_namespace: str = "billing"
    """Namespace of the Lease."""
    lease_name: str = "voucher-operator"
    lease_duration: int = Field(default=9, ge=3)
    """A standby takes over when the leader has not renewed for this long, in seconds."""
    renew_deadline: float = Field(default=6.0, ge=2.0)
    """A leader that cannot renew for this long stops leading, in seconds; must be less than `lease_duration`."""
    retry_period: float = Field(default=1.5, gt=1.0)
    """Pause between two attempts to acquire or renew the Lease, in seconds."""

    http_host: str = "0.0.0.0"  # noqa: S104 - the kubelet and Prometheus connect from outside the pod
    http_port: int = Field(default=8080, ge=0, le=65535)
    log_level: str = Field(default="INFO", pattern=r"^(DEBUG|INFO|WARNING|ERROR)$")

    workers: int = Field(default=128, ge=1, le=256)
    """Redemptions that are reconciled concurrently; at most 20 statuses are written concurrently."""
    backoff_max: float = Field(default=30.0, gt=0)
    """Maximum backoff of a resource, in seconds."""
    counter_sync_interval: float = Field(default=5.0, gt=0)
    """Pause between two runs of the counter sync, in seconds."""
    resync_interval: float = Field(default=300.0, gt=0)
    """Pause between two resyncs, which list all resources, in seconds."""
    secret_interval: float = Field(default=15.0, gt=0)
    """Pause between two reads of the Secrets with codes, in seconds."""
    not_found_grace: float = Field(default=5.0, ge=0)
    """How long a Redemption with an unknown code waits for its Voucher, in seconds."""
    finalizer_timeout: float = Field(default=120.0, ge=0)
    """The finalizer of a deleted Voucher is removed after this time without a ledger, in seconds."""

    webhook_host: str = "0.0.0.0"  # noqa: S104 - the payment processor connects from outside the pod
    webhook_port: int = Field(default=8090, ge=0, le=65535)
    stripe_webhook_secret: SecretStr = SecretStr("")
    """Stripe's signing secret for webhooks; during a rotation both secrets, separated by commas."""
    stripe_webhook_secret_file: Path | None = None
    """The same in a file, separated by white space or commas. It may appear later and change. It has precedence."""

    nats_url: SecretStr = SecretStr("")
    """`nats://host:port` or tls://, several separated by commas; can contain user:password@."""
    nats_url_file: Path | None = None
    """The same in a file, which may appear later and change. It has precedence."""
    nats_stream: str = Field(default="CATALYST", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """The JetStream stream that is created when no stream has the operator's subjects."""
    nats_subject_prefix: str = Field(default="catalyst", pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")
    """The subject of an event is this prefix, a dot, and its type."""

    sovereign: str = ""
    """This Sovereign's domain name, in the metadata of all objects at Stripe: identifies this Sovereign's objects."""
    catalog_url: str = ""
    """Base URL of the catalog service, without `/catalog/plans` and `/catalog/addons`."""
    catalog_file: Path | None = None
    """A mounted JSON file `{"plans": [...], "addons": [...]}` instead of the service; may appear later and change."""
    stripe_api_key: SecretStr = SecretStr("")
    """Stripe's secret key, or a restricted key. Without a key orders are paid by credit only."""
    stripe_api_key_file: Path | None = None
    """The same in a file, which may appear later and change. It has precedence."""
    stripe_api_base: str = "https://api.stripe.com"
    stripe_timeout: float = Field(default=20.0, gt=0, le=80)
    """Time limit of a Stripe call, in seconds."""
    stripe_minimum_minor: int | None = Field(default=None, ge=0)
    """Minimum charge of a card, in minor units, if the account's differs from the one that Stripe publishes."""
    checkout_success_url: str = ""
    """URL to which Stripe redirects a customer who has paid; can contain `{CHECKOUT_SESSION_ID}`."""
    checkout_cancel_url: str = ""
    """URL to which Stripe redirects a customer who cancels; empty: the page has no link back."""
    any_tenant: bool = False
    """Whether a Redemption may spend a customer's credit for another tenant than the one in the ledger."""
    organizations: bool = True
    """Whether an Organization is created for a paid order, if the cluster has its CRD. Otherwise only order.placed is
    published."""
    payment_deadline: int = Field(default=900, ge=1, le=43_200)
    """How long the creation of a checkout is retried before the order is rolled back, in seconds."""
    session_lookup_interval: float = Field(default=300.0, gt=0)
    """A checkout without a webhook is looked up at Stripe at this interval, in seconds."""

    @field_validator("namespaces", "excluded_secrets", mode="before")
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
        """Yield a message for each pair of settings with which the process could never work."""
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
        """Return the libpq URL, read at each call, so that a Secret can appear later and be rotated.

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
        """Return Stripe's secret key, read at each call; "" when there is none yet."""
        return _either(self.stripe_api_key_file, self.stripe_api_key).strip()

    def checkout_fault(self) -> str | None:
        """Return the settings that are missing before a card can be charged, in one line; None when none is."""
        wanted = {
            "VOUCHER_OPERATOR_STRIPE_API_KEY_FILE": self.stripe_key(),
            "VOUCHER_OPERATOR_CHECKOUT_SUCCESS_URL": self.checkout_success_url,
            "VOUCHER_OPERATOR_SOVEREIGN": self.sovereign,
        }
        missing = [name for name, value in wanted.items() if not value]
        return f"Cards cannot be charged: set {' and '.join(missing)}." if missing else None

    def webhook_secrets(self) -> tuple[str, ...]:
        """Return Stripe's signing secrets, read at each call; empty when there is none yet."""
        text = _either(self.stripe_webhook_secret_file, self.stripe_webhook_secret)
        return tuple(dict.fromkeys(text.replace(",", " ").split()))

    def nats_servers(self) -> list[str]:
        """Return the URLs of NATS, read at each call; empty when it is not configured (yet)."""
        return _either(self.nats_url_file, self.nats_url).replace(",", " ").split()


def _overlap(host: str, other: str) -> bool:
    """Whether one process cannot listen on the same port of both addresses."""
    return host == other or host in _ANY_ADDRESS or other in _ANY_ADDRESS


def _either(file: Path | None, value: SecretStr) -> str:
    """Return the content of the file, if it exists and is not empty; else the value."""
    return (_read(file) if file is not None else "") or value.get_secret_value()


def _from_files(folder: Path) -> str:
    """Build a URL from a mounted Secret in CloudNativePG's format.

    Single keys have precedence over `uri`; libpq takes missing ones from PGHOST, PGPORT and PGDATABASE.
    """
    names = ("username", "password", "host", "port", "dbname", "uri")
    found = {name: quote(text, safe="") for name in names if (text := _read(folder / name))}
    if "username" in found:
        port = f":{found['port']}" if "port" in found else ""
        credentials = f"{found['username']}:{found.get('password', '')}"
        return f"postgresql://{credentials}@{found.get('host', '')}{port}/{found.get('dbname', '')}"
    if "uri" in found:
        return unquote(found["uri"])
    raise LedgerUnavailableError(
        f"The database Secret does not exist yet: {folder} needs username and password, or uri."
    )


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeError):
        return ""
