"""Where a Redemption's code comes from: typed, from a Secret, through a Voucher; and what it waits for meanwhile."""

from tests.cluster.conftest import Sovereign
from tests.cluster.ledger_reader import LedgerReader
from tests.cluster.resources import FAST, ResourceClient, condition, ready, stalled, state, unique, waiting
from tests.conftest import Operators
from tests.ledger.go_service import GoService

GRANTED = ("Redeemed", "Redeemed")
NOT_FOUND = ("Rejected", "VoucherNotFound")
PATIENT = FAST | {"VOUCHER_OPERATOR_NOT_FOUND_GRACE": "120"}
"""An operator that never gives up on a code within a test."""


def test_voucher_reference_is_redeemed(sovereign: Sovereign) -> None:
    voucher = sovereign.api.voucher()
    voucher.wait(state("Active"))
    assert sovereign.api.redeem(voucherRef={"name": voucher.name}).result() == GRANTED
    voucher.wait(lambda body: body["status"]["timesRedeemed"] == 1)


def test_redemption_waits_for_a_voucher_without_ledger_row(sovereign: Sovereign) -> None:
    """It waits without a limit: the Voucher exists, and the message names it."""
    api, secret = sovereign.api, unique("late")
    voucher = api.voucher(codeFrom={"secretKeyRef": {"name": secret, "key": "code"}})
    voucher.wait(waiting("SecretNotFound"))
    redemption = api.redeem(voucherRef={"name": voucher.name})
    body = redemption.wait(waiting("VoucherNotReady"))
    assert condition(body, "Ready")["message"] == f"Voucher {voucher.name} is not in the ledger: see its conditions."
    assert body["status"]["state"] == "Pending"
    api.secret(secret, code=unique("LATE"))
    assert redemption.result() == GRANTED


def test_reference_to_a_conflicting_voucher_waits(sovereign: Sovereign) -> None:
    """Its code is another Voucher's: a Redemption that refers to it waits instead of redeeming that one."""
    api = sovereign.api
    older = api.voucher(unique("a-first"))
    older.wait(ready("Issued"))
    newer = api.voucher(unique("b-second"), code=older.code)
    newer.wait(stalled("CodeConflict"))
    redemption = api.redeem(voucherRef={"name": newer.name})
    redemption.wait(waiting("VoucherNotReady"))
    assert sovereign.ledger.promo(older.code)[3] == 0
    older.delete()
    assert redemption.result() == GRANTED


def test_reference_to_an_absent_voucher_is_refused_after_the_grace_period(sovereign: Sovereign) -> None:
    redemption = sovereign.api.redeem(voucherRef={"name": "never-comes"})
    redemption.wait(waiting("VoucherNotReady"))
    assert redemption.result() == NOT_FOUND


def test_redemptions_wait_for_vouchers_applied_later(
    api: ResourceClient, ledger: LedgerReader, operators: Operators
) -> None:
    """Applied together, as Flux applies a folder in the order of the names; by code and by reference."""
    operators.start(env=PATIENT)
    by_code = api.redeem("same-breath", user="by-code")
    by_name = api.redeem(voucherRef={"name": "comes-later"}, user="by-name")
    by_code.wait(waiting("VoucherNotReady"))
    by_name.wait(waiting("VoucherNotReady"))
    api.voucher("comes-later", code="SAME-BREATH", maxRedemptions=2).wait(ready("Issued"))
    assert [made.result() for made in (by_code, by_name)] == [GRANTED, GRANTED]
    assert [ledger.balance(user) for user in ("by-code", "by-name")] == [10000, 10000]


def test_grace_period_starts_when_the_operator_sees_the_redemption(
    api: ResourceClient, ledger: LedgerReader, operators: Operators
) -> None:
    """Both were applied while the operator was down: the Redemption still waits for the Voucher's code."""
    redemption = api.redeem("while-it-was-down")
    voucher = api.voucher(code="WHILE-IT-WAS-DOWN")
    operators.start(env=PATIENT)
    assert redemption.result() == GRANTED
    assert ledger.promo(voucher.code)[3] == 1


async def test_code_without_voucher_is_redeemed(sovereign: Sovereign) -> None:
    """The Go service issued it, in its own spelling: the row is the truth."""
    ledger, api = sovereign.ledger, sovereign.api
    async with GoService.connect(ledger.database.owner_url) as go:
        await go.issue(" only-in-the-ledger", 7, max_redemptions=2)
        await go.issue("closed-in-the-ledger", 7, active=False)
    users = [unique("user") for _ in range(3)]
    assert api.redeem("ONLY-in-the-LEDGER", user=users[0]).result() == GRANTED
    assert api.redeem("only-in-the-ledger", user=users[1]).result() == GRANTED
    assert api.redeem("only-in-the-ledger", user=users[2]).result() == ("Rejected", "RedemptionLimitReached")
    assert api.redeem("closed-in-the-ledger").result() == ("Rejected", "VoucherInactive")
    assert [ledger.balance(user) for user in users] == [7000, 7000, 0]
