"""Cancelling kopf: tasks that it leaves behind must end, too.

Found with an operator that was stopped while kopf was still in discovery: its requests under way opened a new session,
which nothing closed.
"""

import asyncio
import gc
from typing import Any

import kopf
import pytest

from testbed.cluster import Installation
from voucher_operator.controllers import watch
from voucher_operator.kube import kopf_internals
from voucher_operator.process.tasks import cancel


async def test_cancelling_kopf_during_discovery_leaves_no_task(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(installation.kubeconfig))
    registry = kopf.OperatorRegistry()

    @kopf.on.event("billing.openova.io", "v1alpha1", "vouchers", registry=registry)
    async def seen(**_: object) -> None:
        raise AssertionError("nothing is to be watched")

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_kubeconfig(**kwargs)

    tasks = await kopf.spawn_tasks(registry=registry, settings=watch.settings(), namespaces=installation.namespaces)
    while not kopf_internals.orphaned_tasks():  # noqa: ASYNC110 - nothing tells of it: the tasks are kopf's own
        await asyncio.sleep(0)
    before = asyncio.all_tasks() - set(tasks) - kopf_internals.orphaned_tasks()

    await cancel(*tasks, *kopf_internals.orphaned_tasks())

    assert asyncio.all_tasks() <= before
    gc.collect()
