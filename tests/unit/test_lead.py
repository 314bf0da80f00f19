"""What a leader does while the CRDs cannot be used: payments and events go on, and nothing of it outlives the term."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from voucher_operator.process import crds, run
from voucher_operator.settings import Settings


async def test_ledger_tasks_run_while_the_crds_have_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    running, ended = asyncio.Event(), asyncio.Event()

    async def payments() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def never_served(*_: Any) -> None:
        await asyncio.Event().wait()

    def tasks(*_: Any) -> list[asyncio.Task[Any]]:
        return [asyncio.create_task(payments())]

    monkeypatch.setattr(run, "build_controllers", lambda _: SimpleNamespace(feed=SimpleNamespace(queues=[])))
    monkeypatch.setattr(crds, "wait_until_served", never_served)
    monkeypatch.setattr(run.Operator, "_ledger_tasks", tasks)
    leading = asyncio.create_task(run.Operator(Settings()).lead())
    await running.wait()
    leading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leading
    assert ended.is_set()
