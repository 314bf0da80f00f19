"""What a Sovereign may switch on and off beside monitoring: policies, disruption budget, Secrets from a store."""

from typing import Any

import pytest

from tests.cluster.chart import EVERYTHING, Document, of_kind, refusal, render, the

DNS = {"ports": [{"port": port, "protocol": protocol} for port in (53, 5353) for protocol in ("UDP", "TCP")]}
PEER = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "sme"}}}]


def _tcp(*ports: int) -> list[Document]:
    return [{"port": port, "protocol": "TCP"} for port in ports]


def _named(port: str) -> Document:
    return {"ports": [{"port": port, "protocol": "TCP"}]}


def _policies(values: Document | None = None) -> dict[str, Document]:
    return {policy["metadata"]["name"]: policy["spec"] for policy in of_kind(render(values), "NetworkPolicy")}


def test_default_network_policies_allow_needed_traffic_only() -> None:
    """Metrics for monitoring, webhooks for the gateway; DNS and PostgreSQL for all pods, more for the operator."""
    policies = _policies()
    operator, migration = policies["bp-voucher-operator"], policies["bp-voucher-operator-migration"]
    monitoring = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert operator["ingress"] == [{**_named("http"), "from": monitoring}, _named("webhook")]
    assert operator["egress"] == [
        DNS,
        {"ports": _tcp(5432)},
        {"ports": _tcp(443)},
        {"ports": _tcp(4222)},
        {"ports": _tcp(443, 6443, 8443, 16443)},
    ]
    assert migration["egress"] == [DNS, {"ports": _tcp(5432)}]
    assert "ingress" not in migration
    assert operator["policyTypes"] == migration["policyTypes"] == ["Ingress", "Egress"]


def test_network_policies_select_their_own_pods() -> None:
    """Each selects one workload and not the other."""
    documents = render()
    selectors = {name: spec["podSelector"]["matchLabels"].items() for name, spec in _policies().items()}
    for kind, own in (("Deployment", "bp-voucher-operator"), ("Job", "bp-voucher-operator-migration")):
        labels = the(documents, kind)["spec"]["template"]["metadata"]["labels"].items()
        assert {name for name, selector in selectors.items() if selector <= labels} == {own}


def test_network_policies_follow_peers_ports_and_proxy() -> None:
    """Peers where they are known, another port of the database, a proxy."""
    proxy = {"ports": [{"port": 3128}], "to": PEER}
    policies = _policies(
        {
            "database": {"port": 6432},
            "catalog": {"url": "http://catalog:8080"},
            "networkPolicy": {
                "ingressFrom": [],
                "webhookFrom": PEER,
                "apiServer": {"ports": [8443], "to": PEER},
                "database": {"to": PEER},
                "stripe": {"ports": [3128], "to": PEER},
                "nats": {"to": PEER},
                "catalog": {"ports": [8080], "to": PEER},
                "extraEgress": [proxy],
            },
        }
    )
    ledger = {"ports": _tcp(5432, 6432), "to": PEER}
    operator = policies["bp-voucher-operator"]
    buying = [{"ports": _tcp(port), "to": PEER} for port in (3128, 4222, 8080)]
    assert operator["ingress"] == [_named("http"), {**_named("webhook"), "from": PEER}]
    assert operator["egress"] == [DNS, ledger, *buying, {"ports": _tcp(8443), "to": PEER}, proxy]
    assert policies["bp-voucher-operator-migration"]["egress"] == [DNS, ledger, proxy]


def test_network_policy_has_no_egress_to_unused_services() -> None:
    """Without Stripe and NATS the pods reach neither."""
    operator = _policies({name: {"existingSecret": ""} for name in ("stripe", "nats")})["bp-voucher-operator"]
    assert operator["egress"] == [DNS, {"ports": _tcp(5432)}, {"ports": _tcp(443, 6443, 8443, 16443)}]


@pytest.mark.parametrize(("toggle", "kind"), [("networkPolicy", "NetworkPolicy"), ("podDisruptionBudget",) * 2])
def test_toggle_off_removes_the_kind(toggle: str, kind: str) -> None:
    """On by default; and nothing is left of it."""
    kinds = {document["kind"].lower() for document in render()}
    without = {document["kind"].lower() for document in render({toggle: {"enabled": False}})}
    assert kinds - without == {kind.lower()}


@pytest.mark.parametrize("replicas", [1, 2])
def test_disruption_budget_never_blocks_a_drain(replicas: int) -> None:
    """One at a time, also when there is but one, and also when none is ready."""
    documents = render({"replicas": replicas})
    budget = the(documents, "PodDisruptionBudget")["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    assert budget["selector"] == the(documents, "Deployment")["spec"]["selector"]


def _external(values: Document) -> dict[str, Any]:
    return {d["metadata"]["name"]: d["spec"] for d in of_kind(render(values), "ExternalSecret")}


def test_external_secrets_cover_the_mounted_secrets() -> None:
    """One for each Secret that the pods mount, with all that the store keeps; off by default."""
    assert _external({}) == {}
    made = _external({**EVERYTHING, "database": {"existingSecret": "runtime", "ownerSecret": "owner"}})
    keys = {name: spec["dataFrom"] for name, spec in made.items()}
    assert keys == {name: [{"extract": {"key": f"billing/{name}"}}] for name in ("runtime", "owner")}
    for name, spec in made.items():
        assert spec["target"] == {"name": name, "creationPolicy": "Orphan", "deletionPolicy": "Retain"}
        assert spec["secretStoreRef"] == {"kind": "ClusterSecretStore", "name": "vault"}
        assert spec["refreshInterval"] == "1h"


def test_owner_secret_can_be_left_out() -> None:
    """CloudNativePG makes it, as a rule."""
    secrets = {**EVERYTHING["externalSecrets"], "ownerKey": ""}
    assert _external({"externalSecrets": secrets}).keys() == {"voucher-operator-database"}


def test_stripe_and_nats_secrets_come_from_the_store() -> None:
    """Where the store has them."""
    secrets = {**EVERYTHING["externalSecrets"], "stripeKey": "billing/stripe", "natsKey": "billing/nats"}
    made = {
        name: spec["dataFrom"][0]["extract"]["key"] for name, spec in _external({"externalSecrets": secrets}).items()
    }
    assert made["voucher-operator-stripe"] == "billing/stripe"
    assert made["voucher-operator-nats"] == "billing/nats"
    assert len(made) == 4


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"externalSecrets": {**EVERYTHING["externalSecrets"], "natsKey": "n"}, "nats": {"existingSecret": ""}},
            "nats.existingSecret is needed",
        ),
        (
            {
                "externalSecrets": {**EVERYTHING["externalSecrets"], "stripeKey": "s", "natsKey": "n"},
                "stripe": {"existingSecret": "same"},
                "nats": {"existingSecret": "same"},
            },
            "nats.existingSecret is the Secret of something else",
        ),
        ({"externalSecrets": {"enabled": True, "runtimeKey": "r"}}, "externalSecrets.secretStoreRef.name is needed"),
        (
            {"externalSecrets": {"enabled": True, "secretStoreRef": {"name": "vault"}}},
            "externalSecrets.runtimeKey is needed",
        ),
        (
            {
                "externalSecrets": EVERYTHING["externalSecrets"],
                "database": {"existingSecret": "same", "ownerSecret": "same"},
            },
            "database.existingSecret and database.ownerSecret",
        ),
        (
            {"sovereignAdmins": [{"kind": "ServiceAccount", "name": "shop"}]},
            "sovereignAdmins: a ServiceAccount needs its namespace",
        ),
        (
            {"sovereignAdmins": EVERYTHING["sovereignAdmins"], "clusterRoles": {"create": False}},
            "clusterRoles.sovereignAdmin is needed",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_missing_values_are_named(values: Document, said: str) -> None:
    """With a message, before anything is installed."""
    assert said in refusal(values)


def test_chart_creates_no_secret() -> None:
    """Credentials come by reference alone."""
    assert of_kind(render(EVERYTHING), "Secret") == []
