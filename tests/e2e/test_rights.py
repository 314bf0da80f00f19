"""What a sovereign-admin's ServiceAccount may do, asked of the real API server under the chart's own roles."""

import json

import pytest
import yaml

from testbed.processes import TestbedError
from tests.e2e.conftest import ADMIN
from tests.e2e.objects import from_secret, secret, voucher
from tests.e2e.release import Release


def _as_admin(billing: Release, *args: str, stdin: str | None = None) -> str:
    account = f"--as=system:serviceaccount:{billing.namespace}:{ADMIN}"
    return billing.kind.kubectl(*args, account, f"--namespace={billing.namespace}", input=stdin)


def test_sovereign_admin_issues_changes_and_revokes(billing: Release) -> None:
    """Also by a Secret that it cannot read itself."""
    kind, namespace = billing.kind, billing.namespace
    kind.apply(secret("admins-code", code="ADMINS-OWN-CODE"), namespace=namespace)
    written = voucher("by-admin", "", codeFrom=from_secret("admins-code"))
    _as_admin(billing, "create", "--filename=-", stdin=yaml.safe_dump(written))
    kind.wait("voucher/by-admin", "condition=Ready", namespace)
    _as_admin(billing, "patch", "voucher", "by-admin", "--type=merge", '--patch={"spec":{"maxRedemptions":7}}')
    kind.wait("voucher/by-admin", "jsonpath={.status.redeemed}=0/7", namespace)
    assert "by-admin" in _as_admin(billing, "get", "vouchers,redemptions,events")
    _as_admin(billing, "delete", "voucher", "by-admin", "--timeout=60s")


@pytest.mark.parametrize(
    "attempt",
    [
        ("get", "secret", "code-of-another"),
        ("get", "secrets"),
        ("get", "secret", "voucher-operator-database"),
        ("patch", "voucher", "kept", "--subresource=status", "--type=merge", '--patch={"status":{"timesRedeemed":0}}'),
        ("create", "configmap", "any"),
        ("delete", "deployment", "--all"),
        ("get", "lease", "bp-voucher-operator"),
        ("create", "rolebinding", "mine", "--clusterrole=cluster-admin", "--user=me"),
    ],
    ids=lambda attempt: " ".join(attempt[:3]),
)
def test_sovereign_admin_is_forbidden_other_verbs(billing: Release, attempt: tuple[str, ...]) -> None:
    """The objects are there: it is the right that is missing."""
    kind, namespace = billing.kind, billing.namespace
    kind.apply(secret("code-of-another", code="ANOTHERS-CODE"), voucher("kept", "KEPT-CODE"), namespace=namespace)
    with pytest.raises(TestbedError, match=r"(?i)forbidden"):
        _as_admin(billing, *attempt)


def test_sovereign_admin_has_no_rights_in_other_namespaces(billing: Release) -> None:
    account = f"--as=system:serviceaccount:{billing.namespace}:{ADMIN}"
    with pytest.raises(TestbedError, match="forbidden"):
        billing.kind.kubectl("get", "vouchers", "--namespace=default", account)


def test_operator_cannot_list_secrets(billing: Release) -> None:
    """By name alone, so that it sees those that a Voucher names."""
    account = f"--as=system:serviceaccount:{billing.namespace}:{billing.name}"
    rules = billing.kind.kubectl("auth", "can-i", "--list", account, f"--namespace={billing.namespace}")
    (secrets,) = [line for line in rules.splitlines() if line.startswith("secrets")]
    assert json.loads(secrets[secrets.rindex("[") :].replace("get", '"get"')) == ["get"]
