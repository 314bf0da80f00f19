"""Access to a cluster by kubectl, whoever runs it.

Neighbours: `control_plane` is a cluster of ours; `cluster` needs no more than this of either kind.
"""

import json
import shutil
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path

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
        """Run kubectl as the administrator and return what it printed (without `check` also what it complained of).

        Raises TestbedError when it fails, unless `check` is false.
        """
        done = subprocess.run(self.command(*args), input=input, capture_output=True, text=True, timeout=180)
        if check and done.returncode != 0:
            raise TestbedError(f"kubectl {' '.join(args)}: {done.stderr.strip() or done.stdout.strip()}")
        return str(done.stdout) if check else f"{done.stdout}{done.stderr}"

    def command(self, *args: str) -> list[str]:
        """Return the whole command line of a kubectl as the administrator, for whoever runs it himself."""
        return [str(self._kubectl), f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self._folder}/cache", *args]

    def namespace(self, name: str) -> str:
        """Create a namespace and return its name."""
        self.kubectl("create", "namespace", name)
        return name

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """Return credentials of a ServiceAccount, by a token of 24 hours from the TokenRequest API."""
        token = self.kubectl("create", "token", name, f"--namespace={namespace}", "--duration=24h").strip()
        own = json.loads(self.kubectl("config", "view", "--raw", "--minify", "--flatten", "--output=json"))
        path = self._folder / f"{namespace}-{name}.kubeconfig"
        with_token(path, own, token, namespace)
        return path


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
