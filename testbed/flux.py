"""Flux for real: its kustomize-controller as a process on a cluster, fed with the commits of a real Git repository.

source-controller is not run. All that the other controller sees of it is an archive behind a URL and the status of a
GitRepository object that names it; `Source` writes both. See also: `tools` builds the controller, `access` is the
cluster it works on; tests/gitops look at what it does to vouchers.
"""

import contextlib
import functools
import hashlib
import http.client
import http.server
import json
import os
import subprocess
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from testbed import tools
from testbed.access import ClusterAccess
from testbed.processes import Daemon, TestbedError, free_port, temporary_folder, wait_until

_GIT = {
    # Neither a user's configuration nor the system's changes what is committed, or asks for a key to sign it with.
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "sovereign-admin",
    "GIT_AUTHOR_EMAIL": "admin@sovereign.example",
    "GIT_COMMITTER_NAME": "sovereign-admin",
    "GIT_COMMITTER_EMAIL": "admin@sovereign.example",
}


class Repository:
    """A Git repository with a work tree and the one branch `main`."""

    def __init__(self, folder: Path) -> None:
        """Make it in `folder`, which is absent or empty. Raises TestbedError."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._git("init", "--quiet", "--initial-branch=main")

    def commit(self, files: Mapping[str, str | None], message: str = "Change vouchers") -> str:
        """Write files (path -> text, None removes one), commit them, return the commit. Raises TestbedError."""
        for name, text in files.items():
            path = self.folder / name
            if text is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        self._git("add", "--all")
        self._git("commit", "--quiet", f"--message={message}")
        return self.head()

    def revert(self, commit: str = "HEAD") -> str:
        """Take back what a commit did, by another one, which is returned. Raises TestbedError."""
        self._git("revert", "--no-edit", commit)
        return self.head()

    def head(self) -> str:
        """Return the newest commit's hash."""
        return self._git("rev-parse", "HEAD").strip()

    def read(self, name: str) -> str:
        """Return a file of the work tree."""
        return (self.folder / name).read_text()

    def archive(self, target: Path) -> None:
        """Write the newest commit's files as a tar.gz."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self._git("archive", "--format=tar.gz", f"--output={target}", "HEAD")

    def _git(self, *args: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        done = subprocess.run(
            ["git", *args], cwd=self.folder, env=environment | _GIT, capture_output=True, text=True, timeout=60
        )
        if done.returncode != 0:
            raise TestbedError(f"git {args[0]}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


class Source:
    """A GitRepository object, and the archives of its repository behind a URL, as source-controller would keep them."""

    def __init__(self, cluster: ClusterAccess, repository: Repository, namespace: str, *, root: Path, url: str) -> None:
        """Create the object; `root` is the folder that `url` serves."""
        self.repository = repository
        self.namespace = namespace
        self._cluster = cluster
        self._root = root
        self._url = url
        body = {
            "apiVersion": "source.toolkit.fluxcd.io/v1",
            "kind": "GitRepository",
            "metadata": {"name": "flux-system", "namespace": namespace},
            "spec": {"interval": "1m", "url": "https://git.sovereign.example/vouchers", "ref": {"branch": "main"}},
        }
        cluster.kubectl("apply", "--server-side", "--filename=-", input=json.dumps(body))

    def commit(self, files: Mapping[str, str | None], message: str = "Change vouchers") -> str:
        """Commit, publish, and return the revision as Flux writes it: `main@sha1:…`."""
        self.repository.commit(files, message)
        return self.publish()

    def revert(self, commit: str = "HEAD") -> str:
        """Revert a commit, publish, and return the revision."""
        self.repository.revert(commit)
        return self.publish()

    def publish(self) -> str:
        """Offer the newest commit to Flux; return its revision."""
        commit = self.repository.head()
        path = f"gitrepository/{self.namespace}/flux-system/{commit}.tar.gz"
        self.repository.archive(self._root / path)
        status = {"observedGeneration": 1, **self._artifact_status(path, f"main@sha1:{commit}")}
        where = ("gitrepository", "flux-system", f"--namespace={self.namespace}")
        patch = json.dumps({"status": status})
        self._cluster.kubectl("patch", *where, "--subresource=status", "--type=merge", f"--patch={patch}")
        return f"main@sha1:{commit}"

    def _artifact_status(self, path: str, revision: str) -> dict[str, Any]:
        content = (self._root / path).read_bytes()
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        artifact = {
            "digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
            "lastUpdateTime": now,
            "path": path,
            "revision": revision,
            "size": len(content),
            "url": f"{self._url}/{path}",
        }
        state = {"status": "True", "reason": "Succeeded", "message": f"stored artifact for revision '{revision}'"}
        stamp = {"observedGeneration": 1, "lastTransitionTime": now}
        return {
            "artifact": artifact,
            "conditions": [{"type": kind, **state, **stamp} for kind in ("Ready", "ArtifactInStorage")],
        }


class _SilentHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        """Drop the line."""


class Flux:
    """kustomize-controller for all namespaces of a cluster, and a server of archives; a context manager."""

    def __init__(self, cluster: ClusterAccess) -> None:
        """Prepare; nothing runs yet."""
        self._cluster = cluster
        self._resources = contextlib.ExitStack()
        self._folder = Path()
        self._url = ""
        self._health_port = 0

    def __enter__(self) -> Self:
        """Build what is absent, install Flux's CRDs, start; return when it is ready. Raises TestbedError."""
        try:
            self._start(tools.ensure("flux"))
        except BaseException:
            self._resources.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; the CRDs and what Flux made stay in the cluster."""
        self._resources.close()

    def source(self, namespace: str) -> Source:
        """Make an empty repository and the GitRepository `flux-system` for it in a namespace."""
        repository = Repository(self._folder / "repositories" / namespace)
        return Source(self._cluster, repository, namespace, root=self._folder / "archives", url=self._url)

    def tail(self) -> str:
        """Return the last lines of the controller's log."""
        return self._controller.tail(60)

    def _start(self, binaries: Path) -> None:
        self._folder = self._resources.enter_context(temporary_folder("flux"))
        self._url = self._serve(self._folder / "archives")
        install_crds(self._cluster)
        self._health_port = free_port()
        self._controller = self._daemon(binaries / "kustomize-controller")
        self._controller.start()
        self._resources.callback(self._controller.kill)
        wait_until(self._ready, "readiness of kustomize-controller", alive=self._controller)

    def _serve(self, folder: Path) -> str:
        folder.mkdir()
        handler = functools.partial(_SilentHandler, directory=str(folder))
        server = self._resources.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=server.serve_forever, name="archives", daemon=True).start()
        self._resources.callback(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}"

    def _daemon(self, binary: Path) -> Daemon:
        (self._folder / "tmp").mkdir()
        environment = {
            "KUBECONFIG": str(self._cluster.kubeconfig),
            "RUNTIME_NAMESPACE": "flux-system",
            "HOME": str(self._folder),
            "TMPDIR": str(self._folder / "tmp"),
        }
        flags = [
            "--watch-all-namespaces",
            "--metrics-addr=0",
            f"--health-addr=127.0.0.1:{self._health_port}",
            # Half a minute by default.
            "--requeue-dependency=1s",
        ]
        return Daemon("kustomize-controller", [binary, *flags], self._folder / "flux.log", env=environment)

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._health_port, timeout=2.0)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/readyz")
            return connection.getresponse().status == HTTPStatus.OK
        return False


def install_crds(cluster: ClusterAccess) -> None:
    """Install the kinds of Flux that a Sovereign uses, and wait until they are served."""
    folder = tools.ensure("flux") / "crds"
    cluster.kubectl("apply", "--server-side", f"--filename={folder}")
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", f"--filename={folder}")
    # The first access makes a kind's cache, and until that is filled the API server refuses.
    cluster.kubectl("get", "kustomizations,gitrepositories,helmreleases,helmrepositories", "--all-namespaces")
