"""Shared by the models of both kinds: configuration, metadata, a code in a Secret, the patch of a status.

See also: `voucher` and `redemption` use it; the CRDs in `crds/` have the same fields, which a test compares.
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
    """Frozen, with camelCase aliases. Unknown fields are refused: a field of a newer CRD must not be ignored."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        # A spec may contain a code, and an error may be logged.
        hide_input_in_errors=True,
    )


class Metadata(Model):
    """The fields of metav1.ObjectMeta that the operator uses; the others are ignored."""

    model_config = ConfigDict(extra="ignore")

    namespace: str
    name: str
    uid: str
    generation: int
    creation_timestamp: datetime
    deletion_timestamp: datetime | None = None


class SecretKeyRef(Model):
    """One key of a Secret in the resource's own namespace."""

    name: ObjectName
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]


class CodeFrom(Model):
    """The Secret of a code that must not be in Git."""

    secret_key_ref: SecretKeyRef


class Resource(Model):
    """A custom resource as returned by kopf or the API server; apiVersion and kind are ignored."""

    model_config = ConfigDict(extra="ignore")

    metadata: Metadata
    status: dict[str, Any] = {}
    """The last status as it was read, not validated: another version may have written other fields."""

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        """Read a body.

        Raises ValueError (pydantic's ValidationError, whose text contains no input) for a spec that the CRD refuses.
        """
        return cls.model_validate({key: body[key] for key in ("metadata", "spec", "status") if key in body})

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Read a body; raises InvalidSpecError for a spec with fields that this version does not know."""
        try:
            return cls.from_body(body)
        except ValidationError:
            raise InvalidSpecError(
                "The spec has fields or values that this version of the operator does not know: upgrade the operator."
            ) from None

    @property
    def conditions(self) -> list[dict[str, Any]]:
        """The current conditions, for `conditions.merge`."""
        return list(self.status.get("conditions") or ())

    @property
    def deleted(self) -> bool:
        """Whether its deletion has begun."""
        return self.metadata.deletion_timestamp is not None


class Status(Model):
    """A complete status of this version; fields that it does not know are kept."""

    observed_generation: Annotated[int, Field(ge=-1)]
    conditions: Annotated[tuple[dict[str, Any], ...], Field(max_length=32)]

    def to_patch(self) -> dict[str, Any]:
        """Return a JSON merge patch of `.status` with every field; None becomes null, which removes a field."""
        return {_alias(type(self), name): _json(value) for name, value in self}


def _alias(model: type[BaseModel], name: str) -> str:
    return model.model_fields[name].alias or name


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return format_time(value)
    return [dict(one) for one in value] if isinstance(value, tuple) else value
