"""What people and shops apply, as documents.

See also: `cluster` applies them.
"""

from typing import Any

API = "billing.openova.io/v1alpha1"

Document = dict[str, Any]


def voucher(name: str, code: str, **spec: Any) -> Document:
    """A Voucher of 5 OMR; `spec` adds to it and replaces. An empty code leaves the field out."""
    own = {"credit": {"amount": 5, "currency": "OMR"}, **({"code": code} if code else {}), **spec}
    return {"apiVersion": API, "kind": "Voucher", "metadata": {"name": name}, "spec": own}


def redemption(name: str, user: str, **spec: Any) -> Document:
    """A Redemption by `user`; `spec` says of what: code=, codeFrom= or voucherRef=."""
    customer = {"userID": user, "tenantID": "kestrel", "email": f"{user}@example.com"}
    own = {"customer": customer, **spec}
    return {"apiVersion": API, "kind": "Redemption", "metadata": {"name": name}, "spec": own}


def from_secret(name: str, key: str = "code") -> Document:
    """A value for codeFrom."""
    return {"secretKeyRef": {"name": name, "key": key}}


def secret(name: str, **data: str) -> Document:
    """A Secret; it has the label for codes."""
    metadata = {"name": name, "labels": {"billing.openova.io/code": "true"}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}


def restricted_namespace(name: str) -> Document:
    """A namespace that lets only pods of the restricted profile in."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def condition(document: Document, kind: str) -> Document:
    """Return a condition of an object; empty when it is not there."""
    found = (document.get("status") or {}).get("conditions", [])
    return next((one for one in found if one["type"] == kind), {})
