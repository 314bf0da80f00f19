"""The Go service's own undo of a redemption of ours: it deletes rows, a trigger notices, the request becomes undone.

See also: migrations/0012.entries-in-balance.sql; tests/ledger/test_go_service.py has the rest of what the two share.
"""

from types import SimpleNamespace
from typing import Any

import pytest

from testbed.postgres import OWNER, Database
from tests.ledger.go_service import GoService
from tests.ledger.helpers import issue, redeem_outcome, redeem_request, rows, terms
from tests.ledger.purchase_helpers import undone as taken_back
from voucher_operator.controllers.undo_reporter import UndoReporter
from voucher_operator.kube.kinds import ResourceKind
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.health import LedgerHealth
from voucher_operator.ledger.types import Outcome, RedeemRequest
from voucher_operator.resources.keys import Key

REQUEST = "SELECT outcome, undone_at IS NOT NULL, undone_by FROM vouchers.redemption WHERE key = %s"


async def undone(ledger: Ledger, database: Database, request: RedeemRequest) -> list[tuple[Any, ...]]:
    """Redeem, have the Go service undo it, and read the request's row."""
    assert redeem_outcome(await ledger.redeem(request)) == "redeemed"
    async with GoService.connect(database.owner_url) as go:
        assert await go.undo(await go.customer(request.user_id), request.code)
    return await rows(database, REQUEST, request.key)


async def test_go_undo_marks_the_request_undone_with_time_and_writer(ledger: Ledger, database: Database) -> None:
    await issue(database)
    request = redeem_request(user="u")
    assert await undone(ledger, database, request) == [("undone", True, OWNER)]
    assert (await ledger.redeem(request)).outcome is Outcome.UNDONE
    assert await ledger.balance("u") == 0


async def test_customer_redeems_again_after_go_undo(ledger: Ledger, database: Database) -> None:
    await issue(database)
    first, second = redeem_request(user="u"), redeem_request(user="u")
    await undone(ledger, database, first)
    assert redeem_outcome(await ledger.redeem(second)) == "redeemed"
    assert (await ledger.redeem(first)).outcome is Outcome.UNDONE
    async with GoService.connect(database.owner_url) as go:
        assert await go.undo(await go.customer("u"), "CODE")
    assert (await ledger.redeem(second)).outcome is Outcome.UNDONE


async def test_undo_of_a_fractional_grant_keeps_both_sums_equal(ledger: Ledger, database: Database) -> None:
    """A grant of 0.600 that made a whole unit out of another one's 0.600 takes that unit with it."""
    await ledger.put(terms("A", uid="a", name="a", credit_minor=600))
    await ledger.put(terms("B", uid="b", name="b", credit_minor=600))
    await ledger.redeem(redeem_request("A", "u"))
    await ledger.redeem(redeem_request("B", "u"))
    async with GoService.connect(database.owner_url) as go:
        customer = await go.customer("u")
        assert (await go.balance(customer), await ledger.balance("u")) == (1, 1_200)
        assert await go.undo(customer, "A")
        assert (await go.balance(customer), await ledger.balance("u")) == (0, 600)
        assert await go.undo(customer, "B")
        assert (await go.balance(customer), await ledger.balance("u")) == (0, 0)
    rounding = await rows(database, "SELECT amount_omr, amount_minor FROM credit_ledger WHERE reason = 'rounding'")
    assert rounding == [(-1, 0), (1, 0)]


async def test_undone_requests_are_listed_until_they_are_reported(ledger: Ledger, database: Database) -> None:
    await issue(database)
    request = redeem_request(user="u", key="shop/one")
    await undone(ledger, database, request)
    assert not await ledger.undone_elsewhere(["billing"], 0.0, 10)
    assert list(await ledger.undone_elsewhere(["billing", "shop"], 60.0, 10)) == ["shop/one"]
    assert not await ledger.undone_elsewhere(["shop"], 60.0, 10)
    await ledger.record_undo_reported([Key("shop/one")])
    assert not await ledger.undone_elsewhere(["shop"], 0.0, 10)


async def test_operator_undo_is_not_listed_for_report(ledger: Ledger, database: Database) -> None:
    await issue(database)
    request = redeem_request(user="u")
    await taken_back(ledger, request)
    assert not await ledger.undone_elsewhere(["billing"], 0.0, 10)
    assert (await rows(database, REQUEST, request.key))[0][:2] == ("undone", True)


class OneRedemption:
    """An API server that has one Redemption, with this status."""

    def __init__(self, status: dict[str, Any]) -> None:
        self._body = {"metadata": {"namespace": "billing", "name": "u"}, "spec": {}, "status": status}

    async def get(self, kind: ResourceKind, namespace: str, name: str) -> dict[str, Any]:
        assert (kind.plural, namespace, name) == ("redemptions", "billing", "u")
        return self._body


@pytest.mark.parametrize("finished", [False, True])
async def test_undo_is_reported_only_when_the_status_is_final(
    ledger18: Ledger, database18: Database, finished: bool
) -> None:
    """The ledger answered `redeemed` before the undo, and that status may still be written: it is looked at again."""
    await issue(database18)
    await undone(ledger18, database18, redeem_request(user="u", key="billing/u"))
    nobody: Any = None
    settings: Any = SimpleNamespace(namespaces=("billing",), backoff_max=0.0)
    api: Any = OneRedemption({"finished": finished, "conditions": []})
    health = LedgerHealth()
    await UndoReporter(ledger18, api, nobody, nobody, nobody, nobody, health, settings).report()
    assert bool(await ledger18.undone_elsewhere(["billing"], 0.0, 10)) is not finished
