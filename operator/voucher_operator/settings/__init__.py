"""All settings of the process, from environment variables `VOUCHER_OPERATOR_<NAME>`, in groups.

See also: `cli` reads them once and passes them on; the chart's Deployment sets them from its values.
"""

from typing import Self

from pydantic import model_validator
from pydantic_settings import SettingsConfigDict

from voucher_operator.settings.cluster import ClusterSettings
from voucher_operator.settings.codes import CodeSettings
from voucher_operator.settings.controllers import ControllerSettings
from voucher_operator.settings.database import DatabaseSettings
from voucher_operator.settings.http import HttpSettings
from voucher_operator.settings.messaging import MessagingSettings
from voucher_operator.settings.payments import PaymentSettings
from voucher_operator.settings.prefix import PREFIX

__all__ = ["PREFIX", "Settings"]


class Settings(
    DatabaseSettings,
    ClusterSettings,
    CodeSettings,
    ControllerSettings,
    HttpSettings,
    MessagingSettings,
    PaymentSettings,
):
    """All groups; the database can also be set by `DATABASE_URL`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", allow_inf_nan=False)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if found := "; ".join([*self.lease_contradictions(), *self.port_contradictions()]):
            raise ValueError(found)
        return self
