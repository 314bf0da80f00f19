"""The event loop's complaints are logged, but for the one that kopf causes and that means nothing."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import kopf
import pytest
from kopf._cogs.clients.watching import infinite_watch

from voucher_operator.kube.kopf_internals import handle_exception


async def _other() -> AsyncIterator[Any]:
    yield 1


@pytest.mark.parametrize("of_kopf", [True, False])
async def test_only_the_known_kopf_stream_message_is_ignored(of_kopf: bool, caplog: pytest.LogCaptureFixture) -> None:
    resource: Any = None
    stream = (
        infinite_watch(settings=kopf.OperatorSettings(), resource=resource, namespace=None) if of_kopf else _other()
    )
    handle_exception(asyncio.get_running_loop(), {"message": "an error occurred during closing", "asyncgen": stream})
    assert [record.name for record in caplog.records] == ([] if of_kopf else ["asyncio"])
    handle_exception(asyncio.get_running_loop(), {"message": "anything else"})
    assert caplog.records[-1].getMessage() == "anything else"
