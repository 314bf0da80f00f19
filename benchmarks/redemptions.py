"""Redemptions that wait, against the raw rate of status patches of the same API server. `benchmarks` has the method."""

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from benchmarks.raw import CONNECTIONS, RawClient
from benchmarks.report import line, ratios, title
from testbed.access import ClusterAccess
from testbed.cluster import Installation, Stack, install_rights
from testbed.operator_process import OperatorProcess
from testbed.postgres import Version
from testbed.processes import TestbedError, wait_until
from voucher_operator.controllers.kinds import REDEMPTION
from voucher_operator.controllers.redemption import status as redemption_status
from voucher_operator.ledger.types import Outcome, RedeemResult
from voucher_operator.resources.redemption import Redemption

_CODE = "HOT-VOUCHER"
_WAIT = 120.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Round:
    """Patches and redemptions per second; the operator's CPU time per redemption in ms, its peak memory in MB."""

    floor: float
    operator: float
    cpu: float
    memory: float


def measure(version: Version, rounds: int, count: int, env: Mapping[str, str] | None = None) -> None:
    """Measure so many pairs of `count` Redemptions each, and print them; `env` is added to the operator's."""
    with Stack(version=version, fsync=True, chart=False, namespaces=("floor",)) as stack:
        title(f"redemptions: {count} wait, {rounds} rounds; floor: status patches over {CONNECTIONS} connections")
        _print([_round(stack, number, count, env or {}) for number in range(rounds)])


def _print(rounds: list[Round]) -> None:
    floor, operator = [one.floor for one in rounds], [one.operator for one in rounds]
    line("raw status patches", floor, "/s")
    line("redemptions, from taking the Lease to the last status", operator, "/s")
    line("share of the floor", [100 * one for one in ratios(operator, floor)], "%")
    line("CPU time of the operator for one redemption", [one.cpu for one in rounds], "ms", 2)
    line("peak memory of the operator's process", [one.memory for one in rounds], "MB")


def _round(stack: Stack, number: int, count: int, env: Mapping[str, str]) -> Round:
    ours, floor = (stack.cluster.namespace(f"{name}-{number}") for name in ("operator", "floor"))
    installation = install_rights(stack.cluster, [ours, floor])
    code = f"{_CODE}-{number}"
    _issue(stack.cluster, _replica(stack, installation, env), ours, code)
    created = _create(stack.cluster, floor, code, count)
    _create(stack.cluster, ours, code, count)
    seconds = _floor(installation, created[: count // 2])
    replica = _replica(stack, installation, env)
    with running(replica):
        rate, cpu = _drain(replica, count)
        memory = replica.peak_memory() / 1e6
    seconds += _floor(installation, created[count // 2 :])
    _check(stack.cluster, ours, count)
    return Round(count / seconds, rate, cpu, memory)


def _replica(stack: Stack, installation: Installation, env: Mapping[str, str]) -> OperatorProcess:
    return OperatorProcess(
        kubeconfig=installation.kubeconfig,
        database_url=stack.database.runtime_url,
        namespaces=installation.namespaces[:1],
        folder=stack.folder,
        env={**installation.env, **env},
    )


def _issue(cluster: ClusterAccess, replica: OperatorProcess, namespace: str, code: str) -> None:
    """Bring a Voucher into the ledger, by an operator that then goes down."""
    voucher = {
        "apiVersion": REDEMPTION.api_version,
        "kind": "Voucher",
        "metadata": {"name": "hot", "namespace": namespace},
        "spec": {"code": code, "credit": {"amount": "25.500", "currency": "OMR"}},
    }
    cluster.kubectl("apply", "--filename=-", input=yaml.safe_dump(voucher))
    with running(replica):
        cluster.kubectl("wait", "--for=condition=Ready", "voucher/hot", f"--namespace={namespace}", "--timeout=60s")


def _create(cluster: ClusterAccess, namespace: str, code: str, count: int) -> list[dict[str, Any]]:
    """Create Redemptions and return them as the API server does."""
    client, mark = RawClient(cluster.kubeconfig), secrets.token_hex(3)
    bodies = (
        {
            "apiVersion": REDEMPTION.api_version,
            "kind": "Redemption",
            "metadata": {"name": f"r-{mark}-{n}", "namespace": namespace},
            "spec": {
                "code": code,
                "customer": {
                    "userID": f"user-{mark}-{n}",
                    "tenantID": "kestrel-pharmacy",
                    "email": "someone@example.com",
                },
            },
        }
        for n in range(count)
    )
    path = REDEMPTION.path(namespace)
    return client.send([client.request("POST", path, body) for body in bodies], read=True)[1]


def _floor(installation: Installation, created: list[dict[str, Any]]) -> float:
    """Patch the statuses as the operator would, with its rights; returns the seconds that it took."""
    client = RawClient(installation.kubeconfig)
    requests = []
    for body in created:
        metadata = body["metadata"]
        redemption = Redemption.from_body(body)
        answer = RedeemResult(redemption.key, Outcome.REDEEMED, datetime.now(UTC), credit_minor=25_500)
        patch = {
            "metadata": {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]},
            "status": redemption_status.finished(redemption, answer, "OMR").to_patch(),
        }
        path = REDEMPTION.path(metadata["namespace"], metadata["name"])
        requests.append(client.request("PATCH", f"{path}/status", patch, "application/merge-patch+json"))
    return client.send(requests)[0]


@contextmanager
def running(replica: OperatorProcess) -> Iterator[None]:
    """Run a replica, and stop it in the end."""
    replica.start()
    try:
        yield
    finally:
        replica.stop()


def _drain(replica: OperatorProcess, count: int) -> tuple[float, float]:
    """Wait until all are done; returns redemptions per second and CPU milliseconds for each, since it leads."""
    began = _leads_since(replica)
    spent = cpu_seconds(replica.pid)
    pause, done, now = 0.5, 0.0, began
    while done < count:
        if now - began > _WAIT:
            raise TestbedError(f"{done:.0f} of {count} Redemptions finished in {_WAIT:.0f} s")
        time.sleep(pause)
        now = time.time()
        done = _finished(replica)
        # Asking costs the operator time, so ask seldom, and often only when the end is near.
        pause = min(0.5, max(0.02, 0.5 * (count - done) / max(done, 1) * (now - began)))
    return count / (now - began), 1e3 * (cpu_seconds(replica.pid) - spent) / count


def _leads_since(replica: OperatorProcess) -> float:
    """Wait until it takes the Lease; returns the time of that, by its own log."""

    def leading() -> list[str]:
        return [record["time"] for record in replica.records() if record.get("message") == "leading"]

    wait_until(lambda: bool(leading()), "leader")
    return datetime.strptime(leading()[0], "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()


def _finished(replica: OperatorProcess) -> float:
    name = "voucher_operator_redemptions_total{"
    return sum(value for sample, value in replica.metrics().items() if sample.startswith(name))


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has taken, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _check(cluster: ClusterAccess, namespace: str, count: int) -> None:
    """A rate counts only when every Redemption says Redeemed."""
    selector = "--field-selector=status.state=Redeemed"
    listing = json.loads(cluster.kubectl("get", "redemptions", f"--namespace={namespace}", selector, "--output=json"))
    if (found := len(listing["items"])) != count:
        raise TestbedError(f"{found} of {count} Redemptions are Redeemed")
