"""Shared by the tests of the CRDs: cases of one rule each, and an API server that validates specs.

See also: test_crd_voucher.py and test_crd_redemption.py hold the cases, test_crd_display.py what people see.
"""

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from kubernetes.client import ApiClient, ApiException, CoreV1Api, CustomObjectsApi

from testbed.control_plane import ControlPlane
from testbed.processes import wait_until

CRDS = Path(__file__).resolve().parent.parent.parent / "crds"
GROUP, VERSION = "billing.openova.io", "v1alpha1"

Object = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One rule: what to write over a good spec so that it is still accepted, and so that it is refused with `says`.

    Both are YAML of a merge patch on the spec. With `before`, the good spec with that patch is what existed until then.
    """

    name: str
    good: str
    bad: str
    says: str
    before: str | None = None


def cases(*listed: Case) -> pytest.MarkDecorator:
    """Parametrise a test by cases."""
    return pytest.mark.parametrize("case", listed, ids=[case.name for case in listed])


def patched(spec: Mapping[str, Any], patch: str) -> Object:
    """Return a copy of `spec` with a JSON merge patch in YAML."""
    return _merge(spec, yaml.safe_load(patch) or {})


def _merge(target: Mapping[str, Any], patch: Mapping[str, Any]) -> Object:
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key) or {}, value) if isinstance(value, dict) else value
    return merged


class CrdValidator:
    """Validates specs of one kind at the API server, in a namespace of its own."""

    def __init__(self, client: ApiClient, kind: str, namespace: str, spec: Object) -> None:
        """`spec` is the good one that the cases change."""
        self.kind, self.namespace, self.spec = kind, namespace, spec
        self._api = CustomObjectsApi(client)
        self._where = (GROUP, VERSION, namespace, f"{kind.lower()}s")

    def check(self, case: Case) -> None:
        """See that the good spec of a case is accepted and the bad one refused with what to write."""
        assert self.refusal(case, case.good) == ""
        assert case.says in self.refusal(case, case.bad)

    def refusal(self, case: Case, patch: str) -> str:
        """Return why the API server refuses the good spec with this patch; nothing when it accepts it."""
        spec = patched(self.spec, patch)
        return self.created(spec) if case.before is None else self._edited(case.before, spec)

    def create(self, patch: str = "") -> Object:
        """Create an object of the good spec with this patch."""
        return cast(
            "Object", self._api.create_namespaced_custom_object(*self._where, self._body(patched(self.spec, patch)))
        )

    def discovery(self) -> Object:
        """Return the discovery data of the kind: names, categories; empty until it is served."""
        try:
            found = self._api.get_api_resources(GROUP, VERSION).to_dict()
        except ApiException as error:
            if error.status != 404:
                raise
            return {}
        return next((one for one in found["resources"] if one["kind"] == self.kind), {})

    def created(self, spec: Mapping[str, Any]) -> str:
        """Return why a new object of this spec is refused, or nothing."""
        with _refused() as said:
            self._api.create_namespaced_custom_object(
                *self._where, self._body(spec), field_validation="Strict", dry_run="All"
            )
        return "".join(said)

    def _body(self, spec: Mapping[str, Any]) -> Object:
        metadata = {"generateName": "case-"}
        return {"apiVersion": f"{GROUP}/{VERSION}", "kind": self.kind, "metadata": metadata, "spec": dict(spec)}

    def set_status(self, made: Object, status: Object) -> Object:
        """Write a status, as the operator does."""
        name, body = made["metadata"]["name"], {"status": status}
        return cast(
            "Object",
            self._api.patch_namespaced_custom_object_status(*self._where, name, body, field_validation="Strict"),
        )

    def status_refusal(self, made: Object, status: Object) -> str:
        """Return why the API server refuses this status, or nothing."""
        with _refused() as said:
            self.set_status(made, status)
        return "".join(said)

    def names(self, selector: str) -> set[str]:
        """Return the names that a field selector finds."""
        found = cast("Object", self._api.list_namespaced_custom_object(*self._where, field_selector=selector))
        return {item["metadata"]["name"] for item in found["items"]}

    def _edited(self, before: str, spec: Object) -> str:
        made = self.create(before)
        with _refused() as said:
            self._api.replace_namespaced_custom_object(
                *self._where, made["metadata"]["name"], made | {"spec": spec}, field_validation="Strict", dry_run="All"
            )
        return "".join(said)


@contextmanager
def _refused() -> Iterator[list[str]]:
    said: list[str] = []
    try:
        yield said
    except ApiException as error:
        if error.status not in (400, 422):
            raise
        said.append(json.loads(error.body or "")["message"])


@contextmanager
def crd_validator(control_plane: ControlPlane, kind: str, namespace: str, spec: str) -> Iterator[CrdValidator]:
    """Validate objects of `kind`, with `spec` (YAML) as the good one, in a new namespace.

    `namespace` is how its name begins: tests of one module may run in several processes.
    """
    namespace = control_plane.namespace(f"{namespace}-{secrets.token_hex(4)}")
    with control_plane.client() as client:
        validator = CrdValidator(client, kind, namespace, yaml.safe_load(spec))
        wait_until(lambda: bool(validator.discovery()), f"discovery of {kind}")
        yield validator
        CoreV1Api(client).delete_namespace(namespace)


def schema(kind: str) -> Object:
    """Return the OpenAPI schema of a kind, from its file."""
    crd = yaml.safe_load((CRDS / f"{kind.lower()}s.{GROUP}.yaml").read_text())
    (version,) = crd["spec"]["versions"]
    return dict(version["schema"]["openAPIV3Schema"])


def rules(node: Object) -> Iterator[str]:
    """Yield the message of every CEL rule below a schema node."""
    yield from (rule["message"] for rule in node.get("x-kubernetes-validations", ()))
    for child in node.get("properties", {}).values():
        yield from rules(child)
    if "items" in node:
        yield from rules(node["items"])


def rules_without_case(kind: str, *listed: Case) -> list[str]:
    """Return the messages of a CRD's CEL rules that no case expects."""
    return [message for message in rules(schema(kind)) if not any(case.says in message for case in listed)]
