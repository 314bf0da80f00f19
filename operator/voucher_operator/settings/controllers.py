"""How the controllers work: concurrency and times."""

from pydantic import Field
from pydantic_settings import BaseSettings


class ControllerSettings(BaseSettings):
    """Concurrency, intervals and time limits of the controllers."""

    workers: int = Field(default=128, ge=1, le=256)
    """Redemptions that are reconciled concurrently; at most 20 statuses are written concurrently."""
    backoff_max: float = Field(default=30.0, gt=0)
    """Maximum backoff of a resource, in seconds."""
    counter_sync_interval: float = Field(default=5.0, gt=0)
    """Pause between two runs of the counter sync, in seconds."""
    resync_interval: float = Field(default=300.0, gt=0)
    """Pause between two resyncs, which list all resources, in seconds."""
    status_check_interval: float = Field(default=21_600.0, gt=0)
    """Pause between two comparisons of all finished Redemptions with the ledger, in seconds."""
    secret_interval: float = Field(default=15.0, gt=0)
    """Pause between two reads of the Secrets with codes, in seconds."""
    not_found_grace: float = Field(default=5.0, ge=0)
    """How long a Redemption with an unknown code waits for its Voucher, in seconds."""
    wrong_codes: int = Field(default=10, ge=0, le=10_000)
    """Wrong codes that a customer may try in a namespace in `wrong_codes_seconds`; then all codes wait. 0: no limit."""
    wrong_codes_seconds: float = Field(default=600.0, ge=1, le=86_400)
    finalizer_timeout: float = Field(default=120.0, ge=0)
    """The finalizer of a deleted Voucher is removed after this time without a ledger, in seconds."""
