"""Where events are published."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from voucher_operator.settings.files import file_or_value


class MessagingSettings(BaseSettings):
    """NATS JetStream."""

    nats_url: SecretStr = SecretStr("")
    """`nats://host:port` or tls://, several separated by commas; can contain user:password@."""
    nats_url_file: Path | None = None
    """The same in a file, which may appear later and change. It has precedence."""
    nats_stream: str = Field(default="CATALYST", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """The JetStream stream that is created when no stream has the operator's subjects."""
    nats_subject_prefix: str = Field(default="catalyst", pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")
    """The subject of an event is this prefix, a dot, and its type."""

    def nats_servers(self) -> list[str]:
        """Return the URLs of NATS, read at each call; empty when it is not configured (yet)."""
        return file_or_value(self.nats_url_file, self.nats_url).replace(",", " ").split()
