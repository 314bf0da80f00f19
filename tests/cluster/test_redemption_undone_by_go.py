"""The Go service takes a redemption of ours back with its own undo: the status follows, and the code is free again.

See also: `voucher_operator.controllers.undo_reporter`; tests/ledger/test_go_undo.py has the ledger's side.
"""

from tests.cluster.conftest import Sovereign
from tests.cluster.resources import CustomObject, state, status, unique, until
from tests.cluster.stripe_fixture import conditions_of, order
from tests.cluster.test_order_paid import issued
from tests.ledger.go_service import GoService


async def undo(sovereign: Sovereign, user: str, code: str) -> None:
    async with GoService.connect(sovereign.ledger.database.owner_url) as go:
        assert await go.undo(await go.customer(user), code)


def reported(sovereign: Sovereign, made: CustomObject) -> bool:
    query = "SELECT undo_reported_at IS NOT NULL FROM vouchers.redemption WHERE uid = %s"
    return bool(sovereign.ledger.row(query, made.uid)[0])


async def test_finished_redemption_reports_the_undo_and_the_code_can_be_redeemed_again(sovereign: Sovereign) -> None:
    voucher, user = issued(sovereign), unique("undone")
    first = sovereign.api.redeem(voucher.code, user=user)
    assert first.result() == ("Redeemed", "Redeemed")
    await undo(sovereign, user, voucher.code)
    body = first.wait(state("RolledBack"))
    assert conditions_of(body)["Redeemed"] == conditions_of(body)["Ready"] == ("False", "RolledBack")
    assert "credit" not in body["status"]
    first.wait_event("RolledBack")
    until(lambda: reported(sovereign, first), "note of the report")
    voucher.wait(status(timesRedeemed=0, creditGranted="0.000"))
    assert sovereign.api.redeem(voucher.code, user=user).result() == ("Redeemed", "Redeemed")
    assert sovereign.ledger.balance(user) == 10_000


async def test_undo_is_reported_although_the_secret_of_the_code_is_gone(sovereign: Sovereign) -> None:
    voucher, user, name = issued(sovereign), unique("undone"), unique("code")
    sovereign.api.secret(name, code=voucher.code)
    made = sovereign.api.redeem(user=user, codeFrom={"secretKeyRef": {"name": name, "key": "code"}})
    assert made.result() == ("Redeemed", "Redeemed")
    sovereign.api.delete_secret(name)
    await undo(sovereign, user, voucher.code)
    made.wait(state("RolledBack"))
    until(lambda: reported(sovereign, made), "note of the report")


async def test_paid_order_reports_that_its_code_was_undone(sovereign: Sovereign) -> None:
    voucher, user = issued(sovereign), unique("undone")
    bought = sovereign.api.redeem(voucher.code, user=user, order=order("m", subdomain=unique("undone")))
    bought.wait(state("Completed"))
    await undo(sovereign, user, voucher.code)
    body = bought.wait(lambda body: conditions_of(body).get("Redeemed") == ("False", "RolledBack"))
    assert body["status"]["state"] == "Completed"
    # The Go service looks at no balance: the debt is the customer's. Put right here, for `verify` looks at all.
    assert sovereign.ledger.balance(user) == -9_000
    sovereign.ledger.rows(
        "INSERT INTO credit_ledger (customer_id, amount_omr, reason) "
        "SELECT id, 9, 'gift' FROM customers WHERE user_id = %s",
        user,
    )


async def test_undo_of_a_deleted_redemption_is_reported_once(sovereign: Sovereign) -> None:
    voucher, user = issued(sovereign), unique("undone")
    made = sovereign.api.redeem(voucher.code, user=user)
    made.result()
    made.delete()
    made.wait_gone()
    await undo(sovereign, user, voucher.code)
    until(lambda: reported(sovereign, made), "note of the report")
