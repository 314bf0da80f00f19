"""The settings say which codes a namespace may issue; a Voucher with another code does not reach the ledger."""

import json

import pytest

from testbed.kstatus import kstatus
from tests.cluster.ledger_reader import LedgerReader
from tests.cluster.resources import FAST, ResourceClient, condition, ready, stalled, unique
from tests.conftest import Operators


@pytest.fixture
def limited(api: ResourceClient, ledger: LedgerReader, operators: Operators) -> LedgerReader:
    """An operator that allows the namespace codes with two prefixes; its ledger."""
    prefixes = json.dumps({api.namespace: ["SALES-", "PROMO-"]})
    operators.start(env=FAST | {"VOUCHER_OPERATOR_CODE_PREFIXES": prefixes})
    return ledger


def test_code_without_an_allowed_prefix_is_not_issued(limited: LedgerReader, api: ResourceClient) -> None:
    voucher = api.voucher(code="OTHER-100")
    body = voucher.wait(stalled("CodeNotAllowed"))
    assert "must begin with SALES- or PROMO-" in condition(body, "Ready")["message"]
    assert (condition(body, "Redeemable")["reason"], kstatus(body)) == ("NotIssued", "Failed")
    voucher.wait_event("CodeNotAllowed")
    assert limited.promo("OTHER-100") == ()
    allowed = api.voucher(code="PROMO-100")
    allowed.wait(ready("Issued"))


def test_prefixes_hold_for_codes_from_secrets(limited: LedgerReader, api: ResourceClient) -> None:
    secret = unique("code")
    api.secret(secret, code="hidden-100")
    voucher = api.voucher(codeFrom={"secretKeyRef": {"name": secret, "key": "code"}})
    body = voucher.wait(stalled("CodeNotAllowed"))
    assert "HIDDEN" not in json.dumps(body["status"])
    api.secret(secret, code="sales-100\n")
    voucher.wait(ready("Issued"))
    assert limited.promo("HIDDEN-100") == ()
