"""The ledger knows which operator serves which namespace, and which ones have Vouchers that nobody serves."""

from collections.abc import AsyncIterator

import pytest

from testbed.postgres import Database
from tests.ledger.helpers import ON_POSTGRESQL_16, redeem_request, rows, terms
from voucher_operator.ledger.admin.verify import absent_vouchers, verify, wrongly_rejected
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.types import UnservedNamespace, VoucherOwner
from voucher_operator.settings import Settings

pytestmark = ON_POSTGRESQL_16

ONE, TWO = "billing/one", "billing/two"
A_DAY_AGO = "UPDATE vouchers.served_namespace SET served_at = served_at - interval '25 h'"


@pytest.fixture(autouse=True)
async def forget(ledger: Ledger, database: Database) -> AsyncIterator[None]:  # noqa: ARG001 - ends before it
    """Leave no report behind: the fixture `ledger` verifies at the end."""
    yield
    await rows(database, "DELETE FROM vouchers.served_namespace")


async def issue(ledger: Ledger, namespace: str) -> VoucherOwner:
    """Issue a code in a namespace."""
    made = terms(f"{namespace}-CODE".upper(), uid=f"uid-{namespace}", namespace=namespace)
    await ledger.put(made)
    return VoucherOwner(made.uid, made.namespace, made.name)


async def lines(database: Database) -> list[str]:
    return [f"{found.invariant}: {found.detail}" for found in await verify(database.runtime_url)]


async def test_dropped_namespace_is_unserved_until_it_is_cleared_or_served_again(ledger: Ledger) -> None:
    owner = await issue(ledger, "sales")
    assert await ledger.report_namespaces(ONE, ["billing", "sales"]) == []
    assert await ledger.report_namespaces(ONE, ["billing"]) == [UnservedNamespace("sales", 1, True)]
    assert await ledger.report_namespaces(ONE, ["billing", "sales"]) == []
    await ledger.report_namespaces(ONE, ["billing"])
    await ledger.revoke(owner)
    assert await ledger.report_namespaces(ONE, ["billing"]) == [UnservedNamespace("sales", 0, True)]
    await ledger.record_cleared(["sales"])
    assert await ledger.report_namespaces(ONE, ["billing"]) == []
    await issue(ledger, "sales")
    assert await ledger.report_namespaces(ONE, ["billing"]) == [UnservedNamespace("sales", 1, True)]


async def test_namespace_of_another_operator_is_served(ledger: Ledger, database: Database) -> None:
    """Also when it moved from one to the other, in either order."""
    await issue(ledger, "sales")
    await ledger.report_namespaces(ONE, ["billing", "sales"])
    await ledger.report_namespaces(TWO, ["sales"])
    assert await ledger.report_namespaces(ONE, ["billing"]) == []
    assert await ledger.report_namespaces(TWO, ["sales"]) == []
    assert await lines(database) == []
    await ledger.report_namespaces(TWO, ["other"])
    assert await ledger.report_namespaces(ONE, ["billing"]) == []
    assert await ledger.report_namespaces(TWO, ["other"]) == [UnservedNamespace("sales", 1, True)]


async def test_namespace_of_a_release_of_the_same_name_in_another_cluster_is_served(
    ledger: Ledger, database: Database
) -> None:
    """Both releases are made from one template, with one ledger."""
    settings = Settings()
    first, second = settings.operator_name("cluster-one"), settings.operator_name("cluster-two")
    await issue(ledger, "sales")
    await ledger.report_namespaces(second, ["sales"])
    assert await ledger.report_namespaces(first, ["billing"]) == []
    assert await ledger.report_namespaces(second, ["sales"]) == []
    assert await lines(database) == []


async def test_drop_has_a_time_only_for_the_operator_that_dropped_the_namespace(
    ledger: Ledger, database: Database
) -> None:
    await issue(ledger, "sales")
    await ledger.report_namespaces(ONE, ["billing", "sales"])
    (found,) = await ledger.report_namespaces(ONE, ["billing"])
    ((dropped_at,),) = await rows(
        database, "SELECT dropped_at FROM vouchers.served_namespace WHERE namespace = 'sales'"
    )
    assert found.dropped_at == dropped_at
    await rows(database, "UPDATE vouchers.served_namespace SET dropped_at = dropped_at - interval '25 h'")
    (found,) = await ledger.report_namespaces(TWO, ["other"])
    assert (found.dropped, found.dropped_at) == (False, None)


async def test_namespace_that_was_not_reported_for_a_day_is_unserved(ledger: Ledger, database: Database) -> None:
    """Its release was uninstalled. Or it was never reported: then it was dropped before the upgrade to this version."""
    await issue(ledger, "sales")
    await issue(ledger, "never")
    await ledger.report_namespaces(TWO, ["sales"])
    assert await ledger.report_namespaces(ONE, ["billing"]) == [UnservedNamespace("never", 1, False)]
    await rows(database, f"{A_DAY_AGO} WHERE namespace = 'sales'")
    assert {one.namespace for one in await ledger.report_namespaces(ONE, ["billing"])} == {"never", "sales"}
    assert len(await lines(database)) == 2


async def test_verify_names_each_live_voucher_of_a_dropped_namespace(ledger: Ledger, database: Database) -> None:
    owner = await issue(ledger, "sales")
    await ledger.report_namespaces(ONE, ["billing", "sales"])
    assert await lines(database) == []
    await ledger.report_namespaces(ONE, ["billing"])
    (line,) = await lines(database)
    assert line.startswith("namespaces: voucher sales/first is live, but no operator serves its namespace (dropped on ")
    await ledger.revoke(owner)
    assert await lines(database) == []


@pytest.mark.parametrize("reported", [False, True])
async def test_verify_says_nothing_when_no_operator_reports(ledger: Ledger, database: Database, reported: bool) -> None:
    """After helm uninstall, and on a ledger of the version before."""
    await issue(ledger, "sales")
    if reported:
        await ledger.report_namespaces(ONE, ["billing"])
        await rows(database, A_DAY_AGO)
    assert await lines(database) == []


async def test_verify_with_a_namespace_names_vouchers_that_do_not_exist(ledger: Ledger, database: Database) -> None:
    await issue(ledger, "sales")
    await issue(ledger, "other")
    assert await absent_vouchers(database.runtime_url, ["sales"], ["sales/first", "other/first"]) == []
    (found,) = await absent_vouchers(database.runtime_url, ["sales"], ["other/first"])
    assert found.subject == "voucher sales/first, code SALES-CODE"


async def test_verify_with_a_namespace_names_rejected_requests_that_were_granted(
    ledger: Ledger, database: Database
) -> None:
    await ledger.put(terms())
    granted, refused = redeem_request(), redeem_request("WRONG")
    for request in (granted, refused):
        await ledger.redeem(request)
    asked = {str(request.key): request.request_hash for request in (granted, refused)}
    (found,) = await wrongly_rejected(database.runtime_url, asked)
    assert found.subject == f"redemption {granted.key}"
    assert await wrongly_rejected(database.runtime_url, {granted.key: "another spec"}) == []
