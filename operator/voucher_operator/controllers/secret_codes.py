"""Reads codes from Secrets: in the resource's own namespace, and only from Secrets that are meant for codes.

Whoever may write a Voucher or a Redemption may not be allowed to read Secrets. So a Secret must have the label
CODE_LABEL, or a name that the administrators have chosen; any other Secret is answered like an absent one.

See also: `kube.shared_reads` limits the calls; `voucher.controller` and `redemption.request_builder` use it;
docs/voucher.md, "A code in a Secret".
"""

import base64
import binascii
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from voucher_operator.kube.client import Body
from voucher_operator.kube.errors import BusyError
from voucher_operator.kube.shared_reads import SharedReads
from voucher_operator.resources.base import SecretKeyRef
from voucher_operator.resources.codes import validate_code
from voucher_operator.resources.errors import (
    ApiError,
    InvalidCodeError,
    SecretNotFoundError,
    SecretUnreadableError,
)

CODE_LABEL: Final = "billing.openova.io/code"
"""The label of a Secret with codes; its value is "true"."""


@dataclass(frozen=True, slots=True)
class SecretCodes:
    """Reads codes; Secrets whose name is in `excluded` are never read, in any namespace.

    A Secret whose name matches one of `unlabelled` (shell patterns) needs no label.
    """

    secrets: SharedReads
    excluded: Collection[str] = ()
    unlabelled: Collection[str] = ()

    async def read(self, namespace: str, ref: SecretKeyRef, customer: str = "") -> str:
        """Return a code in its normal form; `customer` is who asks, for the order of those who wait.

        Raises BusyError, SecretNotFoundError, SecretUnreadableError, and InvalidCodeError for a value that is not a
        code. An excluded Secret raises InvalidCodeError too: permission to write a Voucher does not include reading it.
        A Secret that is not meant for codes raises the same SecretNotFoundError as an absent one.
        """
        if ref.name in self.excluded:
            raise InvalidCodeError(
                f"Secret {ref.name} holds credentials of the operator: put the code into another Secret."
            )
        path = f"/api/v1/namespaces/{namespace}/secrets/{ref.name}"
        try:
            secret = await self.secrets.read(path, (namespace, customer))
        except BusyError:
            raise
        except ApiError as error:
            raise SecretUnreadableError(f"Secret {ref.name} cannot be read: {error}.") from None
        if secret is None or not self._is_for_codes(ref.name, secret):
            raise SecretNotFoundError(
                f"Secret {ref.name} does not exist, or is not for codes: create it with the key {ref.key} and the "
                f'label {CODE_LABEL}: "true".'
            )
        encoded = (secret.get("data") or {}).get(ref.key)
        if encoded is None:
            raise SecretNotFoundError(f"Secret {ref.name} has no key {ref.key}: add it.")
        return validate_code(_decode(encoded))

    def _is_for_codes(self, name: str, secret: Body) -> bool:
        labels = secret.get("metadata", {}).get("labels") or {}
        return labels.get(CODE_LABEL) == "true" or any(fnmatchcase(name, pattern) for pattern in self.unlabelled)


def _decode(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
