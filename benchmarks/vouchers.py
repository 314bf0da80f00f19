"""Many single-use codes as Vouchers: the memory that they cost the operator, and what it does when nothing changes.

`benchmarks` has the method. Memory does not depend on the machine's speed, so these figures are absolute: the limit of
the chart's pod is 256 MiB.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.raw import RawClient
from benchmarks.redemptions import cpu_seconds, running
from benchmarks.report import line, title
from testbed.cluster import Installation, Stack, install_rights
from testbed.operator_process import OperatorProcess
from testbed.postgres import Version
from testbed.processes import wait_until
from voucher_operator.controllers.kinds import REDEMPTION, VOUCHER
from voucher_operator.kube.kinds import ResourceKind

_WAIT = 900.0
_IDLE = 20.0


def measure(version: Version, count: int) -> None:
    """Issue `count` Vouchers, start anew with them, and with as many Redemptions that wait; print memory and CPU."""
    with Stack(version=version, chart=False, namespaces=("floor",)) as stack:
        title(f"vouchers: {count:,} single-use codes, each a Voucher")
        installation = install_rights(stack.cluster, [stack.cluster.namespace("codes")])
        with _replica(stack, installation) as replica:
            bare = replica.peak_memory()
        line("peak memory without a Voucher", [bare / 1e6], "MB")
        _create(stack, VOUCHER, "codes", count, _voucher)
        with _replica(stack, installation) as replica:
            _until_status_writes(replica, VOUCHER, count)
            _print(replica, "issuing", bare, count)
        with _replica(stack, installation) as replica:
            _until_drained(replica)
            _print(replica, "restart", bare, count)
            began, spent = time.monotonic(), cpu_seconds(replica.pid)
            time.sleep(_IDLE)
            share = (cpu_seconds(replica.pid) - spent) / (time.monotonic() - began)
            line("share of a processor while nothing changes", [100 * share], "%", 1)
        waiting = install_rights(stack.cluster, [stack.cluster.namespace("waiting")])
        _create(stack, REDEMPTION, "waiting", count, _redemption)
        with _replica(stack, waiting) as replica:
            _until_status_writes(replica, REDEMPTION, count)
            _print(replica, "Redemptions that wait for a Secret", bare, count)


def _print(replica: OperatorProcess, what: str, bare: int, count: int) -> None:
    peak = replica.peak_memory()
    line(f"{what}: peak memory", [peak / 1e6], "MB")
    line("    above that without, for each", [(peak - bare) / count / 1e3], "kB", 2)


@contextmanager
def _replica(stack: Stack, installation: Installation) -> Iterator[OperatorProcess]:
    replica = OperatorProcess(
        kubeconfig=installation.kubeconfig,
        database_url=stack.database.runtime_url,
        namespaces=installation.namespaces,
        folder=stack.folder,
        env=installation.env,
    )
    with running(replica):
        replica.wait_ready(leader=True)
        yield replica


def _voucher(n: int) -> dict[str, Any]:
    return {
        "code": f"CODE-{n:08}",
        "credit": {"amount": "25.500", "currency": "OMR"},
        "description": "Muscat launch campaign",
        "maxRedemptions": 1,
    }


def _redemption(n: int) -> dict[str, Any]:
    return {
        "codeFrom": {"secretKeyRef": {"name": "absent", "key": "code"}},
        "customer": {"userID": f"user-{n}", "tenantID": "kestrel-pharmacy", "email": "someone@example.com"},
    }


def _create(
    stack: Stack, kind: ResourceKind, namespace: str, count: int, spec: Callable[[int], dict[str, Any]]
) -> None:
    client, path = RawClient(stack.cluster.kubeconfig), kind.path(namespace)
    head = {"apiVersion": kind.api_version, "kind": kind.kind}
    bodies = ({**head, "metadata": {"name": f"n-{n}"}, "spec": spec(n)} for n in range(count))
    client.send([client.request("POST", path, body) for body in bodies])


def _until_status_writes(replica: OperatorProcess, kind: ResourceKind, count: int) -> None:
    name = f'voucher_operator_status_writes_total{{resource="{kind.kind}"}}'
    wait_until(lambda: replica.metrics().get(name, 0) >= count, f"status of {count} {kind.kind}s", _WAIT)


def _until_drained(replica: OperatorProcess) -> None:
    seen = 0

    def drained() -> bool:
        nonlocal seen
        length: int = replica.ready().get("queues", {}).get("Voucher", 0)
        seen = max(seen, length)
        return seen > 0 and length == 0

    wait_until(drained, "end of the first reconciles", _WAIT)
