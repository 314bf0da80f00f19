"""The periodic tasks of purchases take them in turn by namespace and customer."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from voucher_operator.controllers.purchase.periodic import PurchaseTasks
from voucher_operator.resources.keys import Key


def purchase(key: str, user: str) -> Any:
    return SimpleNamespace(key=Key(key), user_id=user)


async def test_purchase_of_another_namespace_or_customer_does_not_wait_for_hundreds() -> None:
    done: list[str] = []

    async def step(one: Any) -> None:
        await asyncio.sleep(0)
        done.append(one.key)

    many = [purchase(f"many/{n}", "mallory") for n in range(500)]
    others = [purchase("many/other", "huda"), purchase("one/first", "fatma"), purchase("http:last", "ahmed")]
    await PurchaseTasks._each(cast("Any", None), step, [*many, *others], None)
    assert len(done) == 503
    assert max(done.index(one.key) for one in others) < 50
