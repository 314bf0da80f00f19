"""Prices of plans and add-ons, from the catalog service or a mounted file, read before anything is consumed.

A price is an integer: a price that is missing, ambiguous or of another type is an error, and never 0. Lists are cached
for some seconds; an item that is not in a cached list is looked up again before it is refused. See also:
`catalog_source` chooses the source; `services.order` asks for a quote.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from voucher_operator.ledger.purchase.types import Line
from voucher_operator.payments.catalog_list import Item, Source
from voucher_operator.resources.errors import CatalogUnavailableError, CurrencyMismatchError, InvalidOrderError
from voucher_operator.resources.money import MAX_WHOLE_UNITS, scale

FRESH_SECONDS: Final = 30.0
_MIN_REFRESH_SECONDS: Final = 1.0
"""A cached list younger than this is not read again for a missing item."""
_NAMES: Final = {"plans": "plan", "addons": "add-on"}


@dataclass(frozen=True, slots=True)
class _CachedList:
    items: Sequence[Item]
    at: float


class Catalog:
    """Prices. Safe for concurrent use within one event loop: concurrent callers share one read."""

    def __init__(self, source: Source, *, fresh_seconds: float = FRESH_SECONDS) -> None:
        self._source = source
        self._fresh = fresh_seconds
        self._cache: dict[str, _CachedList] = {}
        self._reading: dict[str, asyncio.Task[Sequence[Item]]] = {}

    async def close(self) -> None:
        """Close the connections."""
        for task in list(self._reading.values()):
            task.cancel()
        await self._source.close()

    async def quote(self, plan_id: str, apps: Sequence[str], addons: Sequence[str], currency: str) -> tuple[Line, ...]:
        """Price an order: the plan first, then its add-ons in order, by id or slug. Apps are free.

        Raises InvalidOrderError (not in the catalog, or ordered twice), CurrencyMismatchError (sold in another currency
        than `currency`, the ledger's) and CatalogUnavailableError.
        """
        _refuse_twice("app", apps)
        _refuse_twice("add-on", addons)
        plan = await self._line("plans", plan_id, currency)
        lines = [await self._line("addons", addon, currency) for addon in addons]
        _refuse_twice("add-on", [line.id for line in lines])
        return (plan, *lines)

    async def _line(self, kind: str, wanted: str, currency: str) -> Line:
        item = _find(kind, await self._items(kind, self._fresh), wanted)
        if item is None:
            item = _find(kind, await self._items(kind, _MIN_REFRESH_SECONDS), wanted)
        if item is None:
            name = _NAMES[kind]
            raise InvalidOrderError(f"The catalog has no {name} {wanted!r}: order one that it sells.")
        return _priced(kind, item, wanted, currency)

    async def _items(self, kind: str, fresh: float) -> Sequence[Item]:
        cached = self._cache.get(kind)
        if cached is not None and asyncio.get_running_loop().time() - cached.at < min(fresh, self._fresh):
            return cached.items
        task = self._reading.get(kind)
        if task is None:
            task = self._reading[kind] = asyncio.create_task(self._read(kind))
            task.add_done_callback(lambda done: self._forget(kind, done))
        try:
            return await asyncio.shield(task)
        except CatalogUnavailableError as error:
            raise CatalogUnavailableError(*error.args) from None

    def _forget(self, kind: str, done: asyncio.Task[Sequence[Item]]) -> None:
        self._reading.pop(kind, None)
        if not done.cancelled():
            done.exception()  # marks it as retrieved: the callers may have been cancelled

    async def _read(self, kind: str) -> Sequence[Item]:
        items = await self._source.read(kind)
        self._cache[kind] = _CachedList(items, asyncio.get_running_loop().time())
        return items


def _refuse_twice(name: str, wanted: Sequence[str]) -> None:
    for one in wanted:
        if wanted.count(one) > 1:
            raise InvalidOrderError(f"The order names {name} {one!r} more than once: name it once.")


def _find(kind: str, items: Sequence[Item], wanted: str) -> Item | None:
    """Find an item by id, else by slug. Raises CatalogUnavailableError when several match."""
    for field in ("id", "slug"):
        found = [item for item in items if item.get(field) == wanted]
        if len(found) > 1:
            raise CatalogUnavailableError(f"The catalog lists {_NAMES[kind]} {wanted!r} more than once: correct it.")
        if found:
            return found[0]
    return None


def _priced(kind: str, item: Item, wanted: str, currency: str) -> Line:
    name = _NAMES[kind]
    if _text(item, "currency", currency).upper() != currency:
        raise CurrencyMismatchError(f"The catalog sells {name} {wanted!r} in another currency than {currency}.")
    price = 0 if kind == "addons" and item.get("included") is True else _whole_units(name, item, wanted)
    return Line(
        kind=name.replace("-", ""),
        id=_text(item, "id", wanted),
        slug=_text(item, "slug", wanted),
        name=_text(item, "name", "") or _text(item, "slug", wanted),
        price_minor=price * scale(currency),
        stripe_price_id=_text(item, "stripe_price_id", "") or None,
    )


def _whole_units(name: str, item: Item, wanted: str) -> int:
    price = item.get("price_omr")
    if isinstance(price, bool) or not isinstance(price, int) or not 0 <= price <= MAX_WHOLE_UNITS:
        raise CatalogUnavailableError(
            f"The catalog has no usable price for {name} {wanted!r}: `price_omr` must be a whole number, 0 or more."
        )
    return price


def _text(item: Mapping[str, Any], field: str, otherwise: str) -> str:
    value = item.get(field)
    return value.strip() if isinstance(value, str) and value.strip() else otherwise
