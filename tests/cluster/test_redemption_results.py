"""What a Redemption is answered: granted, or refused for each of the reasons, and what people see of it."""

import re
from typing import Any

from testbed.control_plane import ControlPlane
from testbed.kstatus import kstatus
from tests.cluster.conftest import Sovereign
from tests.cluster.resources import CustomObject, Object, condition, ready, state, unique

TIMES = ("lastTransitionTime", "finishedAt")


def issued(sovereign: Sovereign, word: str = "Active", **spec: Any) -> CustomObject:
    """Return a Voucher that is in the ledger, in this state."""
    voucher = sovereign.api.voucher(**spec)
    voucher.wait(state(word))
    return voucher


def timeless(value: Any) -> Any:
    """Return a status without its times, so that two can be compared."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in TIMES}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def refused(sovereign: Sovereign, redemption: CustomObject, reason: str, user: str) -> Object:
    """See that a Redemption was refused for this reason, and that nothing was granted; return its body."""
    assert redemption.result() == ("Rejected", reason)
    body = redemption.body()
    assert {kind: condition(body, kind).get("status") for kind in ("Ready", "Redeemed", "Stalled", "Reconciling")} == {
        "Ready": "False",
        "Redeemed": "False",
        "Stalled": "True",
        "Reconciling": None,
    }
    assert {one["reason"] for one in body["status"]["conditions"]} == {reason}
    assert kstatus(body) == "Failed"
    assert not {"credit", "redeemedAt"} & set(body["status"])
    event = redemption.wait_event(reason)
    assert (event["type"], event["action"], event["note"]) == ("Warning", "Redeem", condition(body, "Ready")["message"])
    assert sovereign.ledger.balance(user) == 0
    return body


def test_granted_redemption_has_status_event_and_columns(sovereign: Sovereign, control_plane: ControlPlane) -> None:
    voucher, user = issued(sovereign, credit={"amount": "25.500", "currency": "OMR"}), unique("user")
    redemption = sovereign.api.redeem(voucher.code, user=user)
    assert redemption.result() == ("Redeemed", "Redeemed")
    body = redemption.body()
    (decided,) = sovereign.ledger.row(
        "SELECT to_char(decided_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') "
        "FROM vouchers.redemption WHERE key = %s",
        f"{sovereign.api.namespace}/{redemption.name}",
    )
    said = {one.pop("type"): one["status"] for one in body["status"].pop("conditions")}
    assert body["status"] == {
        "observedGeneration": 1,
        "state": "Redeemed",
        "finished": True,
        "finishedAt": decided,
        "redeemedAt": decided,
        "credit": "25.500 OMR",
    }
    assert said == {"Ready": "True", "Redeemed": "True"}
    assert kstatus(redemption.body()) == "Current"
    assert sovereign.ledger.balance(user) == 25500
    row = control_plane.kubectl("get", "rdm", redemption.name, "-n", sovereign.api.namespace, "--no-headers")
    columns = [redemption.name, "Redeemed", "25.500 OMR", user, "Redeemed"]
    assert re.split(r"\s{2,}", row.strip())[:-1] == columns


def test_code_is_accepted_in_any_case(sovereign: Sovereign) -> None:
    voucher = issued(sovereign, code=unique("MiXeD").upper())
    for code in (voucher.code.lower(), voucher.code.title(), voucher.code):
        assert sovereign.api.redeem(code).result() == ("Redeemed", "Redeemed")


def test_unknown_and_revoked_codes_look_the_same(sovereign: Sovereign) -> None:
    """In status, columns and events; nor are a Voucher that never was, and a Secret that holds no code."""
    api = sovereign.api
    revoked = issued(sovereign)
    referred = issued(sovereign)
    api.secret(bad := unique("bad"), code="no code!")
    for voucher in (revoked, referred):
        voucher.delete()
        voucher.wait_gone()
    made = [
        api.redeem(unique("NEVER")),
        api.redeem(revoked.code),
        api.redeem(voucherRef={"name": referred.name}),
        api.redeem(voucherRef={"name": "never-there"}),
        api.redeem(codeFrom={"secretKeyRef": {"name": bad, "key": "code"}}),
    ]
    bodies = [refused(sovereign, one, "VoucherNotFound", one.spec["customer"]["userID"]) for one in made]
    first, *others = [timeless(body["status"]) for body in bodies]
    assert others == [first] * 4
    events = [{(event["type"], event["reason"], event["note"]) for event in one.events()} for one in made]
    assert events == [events[0]] * 5
    assert sovereign.ledger.rows(
        "SELECT count(*) FROM vouchers.redemption WHERE uid = ANY(%s) AND reason <> 'VoucherNotFound'",
        [one.uid for one in made],
    ) == [(0,)]


def test_inactive_voucher_is_refused(sovereign: Sovereign) -> None:
    voucher, user = issued(sovereign, "Inactive", active=False), unique("user")
    refused(sovereign, sovereign.api.redeem(voucher.code, user=user), "VoucherInactive", user)


def test_voucher_before_its_window_is_refused(sovereign: Sovereign) -> None:
    voucher, user = issued(sovereign, "Scheduled", validFrom="2999-01-01T00:00:00Z"), unique("user")
    refused(sovereign, sovereign.api.redeem(voucher.code, user=user), "VoucherNotYetValid", user)


def test_expired_voucher_is_refused(sovereign: Sovereign) -> None:
    voucher, user = issued(sovereign, "Expired", validUntil="2020-01-01T00:00:00Z"), unique("user")
    refused(sovereign, sovereign.api.redeem(voucher.code, user=user), "VoucherExpired", user)


def test_voucher_at_its_cap_is_refused(sovereign: Sovereign) -> None:
    voucher, user = issued(sovereign, maxRedemptions=1), unique("user")
    assert sovereign.api.redeem(voucher.code).result() == ("Redeemed", "Redeemed")
    refused(sovereign, sovereign.api.redeem(voucher.code, user=user), "RedemptionLimitReached", user)


def test_second_redemption_of_a_customer_is_refused(sovereign: Sovereign) -> None:
    voucher, user = issued(sovereign), unique("user")
    assert sovereign.api.redeem(voucher.code, user=user).result() == ("Redeemed", "Redeemed")
    again = sovereign.api.redeem(voucher.code.lower(), user=user)
    assert again.result() == ("Rejected", "AlreadyRedeemed")
    again.wait_event("AlreadyRedeemed")
    assert (sovereign.ledger.balance(user), sovereign.ledger.entries(user)) == (10000, 1)


def test_same_name_with_another_spec_is_a_conflict(sovereign: Sovereign) -> None:
    """A customer cannot be exchanged under a name that has been granted; nor can the spelling of the code."""
    voucher, name = issued(sovereign), unique("redemption")
    redemption = sovereign.api.redeem(voucher.code, name=name, user=(first := unique("user")))
    assert redemption.result() == ("Redeemed", "Redeemed")
    for code, user in ((voucher.code, unique("other")), (voucher.code.lower(), first)):
        redemption.delete()
        redemption.wait_gone()
        redemption = sovereign.api.redeem(code, name=name, user=user)
        assert redemption.result() == ("Rejected", "IdempotencyConflict")
        redemption.wait_event("IdempotencyConflict")
    assert sovereign.ledger.promo(voucher.code)[3] == 1
    assert ready("Issued")(voucher.body())
