"""All settings of the process, from the environment, in one class.

Neighbours: `cli` reads them once and hands them down; the chart's Deployment sets them from its values.
"""

from pathlib import Path
from typing import Annotated
from urllib.parse import quote, unquote

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from voucher_operator.resources.errors import LedgerUnavailableError


class Settings(BaseSettings):
    """Environment variables `VOUCHER_OPERATOR_<NAME>`; the database may also be given as `DATABASE_URL`."""

    model_config = SettingsConfigDict(env_prefix="VOUCHER_OPERATOR_", frozen=True, extra="ignore")

    database_url: SecretStr = Field(default=SecretStr(""), validation_alias="DATABASE_URL")
    """A libpq URL. Empty: read from `database_dir` at each connection."""
    database_dir: Path | None = None
    """Folder of a mounted Secret in CloudNativePG's shape (host, port, dbname, username, password, or uri)."""
    runtime_role: str = "voucher_operator"
    """The role that `migrate` grants the operator's rights to."""
    currency: str = Field(default="OMR", pattern=r"^[A-Z]{3}$")
    """The ledger's currency; the first migration fixes it."""
    pool_size: int = Field(default=4, ge=2, le=50)

    namespaces: Annotated[tuple[str, ...], NoDecode] = ("billing",)
    """Namespaces whose Vouchers and Redemptions are served, separated by commas."""
    database_secrets: Annotated[tuple[str, ...], NoDecode] = ()
    """Secrets with the database's credentials, separated by commas: no code is read from them, in any namespace."""
    pod_name: str = "voucher-operator"
    """This replica's identity in the Lease and in events."""
    pod_namespace: str = "billing"
    """Where the Lease lives."""
    lease_name: str = "voucher-operator"
    lease_duration: int = Field(default=9, ge=3)
    renew_deadline: float = Field(default=6.0, ge=2.0)
    retry_period: float = Field(default=1.5, gt=1.0)

    http_host: str = "0.0.0.0"  # noqa: S104 - the kubelet and Prometheus come from outside the pod
    http_port: int = Field(default=8080, ge=0, le=65535)
    log_level: str = Field(default="INFO", pattern=r"^(DEBUG|INFO|WARNING|ERROR)$")

    workers: int = Field(default=128, ge=1, le=256)
    """Redemptions under way at once; 20 of them have their status written."""
    backoff_max: float = Field(default=30.0, gt=0)
    """Longest pause between two tries of a resource that waits, in seconds."""
    project_interval: float = Field(default=5.0, gt=0)
    """Pause between two passes over the counters in the ledger, in seconds."""
    resync_interval: float = Field(default=300.0, gt=0)
    """Pause between two full lists of the resources, in seconds."""
    secret_interval: float = Field(default=15.0, gt=0)
    """Pause between two looks at the Secrets that carry codes, in seconds."""
    not_found_grace: float = Field(default=5.0, ge=0)
    """How long a Redemption waits for a code since the ledger first missed it, in seconds: its Voucher may come."""
    release_after: float = Field(default=120.0, ge=0)
    """A deleted Voucher is let go after this many seconds without a ledger; the next resync revokes its code."""

    @field_validator("namespaces", "database_secrets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

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
    except OSError:
        return ""
