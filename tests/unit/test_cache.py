"""The cache of bodies: nothing older hides what is newer, and what is forgotten is the object that was meant."""

from typing import Any

import pytest

from voucher_operator.kube.cache import Cache


def body(generation: int, uid: str = "u") -> dict[str, Any]:
    return {"metadata": {"namespace": "n", "name": "v", "uid": uid, "generation": generation}}


@pytest.mark.parametrize(
    ("told", "read", "kept"),
    [
        (body(3), body(2), body(3)),
        (body(2), body(3), body(3)),
        (body(3), body(1, "another"), body(1, "another")),
        (None, body(2), body(2)),
    ],
    ids=["older", "newer", "another object", "first"],
)
def test_older_read_does_not_replace_a_newer_body(
    told: dict[str, Any] | None, read: dict[str, Any], kept: dict[str, Any]
) -> None:
    cache = Cache()
    if told is not None:
        cache.put(told)
    cache.read(read)
    found = cache.get("n/v")
    assert found is not None
    assert found["metadata"] == kept["metadata"]
    assert cache.by_uid(kept["metadata"]["uid"]) == found


def named(uid: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "billing", "name": "kestrel", "uid": uid, "labels": {}}, "spec": {}}


def test_recreated_object_of_the_same_name_is_kept() -> None:
    """It may be told of before the status of the one before it is known to be written."""
    cache = Cache()
    first = cache.put(named("u-1"))
    cache.put(named("u-2"))
    cache.drop_object(first)
    kept = cache.get("billing/kestrel")
    assert kept is not None
    assert kept["metadata"]["uid"] == "u-2"
    assert (cache.by_uid("u-1"), cache.by_uid("u-2")) == (None, kept)


def test_dropped_object_is_removed() -> None:
    cache = Cache()
    first = cache.put(named("u-1"))
    cache.drop_object(first)
    cache.drop_object(first)
    assert (len(cache), cache.get("billing/kestrel"), cache.by_uid("u-1")) == (0, None, None)
