"""A Voucher is issued: ledger, status, kubectl, Flux and events show it, and then nothing more is written."""

import re

from testbed.control_plane import ControlPlane
from testbed.kstatus import kstatus
from tests.cluster.conftest import Sovereign
from tests.cluster.ledger_reader import LedgerReader, wait_for_full_passes
from tests.cluster.resources import FAST, ResourceClient, condition, ready, stalled, state, status
from tests.conftest import Operators
from tests.ledger.go_service import GoService

WRITES = 'voucher_operator_status_writes_total{resource="Voucher"}'


def test_ledger_row_equals_the_spec(sovereign: Sovereign) -> None:
    voucher = sovereign.api.voucher(
        credit={"amount": "25.500", "currency": "OMR"},
        description="Muscat launch",
        maxRedemptions=50,
        validFrom="2020-01-01T00:00:00Z",
        validUntil="9999-12-31T23:59:59Z",
    )
    voucher.wait(ready("Issued"))
    assert sovereign.ledger.promo(voucher.code) == (25500, True, 50, 0, False)
    assert sovereign.ledger.row(
        "SELECT p.description, p.credit_omr, t.owner_uid, t.valid_from = '2020-01-01Z', "
        "t.valid_until = '9999-12-31 23:59:59Z' "
        "FROM promo_codes AS p JOIN vouchers.terms AS t USING (code) WHERE code = %s",
        voucher.code,
    ) == ("Muscat launch", 25, voucher.uid, True, True)


def test_status_of_a_new_voucher(sovereign: Sovereign) -> None:
    voucher = sovereign.api.voucher(maxRedemptions=50)
    body = voucher.wait(ready("Issued"))
    said = {one.pop("type"): one for one in body["status"].pop("conditions")}
    assert body["status"] == {
        "observedGeneration": 1,
        "state": "Active",
        "credit": "10.000 OMR",
        "redeemed": "0/50",
        "timesRedeemed": 0,
        "remaining": 50,
        "creditGranted": "0.000",
    }
    assert {kind: (one["status"], one["reason"], one["observedGeneration"]) for kind, one in said.items()} == {
        "Ready": ("True", "Issued", 1),
        "Redeemable": ("True", "Active", 1),
    }
    assert kstatus(voucher.body()) == "Current"


def test_status_counts_redemptions(sovereign: Sovereign) -> None:
    voucher = sovereign.api.voucher(maxRedemptions=50, credit={"amount": "25.500", "currency": "OMR"})
    voucher.wait(ready("Issued"))
    for _ in range(2):
        assert sovereign.api.redeem(voucher.code).result() == ("Redeemed", "Redeemed")
    body = voucher.wait(status(timesRedeemed=2, remaining=48, redeemed="2/50", creditGranted="51.000"))
    (last,) = sovereign.ledger.row(
        "SELECT to_char(last_redeemed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') "
        "FROM promo_codes WHERE code = %s",
        voucher.code,
    )
    assert body["status"]["lastRedemptionTime"] == last


def test_kubectl_shows_a_voucher(sovereign: Sovereign, control_plane: ControlPlane) -> None:
    voucher = sovereign.api.voucher(maxRedemptions=3)
    voucher.wait(ready("Issued"))
    sovereign.api.redeem(voucher.code).result()
    voucher.wait(status(timesRedeemed=1))
    row = control_plane.kubectl("get", "vch", voucher.name, "-n", sovereign.api.namespace, "--no-headers")
    assert re.split(r"\s{2,}", row.strip())[:-1] == [voucher.name, voucher.code, "10.000 OMR", "1/3", "Active", "True"]


def test_operator_adds_one_finalizer_and_nothing_else(sovereign: Sovereign) -> None:
    """No annotation, no label, no status of kopf's own."""
    voucher = sovereign.api.voucher()
    metadata = voucher.wait(ready("Issued"))["metadata"]
    assert metadata["finalizers"] == ["billing.openova.io/revoke"]
    assert "annotations" not in metadata
    assert "labels" not in metadata
    assert metadata["generation"] == 1


def test_issued_event_is_written_once(sovereign: Sovereign) -> None:
    voucher = sovereign.api.voucher()
    event = voucher.wait_event("Issued")
    assert (event["type"], event["action"], event["regarding"]["name"]) == ("Normal", "Issue", voucher.name)
    assert event["reportingController"] == "billing.openova.io/voucher-operator"
    wait_for_full_passes(sovereign.api, sovereign.ledger)
    (only,) = voucher.events()
    assert "series" not in only


def test_status_that_does_not_change_is_not_written(
    api: ResourceClient, ledger: LedgerReader, operators: Operators
) -> None:
    """Not by resyncs of ledger and resources, nor by watch events of the operator's own writes.

    The API server does not count a patch that changes nothing as a change, so the calls are counted, too.
    """
    operator = operators.start(env=FAST | {"VOUCHER_OPERATOR_RESYNC_INTERVAL": "0.5"})
    good, bad = api.voucher(maxRedemptions=1), api.voucher(credit={"amount": 1, "currency": "USD"})
    good.wait(state("Active"))
    api.redeem(good.code).result()
    good.wait(state("Exhausted"))
    bad.wait(stalled("CurrencyMismatch"))
    probe = api.voucher()
    wait_for_full_passes(api, ledger, 1, probe)
    before = [made.body()["metadata"]["resourceVersion"] for made in (good, bad, probe)], operator.metrics()[WRITES]
    wait_for_full_passes(api, ledger, 6, probe)
    after = [made.body()["metadata"]["resourceVersion"] for made in (good, bad, probe)], operator.metrics()[WRITES]
    assert after == before


def test_voucher_in_another_currency_is_stalled(sovereign: Sovereign) -> None:
    voucher = sovereign.api.voucher(credit={"amount": 10, "currency": "USD"})
    body = voucher.wait(stalled("CurrencyMismatch"))
    assert condition(body, "Ready")["message"] == ("The ledger counts in OMR, this Voucher in USD: write OMR.")
    assert (condition(body, "Redeemable")["status"], condition(body, "Redeemable")["reason"]) == ("False", "NotIssued")
    assert kstatus(body) == "Failed"
    assert sovereign.ledger.promo(voucher.code) == ()
    voucher.wait_event("CurrencyMismatch")


async def test_row_of_the_go_service_is_adopted_with_its_counter(sovereign: Sovereign) -> None:
    """Whatever its spelling; the spec's terms hold from then on, and the cap counts what was redeemed before."""
    legacy, code = " legacy-spelling ", "LEGACY-SPELLING"
    async with GoService.connect(sovereign.ledger.database.owner_url) as go:
        await go.issue(legacy, 7, max_redemptions=-1)
        await go.redeem(await go.customer("adopted-early"), legacy)
    voucher = sovereign.api.voucher(code=code, maxRedemptions=2)
    voucher.wait(status(timesRedeemed=1, remaining=1, creditGranted="7.000"))
    assert sovereign.ledger.promo(legacy) == (10000, True, 2, 1, False)
    assert sovereign.ledger.promo(code) == ()
    assert sovereign.api.redeem("Legacy-Spelling", user="adopted-late").result() == ("Redeemed", "Redeemed")
    voucher.wait(state("Exhausted"))
    assert sovereign.ledger.balance("adopted-late") == 10000
