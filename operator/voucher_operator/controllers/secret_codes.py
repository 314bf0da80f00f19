"""Reads codes from Secrets: in the resource's own namespace, and never from the operator's own credentials.

See also: `kube.shared_reads` limits the calls; `voucher.controller` and `redemption.request_builder` use it;
docs/voucher.md, "A code in a Secret".
"""

import base64
import binascii
from collections.abc import Collection
from dataclasses import dataclass

from voucher_operator.kube.shared_reads import SharedReads
from voucher_operator.resources.base import SecretKeyRef
from voucher_operator.resources.codes import validate_code
from voucher_operator.resources.errors import (
    ApiError,
    InvalidCodeError,
    SecretNotFoundError,
    SecretUnreadableError,
)


@dataclass(frozen=True, slots=True)
class SecretCodes:
    """Reads codes; Secrets whose name is in `excluded` are never read, in any namespace."""

    secrets: SharedReads
    excluded: Collection[str] = ()

    async def read(self, namespace: str, ref: SecretKeyRef, customer: str = "") -> str:
        """Return a code in its normal form; `customer` is who asks, for the order of those who wait.

        Raises SecretNotFoundError, SecretUnreadableError, and InvalidCodeError for a value that is not a code. An
        excluded Secret raises InvalidCodeError too: permission to write a Voucher does not include reading it.
        """
        if ref.name in self.excluded:
            raise InvalidCodeError(
                f"Secret {ref.name} holds credentials of the operator: put the code into another Secret."
            )
        path = f"/api/v1/namespaces/{namespace}/secrets/{ref.name}"
        try:
            secret = await self.secrets.read(path, (namespace, customer))
        except ApiError as error:
            raise SecretUnreadableError(f"Secret {ref.name} cannot be read: {error}.") from None
        if secret is None:
            raise SecretNotFoundError(f"Secret {ref.name} does not exist: create it with the key {ref.key}.")
        encoded = (secret.get("data") or {}).get(ref.key)
        if encoded is None:
            raise SecretNotFoundError(f"Secret {ref.name} has no key {ref.key}: add it.")
        return validate_code(_decode(encoded))


def _decode(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
