"""A real Kubernetes control plane on loopback: etcd, API server, controller manager; no kubelet, so no pods run.

See also: `access` is what is done with it, `credentials` writes keys and kubeconfigs, `cluster` installs on it.
"""

import contextlib
import http.client
import secrets
import shutil
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed import tools
from testbed.access import ClusterAccess
from testbed.credentials import ec_private_key, kubeconfig
from testbed.processes import Daemon, free_port, temporary_folder, wait_until

_CONTROLLERS = (
    "namespace",
    "garbage-collector",
    "serviceaccount",
    "serviceaccount-token",
    "root-ca-certificate-publisher",
    "clusterrole-aggregation",
)
"""What the operator and its roles depend on; the rest would only cost processor time."""


class ControlPlane(ClusterAccess):
    """One cluster, empty at its start; a context manager. Its data is gone after `stop`."""

    def __init__(self, way_to_etcd: Callable[[int], int] = lambda port: port) -> None:
        """Prepare; nothing runs yet. `way_to_etcd` returns the port by which the API server reaches that of etcd."""
        self._way_to_etcd = way_to_etcd
        self._resources = contextlib.ExitStack()
        self._token = secrets.token_hex(16)
        self._temporary = Path()
        self._binaries = Path()
        self._port = 0

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def connection_details(self) -> dict[str, str]:
        """Return what another process needs for `attached`, while the cluster runs. Works after `prepare`."""
        return {"folder": str(self._folder), "binaries": str(self._binaries), "port": str(self._port)}

    @classmethod
    def attached(cls, connection_details: Mapping[str, str]) -> "ControlPlane":
        """Return the cluster that another process runs. The returned object cannot end or restart it."""
        cluster = cls()
        cluster._temporary = Path(connection_details["folder"])
        cluster._binaries = Path(connection_details["binaries"])
        cluster._port = int(connection_details["port"])
        return cluster

    @property
    def url(self) -> str:
        """Where the API server listens."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def kubeconfig(self) -> Path:
        """Credentials of an administrator (group system:masters)."""
        return self._folder / "admin.kubeconfig"

    def prepare(self) -> None:
        """Build what is absent and choose folder and port. Raises TestbedError."""
        self._binaries = tools.ensure("control-plane")
        self._temporary = self._resources.enter_context(temporary_folder("control-plane", in_memory=True))
        self._port = free_port()

    def start(self) -> None:
        """Start all, `prepare` before if need be; return when the API server is ready. Raises TestbedError."""
        if not self._port:
            self.prepare()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all and remove the data."""
        self._resources.close()

    def stop_apiserver(self, *, kill: bool = False) -> None:
        """End the API server, by SIGKILL if `kill`; its data stays in etcd."""
        if kill:
            self._apiserver.kill()
        else:
            self._apiserver.stop(timeout=90.0)

    def start_apiserver(self) -> None:
        """Start the API server on the port that it had, and wait until it is ready."""
        self._apiserver.start()
        wait_until(self._ready, "readiness of kube-apiserver", alive=self._apiserver)

    def restart_apiserver(self, *, kill: bool = False) -> None:
        """End the API server and start it again."""
        self.stop_apiserver(kill=kill)
        self.start_apiserver()

    @property
    def _kubectl(self) -> Path:
        return self._binaries / "kubectl"

    @property
    def _folder(self) -> Path:
        return self._temporary

    @property
    def _authority(self) -> Path:
        return self._folder / "certificates" / "apiserver.crt"

    def _start(self) -> None:
        ec_private_key(self._folder / "service-account.key")
        (self._folder / "tokens.csv").write_text(f"{self._token},admin,admin,system:masters\n")
        etcd_port = free_port()
        self._run(self._etcd(etcd_port))
        self._apiserver = self._run(self._kube_apiserver(self._way_to_etcd(etcd_port)))
        wait_until(self._ready, "readiness of kube-apiserver", alive=self._apiserver)
        kubeconfig(self.kubeconfig, self.url, self._authority, self._token)
        self._run(self._controller_manager())

    def _run(self, daemon: Daemon) -> Daemon:
        daemon.start()
        # Nothing of it is needed any more when this is called, so there is nothing to wait for.
        self._resources.callback(daemon.kill)
        return daemon

    def _etcd(self, port: int) -> Daemon:
        client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{free_port()}"
        flags = [
            f"--data-dir={self._folder}/etcd",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]
        return Daemon("etcd", [self._binaries / "etcd", *flags], self._folder / "etcd.log")

    def _kube_apiserver(self, etcd_port: int) -> Daemon:
        key = self._folder / "service-account.key"
        flags = [
            f"--etcd-servers=http://127.0.0.1:{etcd_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--secure-port={self._port}",
            f"--cert-dir={self._folder}/certificates",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={key}",
            f"--service-account-key-file={key}",
            f"--token-auth-file={self._folder}/tokens.csv",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--disable-admission-plugins=ServiceAccount",
            # Else a graceful stop waits a minute for watches that never end.
            "--shutdown-watch-termination-grace-period=2s",
        ]
        log = self._folder / "kube-apiserver.log"
        return Daemon("kube-apiserver", [self._binaries / "kube-apiserver", *flags], log)

    def _controller_manager(self) -> Daemon:
        flags = [
            f"--kubeconfig={self.kubeconfig}",
            f"--controllers={','.join(f'{name}-controller' for name in _CONTROLLERS)}",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=100",
            "--kube-api-burst=200",
            f"--root-ca-file={self._authority}",
            f"--service-account-private-key-file={self._folder}/service-account.key",
        ]
        log = self._folder / "kube-controller-manager.log"
        return Daemon("kube-controller-manager", [self._binaries / "kube-controller-manager", *flags], log)

    def _ready(self) -> bool:
        """Ask /readyz, over TLS by the certificate that the server makes for itself at its first start."""
        try:
            context = ssl.create_default_context(cafile=str(self._authority))
            connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=2.0, context=context)
        except (OSError, ssl.SSLError):
            return False
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/readyz", headers={"Authorization": f"Bearer {self._token}"})
                return connection.getresponse().status == http.HTTPStatus.OK
            except (OSError, http.client.HTTPException):
                return False

    def keep_logs(self, target: Path) -> None:
        """Copy the logs of all parts into the folder `target`."""
        for log in self._folder.glob("*.log"):
            shutil.copy(log, target)
