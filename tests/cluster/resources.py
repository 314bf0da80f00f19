"""Vouchers, Redemptions and Secrets on a real API server: shared by the tests.

`ResourceClient` creates resources in one namespace and removes them after the test, `CustomObject` is one of them.
Everything waits for conditions with a deadline. See also: conftest.py starts the operators; ledger_reader.py reads the
ledger; test_voucher_*, test_redemption_* and test_secret_* use them.
"""

import base64
import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

from kubernetes.client import (
    ApiClient,
    ApiException,
    CoreV1Api,
    CustomObjectsApi,
    V1ObjectMeta,
    V1Secret,
)

GROUP, VERSION = "billing.openova.io", "v1alpha1"


DEADLINE = 60.0
"""Seconds after which a wait fails."""


FAST = {
    "VOUCHER_OPERATOR_COUNTER_SYNC_INTERVAL": "0.3",
    "VOUCHER_OPERATOR_SECRET_INTERVAL": "0.4",
    "VOUCHER_OPERATOR_BACKOFF_MAX": "0.8",
    "VOUCHER_OPERATOR_NOT_FOUND_GRACE": "0.5",
}
"""Shorter pauses than in production: the same passes, more often."""


CODE_LABELS = {"billing.openova.io/code": "true"}
"""The labels of a Secret with codes."""


EXCLUDED_SECRET = "ledger-login"
"""The name of the database Secret in the settings of the session's operator."""


Object = dict[str, Any]


Predicate = Callable[[Object], bool]


Plural = Literal["vouchers", "redemptions"]


_KINDS = {"vouchers": "Voucher", "redemptions": "Redemption"}


def unique(prefix: str) -> str:
    """Return a unique name."""
    return f"{prefix}-{secrets.token_hex(4)}"


def condition(body: Object, kind: str) -> Object:
    """Return a condition; empty when the status has none of this type."""
    found: list[Object] = body.get("status", {}).get("conditions", [])
    return next((one for one in found if one["type"] == kind), {})


def observed(body: Object) -> bool:
    """Whether the status is of the present spec."""
    return bool(body.get("status", {}).get("observedGeneration") == body["metadata"]["generation"])


def ready(reason: str, status: str = "True") -> Predicate:
    """Return a predicate: Ready has this reason and status, for the present spec."""
    return lambda body: (
        observed(body)
        and ((condition(body, "Ready").get("reason"), condition(body, "Ready").get("status")) == (reason, status))
    )


def stalled(reason: str) -> Predicate:
    """Return a predicate: it is Stalled for this reason, and not Ready."""
    return lambda body: ready(reason, "False")(body) and condition(body, "Stalled").get("reason") == reason


def waiting(reason: str) -> Predicate:
    """Return a predicate: it is Reconciling for this reason, and not Ready."""
    return lambda body: ready(reason, "False")(body) and condition(body, "Reconciling").get("reason") == reason


def state(word: str) -> Predicate:
    """Return a predicate: the status has this state, for the present spec."""
    return lambda body: observed(body) and body["status"].get("state") == word


def status(**fields: Any) -> Predicate:
    """Return a predicate: the status has these fields, for the present spec; None means an absent one."""
    return lambda body: observed(body) and all(body["status"].get(name) == value for name, value in fields.items())


def until(holds: Callable[[], bool], what: str, timeout: float = DEADLINE) -> None:
    """Poll until `holds`. Raises AssertionError after the deadline."""
    deadline, pause = time.monotonic() + timeout, 0.02
    while not holds():
        assert time.monotonic() < deadline, f"no {what} within {timeout:g} s"
        time.sleep(pause)
        pause = min(pause * 1.4, 0.1)


class CustomObject:
    """One Voucher or Redemption on the API server."""

    def __init__(self, api: CustomObjectsApi, namespace: str, plural: Plural, body: Object) -> None:
        """`body` is the object as the API server took it."""
        self.name: str = body["metadata"]["name"]
        self.uid: str = body["metadata"]["uid"]
        self.spec: Object = body["spec"]
        self.kind = _KINDS[plural]
        self._api = api
        self._where = (GROUP, VERSION, namespace, plural, self.name)

    @property
    def code(self) -> str:
        """The code in its spec."""
        return str(self.spec["code"])

    def find(self) -> Object | None:
        """Read it; None when it is gone, or another one has its name."""
        try:
            body = cast("Object", self._api.get_namespaced_custom_object(*self._where))
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return body if body["metadata"]["uid"] == self.uid else None

    def body(self) -> Object:
        """Read it."""
        body = self.find()
        assert body is not None, f"{self.kind} {self.name} is gone"
        return body

    def wait(self, holds: Predicate, timeout: float = DEADLINE) -> Object:
        """Wait until a predicate holds; return the body. Raises AssertionError with the last body."""
        seen: list[Object] = []

        def held() -> bool:
            seen[:] = [self.body()]
            return holds(seen[0])

        try:
            until(held, f"such {self.kind}", timeout)
        except AssertionError as error:
            shown = {key: seen[0][key] for key in ("spec", "status")} if seen else {}
            raise AssertionError(f"{error}: {json.dumps(shown, indent=1)}") from None
        return seen[0]

    def wait_gone(self) -> None:
        """Wait until it is deleted."""
        until(lambda: self.find() is None, f"end of {self.kind} {self.name}")

    def result(self) -> tuple[str, str]:
        """Wait until it is finished; return its state and the reason of Ready."""
        body = self.wait(status(finished=True))
        return body["status"]["state"], condition(body, "Ready")["reason"]

    def edit(self, **spec: Any) -> None:
        """Merge into the spec; None removes a field."""
        self.patch({"spec": spec})

    def patch(self, patch: Object) -> None:
        """Merge into the object."""
        self._api.patch_namespaced_custom_object(*self._where, patch)

    def set_status(self, patch: Object | None) -> None:
        """Merge into the status, as a user with too many rights would; None removes all of it."""
        self._api.patch_namespaced_custom_object_status(*self._where, {"status": patch})

    def delete(self) -> None:
        """Delete it, without waiting."""
        try:
            self._api.delete_namespaced_custom_object(*self._where)
        except ApiException as error:
            if error.status != 404:
                raise

    def events(self) -> list[Object]:
        """Return the events about it, in any order."""
        listed = cast(
            "Object", self._api.list_namespaced_custom_object("events.k8s.io", "v1", self._where[2], "events")
        )
        return [event for event in listed["items"] if event["regarding"]["uid"] == self.uid]

    def wait_event(self, reason: str) -> Object:
        """Wait for an event with this reason."""

        def such() -> list[Object]:
            return [event for event in self.events() if event["reason"] == reason]

        until(lambda: bool(such()), f"event {reason} of {self.kind} {self.name}")
        return such()[0]


class ResourceClient:
    """Creates and finds resources in one namespace, and deletes at the end what it created."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        """`client` is an administrator's."""
        self.namespace = namespace
        self._custom = CustomObjectsApi(client)
        self._core = CoreV1Api(client)
        self._made: list[CustomObject] = []
        self._secrets: set[str] = set()

    def voucher(self, name: str | None = None, **spec: Any) -> CustomObject:
        """Create a Voucher of 10 OMR with a code of its own, or with what is given; None leaves a field out."""
        defaults = {"code": unique("T").upper(), "credit": {"amount": 10, "currency": "OMR"}}
        if "codeFrom" in spec:
            del defaults["code"]
        return self.create("vouchers", name or unique("voucher"), defaults | spec)

    def redeem(
        self, code: str | None = None, *, user: str | None = None, name: str | None = None, **spec: Any
    ) -> CustomObject:
        """Create a Redemption for a user, a new one unless given."""
        user = user or unique("user")
        customer = {"userID": user, "tenantID": "kestrel-pharmacy", "email": "ahmed@example.com"}
        return self.create("redemptions", name or unique("redemption"), {"code": code, "customer": customer} | spec)

    def create(self, plural: Plural, name: str, spec: Mapping[str, Any]) -> CustomObject:
        """Create an object; fields that are None are left out."""
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": _KINDS[plural],
            "metadata": {"name": name},
            "spec": {key: value for key, value in spec.items() if value is not None},
        }
        taken = self._custom.create_namespaced_custom_object(GROUP, VERSION, self.namespace, plural, body)
        made = CustomObject(self._custom, self.namespace, plural, cast("Object", taken))
        self._made.append(made)
        return made

    def secret(self, name: str, *, labels: Mapping[str, str] = CODE_LABELS, **data: str) -> None:
        """Create or replace a Secret."""
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
        body = V1Secret(metadata=V1ObjectMeta(name=name, labels=dict(labels)), data=encoded)
        if name in self._secrets:
            self._core.replace_namespaced_secret(name, self.namespace, body)
        else:
            self._core.create_namespaced_secret(self.namespace, body)
            self._secrets.add(name)

    def delete_secret(self, name: str) -> None:
        """Delete a Secret."""
        self._core.delete_namespaced_secret(name, self.namespace)
        self._secrets.discard(name)

    def listed(self, plural: str, selector: str = "", *, group: str = GROUP, version: str = VERSION) -> list[Object]:
        """List the objects of the namespace."""
        found = self._custom.list_namespaced_custom_object(
            group, version, self.namespace, plural, field_selector=selector
        )
        return list(cast("Object", found)["items"])

    def clear(self) -> None:
        """Remove what was made, without waiting: Redemptions first, so that none is refused on its way out."""
        for made in reversed(self._made):
            made.delete()
        for name in list(self._secrets):
            self.delete_secret(name)
