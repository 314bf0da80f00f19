"""What was asked for never hides what the watch has told meanwhile."""

from typing import Any

import pytest

from voucher_operator.controllers.cache import Cache


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
def test_an_answer_that_was_overtaken_is_not_kept(
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
