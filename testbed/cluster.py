"""The whole stack for the demo, tests and benchmarks: a cluster, a ledger, the operator's rights, operator processes.

Each part may come from elsewhere: `Stack` takes a given cluster and a given database in place of its own.
See also: `control_plane`, `postgres`, `operator_process`; the chart is what the rights are rendered from.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from testbed import tools
from testbed.access import ClusterAccess
from testbed.control_plane import ControlPlane
from testbed.interpreter import ROOT, environment
from testbed.operator_process import OperatorProcess
from testbed.postgres import Database, PostgresServer, Version
from testbed.processes import TestbedError, temporary_folder

CHART = ROOT / "charts" / "bp-voucher-operator"
CRDS = ROOT / "crds"
RELEASE = "voucher-operator"
_RIGHTS = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


@dataclass(frozen=True)
class Installation:
    """What an operator process needs from its installation."""

    kubeconfig: Path
    namespaces: tuple[str, ...]
    """Where it works; the first holds the Lease."""
    env: Mapping[str, str] = field(default_factory=dict)


def install_crds(cluster: ClusterAccess) -> None:
    """Apply the CustomResourceDefinitions and wait until they are served."""
    cluster.kubectl("apply", "--server-side", f"--filename={CRDS}")
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", f"--filename={CRDS}")
    # The first access makes a resource's cache; until it is filled the API server answers 429, and kubectl tries again.
    cluster.kubectl("get", "vouchers,redemptions", "--all-namespaces", "--output=name")


def render_chart(namespace: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Render the chart by the real helm, as it would be installed into `namespace`; return its documents.

    Raises TestbedError with helm's message when the values are refused.
    """
    helm = tools.ensure("helm") / "helm"
    command = [str(helm), "template", RELEASE, str(CHART), f"--namespace={namespace}", "--values=-"]
    done = subprocess.run(command, input=json.dumps(dict(values)), capture_output=True, text=True)
    if done.returncode != 0:
        raise TestbedError(f"helm template: {done.stderr.strip()}")
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def install_rights(
    cluster: ClusterAccess, namespaces: Sequence[str], values: Mapping[str, Any] | None = None
) -> Installation:
    """Give the chart's ServiceAccount the chart's rights in `namespaces`; they exist, the first is the release's.

    `values` are more values of the chart: another name makes a second release beside the first, with its own Lease.
    """
    documents = render_chart(namespaces[0], {"watchNamespaces": list(namespaces)} | dict(values or {}))
    rights = [document for document in documents if document["kind"] in _RIGHTS]
    cluster.server_side_apply(rights)
    deployment = next(document for document in documents if document["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    variables = {entry["name"]: entry.get("value", "") for entry in pod["containers"][0]["env"]}
    lease = "VOUCHER_OPERATOR_LEASE_NAME"
    return Installation(
        cluster.service_account_kubeconfig(namespaces[0], pod["serviceAccountName"]),
        tuple(namespaces),
        {lease: variables[lease]},
    )


def migrate(database: Database, env: Mapping[str, str] | None = None) -> str:
    """Run `voucher-operator migrate` as the owner; return what it printed. Raises TestbedError when it fails."""
    return command(database.owner_url, "migrate", env=env)


def command(database_url: str, *args: str, env: Mapping[str, str] | None = None) -> str:
    """Run a command of `voucher-operator` and return what it printed. Raises TestbedError when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "voucher_operator.cli", *args],
        env=environment(database_url, env),
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode != 0:
        raise TestbedError(f"voucher-operator {' '.join(args)}: {done.stderr.strip() or done.stdout.strip()}")
    return str(done.stdout)


class Stack:
    """Cluster, ledger and operators; a context manager that ends and removes everything that it started.

    `cluster` and `database` may be given: then nothing is started or built for them and they are left as they are,
    except for the CRDs, the namespaces' rights and the migration. With `chart` the operators run under the chart's
    ServiceAccount; without, no helm is needed and they run with the cluster's own kubeconfig.
    """

    def __init__(
        self,
        *,
        namespaces: Sequence[str] = ("billing",),
        version: Version = 18,
        fsync: bool = False,
        chart: bool = True,
        cluster: ClusterAccess | None = None,
        database: Database | None = None,
    ) -> None:
        """Prepare; nothing runs yet."""
        self.namespaces = tuple(namespaces)
        self.folder = Path()
        self.postgres: PostgresServer | None = None
        """The stack's own server; None when the database was given."""
        self._resources = contextlib.ExitStack()
        self._cluster = cluster
        self._database = database
        self._version = version
        self._fsync = fsync
        self._chart = chart
        self._installation: Installation | None = None

    def __enter__(self) -> Self:
        """Start and install everything but operators."""
        try:
            self._start()
        except BaseException:
            self._resources.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything, operators first."""
        self._resources.close()

    @property
    def cluster(self) -> ClusterAccess:
        """The cluster; a `ControlPlane` unless another one was given."""
        assert self._cluster is not None, "the stack was not started"
        return self._cluster

    @property
    def database(self) -> Database:
        """The migrated ledger."""
        assert self._database is not None, "the stack was not started"
        return self._database

    def operator(self, pod_name: str | None = None, env: Mapping[str, str] | None = None) -> OperatorProcess:
        """Start a replica and return at once; `wait_ready` is the caller's. It is stopped with the stack."""
        assert self._installation is not None, "the stack was not started"
        operator = OperatorProcess(
            kubeconfig=self._installation.kubeconfig,
            database_url=self.database.runtime_url,
            namespaces=self._installation.namespaces,
            folder=self.folder,
            pod_name=pod_name,
            env={**self._installation.env, **(env or {})},
        )
        operator.start()
        self._resources.callback(_end, operator)
        return operator

    def _start(self) -> None:
        self.folder = self._resources.enter_context(temporary_folder("stack"))
        if self._cluster is None:
            self._cluster = self._resources.enter_context(ControlPlane())
        if self._database is None:
            self.postgres = self._resources.enter_context(PostgresServer(self._version, fsync=self._fsync))
            self._database = self.postgres.database("billing")
        install_crds(self._cluster)
        for name in self.namespaces:
            self._cluster.kubectl("apply", "--filename=-", input=yaml.safe_dump(_namespace(name)))
        migrate(self._database)
        if self._chart:
            self._installation = install_rights(self._cluster, self.namespaces)
        else:
            self._installation = Installation(self._cluster.kubeconfig, self.namespaces)


def _namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _end(operator: OperatorProcess) -> None:
    if operator.running:
        operator.stop()
