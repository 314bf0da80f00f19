"""Access to any cluster: by kubectl, and by a client for frequent calls.

See also: `control_plane` is a cluster of ours; `cluster` needs no more than this of either kind.
"""

import json
import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from kubernetes import config
from kubernetes.client import (
    ApiClient,
    AuthenticationV1TokenRequest,
    Configuration,
    CoreV1Api,
    V1Namespace,
    V1ObjectMeta,
    V1TokenRequestSpec,
)
from kubernetes.dynamic import DynamicClient

from testbed.credentials import with_token
from testbed.processes import TestbedError


class ClusterAccess(ABC):
    """What can be done with an administrator's kubeconfig."""

    @property
    @abstractmethod
    def kubeconfig(self) -> Path:
        """Credentials of an administrator."""

    @property
    @abstractmethod
    def _kubectl(self) -> Path:
        """The command."""

    @property
    @abstractmethod
    def _folder(self) -> Path:
        """Where kubectl's cache and more kubeconfigs go."""

    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> str:
        """Run kubectl as the administrator and return what it printed (without `check` also its standard error).

        Raises TestbedError when it fails, unless `check` is false.
        """
        done = subprocess.run(self.command(*args), input=input, capture_output=True, text=True, timeout=180)
        if check and done.returncode != 0:
            raise TestbedError(f"kubectl {' '.join(args)}: {done.stderr.strip() or done.stdout.strip()}")
        return str(done.stdout) if check else f"{done.stdout}{done.stderr}"

    def command(self, *args: str) -> list[str]:
        """Return the whole command line of a kubectl as the administrator."""
        return [str(self._kubectl), f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self._folder}/cache", *args]

    @contextmanager
    def client(self) -> Iterator[ApiClient]:
        """Open an administrator's client."""
        settings = Configuration()
        config.load_kube_config(str(self.kubeconfig), client_configuration=settings)  # type: ignore[no-untyped-call]
        with ApiClient(settings) as client:
            yield client

    def server_side_apply(self, documents: Iterable[dict[str, Any]]) -> None:
        """Apply documents of kinds that are there, on the server's side. Raises the client's ApiException.

        Fields that the server does not know are dropped, unlike by kubectl.
        """
        with self.client() as client:
            # Named by the process: the file is not written at once.
            dynamic = DynamicClient(client, cache_file=f"{self._folder}/discovery-{os.getpid()}.json")  # type: ignore[no-untyped-call]
            for document in documents:
                resource = dynamic.resources.get(api_version=document["apiVersion"], kind=document["kind"])
                dynamic.server_side_apply(resource, document, field_manager="testbed")  # type: ignore[no-untyped-call]

    def namespace(self, name: str) -> str:
        """Create a namespace and return its name. Raises the client's ApiException."""
        with self.client() as client:
            CoreV1Api(client).create_namespace(V1Namespace(metadata=V1ObjectMeta(name=name)))
        return name

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """Return credentials of a ServiceAccount, by a token of 24 hours from the TokenRequest API.

        Raises the client's ApiException.
        """
        wanted = AuthenticationV1TokenRequest(spec=V1TokenRequestSpec(audiences=[], expiration_seconds=86400))
        with self.client() as client:
            answer = CoreV1Api(client).create_namespaced_service_account_token(name, namespace, wanted)
        assert answer.status is not None
        assert answer.status.token is not None
        path = self._folder / f"{namespace}-{name}.kubeconfig"
        with_token(path, self._own, answer.status.token, namespace)
        return path

    @cached_property
    def _own(self) -> dict[str, Any]:
        return dict(json.loads(self.kubectl("config", "view", "--raw", "--minify", "--flatten", "--output=json")))


class ExistingCluster(ClusterAccess):
    """A cluster that somebody else runs, by a kubeconfig, with the kubectl that is installed."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        """Use `folder` for temporary files. Raises TestbedError when no kubectl is installed."""
        command = shutil.which("kubectl")
        if command is None:
            raise TestbedError("a given KUBECONFIG needs an installed kubectl")
        self._given = kubeconfig
        self._command = Path(command)
        self._temporary = folder

    @property
    def kubeconfig(self) -> Path:
        """What was given."""
        return self._given

    @property
    def _kubectl(self) -> Path:
        return self._command

    @property
    def _folder(self) -> Path:
        return self._temporary
