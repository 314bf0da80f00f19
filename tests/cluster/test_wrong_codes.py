"""A customer who has tried too many wrong codes waits, with every code, until a time that the status names."""

from datetime import datetime, timedelta
from typing import Final

import pytest

from testbed.kstatus import kstatus
from tests.cluster.controller_harness import ControllerHarness, reason, spec
from tests.cluster.ledger_reader import LedgerReader
from tests.cluster.resources import FAST, ResourceClient, condition, ready, waiting
from tests.conftest import Operators
from voucher_operator.kube.work_queue import RetryAfter

pytestmark = pytest.mark.long

LIMITED: Final = FAST | {"VOUCHER_OPERATOR_WRONG_CODES": "1", "VOUCHER_OPERATOR_WRONG_CODES_SECONDS": "1"}
ATTEMPT: Final = (
    "INSERT INTO vouchers.attempt (key, uid, user_id, at) VALUES (%s, 'other', 'huda', now() + interval '8 s') "
    "RETURNING at"
)
"""A wrong code that counts for nine seconds, however slow the machine is."""


def test_redemption_waits_until_the_time_in_its_status_and_is_then_redeemed(
    operators: Operators, api: ResourceClient, ledger: LedgerReader
) -> None:
    operators.start(env=LIMITED)
    voucher = api.voucher()
    voucher.wait(ready("Issued"))
    ((at,),) = ledger.rows(ATTEMPT, f"{api.namespace}/other")
    redemption = api.redeem(voucher.code, user="huda")
    body = redemption.wait(waiting("TooManyAttempts"))
    assert (body["status"]["state"], kstatus(body)) == ("Pending", "InProgress")
    said = condition(body, "Ready")["message"]
    assert said.startswith("This customer has tried too many wrong codes: their codes are tried again at ")
    tried_again = datetime.fromisoformat(said.split()[-1].removesuffix("."))
    assert tried_again == (at + timedelta(seconds=1)).replace(microsecond=0)
    assert api.redeem(voucher.code, user="fatma").result() == ("Redeemed", "Redeemed")
    assert redemption.result() == ("Redeemed", "Redeemed")
    assert datetime.fromisoformat(redemption.body()["status"]["redeemedAt"]) >= tried_again


def test_wrong_code_that_waits_for_its_voucher_counts(
    operators: Operators, api: ResourceClient, ledger: LedgerReader
) -> None:
    """It could be deleted before it is refused, and another one tried at once."""
    env = LIMITED | {"VOUCHER_OPERATOR_WRONG_CODES_SECONDS": "3600", "VOUCHER_OPERATOR_NOT_FOUND_GRACE": "3600"}
    operators.start(env=env)
    guess = api.redeem("WRONG-1", user="mallory")
    guess.wait(waiting("VoucherNotReady"))
    guess.delete()
    api.redeem("WRONG-2", user="mallory").wait(waiting("TooManyAttempts"))
    assert ledger.rows("SELECT user_id FROM vouchers.attempt") == [("mallory",)]


@pytest.mark.parametrize("harness", [{"wrong_codes": 1, "wrong_codes_seconds": 600}], indirect=True)
async def test_order_waits_too_and_is_tried_again_at_the_time(harness: ControllerHarness) -> None:
    await harness.sql("INSERT INTO vouchers.attempt VALUES ('billing/other', 'other', 'huda', now())")
    harness.apply("kestrel", spec(await harness.issue(), "huda"))
    result = await harness.parts.purchases.reconcile("billing/kestrel")
    assert isinstance(result, RetryAfter)
    assert 0 < result.seconds <= 600
    assert reason(harness.watch("kestrel")) == ("False", "TooManyAttempts")
    await harness.sql("UPDATE vouchers.attempt SET at = at - interval '601 s'")
    assert reason(await harness.reconcile("kestrel"), "OrderPlaced") == ("True", "Placed")
