"""`make demo`: the whole thing, real from YAML to ledger, shown in a terminal.

Starts a control plane and PostgreSQL of its own, or uses KUBECONFIG and DATABASE_URL where both are given (and builds
nothing then). Waits on conditions, never on time. See also: `cluster.Stack` starts the parts; `examples/` is what
is applied; `demo_orders` buys.
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
from testbed.demo_orders import StripeDemo, buy, open_stripe_demo
from testbed.demo_terminal import WAIT, kubectl, say
from testbed.interpreter import ROOT
from testbed.postgres import Database
from testbed.processes import TestbedError, temporary_folder

EXAMPLES = ROOT / "examples"


def main() -> int:
    """Run the demo; returns an exit code."""
    try:
        with temporary_folder("demo") as folder, _stack(folder) as stack, open_stripe_demo(folder) as stripe_demo:
            _show(stack, stripe_demo)
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
        say("Starting etcd, kube-apiserver, kube-controller-manager and PostgreSQL")
        return Stack(chart=False)
    say("Using the cluster of KUBECONFIG and the ledger of DATABASE_URL")
    owner = os.environ.get("DATABASE_OWNER_URL", url)
    return Stack(
        chart=False,
        cluster=ExistingCluster(Path(kubeconfig), folder),
        database=Database("demo", admin_url=owner, owner_url=owner, runtime_url=url),
    )


def _show(stack: Stack, stripe_demo: StripeDemo) -> None:
    say("Starting the operator")
    operator = stack.operator("demo", {"VOUCHER_OPERATOR_BACKOFF_MAX": "5", **stripe_demo.env})
    operator.wait_ready(leader=True)
    with _examples(stack):
        _issue(stack)
        _redeem(stack)
        buy(stack, operator, stripe_demo)
        _look(stack)


@contextmanager
def _examples(stack: Stack) -> Iterator[None]:
    """Delete first what an earlier run may have left."""
    stack.cluster.kubectl("delete", f"--filename={EXAMPLES}", "--ignore-not-found", WAIT)
    yield


def _issue(stack: Stack) -> None:
    say("A sovereign-admin applies three vouchers; the code of one is in a Secret that comes later")
    kubectl(stack, "apply", f"--filename={EXAMPLES}/10-vouchers.yaml")
    kubectl(stack, "wait", "--for=condition=Ready", "voucher/muscat-200", "voucher/national-day", WAIT)
    kubectl(
        stack,
        "wait",
        "--for=jsonpath={.status.conditions[?(@.type=='Reconciling')].reason}=SecretNotFound",
        "voucher/partners",
        WAIT,
    )
    kubectl(stack, "apply", f"--filename={EXAMPLES}/20-secret.yaml")
    kubectl(stack, "wait", "--for=condition=Ready", "voucher/partners", WAIT)


def _redeem(stack: Stack) -> None:
    say("Customers redeem: three for a cap of three, then one too many, and one twice")
    kubectl(stack, "apply", f"--filename={EXAMPLES}/30-redemptions.yaml")
    kubectl(stack, "wait", "--for=jsonpath={.status.finished}=true", "redemptions", "--all", WAIT)
    kubectl(stack, "apply", f"--filename={EXAMPLES}/40-one-too-many.yaml")
    kubectl(stack, "wait", "--for=jsonpath={.status.finished}=true", "redemptions", "--all", WAIT)
    kubectl(stack, "wait", "--for=jsonpath={.status.redeemed}=3/3", "voucher/muscat-200", WAIT)
    kubectl(stack, "wait", "--for=jsonpath={.status.redeemed}=1", "voucher/partners", WAIT)


def _look(stack: Stack) -> None:
    say("Status of the resources")
    kubectl(stack, "get", "vouchers,redemptions")
    say("Credit of one customer: voucher-operator balance said")
    print(command(stack.database.runtime_url, "balance", "said").rstrip())
    say("Whether every invariant of the ledger holds: voucher-operator verify")
    _verify(stack)
    say("Events for people: kubectl get events")
    columns = "REASON:.reason,REGARDING:.regarding.name,NOTE:.note"
    kubectl(
        stack,
        "get",
        "events.events.k8s.io",
        "--sort-by=.metadata.creationTimestamp",
        f"--output=custom-columns={columns}",
    )


def _verify(stack: Stack) -> None:
    try:
        print(command(stack.database.runtime_url, "verify").rstrip())
    except TestbedError as error:
        # A given ledger has a past: the events of an earlier run may have waited for a NATS for over an hour.
        if stack.postgres is not None:
            raise
        print(error)


def _keep(stack: Stack) -> None:
    say("All of it stays up until Ctrl-C. In another terminal:")
    print(f"export KUBECONFIG={stack.cluster.kubeconfig}")
    print(f"export DATABASE_URL={stack.database.runtime_url}", flush=True)
    stopped = threading.Event()
    for number in (SIGINT, SIGTERM):
        signal(number, lambda *_: stopped.set())
    stopped.wait()


def _clean(stack: Stack) -> None:
    say("Cleaning up")
    stack.cluster.kubectl("delete", f"--filename={EXAMPLES}", "--ignore-not-found", WAIT)


if __name__ == "__main__":
    sys.exit(main())
