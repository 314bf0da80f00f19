"""The cache of bodies: an older body does not replace a newer one, and only the given object is dropped."""

from typing import Any

import pytest

from voucher_operator.kube.cache import Cache


def body(generation: int, uid: str = "u") -> dict[str, Any]:
    return {"metadata": {"namespace": "n", "name": "v", "uid": uid, "generation": generation}}


@pytest.mark.parametrize(
    ("watched", "read", "kept"),
    [
        (body(3), body(2), body(3)),
        (body(2), body(3), body(3)),
        (body(3), body(1, "another"), body(1, "another")),
        (None, body(2), body(2)),
    ],
    ids=["older", "newer", "another object", "first"],
)
def test_older_read_does_not_replace_a_newer_body(
    watched: dict[str, Any] | None, read: dict[str, Any], kept: dict[str, Any]
) -> None:
    cache = Cache()
    if watched is not None:
        cache.put(watched)
    cache.read(read)
    found = cache.get("n/v")
    assert found is not None
    assert found["metadata"] == kept["metadata"]
    assert cache.by_uid(kept["metadata"]["uid"]) == found


def named(uid: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "billing", "name": "kestrel", "uid": uid, "labels": {}}, "spec": {}}


def test_recreated_object_of_the_same_name_is_kept() -> None:
    """Its watch event may come before the status write of the old object returns."""
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
