"""What one cached resource costs: tens of thousands of them have to fit into the pod's limit.

`python -m benchmarks vouchers` measures the whole process, with 20,000 of them.
"""

import gc
import json
import tracemalloc
from collections.abc import Callable
from typing import Any, cast

import pytest

from voucher_operator.controllers.samples import REDEMPTION_SAMPLE, VOUCHER_SAMPLE
from voucher_operator.controllers.voucher.marks import marks
from voucher_operator.kube.cache import Cache, slim
from voucher_operator.services.code_index import CodeIndex

COUNT = 2000


def metadata(n: int) -> dict[str, Any]:
    return {
        "name": f"launch-{n}",
        "namespace": "billing",
        "uid": f"0b6ad4c2-93f5-4bd4-9f3c-{n * 7919:012x}",
        "resourceVersion": str(81_000 + n * 13),
        "generation": 1,
        "creationTimestamp": "2026-11-28T10:11:12Z",
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x" * 500},
        "managedFields": [{"manager": "flux", "fieldsV1": {"f:spec": {f"f:{n}": {} for n in range(10)}}}],
    }


def condition(kind: str, status: str, reason: str, message: str) -> dict[str, Any]:
    return {
        "lastTransitionTime": "2026-11-28T10:11:13Z",
        "message": message,
        "observedGeneration": 1,
        "reason": reason,
        "status": status,
        "type": kind,
    }


def voucher(n: int) -> dict[str, Any]:
    return {
        "metadata": {**metadata(n), "finalizers": ["billing.openova.io/revoke"]},
        "spec": {
            "active": True,
            "code": f"{n * 104_729:010X}",
            "credit": {"amount": "25.500", "currency": "OMR"},
            "description": "Muscat launch campaign",
            "maxRedemptions": 1,
        },
        "status": {
            "conditions": [
                condition("Ready", "True", "Issued", "The voucher is in the ledger."),
                condition("Redeemable", "True", "Active", "A customer can redeem it now."),
            ],
            "credit": "25.500 OMR",
            "creditGranted": "0.000",
            "observedGeneration": 1,
            "redeemed": "0/1",
            "remaining": 1,
            "state": "Active",
            "timesRedeemed": 0,
        },
    }


def redemption(n: int) -> dict[str, Any]:
    message = "The Secret with the code does not exist, or has no such key."
    return {
        "metadata": metadata(n),
        "spec": {
            "codeFrom": {"secretKeyRef": {"key": "code", "name": f"code-{n % 10}"}},
            "customer": {"email": f"u{n}@example.com", "tenantID": "kestrel-pharmacy", "userID": f"user-{n}"},
        },
        "status": {
            "conditions": [
                condition(kind, "False", "SecretNotFound", message) for kind in ("Ready", "Redeemed", "Reconciling")
            ],
            "observedGeneration": 1,
            "state": "Pending",
        },
    }


def bytes_each(keep: Callable[[list[bytes]], object], make: Callable[[int], dict[str, Any]]) -> float:
    """Return what Python's heap grows by for each object that is kept."""
    texts = [json.dumps(make(n)).encode() for n in range(COUNT)]
    gc.collect()
    tracemalloc.start()
    try:
        kept = keep(texts)
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept is not None
    return grown / COUNT


def plain(texts: list[bytes]) -> object:
    """As the bodies come, but for what nobody reads."""
    return [slim(json.loads(text)) for text in texts]


@pytest.mark.parametrize(
    ("make", "sample", "most"), [(voucher, VOUCHER_SAMPLE, 1_200), (redemption, REDEMPTION_SAMPLE, 1_200)]
)
def test_cached_body_takes_less_than_a_quarter_of_the_plain_one(
    make: Callable[[int], dict[str, Any]], sample: bytes, most: int
) -> None:
    def cached(texts: list[bytes]) -> object:
        cache = Cache(sample, marks)
        for text in texts:
            cache.put(json.loads(text))
        return cache

    ours, theirs = bytes_each(cached, make), bytes_each(plain, make)
    assert ours < theirs / 4
    assert ours < most


def test_issued_voucher_takes_less_than_two_kilobytes_with_its_code() -> None:
    def issued(texts: list[bytes]) -> object:
        cache, codes = Cache(VOUCHER_SAMPLE, marks), CodeIndex()
        for text in texts:
            body = cache.put(json.loads(text))
            codes.put(body["metadata"]["uid"], body["spec"]["code"])
        return cache, codes

    assert bytes_each(issued, voucher) < 1_600


@pytest.mark.parametrize(("make", "sample"), [(voucher, VOUCHER_SAMPLE), (redemption, REDEMPTION_SAMPLE)])
def test_cached_body_is_read_as_it_was_written(make: Callable[[int], dict[str, Any]], sample: bytes) -> None:
    cache = Cache(sample)
    for n in range(20):
        body = make(n)
        body["spec"]["description"] = "قسيمة, für alle \ud83c" + "x" * 5_000
        cache.put(body)
        assert cache.get(f"billing/launch-{n}") == slim(body)
    changed = cast("dict[str, Any]", cache.get("billing/launch-3"))
    changed["spec"].clear()
    assert cache.get("billing/launch-3") != changed
