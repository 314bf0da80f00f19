"""The chart, installed by the real helm; and what can be seen of the operator from outside.

See also: `cluster`, `ledger`; docs/operations.md has the same commands.
"""

import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.cluster import CHART
from testbed.processes import TestbedError
from testbed.tools import ensure
from tests.e2e.cluster import Document, Kind
from tests.e2e.images import OPERATOR
from tests.e2e.ledger import Login

NAME = "bp-voucher-operator"
RUNTIME_SECRET = "voucher-operator-database"
OWNER_SECRET = "voucher-operator-database-owner"
_PROBE = """
import urllib.error, urllib.request
try:
    print(urllib.request.urlopen("http://127.0.0.1:8080/readyz", timeout=10).read().decode())
except urllib.error.HTTPError as error:
    print(error.read().decode())
"""


@dataclass
class Release:
    """One release in a namespace of its own."""

    kind: Kind
    namespace: str
    owner: Login
    """The owner of its ledger."""
    name: str = NAME
    chart: Path = CHART
    image: str = OPERATOR
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def database(self) -> str:
        """Its ledger's name."""
        return self.owner.database

    @property
    def _selector(self) -> str:
        return f"app.kubernetes.io/name=voucher-operator,app.kubernetes.io/instance={self.name}"

    def helm(self, *args: str, stdin: str = "", check: bool = True) -> str:
        """Run helm in the namespace and return what it said. Raises TestbedError with that, unless `check` is false."""
        place = [f"--namespace={self.namespace}", f"--kubeconfig={self.kind.kubeconfig}"]
        command = [str(ensure("helm") / "helm"), *args, *place]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True)
        if check and done.returncode != 0:
            raise TestbedError(f"helm {' '.join(args)}: {done.stderr.strip()}")
        return f"{done.stdout}{done.stderr}"

    def install(self, values: Mapping[str, Any] | None = None, *flags: str, check: bool = True) -> str:
        """Install, or upgrade what is installed; does not wait for pods."""
        name, _, tag = self.image.partition(":")
        own = {"image": {"repository": name, "tag": tag}, **self.values, **(values or {})}
        arguments = ("upgrade", "--install", self.name, str(self.chart), "--values=-", *flags)
        return self.helm(*arguments, stdin=json.dumps(own), check=check)

    def uninstall(self) -> None:
        """Remove the release, and wait until its pods are gone."""
        self.helm("uninstall", self.name, "--ignore-not-found")
        place = f"--namespace={self.namespace}"
        self.kind.kubectl("wait", "pods", f"--selector={self._selector}", place, "--for=delete", "--timeout=60s")

    def await_ready(self, timeout: int = 120) -> None:
        """Wait until all replicas are ready and the old ones gone."""
        rollout = ("rollout", "status", f"deployment/{self.name}", f"--namespace={self.namespace}")
        self.kind.kubectl(*rollout, f"--timeout={timeout}s")

    def pods(self) -> list[Document]:
        """Return the operator's pods that are not being deleted."""
        found = self.kind.list("pods", self.namespace, f"--selector={self._selector}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def restarts(self) -> int:
        """How often a container of the namespace was started again."""
        statuses = [pod["status"].get("containerStatuses", []) for pod in self.kind.list("pods", self.namespace)]
        return sum(status["restartCount"] for found in statuses for status in found)

    def leader(self) -> str:
        """Return the name of the pod that holds the Lease; empty when none does."""
        spec = self.kind.get("lease", self.name, self.namespace)["spec"]
        return str(spec.get("holderIdentity", ""))

    def exec(self, *command: str) -> str:
        """Run a command in a replica."""
        target = f"deployment/{self.name}"
        return self.kind.kubectl("exec", f"--namespace={self.namespace}", target, "--", *command)

    def verify(self) -> str:
        """Return what `voucher-operator verify` says. Raises TestbedError with the rows when an invariant is broken.

        Both ways: the ledger's own, and that each Redemption that says Redeemed has its grant.
        """
        return self.exec("voucher-operator", "verify", f"--namespace={self.namespace}").strip()

    def recheck(self) -> None:
        """Have the kubelet look at the pods' Secrets now: it does once a minute, and when a pod is changed."""
        place = (f"--namespace={self.namespace}", "--selector=app.kubernetes.io/part-of=catalyst", "--overwrite")
        self.kind.kubectl("annotate", "pods", *place, f"tests/looked-at={time.monotonic()}")

    def problems(self, pod: str) -> dict[str, str]:
        """Return what /readyz of a pod says is wrong."""
        answer = self.kind.kubectl("exec", f"--namespace={self.namespace}", pod, "--", "python3", "-c", _PROBE)
        problems: dict[str, str] = json.loads(answer)["problems"]
        return problems

    def logs(self, selector: str = "app.kubernetes.io/part-of=catalyst") -> str:
        """Return all that the release's pods have written."""
        place = f"--namespace={self.namespace}"
        return self.kind.kubectl("logs", place, f"--selector={selector}", "--tail=-1", "--prefix", check=False)
