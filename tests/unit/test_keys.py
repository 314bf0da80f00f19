"""Idempotency keys: origin, namespace and name; what SQL reads of them is in tests/ledger/test_key_namespace.py."""

import pytest

from voucher_operator.resources.keys import Key, Origin


@pytest.mark.parametrize(
    ("key", "text", "origin", "namespace", "name"),
    [
        (Key.of_redemption("billing", "kestrel-1"), "billing/kestrel-1", Origin.REDEMPTION, "billing", "kestrel-1"),
        (Key.of_http("0190-42"), "http:0190-42", Origin.HTTP, None, "0190-42"),
        (Key.of_http("a/b:c"), "http:a/b:c", Origin.HTTP, None, "a/b:c"),
        (Key.of_redemption("http", "x"), "http/x", Origin.REDEMPTION, "http", "x"),
    ],
)
def test_key_has_origin_namespace_and_name(
    key: Key, text: str, origin: Origin, namespace: str | None, name: str
) -> None:
    assert (str(key), key.origin, key.namespace, key.name) == (text, origin, namespace, name)
    assert Key(text) == key == text
