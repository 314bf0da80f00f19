"""What the package uses of libraries beyond their documented names is there, with the parameters that it expects."""

import asyncio
import gc
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import kopf
import pytest
from kopf._cogs.aiokits import aiotasks
from kopf._cogs.clients import fetching, scanning, watching
from kopf._cogs.structs import references
from kopf._core.reactor import inventory, queueing
from kubernetes.aio.client import ApiClient
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from voucher_operator.controllers import watch
from voucher_operator.kube import kopf_internals
from voucher_operator.kube.kopf_internals import ListPace, TransientMemories
from voucher_operator.kube.leader_election import TimedLeaseLock


def test_kopf_scans_and_watches_by_the_coroutines_that_are_recognised() -> None:
    assert inspect.iscoroutinefunction(scanning.scan_resources)
    assert inspect.isasyncgenfunction(watching.infinite_watch)


@pytest.mark.parametrize("name", ["get", "create", "update"])
def test_each_overridden_method_of_the_lease_lock_has_the_parameters_of_the_library(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(owner, name)) for owner in (TimedLeaseLock, LeaseLock))
    assert list(ours.parameters) == list(theirs.parameters)


def test_lease_lock_makes_a_lease_of_a_record() -> None:
    assert list(inspect.signature(LeaseLock.update_lease).parameters)[:2] == ["self", "leader_election_record"]


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (ApiClient.param_serialize, {"method", "resource_path", "header_params", "query_params", "auth_settings"}),
        (ApiClient.call_api, {"method", "url", "header_params", "body", "_request_timeout"}),
        (LeaderElection.run, {"self"}),
        (kopf.spawn_tasks, {"registry", "settings", "namespaces", "insights", "memories"}),
    ],
)
def test_calls_of_the_libraries_take_what_is_passed(function: Callable[..., Any], parameters: set[str]) -> None:
    assert parameters <= set(inspect.signature(function).parameters)


def test_settings_that_are_changed_exist_in_kopf() -> None:
    settings = kopf.OperatorSettings()
    for path in (
        "scanning.disabled",
        "posting.enabled",
        "process.ultimate_exiting_timeout",
        "networking.error_backoffs",
        "queueing.worker_limit",
        "persistence.consistency_timeout",
        "queueing.idle_timeout",
        "watching.chunk_size",
        "watching.field_selectors",
        "watching.inactivity_timeout",
    ):
        group, name = path.split(".")
        assert hasattr(getattr(settings, group), name), path


async def test_what_kopf_leaves_running_is_found() -> None:
    """The watches of kopf, when another of its watches has failed; nothing of ours."""
    left = aiotasks.create_guarded_task(asyncio.Event().wait(), "watcher")
    ours = asyncio.create_task(asyncio.Event().wait())
    await asyncio.sleep(0)
    assert kopf_internals.orphaned_tasks() == {left}
    for task in (left, ours):
        task.cancel()
    await asyncio.wait([left, ours])


@pytest.mark.parametrize("found", [set(), {"vouchers"}, {"vouchers", "redemptions"}])
async def test_resource_that_kopf_does_not_watch_is_a_fault(found: set[str]) -> None:
    """kopf only logs a warning."""
    discovery = kopf_internals.Discovery()
    for plural in found:
        resource = references.Resource("billing.openova.io", "v1alpha1", plural, namespaced=True)
        discovery.insights.watched_resources.add(resource)
    check = asyncio.create_task(discovery.check(["vouchers", "redemptions"]))
    await asyncio.wait([check], timeout=0.01)
    assert not check.done(), "kopf has not looked yet"
    discovery.insights.ready_resources.set()
    done, _ = await asyncio.wait([check], timeout=0.05)
    assert bool(done) is (len(found) < 2)
    for task in done:
        assert "redemptions" in str(task.exception())
    check.cancel()
    await asyncio.wait([check])


def body(uid: str) -> dict[str, Any]:
    return {"metadata": {"uid": uid, "managedFields": [{"manager": "kubectl"}]}}


async def test_object_is_forgotten_when_nobody_works_on_it() -> None:
    memories = TransientMemories()
    memory = await memories.recall(cast("Any", body("u")), memobase=kopf.Memo())
    assert await memories.recall(cast("Any", body("u"))) is memory
    del memory
    gc.collect()
    assert list(memories.iter_all_memories()) == []


async def test_object_with_a_patch_that_is_left_is_remembered_until_the_patch_is_gone() -> None:
    memories = TransientMemories()
    memory = await memories.recall(cast("Any", body("u")))
    memory.remaining_patch = kopf.Patch()
    del memory
    gc.collect()
    again = await memories.recall(cast("Any", body("u")))
    assert again.remaining_patch is not None
    again.remaining_patch = None
    del again
    gc.collect()
    assert list(memories.iter_all_memories()) == []
    deleted = await memories.recall(cast("Any", body("u")))
    deleted.remaining_patch = kopf.Patch()
    await memories.forget(cast("Any", body("u")))
    del deleted
    gc.collect()
    assert list(memories.iter_all_memories()) == []


def test_kopf_lists_by_the_function_that_is_replaced() -> None:
    assert inspect.isasyncgenfunction(kopf_internals._fetch_objs)
    assert "fetching.fetch_objs(" in inspect.getsource(watching.continuous_watch)
    assert set(inspect.signature(inventory.ResourceMemories.recall).parameters) == {
        *("self", "raw_body", "memobase", "noticed_by_listing", "ephemeral")
    }


async def test_next_page_is_listed_when_the_handlers_have_seen_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [[body(f"{page}-{n}") for n in range(200)] for page in range(3)]

    async def fetch_objs(**_: Any) -> AsyncIterator[tuple[list[Any], str]]:
        for page in pages:
            yield page, "1"

    monkeypatch.setattr(kopf_internals, "_fetch_objs", fetch_objs)
    monkeypatch.setattr(fetching, "fetch_objs", None)
    pace, listed = ListPace(), 0
    pace.install()

    async def listing() -> None:
        nonlocal listed
        async for page, _ in cast("Any", fetching.fetch_objs)(settings=None):
            assert all("managedFields" not in one["metadata"] for one in page)
            listed += 1

    task = asyncio.create_task(listing())
    for page in range(3):
        for _ in range(10):
            await asyncio.sleep(0)
        assert listed == page + 1
        for n in range(200):
            pace.seen(f"{page}-{n}")
    await task


async def test_object_without_a_handler_does_not_end_the_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fetch_objs(**_: Any) -> AsyncIterator[tuple[list[Any], str]]:
        for page in range(2):
            yield [body(f"{page}-{n}") for n in range(200)], "1"

    monkeypatch.setattr(kopf_internals, "_fetch_objs", fetch_objs)
    monkeypatch.setattr(kopf_internals, "_LONGEST", 0.01)
    assert [len(page) async for page, _ in ListPace()._fetch()] == [200, 200]


async def test_worker_does_not_wait_until_the_watch_shows_its_patch() -> None:
    """During the first list there is no watch, and the next page waits for the workers."""

    async def patched(**_: Any) -> str:
        await asyncio.sleep(0)
        return "2"

    key = cast("Any", ("vouchers", "u"))
    stream = queueing.Stream(asyncio.Queue(), asyncio.Event())
    await stream.backlog.put(cast("Any", {"type": None, "object": body("u")}))
    async with asyncio.timeout(3):
        await queueing.worker(
            signaller=asyncio.Condition(),
            settings=watch.settings(),
            processor=cast("Any", patched),
            streams={key: stream},
            key=key,
        )
