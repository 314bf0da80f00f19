"""Where the ledger is."""

from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from voucher_operator.resources.errors import LedgerUnavailableError
from voucher_operator.settings.files import read


class DatabaseSettings(BaseSettings):
    """PostgreSQL, and the currency of the ledger."""

    database_url: SecretStr = Field(default=SecretStr(""), validation_alias="DATABASE_URL")
    """A libpq URL. If empty, it is read from `database_dir` at each connection."""
    database_dir: Path | None = None
    """Directory of a mounted Secret in CloudNativePG's format (host, port, dbname, username, password, or uri)."""
    runtime_role: str = "voucher_operator"
    """The role to which `migrate` grants the operator's privileges."""
    currency: str = Field(default="OMR", pattern=r"^[A-Z]{3}$")
    """The ledger's currency; the first migration fixes it."""
    pool_size: int = Field(default=4, ge=2, le=50)
    """Connections to PostgreSQL; one more is reserved for health checks."""
    pooler: Literal["auto", "session", "transaction"] = "auto"
    """Mode of a connection pooler (PgBouncer) between the operator and PostgreSQL; auto: works in either mode."""

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
        return _from_directory(self.database_dir)


def _from_directory(folder: Path) -> str:
    """Build a URL from a mounted Secret in CloudNativePG's format.

    Single keys have precedence over `uri`; libpq takes missing ones from PGHOST, PGPORT and PGDATABASE.
    """
    names = ("username", "password", "host", "port", "dbname", "uri")
    found = {name: quote(text, safe="") for name in names if (text := read(folder / name))}
    if "username" in found:
        port = f":{found['port']}" if "port" in found else ""
        credentials = f"{found['username']}:{found.get('password', '')}"
        return f"postgresql://{credentials}@{found.get('host', '')}{port}/{found.get('dbname', '')}"
    if "uri" in found:
        return unquote(found["uri"])
    raise LedgerUnavailableError(
        f"The database Secret does not exist yet: {folder} needs username and password, or uri."
    )
