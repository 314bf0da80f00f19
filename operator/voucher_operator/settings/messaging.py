"""Where events are published."""

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from voucher_operator.settings.files import file_or_value, read_line


@dataclass(frozen=True, slots=True)
class NatsLogin:
    """Credentials of NATS: user and password, or a token, or none."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


class MessagingSettings(BaseSettings):
    """NATS JetStream."""

    nats_url: SecretStr = SecretStr("")
    """`nats://host:port` or tls://, several separated by commas; can contain user:password@ or token@, which are
    percent-encoded."""
    nats_url_file: Path | None = None
    """The same in a file, which may appear later and change. It has precedence."""
    nats_user_file: Path | None = None
    """A file with the user, if the URL contains none. It may appear later and change, as the next two."""
    nats_password_file: Path | None = None
    """A file with the user's password; a line feed at its end is ignored."""
    nats_token_file: Path | None = None
    """A file with a token, instead of user and password."""
    nats_stream: str = Field(default="CATALYST", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """The JetStream stream that is created when no stream has the operator's subjects."""
    nats_subject_prefix: str = Field(default="catalyst", pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")
    """The subject of an event is this prefix, a dot, and its type."""

    def nats_servers(self) -> list[str]:
        """Return the URLs of NATS, read at each call; empty when it is not configured (yet)."""
        return file_or_value(self.nats_url_file, self.nats_url).replace(",", " ").split()

    def nats_login(self) -> NatsLogin:
        """Return the credentials that are not in the URL, read at each call."""
        files = (self.nats_user_file, self.nats_password_file, self.nats_token_file)
        return NatsLogin(*(read_line(file) or None for file in files))
