"""`make demo`: the whole thing, real from YAML to ledger, shown in a terminal.

Starts a control plane and PostgreSQL of its own, or uses KUBECONFIG and DATABASE_URL where both are given (and builds
nothing then). Waits on conditions, never on time. Neighbours: `cluster.Stack` starts the parts; `examples/` is what
is applied.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT, SIGTERM, signal

from testbed.access import ExistingCluster
from testbed.cluster import Stack, command
from testbed.operator_process import ROOT
from testbed.postgres import Database
from testbed.processes import TestbedError, temporary_folder

EXAMPLES = ROOT / "examples"
_WAIT = "--timeout=60s"


def main() -> int:
    """Run the demo; returns an exit code."""
    try:
        with temporary_folder("demo") as folder, _stack(folder) as stack:
            _show(stack)
            if os.environ.get("KEEP"):
                _keep(stack)
            _clean(stack)
    except TestbedError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def _stack(folder: Path) -> Stack:
    kubeconfig, url = os.environ.get("KUBECONFIG"), os.environ.get("DATABASE_URL")
    if bool(kubeconfig) != bool(url):
        raise TestbedError("give both KUBECONFIG and DATABASE_URL to use your own, or neither to have them started")
    if not kubeconfig or not url:
        _say("Starting etcd, kube-apiserver, kube-controller-manager and PostgreSQL")
        return Stack(chart=False)
    _say("Using the cluster of KUBECONFIG and the ledger of DATABASE_URL")
    owner = os.environ.get("DATABASE_OWNER_URL", url)
    return Stack(
        chart=False,
        cluster=ExistingCluster(Path(kubeconfig), folder),
        database=Database("demo", admin_url=owner, owner_url=owner, runtime_url=url),
    )


def _show(stack: Stack) -> None:
    _say("Starting the operator")
    operator = stack.operator("demo", {"VOUCHER_OPERATOR_BACKOFF_MAX": "5"})
    operator.wait_ready(leader=True)
    with _examples(stack):
        _issue(stack)
        _redeem(stack)
        _look(stack)


@contextmanager
def _examples(stack: Stack) -> Iterator[None]:
    """Leave no example behind that an earlier, broken run may have left."""
    stack.cluster.kubectl("delete", f"--filename={EXAMPLES}", "--ignore-not-found", _WAIT)
    yield


def _issue(stack: Stack) -> None:
    _say("A sovereign-admin applies three vouchers; the code of one is in a Secret that comes later")
    _kubectl(stack, "apply", f"--filename={EXAMPLES}/10-vouchers.yaml")
    _kubectl(stack, "wait", "--for=condition=Ready", "voucher/muscat-200", "voucher/national-day", _WAIT)
    _kubectl(
        stack,
        "wait",
        "--for=jsonpath={.status.conditions[?(@.type=='Reconciling')].reason}=SecretNotFound",
        "voucher/partners",
        _WAIT,
    )
    _kubectl(stack, "apply", f"--filename={EXAMPLES}/20-secret.yaml")
    _kubectl(stack, "wait", "--for=condition=Ready", "voucher/partners", _WAIT)


def _redeem(stack: Stack) -> None:
    _say("Customers redeem: three for a cap of three, then one too many, and one twice")
    _kubectl(stack, "apply", f"--filename={EXAMPLES}/30-redemptions.yaml")
    _kubectl(stack, "wait", "--for=jsonpath={.status.finished}=true", "redemptions", "--all", _WAIT)
    _kubectl(stack, "apply", f"--filename={EXAMPLES}/40-one-too-many.yaml")
    _kubectl(stack, "wait", "--for=jsonpath={.status.finished}=true", "redemptions", "--all", _WAIT)
    _kubectl(stack, "wait", "--for=jsonpath={.status.redeemed}=3/3", "voucher/muscat-200", _WAIT)
    _kubectl(stack, "wait", "--for=jsonpath={.status.redeemed}=1", "voucher/partners", _WAIT)


def _look(stack: Stack) -> None:
    _say("What the resources say")
    _kubectl(stack, "get", "vouchers,redemptions")
    _say("What the ledger says of one customer: voucher-operator balance layla")
    print(command(stack.database.runtime_url, "balance", "layla"))
    print(command(stack.database.runtime_url, "verify"))
    _say("What people are told: kubectl get events")
    columns = "REASON:.reason,REGARDING:.regarding.name,NOTE:.note"
    _kubectl(
        stack,
        "get",
        "events.events.k8s.io",
        "--sort-by=.metadata.creationTimestamp",
        f"--output=custom-columns={columns}",
    )


def _keep(stack: Stack) -> None:
    _say("All of it stays up until Ctrl-C. In another terminal:")
    print(f"export KUBECONFIG={stack.cluster.kubeconfig}")
    print(f"export DATABASE_URL={stack.database.runtime_url}", flush=True)
    stopped = threading.Event()
    for number in (SIGINT, SIGTERM):
        signal(number, lambda *_: stopped.set())
    stopped.wait()


def _clean(stack: Stack) -> None:
    _say("Cleaning up")
    stack.cluster.kubectl("delete", f"--filename={EXAMPLES}", "--ignore-not-found", _WAIT)


def _kubectl(stack: Stack, *args: str) -> None:
    """Show the command and what it prints, in the demo's namespace."""
    print(f"$ kubectl {' '.join(args).replace(str(ROOT) + '/', '')}")
    print(stack.cluster.kubectl("--namespace=billing", *args).rstrip(), flush=True)


def _say(what: str) -> None:
    print(f"\n\033[1m# {what}\033[0m" if sys.stdout.isatty() else f"\n# {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
