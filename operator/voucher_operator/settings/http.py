"""Ports and logs. A port listens on all addresses, IPv4 and IPv6: the callers are outside the pod."""

from collections.abc import Iterator

from pydantic import Field
from pydantic_settings import BaseSettings

from voucher_operator.settings.prefix import PREFIX


class HttpSettings(BaseSettings):
    """Ports of the probes and of the webhook."""

    http_port: int = Field(default=8080, ge=0, le=65535)
    webhook_port: int = Field(default=8090, ge=0, le=65535)
    webhook_max_bytes: int = Field(default=256 * 1024, ge=64 * 1024, le=1024 * 1024)
    """Maximum size of a webhook event of Stripe."""
    log_level: str = Field(default="INFO", pattern=r"^(DEBUG|INFO|WARNING|ERROR)$")

    def port_contradictions(self) -> Iterator[str]:
        """Yield a message when both servers would listen on one port."""
        if self.http_port == self.webhook_port != 0:
            yield f"{PREFIX}HTTP_PORT and {PREFIX}WEBHOOK_PORT ({self.http_port}) must not be the same"
