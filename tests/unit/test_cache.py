"""The cache of bodies: what is forgotten is the object that was meant."""

from typing import Any

from voucher_operator.controllers.cache import Cache


def body(uid: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "billing", "name": "kestrel", "uid": uid, "labels": {}}, "spec": {}}


def test_a_successor_of_the_same_name_is_kept() -> None:
    """It may be told of before the status of the one before it is known to be written."""
    cache = Cache()
    first = cache.put(body("u-1"))
    cache.put(body("u-2"))
    cache.drop_object(first)
    kept = cache.get("billing/kestrel")
    assert kept is not None
    assert kept["metadata"]["uid"] == "u-2"
    assert (cache.by_uid("u-1"), cache.by_uid("u-2")) == (None, kept)


def test_the_object_itself_is_forgotten() -> None:
    cache = Cache()
    first = cache.put(body("u-1"))
    cache.drop_object(first)
    cache.drop_object(first)
    assert (len(cache), cache.get("billing/kestrel"), cache.by_uid("u-1")) == (0, None, None)
