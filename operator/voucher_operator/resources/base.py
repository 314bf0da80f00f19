"""What the models of both kinds share: configuration, metadata, a code in a Secret, how a status becomes a patch.

See also: `voucher` and `redemption` build on it; the CRDs in `crds/` say the same to the API server, which a test
holds field by field.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from voucher_operator.resources.conditions import format_time
from voucher_operator.resources.errors import InvalidSpecError

DNS_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_NAME)]


class Model(BaseModel):
    """Frozen, camelCase outside. Unknown fields are refused: a newer CRD's field must not be passed over in silence."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        # A spec may hold a code; an error ends up in a log.
        hide_input_in_errors=True,
    )


class Metadata(Model):
    """What the operator needs of metav1.ObjectMeta; the rest is passed over."""

    model_config = ConfigDict(extra="ignore")

    namespace: str
    name: str
    uid: str
    generation: int
    creation_timestamp: datetime
    deletion_timestamp: datetime | None = None
    resource_version: str = ""
    finalizers: tuple[str, ...] = ()


class SecretKeyRef(Model):
    """One key of a Secret in the resource's own namespace."""

    name: ObjectName
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]


class CodeFrom(Model):
    """Where a code is kept that Git may not show."""

    secret_key_ref: SecretKeyRef


class Resource(Model):
    """A custom resource as kopf or the API server hands it over; apiVersion and kind are passed over."""

    model_config = ConfigDict(extra="ignore")

    metadata: Metadata
    status: dict[str, Any] = {}
    """The last status as it was read, unchecked: whatever another version wrote there must not stop this one."""

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        """Read a body.

        Raises ValueError (pydantic's ValidationError, whose text holds no input) where the CRD would refuse the spec.
        """
        return cls.model_validate({key: body[key] for key in ("metadata", "spec", "status") if key in body})

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Read a body; raises InvalidSpecError for a spec that this version does not know all of."""
        try:
            return cls.from_body(body)
        except ValidationError:
            raise InvalidSpecError(
                "This version of the operator does not know all of the spec: upgrade the operator."
            ) from None

    @property
    def conditions(self) -> list[dict[str, Any]]:
        """The last conditions, for `conditions.merge`."""
        return list(self.status.get("conditions") or ())

    @property
    def deleted(self) -> bool:
        """Whether its deletion has begun."""
        return self.metadata.deletion_timestamp is not None


class Status(Model):
    """A status as this version writes it whole; fields that it does not know are not touched."""

    observed_generation: Annotated[int, Field(ge=-1)]
    conditions: Annotated[tuple[dict[str, Any], ...], Field(max_length=32)]

    def to_patch(self) -> dict[str, Any]:
        """Return a JSON merge patch of `.status`: every field of this model, None as null, which removes it."""
        return {_alias(type(self), name): _json(value) for name, value in self}


def _alias(model: type[BaseModel], name: str) -> str:
    return model.model_fields[name].alias or name


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return format_time(value)
    return [dict(one) for one in value] if isinstance(value, tuple) else value
