"""What most cached bodies look like, so that they are compressed well: each has only what is its own.

No meaning: another text makes the caches larger, nothing else. See also: `kube.cache` compresses; `wiring` builds it.
"""

import json
from typing import Any, Final

_TIME: Final = "2026-01-01T00:00:00Z"


def _condition(kind: str, status: str, reason: str, message: str) -> dict[str, Any]:
    # In the order of the API server's answers.
    return {
        "lastTransitionTime": _TIME,
        "message": message,
        "observedGeneration": 1,
        "reason": reason,
        "status": status,
        "type": kind,
    }


def _sample(spec: dict[str, Any], status: dict[str, Any]) -> bytes:
    metadata = {
        "name": "",
        "namespace": "billing",
        "uid": "0",
        "resourceVersion": "1",
        "generation": 1,
        "creationTimestamp": _TIME,
        "finalizers": ["billing.openova.io/revoke"],
    }
    return json.dumps({"metadata": metadata, "spec": spec, "status": status}, separators=(",", ":")).encode()


VOUCHER_SAMPLE: Final = _sample(
    {
        "active": True,
        "code": "",
        "codeFrom": {"secretKeyRef": {"key": "code", "name": ""}},
        "credit": {"amount": "1", "currency": "OMR"},
        "description": "",
        "maxRedemptions": 1,
        "validFrom": _TIME,
        "validUntil": _TIME,
    },
    {
        "conditions": [
            _condition("Ready", "True", "Issued", "The voucher is in the ledger."),
            _condition("Redeemable", "False", "Exhausted", "maxRedemptions is reached: raise it to allow more."),
            _condition("Redeemable", "True", "Active", "A customer can redeem it now."),
        ],
        "credit": "1.000 OMR",
        "creditGranted": "0.000",
        "observedGeneration": 1,
        "redeemed": "0/1",
        "remaining": 1,
        "state": "Active",
        "timesRedeemed": 0,
    },
)
REDEMPTION_SAMPLE: Final = _sample(
    {
        "codeFrom": {"secretKeyRef": {"key": "code", "name": ""}},
        "customer": {"email": "@example.com", "tenantID": "", "userID": ""},
        "order": {"addons": [], "apps": [], "planID": ""},
        "code": "",
        "ttlSecondsAfterFinished": 86400,
    },
    {
        "conditions": [
            _condition(kind, status, "SecretNotFound", "The Secret with the code does not exist, or has no such key.")
            for kind, status in (("Ready", "False"), ("Reconciling", "True"), ("Redeemed", "False"))
        ],
        "observedGeneration": 1,
        "state": "Pending",
    },
)
