"""What the operator serves, who this replica is, and the times of leader election."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode

from voucher_operator.settings.lists import split
from voucher_operator.settings.prefix import PREFIX

RETRY_JITTER: Final = 1.2
"""The leader election library requires `renew_deadline` > this factor * `retry_period`."""


class UnservedVouchers(StrEnum):
    """What becomes of the codes of Vouchers in a namespace that is no longer served."""

    KEEP = "keep"
    REVOKE = "revoke"


class ClusterSettings(BaseSettings):
    """Namespaces, pod and Lease."""

    namespaces: Annotated[tuple[str, ...], NoDecode, Field(min_length=1)] = ("billing",)
    """Namespaces whose Vouchers and Redemptions are served, separated by commas."""
    unserved_vouchers: UnservedVouchers = UnservedVouchers.KEEP
    """What becomes of the codes of Vouchers in a namespace that is removed from `namespaces`: keep or revoke. A code
    that was revoked is issued again when its namespace is served again."""
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
    stop_timeout: float = Field(default=24.0, gt=0)
    """A process that has not stopped so many seconds after SIGTERM, or after it lost its Lease, ends itself. Less than
    the pod's grace period."""

    @field_validator("namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return split(value)

    def operator_name(self, cluster: str) -> str:
        """Return the name of the release that this replica belongs to: all its replicas share the Lease.

        `cluster` tells clusters with one ledger apart: releases from one template have the same Lease in each of them.
        """
        return f"{cluster}/{self.pod_namespace}/{self.lease_name}"

    def lease_contradictions(self) -> Iterator[str]:
        """Yield a message for each pair of times with which no replica would ever lead."""
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
