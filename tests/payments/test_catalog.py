"""Prices come from the catalog or are an error; a missing answer never means 0."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from testbed.processes import free_port
from tests.payments.helpers import settings
from voucher_operator.ledger.purchase.types import Line
from voucher_operator.payments import catalog_http
from voucher_operator.payments.catalog import Catalog
from voucher_operator.payments.catalog_file import CatalogFile
from voucher_operator.payments.catalog_http import CatalogService
from voucher_operator.payments.catalog_source import NoCatalog, source
from voucher_operator.resources.errors import (
    CatalogUnavailableError,
    CurrencyMismatchError,
    InvalidOrderError,
    OperatorError,
)

PLANS: list[dict[str, Any]] = [
    {"id": "p-1", "slug": "m", "name": "Medium", "stripe_price_id": "price_m", "price_omr": 9},
    {"id": "p-2", "slug": "flexi", "name": "Flexi", "stripe_price_id": "", "price_omr": 0},
]
ADDONS: list[dict[str, Any]] = [
    {"id": "a-1", "slug": "daily-backup", "name": "Daily backup", "price_omr": 3, "included": False},
    {"id": "a-2", "slug": "waf", "price_omr": 4, "included": True},
]


class CatalogServer:
    """A catalog service whose answers are changed by the test."""

    def __init__(self) -> None:
        self.port = free_port()
        self.lists: dict[str, Any] = {"plans": [dict(one) for one in PLANS], "addons": [dict(one) for one in ADDONS]}
        self.answers: dict[str, list[int | str]] = {}
        """Statuses, or bodies, of the next answers."""
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        self.asked.append(kind)
        await self.gate.wait()
        answers = self.answers.get(kind)
        answer = answers.pop(0) if answers else 200
        if isinstance(answer, str):
            return web.Response(text=answer)
        return web.json_response(self.lists[kind], status=answer)


@pytest.fixture
async def server() -> AsyncIterator[CatalogServer]:
    made = CatalogServer()
    app = web.Application()
    app.router.add_get("/catalog/{kind}", made.serve)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", made.port).start()
    yield made
    await runner.cleanup()


@pytest.fixture
async def catalog(server: CatalogServer) -> AsyncIterator[Catalog]:
    made = Catalog(CatalogService(server.url))
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def no_retry_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses between two tries are not what is tested."""
    monkeypatch.setattr(catalog_http, "_PAUSES", (0.0, 0.0))


async def price(catalog: Catalog, plan: str = "m", *addons: str) -> list[int]:
    return [line.price_minor for line in await catalog.quote(plan, ("shop",), addons, "OMR")]


async def test_prices_become_minor_units(catalog: Catalog) -> None:
    assert await catalog.quote("m", ("shop",), ("waf", "daily-backup"), "OMR") == (
        Line("plan", "p-1", "m", "Medium", 9_000, "price_m"),
        Line("addon", "a-2", "waf", "waf", 0),
        Line("addon", "a-1", "daily-backup", "Daily backup", 3_000),
    )
    assert [line.price_minor for line in await catalog.quote("p-1", (), (), "USD")] == [900]
    assert [line.price_minor for line in await catalog.quote("p-1", (), (), "JPY")] == [9]


async def test_free_plan_has_price_zero(catalog: Catalog, server: CatalogServer) -> None:
    assert await price(catalog, "flexi") == [0]
    assert server.asked == ["plans"], "add-ons that nobody ordered are not asked for"


@pytest.mark.parametrize(
    ("plan", "apps", "addons", "message"),
    [
        ("xxl", (), (), "The catalog has no plan 'xxl': order one that it sells."),
        ("", (), (), "The catalog has no plan '': order one that it sells."),
        ("m", (), ("gold",), "The catalog has no add-on 'gold': order one that it sells."),
        ("m", (), ("waf", "waf"), "The order names add-on 'waf' more than once: name it once."),
        ("m", (), ("waf", "a-2"), "The order names add-on 'a-2' more than once: name it once."),
        ("m", ("shop", "shop"), (), "The order names app 'shop' more than once: name it once."),
    ],
)
async def test_unknown_plan_app_or_addon_is_an_invalid_order(
    catalog: Catalog, plan: str, apps: tuple[str, ...], addons: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InvalidOrderError) as caught:
        await catalog.quote(plan, apps, addons, "OMR")
    assert caught.value.message == message


@pytest.mark.parametrize("wrong", [None, "9", 9.0, -1, True, 2_000_000_000, [9]])
async def test_invalid_price_makes_the_catalog_unavailable(
    catalog: Catalog, server: CatalogServer, wrong: object
) -> None:
    server.lists["plans"][0]["price_omr"] = wrong
    with pytest.raises(CatalogUnavailableError, match="no usable price for plan 'm'"):
        await price(catalog)
    server.lists["addons"][0]["price_omr"] = wrong
    with pytest.raises(CatalogUnavailableError, match="no usable price for add-on"):
        await price(catalog, "flexi", "daily-backup")


async def test_missing_price_makes_the_catalog_unavailable(catalog: Catalog, server: CatalogServer) -> None:
    del server.lists["plans"][0]["price_omr"]
    with pytest.raises(CatalogUnavailableError, match="no usable price"):
        await price(catalog)


@pytest.mark.parametrize("included", ["true", 1, None])
async def test_only_true_means_included(catalog: Catalog, server: CatalogServer, included: object) -> None:
    server.lists["addons"][1]["included"] = included
    assert await price(catalog, "m", "waf") == [9_000, 4_000]


async def test_ambiguous_plan_name_makes_the_catalog_unavailable(catalog: Catalog, server: CatalogServer) -> None:
    server.lists["plans"].append({"id": "p-3", "slug": "m", "price_omr": 1})
    with pytest.raises(CatalogUnavailableError, match="lists plan 'm' more than once"):
        await price(catalog)


async def test_price_in_another_currency_is_a_mismatch(catalog: Catalog, server: CatalogServer) -> None:
    server.lists["plans"][0]["currency"] = "usd"
    with pytest.raises(CurrencyMismatchError, match="in another currency than OMR"):
        await price(catalog)
    assert [line.price_minor for line in await catalog.quote("m", (), (), "USD")] == [900]


@pytest.mark.parametrize(
    "answer",
    [404, 401, 302, "<html>", "", '{"plans": []}', "null", "[1]", '[{"id": "m"', "[" + " " * (5 * 1024 * 1024)],
    ids=lambda answer: str(answer)[:12],
)
async def test_invalid_response_makes_the_catalog_unavailable(
    catalog: Catalog, server: CatalogServer, answer: int | str
) -> None:
    server.answers["plans"] = [answer]
    with pytest.raises(CatalogUnavailableError) as caught:
        await price(catalog)
    assert len(caught.value.message) < 100
    assert server.asked == ["plans"], "trying again at once changes nothing"
    assert await price(catalog) == [9_000]


async def test_failed_addon_list_makes_the_catalog_unavailable(catalog: Catalog, server: CatalogServer) -> None:
    server.answers["addons"] = [404]
    with pytest.raises(CatalogUnavailableError):
        await price(catalog, "m", "daily-backup")


async def test_transient_failure_is_tried_three_times(catalog: Catalog, server: CatalogServer) -> None:
    server.answers["plans"] = [503, 429]
    assert await price(catalog) == [9_000]
    assert server.asked == ["plans"] * 3


async def test_lasting_failure_is_reported_with_its_status(catalog: Catalog, server: CatalogServer) -> None:
    server.answers["plans"] = [500, 500, 500]
    with pytest.raises(CatalogUnavailableError, match="responds with status 500"):
        await price(catalog)


async def test_service_timeout_makes_the_catalog_unavailable(server: CatalogServer) -> None:
    server.gate.clear()
    catalog = Catalog(CatalogService(server.url, timeout=httpx.Timeout(0.1)))
    with pytest.raises(CatalogUnavailableError, match="does not respond"):
        await price(catalog)
    await catalog.close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://no.such.host.invalid", "nonsense://", "http://[", ""])
async def test_unreachable_service_makes_the_catalog_unavailable(url: str) -> None:
    catalog = Catalog(CatalogService(url))
    with pytest.raises(CatalogUnavailableError):
        await price(catalog)
    await catalog.close()


async def test_concurrent_quotes_share_one_request(catalog: Catalog, server: CatalogServer) -> None:
    assert await asyncio.gather(*(price(catalog) for _ in range(20))) == [[9_000]] * 20
    await price(catalog)
    assert server.asked == ["plans"]


async def test_concurrent_quotes_share_one_failure(catalog: Catalog, server: CatalogServer) -> None:
    server.answers["plans"] = [404]
    answers = await asyncio.gather(*(price(catalog) for _ in range(20)), return_exceptions=True)
    assert all(isinstance(answer, CatalogUnavailableError) for answer in answers)
    assert len({id(answer) for answer in answers}) == 20, "a shared error would gather everybody's traceback"
    assert server.asked == ["plans"]


async def test_cancelled_quote_does_not_cancel_the_shared_request(catalog: Catalog, server: CatalogServer) -> None:
    server.gate.clear()
    first, second = asyncio.create_task(price(catalog)), asyncio.create_task(price(catalog))
    async with asyncio.timeout(20):
        while not server.asked:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)
    first.cancel()
    server.gate.set()
    assert await second == [9_000]
    assert first.cancelled()


async def test_prices_are_fetched_again_after_they_expire(server: CatalogServer) -> None:
    catalog = Catalog(CatalogService(server.url), fresh_seconds=0.0)
    assert await price(catalog) == [9_000]
    server.lists["plans"][0]["price_omr"] = 10
    assert await price(catalog) == [10_000]
    await catalog.close()


async def test_unknown_plan_causes_a_fresh_request(
    catalog: Catalog, server: CatalogServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await price(catalog)
    server.lists["plans"].append({"id": "p-9", "slug": "xxl", "price_omr": 90})
    monkeypatch.setattr("voucher_operator.payments.catalog._MIN_REFRESH_SECONDS", 0.0)
    assert await price(catalog, "xxl") == [90_000]


async def test_catalog_file_may_come_late_and_change(tmp_path: Path) -> None:
    file = tmp_path / "catalog.json"
    catalog = Catalog(CatalogFile(file), fresh_seconds=0.0)
    faults: list[tuple[bytes | None, type[OperatorError] | None]] = [
        (None, CatalogUnavailableError),
        (b"", CatalogUnavailableError),
        (b"\xff\xfe", CatalogUnavailableError),
        (b"[]", CatalogUnavailableError),
        (b'{"addons": []}', CatalogUnavailableError),
        (b'{"plans": {}}', CatalogUnavailableError),
        (b'{"plans": []}', InvalidOrderError),
        (json.dumps({"plans": PLANS}).encode(), None),
    ]
    for content, expected in faults:
        if content is not None:
            file.write_bytes(content)
        if expected is not None:
            with pytest.raises(expected):
                await price(catalog)
    assert await price(catalog) == [9_000]
    with pytest.raises(CatalogUnavailableError, match="`addons` of the catalog file"):
        await price(catalog, "m", "waf")


def test_settings_select_the_catalog_source(tmp_path: Path) -> None:
    assert isinstance(source(settings(catalog_file=tmp_path, catalog_url="http://x")), CatalogFile)
    assert isinstance(source(settings(catalog_url="http://x")), CatalogService)
    assert isinstance(source(settings()), NoCatalog)
