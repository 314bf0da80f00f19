"""The operator behind PgBouncer in transaction mode, as most Sovereigns that have one run it."""

from testbed.pgbouncer import PgBouncer
from testbed.postgres import Database, PostgresServer
from tests.cluster.ledger_reader import LedgerReader
from tests.cluster.resources import FAST, ResourceClient, state, status, unique
from tests.conftest import Operators


def test_operator_works_behind_a_pooler_in_transaction_mode(
    operators: Operators, api: ResourceClient, ledger: LedgerReader, postgres18: PostgresServer, database18: Database
) -> None:
    with PgBouncer(postgres18, "transaction", pool_size=2) as pooler:
        operator = operators.start(env={**FAST, "DATABASE_URL": pooler.url(database18.runtime_url)})
        operator.wait_ready(leader=True)
        voucher, user = api.voucher(maxRedemptions=5), unique("user")
        voucher.wait(state("Active"))
        redemptions = [api.redeem(voucher.code, user=f"{user}-{n}") for n in range(10)]
        results = [redemption.result() for redemption in redemptions]
        assert results.count(("Redeemed", "Redeemed")) == 5
        assert results.count(("Rejected", "RedemptionLimitReached")) == 5
        voucher.wait(status(state="Exhausted", timesRedeemed=5))
        assert sum(ledger.balance(f"{user}-{n}") > 0 for n in range(10)) == 5
        voucher.delete()
        voucher.wait_gone()
        assert ledger.row("SELECT count(*) FROM vouchers.terms WHERE revoked_at IS NULL") == (0,)
        said = [record["message"] for record in operator.records() if "pooler" in str(record.get("message"))]
        assert len(said) == 1
        operator.stop()
