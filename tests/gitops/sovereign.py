"""One Sovereign as its sovereign-admin knows it: a Git repository of vouchers, and what Flux says of them.

See also: testbed/flux.py runs Flux, tests/cluster/resources.py has the vouchers and the ledger, test_flux_*.py ask.
"""

import json
from collections.abc import Callable
from typing import Any, cast

import yaml
from kubernetes.client import ApiClient, ApiException, CustomObjectsApi

from testbed.control_plane import ControlPlane
from testbed.flux import Flux
from testbed.interpreter import ROOT
from tests.cluster.ledger_reader import LedgerReader
from tests.cluster.resources import (
    FAST,
    GROUP,
    VERSION,
    CustomObject,
    Object,
    Predicate,
    ResourceClient,
    condition,
    until,
)
from tests.conftest import Operators

TEMPLATE = ROOT / "clusters" / "_template"
FOLDER = "clusters/_template/vouchers"
LONG = "30m"
"""A timeout for Flux's health checks that no test reaches: an earlier result is not a timeout."""
_KUSTOMIZATIONS = ("kustomize.toolkit.fluxcd.io", "v1")


def template_files() -> dict[str, str | None]:
    """Return the template's files, by the paths that they have in a Sovereign's repository."""
    return {str(path.relative_to(ROOT)): path.read_text() for path in TEMPLATE.rglob("*.yaml")}


def voucher(name: str, code: str, **spec: Any) -> str:
    """Write a Voucher's YAML."""
    return yaml.safe_dump(
        {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "Voucher",
            "metadata": {"name": name, "namespace": "billing"},
            "spec": {"code": code, "credit": {"amount": 10, "currency": "OMR"}} | spec,
        }
    )


def applied(revision: str) -> Predicate:
    """Tell whether a Kustomization is Ready with this revision."""
    return lambda body: _ready(body, "True") and body["status"].get("lastAppliedRevision") == revision


def failed(revision: str, reason: str) -> Predicate:
    """Tell whether a Kustomization tried this revision, and is not Ready for this reason."""
    return lambda body: (
        _ready(body, "False", reason)
        and body["status"].get("lastAttemptedRevision") == revision
        and body["status"].get("lastAppliedRevision") != revision
    )


def checking(revision: str) -> Predicate:
    """Tell whether a Kustomization has applied this revision and waits for the health of what it applied."""
    return lambda body: (
        _ready(body, "Unknown", "Progressing")
        and condition(body, "Reconciling")
        .get("message", "")
        .startswith(f"Running health checks for revision {revision}")
    )


def _ready(body: Object, status: str, reason: str | None = None) -> bool:
    if body.get("status", {}).get("observedGeneration") != body["metadata"]["generation"] and status != "Unknown":
        return False
    ready = condition(body, "Ready")
    return ready.get("status") == status and reason in (None, ready.get("reason"))


class Sovereign:
    """Its repository, its Kustomizations, its operator, its ledger, and the namespace that holds all of its objects."""

    def __init__(
        self,
        cluster: ControlPlane,
        client: ApiClient,
        flux: Flux,
        namespace: str,
        operators: Operators,
        ledger: LedgerReader,
    ) -> None:
        """Start the operator and make an empty repository."""
        self.namespace = namespace
        self.cluster = cluster
        self.flux = flux
        self.operators = operators
        self.ledger = ledger
        self.operator = operators.start(env=FAST)
        self.api = ResourceClient(client, namespace)
        self.source = flux.source(namespace)
        self._custom = CustomObjectsApi(client)

    def follow(self, name: str = "vouchers", **spec: Any) -> None:
        """Apply a Kustomization of the template, adapted to the namespace; None takes a field out."""
        body = yaml.safe_load((TEMPLATE / "flux-system" / f"{name}.yaml").read_text())
        body["metadata"]["namespace"] = self.namespace
        changed = body["spec"] | {"targetNamespace": self.namespace, "dependsOn": None, "timeout": LONG} | spec
        body["spec"] = {key: value for key, value in changed.items() if value is not None}
        self.cluster.kubectl("apply", "--server-side", "--filename=-", input=json.dumps(body))

    def issue(self) -> str:
        """Commit the template, follow it, wait until Flux is Ready; return the revision."""
        revision = self.source.commit(template_files(), "Start with the template")
        self.follow()
        self.wait(applied(revision))
        return revision

    def change(self, name: str, edit: Callable[[Object], None]) -> str:
        """Edit a voucher's file and commit it; return the revision."""
        path = f"{FOLDER}/{name}.yaml"
        body = yaml.safe_load(self.source.repository.read(path))
        edit(body["spec"])
        return self.source.commit({path: yaml.safe_dump(body)}, f"Change {name}")

    def add(self, name: str, text: str) -> str:
        """Add a voucher's file to the list and commit both; return the revision."""
        return self.source.commit({f"{FOLDER}/{name}.yaml": text, **self._listed(name, present=True)}, f"Add {name}")

    def remove(self, name: str) -> str:
        """Take a voucher's file away and off the list and commit that; return the revision."""
        return self.source.commit({f"{FOLDER}/{name}.yaml": None, **self._listed(name, present=False)}, f"End {name}")

    def _listed(self, name: str, *, present: bool) -> dict[str, str | None]:
        path = f"{FOLDER}/kustomization.yaml"
        body = yaml.safe_load(self.source.repository.read(path))
        names = {*body["resources"]} - {f"{name}.yaml"}
        body["resources"] = sorted(names | {f"{name}.yaml"} if present else names)
        return {path: yaml.safe_dump(body)}

    def kustomization(self, name: str = "vouchers") -> Object:
        """Read a Kustomization."""
        where = (*_KUSTOMIZATIONS, self.namespace, "kustomizations", name)
        return cast("Object", self._custom.get_namespaced_custom_object(*where))

    def wait(self, holds: Predicate, name: str = "vouchers", timeout: float = 120.0) -> Object:
        """Wait until a predicate holds for a Kustomization; return its body. Raises AssertionError."""
        seen: list[Object] = []

        def held() -> bool:
            seen[:] = [self.kustomization(name)]
            return holds(seen[0])

        try:
            until(held, f"such Kustomization {name}", timeout)
        except AssertionError as error:
            shown = json.dumps(seen[0].get("status"), indent=1)
            raise AssertionError(f"{error}: {shown}\n{self.flux.tail()}") from None
        return seen[0]

    def request(self, token: str) -> None:
        """Ask for a reconciliation now, as `flux reconcile kustomization vouchers` does; `token` is any new text."""
        annotation = f"reconcile.fluxcd.io/requestedAt={token}"
        where = ("kustomization.kustomize.toolkit.fluxcd.io/vouchers", f"--namespace={self.namespace}")
        self.cluster.kubectl("annotate", *where, annotation, "--overwrite")
        self.wait(lambda body: body["status"].get("lastHandledReconcileAt") == token)

    def voucher(self, name: str) -> CustomObject:
        """Wait until a Voucher exists, and return it."""
        found: list[Object] = []

        def exists() -> bool:
            try:
                where = (GROUP, VERSION, self.namespace, "vouchers", name)
                found[:] = [cast("Object", self._custom.get_namespaced_custom_object(*where))]
            except ApiException as error:
                if error.status != 404:
                    raise
            return bool(found)

        until(exists, f"Voucher {name}")
        return CustomObject(self._custom, self.namespace, "vouchers", found[0])

    def redeem(self, code: str, times: int = 1) -> None:
        """Redeem a code, for a new customer each time."""
        made = [self.api.redeem(code) for _ in range(times)]
        assert {one.result() for one in made} == {("Redeemed", "Redeemed")}

    def end(self) -> None:
        """Remove the namespace from Flux, so that it does not work on it during other tests."""
        self.cluster.kubectl("delete", "kustomizations", "--all", f"--namespace={self.namespace}", "--timeout=60s")
