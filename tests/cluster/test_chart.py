"""The chart renders for every value it offers, refuses what it does not, and is of the same release as the package."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import voucher_operator
from tests.cluster.chart import (
    CHART,
    ROOT,
    WORKLOADS,
    Document,
    container,
    helm,
    hook,
    of_kind,
    refusal,
    render,
    the,
    workload,
)

SCHEMA: Document = yaml.safe_load((CHART / "values.schema.json").read_text())


def _chart() -> Document:
    loaded: Document = yaml.safe_load((CHART / "Chart.yaml").read_text())
    return loaded


def test_chart_has_no_upstream() -> None:
    """The platform asks charts of its own to say so."""
    assert _chart()["annotations"]["catalyst.openova.io/no-upstream"] == "true"


def test_crds_have_one_source(tmp_path: Path) -> None:
    """A copy, no link: sources that Flux archives drop links, and the chart would install no CRD."""
    sources = {path.name: path for path in (ROOT / "crds").glob("*.yaml")}
    copies = {path.name: path.read_text() for path in (CHART / "crds").iterdir()}
    assert copies == {name: path.read_text() for name, path in sources.items()}, "run make crds"
    assert not [path for path in CHART.rglob("*") if path.is_symlink()]
    packed = helm("package", CHART, "-d", tmp_path)
    assert packed.returncode == 0, packed.stderr
    shown = helm("show", "crds", next(tmp_path.glob("*.tgz"))).stdout
    assert all(path.read_text().strip() in shown for path in sources.values())


def _closed(schema: Any, path: str = "") -> Iterator[str]:
    """Yield the objects of a schema that name their properties, yet let others in."""
    if isinstance(schema, dict):
        if "properties" in schema and schema.get("additionalProperties") is not False:
            yield path
        for key, part in schema.items():
            yield from _closed(part, f"{path}/{key}")


def test_values_schema_allows_no_unknown_key() -> None:
    """No object of the schema lets a misspelt key in."""
    assert list(_closed(SCHEMA)) == []


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"replica": 3}, "replica"),
        ({"image": {"tags": "1"}}, "/image"),
        ({"imagePullSecrets": ["ghcr-pull"]}, "/imagePullSecrets/0"),
        ({"image": {"tag": "latest"}}, "/image/tag"),
        ({"image": {"digest": "sha256:abc"}}, "/image/digest"),
        ({"image": {"repository": None}}, "/image"),
        ({"replicas": "2"}, "/replicas"),
        ({"replicas": 0}, "/replicas"),
        ({"database": {"caSecret": "pg-ca"}}, "/database/caSecret"),
        ({"watchNamespaces": "billing"}, "/watchNamespaces"),
        ({"watchNamespaces": ["*"]}, "/watchNamespaces/0"),
        ({"watchNamespaces": ["billing", "billing"]}, "/watchNamespaces"),
        ({"currency": "omr"}, "/currency"),
        ({"database": {"secret": "x"}}, "/database"),
        ({"database": {"existingSecret": ""}}, "/database/existingSecret"),
        ({"database": {"poolSize": 1}}, "/database/poolSize"),
        ({"database": {"pooler": "statement"}}, "/database/pooler"),
        ({"sovereign": "https://sovereign.example"}, "/sovereign"),
        ({"catalog": {"url": "catalog:8080"}}, "/catalog/url"),
        ({"catalog": {"file": "x"}}, "/catalog"),
        ({"stripe": {"apiKey": "sk_live_1"}}, "/stripe"),
        ({"stripe": {"apiKeyKey": ""}}, "/stripe/apiKeyKey"),
        ({"stripe": {"minimumMinor": -1}}, "/stripe/minimumMinor"),
        ({"checkout": {"successUrl": "/paid"}}, "/checkout/successUrl"),
        ({"checkout": {"deadline": "15m"}}, "/checkout/deadline"),
        ({"nats": {"url": "nats://user:password@nats:4222"}}, "/nats/url"),
        ({"nats": {"stream": "a.b"}}, "/nats/stream"),
        ({"organizations": {"scope": "namespaced"}}, "/organizations/scope"),
        ({"networkPolicy": {"stripe": {"port": 443}}}, "/networkPolicy/stripe"),
        ({"migration": {"enable": False}}, "/migration"),
        ({"migration": {"backoffLimit": -1}}, "/migration/backoffLimit"),
        ({"migration": {"mode": "initContainer"}}, "/migration/mode"),
        ({"migration": {"hookTimeout": "1m"}}, "/migration/hookTimeout"),
        ({"migration": {"hookTimeout": 81}}, "/migration/hookTimeout"),
        ({"clusterRoles": {"aggregated": True}}, "/clusterRoles"),
        ({"sovereignAdmins": ["admins"]}, "/sovereignAdmins/0"),
        ({"sovereignAdmins": [{"kind": "group", "name": "x"}]}, "/sovereignAdmins/0/kind"),
        ({"externalSecrets": {"storeRef": {}}}, "/externalSecrets"),
        ({"externalSecrets": {"refreshInterval": "hourly"}}, "/externalSecrets/refreshInterval"),
        ({"podDisruptionBudget": {"minAvailable": 1}}, "/podDisruptionBudget"),
        ({"networkPolicy": {"ingress": []}}, "/networkPolicy"),
        ({"networkPolicy": {"ingressFrom": [{"podselector": {}}]}}, "/networkPolicy/ingressFrom/0"),
        ({"networkPolicy": {"apiServer": {"ports": ["https"]}}}, "/networkPolicy/apiServer/ports/0"),
        ({"networkPolicy": {"database": {"ports": []}}}, "/networkPolicy/database/ports"),
        ({"networkPolicy": {"extraEgress": [{"to": []}]}}, "/networkPolicy/extraEgress/0"),
        ({"monitoring": {"serviceMonitor": True}}, "/monitoring/serviceMonitor"),
        ({"monitoring": {"enabled": True}}, "/monitoring"),
        ({"monitoring": {"prometheusRule": {"queueLength": "many"}}}, "/monitoring/prometheusRule/queueLength"),
        ({"monitoring": {"dashboard": {"labels": {"grafana_dashboard": 1}}}}, "/monitoring/dashboard/labels"),
        ({"logLevel": "info"}, "/logLevel"),
        ({"workers": 0}, "/workers"),
        ({"intervals": {"counterSyncInterval": 5}}, "/intervals"),
        ({"intervals": {"counterSync": 0}}, "/intervals/counterSync"),
        ({"intervals": {"resync": "5m"}}, "/intervals/resync"),
        ({"lease": {"retryPeriod": 1}}, "/lease/retryPeriod"),
        ({"serviceAccount": {"automount": False}}, "/serviceAccount"),
        ({"rbac": {"enabled": False}}, "/rbac"),
        ({"service": {"type": "NodePort"}}, "/service"),
        ({"resources": {"limit": {}}}, "/resources"),
        ({"resources": {"limits": {"memory": None}}}, "/resources/limits"),
        ({"resources": {"requests": {"memory": "128 MB"}}}, "/resources/requests/memory"),
        ({"podAnnotations": {"a": 1}}, "/podAnnotations/a"),
        ({"extraEnv": [{"name": "A", "valueFrom": {"secretRef": {}}}]}, "/extraEnv/0/valueFrom"),
        ({"tolerations": [{"operater": "Exists"}]}, "/tolerations/0"),
        ({"affinity": {"podAntiaffinity": {}}}, "/affinity"),
        ({"topologySpreadConstraints": [{"topologyKey": "zone"}]}, "/topologySpreadConstraints/0"),
        ({"lease": {"duration": 6}}, "lease: duration must be more than renewDeadline"),
        ({"lease": {"retryPeriod": 5}}, "lease: duration must be more than renewDeadline"),
        ({"lease": {"duration": 9.5}}, "/lease/duration"),
    ],
    ids=str,
)
def test_bad_value_is_refused(values: Document, place: str) -> None:
    """A typo, a wrong type or a value out of bounds is refused, and the message says where."""
    assert place in refusal(values)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({}, f"voucher-operator:{voucher_operator.__version__}"),
        (
            {"registry": "harbor.example.com", "repository": "openova/vo"},
            f"harbor.example.com/openova/vo:{voucher_operator.__version__}",
        ),
        (
            {"registry": "harbor.example.com:8443", "tag": "1.2.3-rc.1"},
            "harbor.example.com:8443/voucher-operator:1.2.3-rc.1",
        ),
        ({"tag": "1.2.3", "digest": "sha256:" + "0" * 64}, "voucher-operator@sha256:" + "0" * 64),
    ],
)
def test_workloads_use_the_configured_image(image: Document, expected: str) -> None:
    """Operator and migration run the same image; a digest wins over a tag."""
    documents = render({"image": {**image, "pullPolicy": "Always"}})
    for kind in WORKLOADS:
        only = container(workload(documents, kind))
        assert (only["image"], only["imagePullPolicy"]) == (expected, "Always")


def test_pod_options_reach_the_pods() -> None:
    """What a cluster's administrator sets arrives in the pods."""
    values = {
        "replicas": 3,
        "imagePullSecrets": [{"name": "ghcr-pull"}],
        "priorityClassName": "system-cluster-critical",
        "terminationGracePeriodSeconds": 60,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "billing", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}],
        "podAnnotations": {"team": "billing"},
        "podLabels": {"tier": "control"},
        "resources": {"limits": {"memory": "1Gi"}},
    }
    deployment = the(render(values), "Deployment")["spec"]
    pod = deployment["template"]["spec"]
    same = set(values) - {"replicas", "podAnnotations", "podLabels", "resources"}
    assert {key: pod[key] for key in same} == {key: values[key] for key in same}
    assert deployment["replicas"] == 3
    assert deployment["template"]["metadata"]["annotations"]["team"] == "billing"
    assert deployment["template"]["metadata"]["labels"]["tier"] == "control"
    assert pod["containers"][0]["resources"] == {
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"memory": "1Gi"},
    }


@pytest.mark.parametrize("kind", WORKLOADS)
def test_extra_environment_and_pull_secrets_reach_the_containers(kind: str) -> None:
    """Both containers get them."""
    extra = [
        {"name": "PGSSLMODE", "value": "verify-full"},
        {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
    ]
    found = workload(render({"extraEnv": extra, "imagePullSecrets": [{"name": "x"}]}), kind)
    assert [entry for entry in container(found)["env"] if entry in extra] == extra
    assert found["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "x"}]


def test_replicas_are_spread_over_nodes_and_zones() -> None:
    """By default over nodes and zones, counting this release's operator pods and no others."""
    deployment = the(render(), "Deployment")["spec"]
    spread = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert [constraint["topologyKey"] for constraint in spread] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]
    assert all(constraint["labelSelector"] == deployment["selector"] for constraint in spread)


def test_selectors_do_not_match_migration_pods() -> None:
    """Service and Deployment find the operator's pods, whatever labels are added to them, and never the migration's."""
    documents = render({"podLabels": {"app.kubernetes.io/name": "x"}})
    migrations = [job["spec"]["template"]["metadata"]["labels"] for job in (the(documents, "Job"), hook(documents))]
    for selector in (
        the(documents, "Service")["spec"]["selector"],
        the(documents, "Deployment")["spec"]["selector"]["matchLabels"],
        the(documents, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ):
        assert not any(selector.items() <= migration.items() for migration in migrations)
        assert selector.items() <= the(documents, "Deployment")["spec"]["template"]["metadata"]["labels"].items()


def test_probes_and_service_use_the_container_ports() -> None:
    """Port names are resolved to the same port everywhere."""
    documents = render({"service": {"port": 9000, "webhookPort": 9001}})
    only = container(the(documents, "Deployment"))
    assert only["ports"] == [{"name": "http", "containerPort": 8080}, {"name": "webhook", "containerPort": 8090}]
    assert {"name": "VOUCHER_OPERATOR_WEBHOOK_PORT", "value": "8090"} in only["env"]
    assert only["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert only["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert the(documents, "Service")["spec"]["ports"] == [
        {"name": "http", "port": 9000, "targetPort": "http"},
        {"name": "webhook", "port": 9001, "targetPort": "webhook"},
    ]


@pytest.mark.parametrize(
    ("create", "name", "expected"),
    [(True, "", "bp-voucher-operator"), (True, "mine", "mine"), (False, "theirs", "theirs")],
)
def test_pods_and_bindings_use_the_service_account(create: bool, name: str, expected: str) -> None:
    """The pods and the bindings name the account that is made, or that is there."""
    documents = render({"serviceAccount": {"create": create, "name": name, "annotations": {"a": "b"}}})
    made = {account["metadata"]["name"]: account for account in of_kind(documents, "ServiceAccount")}
    assert set(made) == ({expected, "bp-voucher-operator-migration"} if create else set())
    assert all(account["metadata"]["annotations"]["a"] == "b" for key, account in made.items() if key == expected)
    assert the(documents, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == expected
    subjects = [binding["subjects"] for binding in of_kind(documents, "RoleBinding")]
    assert subjects == [[{"kind": "ServiceAccount", "name": expected, "namespace": "billing"}]] * 2


def test_default_service_account_is_bound_only_explicitly() -> None:
    """Every pod of the namespace that names no account has "default": it is bound only where somebody says so."""
    values = {"serviceAccount": {"create": False}}
    assert "serviceAccount.name is needed" in refusal(values)
    documents = render({**values, "rbac": {"create": False}})
    assert the(documents, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "default"


@pytest.mark.parametrize(
    ("release", "values", "expected"),
    [
        ("bp-voucher-operator", {}, "bp-voucher-operator"),
        ("x", {}, "x-voucher-operator"),
        ("x", {"nameOverride": "vouchers"}, "x-vouchers"),
        ("x", {"fullnameOverride": "vouchers"}, "vouchers"),
        ("r" * 53, {}, "r" * 44),
    ],
)
def test_names_follow_the_release(release: str, values: Document, expected: str) -> None:
    """Names follow the release, and stay short enough for every kind and label."""
    documents = render(values, release=release)
    assert the(documents, "Deployment")["metadata"]["name"] == expected
    assert all(document["metadata"]["name"].startswith(expected) for document in documents)
    assert max(len(document["metadata"]["name"]) for document in documents) <= 63


def test_notes_list_the_next_steps() -> None:
    """After the installation: which Secrets are awaited, and two commands."""
    done = helm("install", "x", CHART, "-n", "ops", "--dry-run=client", "--set", "watchNamespaces={billing}")
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    commands = re.findall(r"^  (kubectl .*)$", notes, re.MULTILINE)
    assert commands == [
        "kubectl -n ops rollout status deployment/x-voucher-operator",
        "kubectl -n billing get vouchers,redemptions",
    ]
    assert "app.kubernetes.io/instance=x,app.kubernetes.io/component=migration" in notes
    assert {"voucher-operator-database", "voucher-operator-database-owner"} <= set(notes.split())
