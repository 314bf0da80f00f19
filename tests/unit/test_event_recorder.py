"""Events for people: those of one namespace are bounded, and do not delay those of another one."""

from typing import Any

from voucher_operator.kube import event_recorder
from voucher_operator.kube.event_recorder import EventRecorder
from voucher_operator.kube.kinds import ResourceKind
from voucher_operator.resources.reasons import Reason
from voucher_operator.telemetry import EVENTS_DROPPED

KIND = ResourceKind("example.com", "v1", "Example", "examples")


class Server:
    """Records the namespaces of the Events that are posted."""

    def __init__(self) -> None:
        self.posted: list[str] = []

    @property
    def api(self) -> Any:
        return self

    async def create_event(self, namespace: str, _: Any) -> None:
        self.posted.append(namespace)

    async def patch_event(self, namespace: str, *_: Any) -> None:
        self.posted.append(namespace)


def record(recorder: EventRecorder, namespace: str, number: int) -> None:
    for n in range(number):
        body = {"metadata": {"namespace": namespace, "name": f"r-{n}", "uid": f"{namespace}-{n}"}}
        recorder.record(KIND, body, Reason.VOUCHER_NOT_FOUND, "Redeem", "why", warning=True)


async def test_events_of_one_namespace_neither_delay_nor_displace_those_of_another() -> None:
    server, dropped = Server(), EVENTS_DROPPED._value.get()
    recorder = EventRecorder(server.api, "example.com/test", "pod")
    record(recorder, "many", 3000)
    record(recorder, "one", 2)
    await recorder.drain(60.0)
    assert server.posted.count("many") == event_recorder._PENDING
    assert server.posted[:4].count("one") == 2
    assert EVENTS_DROPPED._value.get() - dropped == 3000 - event_recorder._PENDING


async def test_namespace_may_record_again_when_its_events_are_posted() -> None:
    server = Server()
    recorder = EventRecorder(server.api, "example.com/test", "pod")
    for _ in range(2):
        record(recorder, "many", event_recorder._PENDING)
        await recorder.drain(60.0)
    assert server.posted.count("many") == 2 * event_recorder._PENDING
