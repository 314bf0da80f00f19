"""The settings say which codes a namespace may issue; a Voucher with another code does not reach the ledger."""

import json

import pytest

from testbed.kstatus import kstatus
from tests.cluster.ledger_reader import LedgerReader
from tests.cluster.resources import FAST, ResourceClient, condition, ready, stalled, unique, waiting
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


def test_voucher_whose_prefix_is_no_longer_allowed_can_be_stopped_but_not_changed(
    limited: LedgerReader, api: ResourceClient, operators: Operators
) -> None:
    voucher = api.voucher(code="PROMO-100")
    voucher.wait(ready("Issued"))
    operators.started[0].stop()
    operators.start(env=FAST | {"VOUCHER_OPERATOR_CODE_PREFIXES": json.dumps({api.namespace: ["SALES-"]})})
    voucher.wait(stalled("CodeNotAllowed"))
    voucher.edit(credit={"amount": 99}, maxRedemptions=7)
    voucher.wait(stalled("CodeNotAllowed"))
    assert limited.promo("PROMO-100") == (10_000, True, 0, 0, False)
    voucher.edit(active=False)
    body = voucher.wait(lambda body: stalled("CodeNotAllowed")(body) and body["status"]["state"] == "Inactive")
    assert condition(body, "Redeemable")["reason"] == "Inactive"
    assert limited.promo("PROMO-100") == (10_000, False, 0, 0, False)
    voucher.edit(active=True)
    voucher.wait(stalled("CodeNotAllowed"))
    assert limited.promo("PROMO-100") == (10_000, False, 0, 0, False)
    voucher.delete()
    voucher.wait_gone()
    assert limited.promo("PROMO-100")[4] is True


def test_voucher_whose_secret_is_gone_can_be_stopped(limited: LedgerReader, api: ResourceClient) -> None:
    """Its code is not known any more, but the ledger knows whose it is."""
    secret = unique("code")
    api.secret(secret, code="sales-gone")
    voucher = api.voucher(codeFrom={"secretKeyRef": {"name": secret, "key": "code"}})
    voucher.wait(ready("Issued"))
    api.delete_secret(secret)
    voucher.wait(waiting("SecretNotFound"))
    voucher.edit(active=False)
    voucher.wait(lambda body: waiting("SecretNotFound")(body) and body["status"]["state"] == "Inactive")
    assert limited.promo("SALES-GONE")[1] is False
