"""The SQL function that reads a key agrees with resources/keys.py."""

import pytest

from testbed.postgres import Database
from tests.ledger.helpers import rows
from voucher_operator.resources.keys import Key


@pytest.mark.parametrize("text", ["billing/kestrel-1", "http:0190", "http:a/b", "http/x", "a-b.c/d", "no-slash", ""])
async def test_key_namespace_in_sql_equals_key_namespace_in_python(database: Database, text: str) -> None:
    assert await rows(database, "SELECT vouchers.key_namespace(%s)", text) == [(Key(text).namespace,)]
