"""What the pods of the operator need for orders: by reference, mounted when it comes, not for the migration."""

from typing import Any

import pytest

from tests.cluster.chart import CHART, EVERYTHING, WORKLOADS, Document, container, helm, render, the, workload

KEYS = {
    "catalog": {"existingConfigMap": "prices", "key": "prices.json"},
    "stripe": {"existingSecret": "mine", "apiKeyKey": "sk", "webhookSecretKey": "whsec"},
    "nats": {"existingSecret": "bus", "key": "NATS_URL", "userKey": "u", "passwordKey": "p", "tokenKey": "t"},
}


def _volumes(runs: Document) -> dict[str, Any]:
    """Return the volumes that are also mounted, whole and read-only, each at the folder of its name."""
    volumes = {volume["name"]: volume for volume in runs["spec"]["template"]["spec"]["volumes"]}
    mounts = {mount["name"]: mount for mount in container(runs)["volumeMounts"]}
    assert volumes.keys() == mounts.keys()
    for name in volumes.keys() - {"tmp"}:
        assert mounts[name] == {"name": name, "mountPath": f"/etc/voucher-operator/{name}", "readOnly": True}
    return volumes


def test_credentials_may_come_late() -> None:
    """Optional volumes, whole folders: a pod starts without them and sees them when they come or change."""
    volumes = _volumes(the(render(), "Deployment"))
    assert volumes.keys() == {"database", "tmp", "stripe", "nats"}
    for name in ("stripe", "nats"):
        secret = volumes[name]["secret"]
        assert (secret["secretName"], secret["optional"]) == (f"voucher-operator-{name}", True)


def test_custom_keys_and_names_reach_the_mounts() -> None:
    """They end where the settings look for them."""
    volumes = _volumes(the(render(KEYS), "Deployment"))
    assert volumes["stripe"]["secret"]["secretName"] == "mine"
    assert volumes["stripe"]["secret"]["items"] == [
        {"key": "sk", "path": "api-key"},
        {"key": "whsec", "path": "webhook-secret"},
    ]
    assert volumes["nats"]["secret"]["secretName"] == "bus"
    assert volumes["nats"]["secret"]["items"] == [
        {"key": "NATS_URL", "path": "url"},
        {"key": "u", "path": "user"},
        {"key": "p", "path": "password"},
        {"key": "t", "path": "token"},
    ]
    assert volumes["catalog"]["configMap"] == {
        "name": "prices",
        "optional": True,
        "items": [{"key": "prices.json", "path": "catalog.json"}],
    }


def test_empty_secret_names_mount_nothing() -> None:
    """An empty name is no Secret."""
    values = {name: {"existingSecret": ""} for name in ("stripe", "nats")}
    assert _volumes(the(render(values), "Deployment")).keys() == {"database", "tmp"}


@pytest.mark.parametrize("kind", [kind for kind in WORKLOADS if kind != "Deployment"])
def test_migration_has_no_payment_settings(kind: str) -> None:
    """It speaks to the ledger alone."""
    runs = workload(render(EVERYTHING), kind)
    assert _volumes(runs).keys() == {"database", "tmp"}
    names = {entry["name"] for entry in container(runs)["env"]}
    assert not [name for name in names if any(part in name for part in ("STRIPE", "NATS", "CATALOG", "WEBHOOK"))]


def _notes(**values: str) -> str:
    options = [option for name, value in values.items() for option in ("--set", f"{name.replace('_', '.')}={value}")]
    done = helm("install", "x", CHART, "-n", "ops", "--dry-run=client", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:")[2]


def test_notes_list_what_orders_wait_for() -> None:
    """And, when nothing is missing, the target of webhooks."""
    notes = _notes()
    assert "Orders wait for prices: set catalog.url" in notes
    assert "For card payments set sovereign, checkout.successUrl." in notes
    assert "Events stay in the ledger until nats.url is set, or the Secret voucher-operator-nats exists." in notes
    notes = _notes(
        sovereign="a.example", catalog_url="http://c", checkout_successUrl="https://s", nats_url="nats://n:4222"
    )
    assert "Orders use the prices of http://c." in notes
    assert "http://x-voucher-operator.ops:8090/billing/webhook" in notes
    assert not any(word in notes.partition("Next:")[0] for word in ("wait", "stay in the ledger", "For card payments"))


@pytest.mark.parametrize(("scope", "made"), [("Cluster", "true"), ("Namespaced", "true"), ("None", "false")])
def test_organizations_setting_follows_the_scope(scope: str, made: str) -> None:
    """An order would otherwise wait without end for a missing right."""
    environment = container(the(render({"organizations": {"scope": scope}}), "Deployment"))["env"]
    assert {"name": "VOUCHER_OPERATOR_ORGANIZATIONS", "value": made} in environment
