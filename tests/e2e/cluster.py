"""The kind cluster of the tests: pytest-kind makes it, this reads and writes it.

See also: `testbed.access` runs kubectl; `objects` writes what is applied; `release` and `ledger` live in it.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from testbed.access import ClusterAccess
from tests.e2e.images import docker

Document = dict[str, Any]


class Kind(ClusterAccess):
    """A running kind cluster."""

    def __init__(self, made: Any, folder: Path) -> None:
        """Wrap what pytest-kind made; `folder` takes temporary files."""
        made.ensure_kubectl()
        self._made = made
        self._temporary = folder

    @property
    def name(self) -> str:
        """The cluster's; its only node is called `<name>-control-plane`."""
        return str(self._made.name)

    @property
    def kubeconfig(self) -> Path:
        """An administrator's."""
        return Path(self._made.kubeconfig_path).resolve()

    @property
    def _kubectl(self) -> Path:
        return Path(self._made.kubectl_path).resolve()

    @property
    def _folder(self) -> Path:
        return self._temporary

    def load(self, *images: str) -> None:
        """Bring images to the node, all at once: what they share goes over once."""
        command = [str(self._made.kind_path), "load", "docker-image", f"--name={self._made.name}", *images]
        subprocess.run(command, check=True, capture_output=True)

    def node(self, script: str, *args: str) -> str:
        """Run a shell script on the node, where the processes of all pods are."""
        return docker("exec", f"{self._made.name}-control-plane", "sh", "-c", script, "sh", *args)

    def await_names(self) -> None:
        """Wait until pods can be made and names be resolved."""
        self.kubectl("wait", "--for=create", "serviceaccount/default", "--namespace=default", "--timeout=60s")
        rollout = ("rollout", "status", "deployment/coredns", "--namespace=kube-system", "--timeout=120s")
        self.kubectl(*rollout)

    def apply(self, *documents: Document, namespace: str | None = None) -> None:
        """Apply objects, as Git would."""
        place = [f"--namespace={namespace}"] if namespace else []
        # JSON: what PyYAML writes without quotes, such as a password 84e37, is a number to kubectl.
        whole = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
        self.kubectl("apply", "--server-side", *place, "--filename=-", input=whole)

    def get(self, kind: str, name: str, namespace: str) -> Document:
        """Read one object."""
        found: Document = json.loads(self.kubectl("get", kind, name, f"--namespace={namespace}", "--output=json"))
        return found

    def list(self, kind: str, namespace: str, *selectors: str) -> list[Document]:
        """Read the objects of a namespace."""
        text = self.kubectl("get", kind, f"--namespace={namespace}", *selectors, "--output=json")
        items: list[Document] = json.loads(text)["items"]
        return items

    def wait(self, what: str, condition: str, namespace: str, timeout: int = 60) -> None:
        """Wait for a condition as `kubectl wait --for` knows it. Raises TestbedError with the object's state."""
        self.kubectl("wait", what, f"--for={condition}", f"--namespace={namespace}", f"--timeout={timeout}s")

    def scene(self) -> str:
        """Return all pods and the last events, for the report of a failure."""
        pods = self.kubectl("get", "pods", "--all-namespaces", "--output=wide", check=False)
        events = self.kubectl("get", "events", "--all-namespaces", "--sort-by=.metadata.creationTimestamp", check=False)
        return pods + "\n".join(events.splitlines()[-40:])

    def logs(self) -> str:
        """Return the last lines of all operators and migrations, for the same."""
        selector = "--selector=app.kubernetes.io/part-of=catalyst"
        found = self.kubectl("get", "pods", "-A", selector, "--output=jsonpath={..metadata.namespace}", check=False)
        logs = ("logs", selector, "--tail=15", "--prefix")
        return "\n".join(self.kubectl(*logs, f"--namespace={one}", check=False) for one in sorted(set(found.split())))
