"""A CloudNativePG cluster with three instances beside the operator, and what happens to it.

The option `--cnpg` names a folder with CloudNativePG's release manifest (`operator.yaml`), and where no image registry
can be reached, the names of images that the Docker engine has (`images`) and a storage class for them (`storage.yaml`).

See also: cnpg/cluster.yaml; `probe` asks from outside when writes are taken; `test_failover` has the tests.
"""

import base64
import json
from pathlib import Path
from typing import Any

import yaml

from testbed.processes import TestbedError, wait_until
from tests.e2e.cluster import Document, Kind
from tests.e2e.images import docker
from tests.e2e.objects import secret

NAME = "pg"
RUNTIME_SECRET = "pg-runtime"
_OBJECTS = Path(__file__).parent / "cnpg" / "cluster.yaml"
_NAMESPACE = "cnpg-system"
_VOLUMES = "/opt/local-path-provisioner"
_DISK = 'mkdir -p "$1" && mountpoint -q "$1" || mount -t tmpfs -o size=1g volumes "$1"'
"""Volumes of a size of their own, so that a full one fills nothing else. In memory: they are a real file system's."""
_FREEZE = """
for folder in $(find /sys/fs/cgroup -type d -name "*pod$(echo "$1" | tr - _)*" -o -type d -name "*pod$1*"); do
    echo "$2" >"$folder/cgroup.freeze" && echo done
done
"""


def install(kind: Kind, folder: Path) -> None:
    """Install CloudNativePG's operator. Raises TestbedError when the folder has no manifest."""
    if not (folder / "operator.yaml").is_file():
        raise TestbedError(f"--cnpg: {folder} has no operator.yaml, the release manifest of CloudNativePG")
    if (images := folder / "images").exists():
        kind.load(*images.read_text().split())
    kind.kubectl("apply", "--server-side", f"--filename={folder / 'operator.yaml'}")
    kind.node(_DISK, _VOLUMES)
    if (storage := folder / "storage.yaml").exists():
        kind.kubectl("apply", "--server-side", f"--filename={storage}")
    rollout = ("rollout", "status", "deployment/cnpg-controller-manager", f"--namespace={_NAMESPACE}")
    kind.kubectl(*rollout, "--timeout=120s")


class PostgresCluster:
    """The cluster in one namespace."""

    def __init__(self, kind: Kind, namespace: str, folder: Path) -> None:
        """Prepare; nothing runs yet."""
        self._kind = kind
        self.namespace = namespace
        self._folder = folder

    def create(self, password: str) -> None:
        """Create it, with this password for the operator's role, and wait until all instances are ready."""
        document = yaml.safe_load(_OBJECTS.read_text())
        if (self._folder / "images").exists():
            names = (self._folder / "images").read_text().split()
            document["spec"]["imageName"] = next(name for name in names if "postgres" in name)
        if (self._folder / "storage.yaml").exists():
            document["spec"]["storage"]["storageClass"] = "local-path"
        self.set_password(password)
        self._kind.apply(document, namespace=self.namespace)
        self.await_ready()

    def set_password(self, password: str) -> None:
        """Give the operator's role a password, by the Secret that CloudNativePG reads."""
        document = secret(RUNTIME_SECRET, username="voucher_operator", password=password)
        document["metadata"]["labels"] = {"cnpg.io/reload": "true"}
        self._kind.apply(document | {"type": "kubernetes.io/basic-auth"}, namespace=self.namespace)

    def await_ready(self, timeout: int = 300) -> None:
        """Wait until three instances are ready, one of them the primary."""

        def ready() -> bool:
            status = self._status()
            same = status.get("currentPrimary") == status.get("targetPrimary")
            return status.get("readyInstances") == 3 and same and status.get("phase") == "Cluster in healthy state"

        wait_until(ready, "three ready instances", timeout=timeout)

    def primary(self) -> str:
        """Return the name of the primary's pod."""
        return str(self._status()["currentPrimary"])

    def standby(self) -> str:
        """Return the name of another pod."""
        return next(name for name in self._pods() if name != self.primary())

    def await_promotion(self, before: str, timeout: int = 180) -> None:
        """Wait until another instance than `before` is the primary."""
        wait_until(lambda: self.primary() != before, f"primary other than {before}", timeout=timeout)

    def delete(self, pod: str, *, force: bool = False) -> None:
        """Delete a pod: with `force` as a lost node does, without it as a drained one."""
        flags = ("--grace-period=0", "--force") if force else ("--wait=false",)
        self._kubectl("delete", "pod", pod, *flags)

    def promote(self, pod: str) -> None:
        """Switch over, as `kubectl cnpg promote` does."""
        now = self._kind.node("date -u +%Y-%m-%dT%H:%M:%SZ").strip()
        status = {"targetPrimary": pod, "targetPrimaryTimestamp": now, "phase": "Switchover in progress"}
        self._patch({"status": status}, "--subresource=status")

    def restart(self) -> None:
        """Replace all instances one by one, the primary last, as a new image does."""
        now = self._kind.node("date -u +%Y-%m-%dT%H:%M:%SZ").strip()
        self._patch({"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}})

    def freeze(self, pod: str) -> None:
        """Stop all processes of a pod, as on a machine that hangs."""
        self._frozen(pod, frozen=True)

    def thaw(self, pod: str) -> None:
        """Let them run again."""
        self._frozen(pod, frozen=False)

    def fill_disk(self) -> None:
        """Leave no room on the volumes of all instances."""
        self._kind.node('dd if=/dev/zero of="$1/full" bs=64k 2>/dev/null || true', _VOLUMES)

    def free_disk(self) -> None:
        """Make room again."""
        self._kind.node('rm -f "$1/full"', _VOLUMES)

    def takes_writes(self) -> bool:
        """Whether the primary can store something now."""
        try:
            self.sql("CREATE TABLE stored AS SELECT repeat('x', 9000) FROM generate_series(1, 200); DROP TABLE stored")
        except TestbedError:
            return False
        return True

    def sql(self, statement: str, database: str = "ledger") -> str:
        """Run statements on the primary as superuser; return the rows. Raises TestbedError."""
        psql = ("psql", "-qtA", "-v", "ON_ERROR_STOP=1", "-f", "-", database)
        container = ("--container=postgres",)
        place = (f"--namespace={self.namespace}", *container)
        return self._kind.kubectl("exec", "-i", self.primary(), *place, "--", *psql, input=statement).strip()

    def outside_url(self) -> str:
        """Return a URL of the Service for writes that works on this machine, as owner of the database."""
        data = self._kind.get("secret", f"{NAME}-app", self.namespace)["data"]
        user, password = (base64.b64decode(data[key]).decode() for key in ("username", "password"))
        port = self._kind.get("service", "pg-outside", self.namespace)["spec"]["ports"][0]["nodePort"]
        node = f"{self._kind.name}-control-plane"
        address = docker("inspect", "--format={{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", node).strip()
        return f"postgresql://{user}:{password}@{address}:{port}/ledger"

    def _frozen(self, pod: str, *, frozen: bool) -> None:
        uid = self._kind.get("pod", pod, self.namespace)["metadata"]["uid"]
        if not self._kind.node(_FREEZE, uid, "1" if frozen else "0").split():
            raise TestbedError(f"the node has no control group of pod {pod}")

    def _pods(self) -> list[str]:
        found = self._kind.list("pods", self.namespace, f"--selector=cnpg.io/cluster={NAME},cnpg.io/podRole=instance")
        return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def _status(self) -> Document:
        status: Document = self._kind.get("cluster.postgresql.cnpg.io", NAME, self.namespace).get("status", {})
        return status

    def _patch(self, change: dict[str, Any], *flags: str) -> None:
        kind = "cluster.postgresql.cnpg.io"
        self._kubectl("patch", kind, NAME, "--type=merge", f"--patch={json.dumps(change)}", *flags)

    def _kubectl(self, *args: str) -> None:
        self._kind.kubectl(*args, f"--namespace={self.namespace}")
