"""A code from a Secret is in no log, event, metric, status or command's output, whatever happens to its Voucher."""

import base64
import csv
import io
import json
from collections.abc import Iterator

from testbed.fork_server import ForkServer
from testbed.interpreter import environment
from tests.cluster.ledger_reader import LedgerReader
from tests.cluster.resources import FAST, Object, ResourceClient, ready, stalled, state, waiting
from tests.conftest import Operators

CODE = "QUIET-7Q4X-PARTNER"
OTHER = "HUSHED-9Z2W-OTHER"
MALFORMED = "whispered code?"
GRANTED = ("Redeemed", "Redeemed")
SECRET: Object = {"secretKeyRef": {"name": "partners", "key": "code"}}


def forms(code: str) -> set[str]:
    """Return what a code could be found as."""
    spelt = {code, code.lower(), code.title(), code.strip()}
    encoded = {base64.b64encode(text.encode()).decode() for text in (code, code.lower(), f"  {code.lower()}\n")}
    return spelt | encoded


def leaked_forms(text: str) -> list[str]:
    """Return the forms of the codes that a text holds."""
    return sorted(form for code in (CODE, OTHER, MALFORMED) for form in forms(code) if form in text)


def live(api: ResourceClient, ledger: LedgerReader) -> None:
    """Take a Voucher with a code in a Secret through every change."""
    voucher = api.voucher("a-partners", codeFrom=SECRET, maxRedemptions=4)
    early = api.redeem(codeFrom=SECRET, user="early")
    voucher.wait(waiting("SecretNotFound"))
    early.wait(waiting("SecretNotFound"))
    api.secret("partners", code=MALFORMED)
    voucher.wait(stalled("InvalidCode"))
    assert early.result() == ("Rejected", "VoucherNotFound")
    api.secret("partners", code=f"  {CODE.lower()}\n")
    voucher.wait(ready("Issued"))
    assert api.redeem(codeFrom=SECRET, user="by-secret").result() == GRANTED
    assert api.redeem(voucherRef={"name": voucher.name}, user="by-name").result() == GRANTED
    assert api.redeem(codeFrom=SECRET, user="by-name").result() == ("Rejected", "AlreadyRedeemed")
    ledger.rows("UPDATE promo_codes SET credit_omr = 1 WHERE code = %s", CODE)
    voucher.wait_event("DriftCorrected")
    voucher.edit(maxRedemptions=2)
    voucher.wait(state("Exhausted"))
    assert api.redeem(voucherRef={"name": voucher.name}).result() == ("Rejected", "RedemptionLimitReached")
    api.secret("partners", code=OTHER)
    voucher.wait(stalled("CodeChanged"))
    api.secret("partners", code=CODE)
    voucher.wait(ready("Issued"))
    rival = api.voucher("b-rival", codeFrom=SECRET)
    rival.wait(stalled("CodeConflict"))
    voucher.delete()
    rival.wait(ready("Issued"))
    rival.delete()
    rival.wait_gone()
    assert api.redeem(codeFrom=SECRET).result() == ("Rejected", "VoucherNotFound")
    api.voucher("c-back", codeFrom=SECRET, maxRedemptions=4).wait(state("Active"))


def printed(ledger: LedgerReader, fork_server: ForkServer) -> Iterator[str]:
    """Yield what the commands print of the ledger."""

    def command(*arguments: str, code: int = 0) -> str:
        done = fork_server.run(arguments, environment(ledger.database.runtime_url))
        assert done.returncode == code
        return done.stdout + done.stderr

    yield command("export", "vouchers", "--format", "csv")
    for what in ("vouchers", "redemptions", "entries"):
        yield command("export", what)
    yield command("balance", "by-secret")
    # A counter that is wrong, so that verify has to name the code; put right again.
    ledger.rows("UPDATE promo_codes SET times_redeemed = times_redeemed + 1 WHERE code = %s", CODE)
    found = command("verify", code=1)
    ledger.rows("UPDATE promo_codes SET times_redeemed = times_redeemed - 1 WHERE code = %s", CODE)
    assert "counter: code" in found
    yield found


def test_secret_code_appears_in_no_output(
    api: ResourceClient, ledger: LedgerReader, operators: Operators, fork_server: ForkServer
) -> None:
    operator = operators.start(env=FAST | {"VOUCHER_OPERATOR_LOG_LEVEL": "DEBUG"})
    live(api, ledger)
    objects = [*api.listed("vouchers"), *api.listed("redemptions")]
    events = api.listed("events", group="events.k8s.io", version="v1")
    leases = api.listed("leases", group="coordination.k8s.io", version="v1")
    assert {"Issued", "CodeChanged", "CodeConflict", "DriftCorrected", "Exhausted", "Revoked"} <= {
        event["reason"] for event in events
    }
    outputs_by_place = {
        "objects": json.dumps(objects),
        "events": json.dumps(events),
        "lease": json.dumps(leases),
        "metrics": json.dumps(operator.metrics()),
        "readyz": json.dumps(operator.ready()),
        "log": operator.log.read_text(),
    }
    assert {where: leaked_forms(text) for where, text in outputs_by_place.items() if leaked_forms(text)} == {}
    assert all(len(text) > 100 for where, text in outputs_by_place.items() if where != "readyz")
    outputs = list(printed(ledger, fork_server))
    assert [leaked_forms(text) for text in outputs] == [[]] * len(outputs)
    rows = list(csv.DictReader(io.StringIO(outputs[0])))
    assert len(rows) == 1
    assert "c-back" in rows[0]["code"]
    operator.stop()
    assert leaked_forms(operator.log.read_text()) == []
