"""What Redemptions cost the API server: one write each, and nothing at all once they are finished."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from testbed.operator_process import OperatorProcess
from tests.cluster.ledger_reader import LedgerReader
from tests.cluster.resources import FAST, CustomObject, ResourceClient, condition, ready, until
from tests.conftest import Operators

WRITES = 'voucher_operator_status_writes_total{resource="Redemption"}'
DECIDED = 'voucher_operator_redemptions_total{outcome="redeemed",reason="Redeemed"}'
MANY = 500


def mentioned(operator: OperatorProcess) -> str:
    """Return the log as text: at DEBUG it names each object that the watch delivers."""
    return operator.log.read_text()


@pytest.fixture
def many_finished(
    api: ResourceClient, ledger: LedgerReader, operators: Operators
) -> tuple[OperatorProcess, list[CustomObject]]:
    """Many Redemptions, finished by an operator that is still running."""
    operator = operators.start(env=FAST)
    voucher = api.voucher()
    voucher.wait(ready("Issued"))
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: api.redeem(voucher.code, user=f"user-{number}"), range(MANY)))
    until(lambda: not api.listed("redemptions", "status.finished!=true"), "end of all Redemptions", 60.0)
    assert ledger.promo(voucher.code)[3] == MANY
    return operator, made


def test_redemption_costs_one_status_write_and_none_after_restart(
    many_finished: tuple[OperatorProcess, list[CustomObject]], api: ResourceClient, operators: Operators
) -> None:
    """No finalizer, no annotation, one status write; a new operator gets no watch event of the finished ones."""
    operator, made = many_finished
    bodies = {body["metadata"]["name"]: body for body in api.listed("redemptions")}
    assert len(bodies) == len(made) == MANY
    for body in bodies.values():
        assert condition(body, "Ready")["reason"] == "Redeemed"
        assert not {"finalizers", "annotations", "labels"} & set(body["metadata"])
        assert [entry.get("subresource") for entry in body["metadata"]["managedFields"]] == [None, "status"]
    assert (operator.metrics()[WRITES], operator.metrics()[DECIDED]) == (MANY, MANY)
    assert operator.ready()["queues"]["Redemption"] == 0
    operator.stop()

    later = operators.start(env=FAST | {"VOUCHER_OPERATOR_LOG_LEVEL": "DEBUG", "VOUCHER_OPERATOR_RESYNC_INTERVAL": "1"})
    marker = api.redeem("no-such-code", name="marker")
    assert marker.result() == ("Rejected", "VoucherNotFound")
    until(lambda: "marker" in mentioned(later), "mention of the new Redemption")
    mentioned_names = {name for name in bodies if name in mentioned(later)}
    assert mentioned_names == set()
    assert later.metrics()[WRITES] == 2
    assert DECIDED not in later.metrics()
    after = {body["metadata"]["name"]: body for body in api.listed("redemptions")}
    assert json.dumps({name: after[name] for name in bodies}) == json.dumps(bodies)
