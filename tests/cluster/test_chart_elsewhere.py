"""The chart on other people's clusters: OpenShift, dual stack, private CAs, older controllers, Argo CD."""

import pytest

from tests.cluster.chart import EVERYTHING, WORKLOADS, Document, container, of_kind, render, the, workload

IDS = ("runAsUser", "runAsGroup", "fsGroup")
V1, V1BETA1 = "external-secrets.io/v1", "external-secrets.io/v1beta1"


def _security(values: Document, kind: str) -> Document:
    """Return the pod's and the container's security context as one."""
    pod = workload(render(values), kind)
    context: Document = pod["spec"]["template"]["spec"]["securityContext"]
    context |= container(pod)["securityContext"]
    return context


@pytest.mark.parametrize("kind", WORKLOADS)
def test_ids_can_be_set_and_removed(kind: str) -> None:
    """OpenShift's restricted-v2 refuses IDs outside the range of the namespace, and chooses them if there are none."""
    assert {name: _security({}, kind)[name] for name in IDS} == dict.fromkeys(IDS, 10001)
    chosen = _security({"podSecurityContext": dict.fromkeys(IDS, 1000650000)}, kind)
    assert {name: chosen[name] for name in IDS} == dict.fromkeys(IDS, 1000650000)
    removed = _security({"podSecurityContext": dict.fromkeys(IDS)}, kind)
    assert not set(IDS) & set(removed)
    assert removed["runAsNonRoot"] is True


def test_service_takes_ip_families() -> None:
    assert not {"ipFamilyPolicy", "ipFamilies"} & set(the(render(), "Service")["spec"])
    dual = {"service": {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]}}
    spec = the(render(dual), "Service")["spec"]
    assert (spec["ipFamilyPolicy"], spec["ipFamilies"]) == ("PreferDualStack", ["IPv6", "IPv4"])


def test_network_policies_take_ports_and_peers_of_dns() -> None:
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openshift-dns"}}}]
    ports = [{"port": 5353, "protocol": "UDP"}, {"port": 5353, "protocol": "TCP"}]
    policies = of_kind(render({"networkPolicy": {"dns": {"ports": [5353], "to": peers}}}), "NetworkPolicy")
    assert [policy["spec"]["egress"][0] for policy in policies] == [{"ports": ports, "to": peers}] * 2


@pytest.mark.parametrize("kind", WORKLOADS)
def test_ca_bundle_is_mounted_and_named_to_openssl(kind: str) -> None:
    assert "SSL_CERT_FILE" not in str(workload(render(), kind))
    pod = workload(render({"caBundle": {"existingConfigMap": "trust", "key": "root.pem"}}), kind)
    runs = container(pod)
    assert {"name": "SSL_CERT_FILE", "value": "/etc/voucher-operator/ca-bundle/ca.crt"} in runs["env"]
    mount = {"name": "ca-bundle", "mountPath": "/etc/voucher-operator/ca-bundle", "readOnly": True}
    assert mount in runs["volumeMounts"]
    config = {"name": "trust", "items": [{"key": "root.pem", "path": "ca.crt"}]}
    assert {"name": "ca-bundle", "configMap": config} in pod["spec"]["template"]["spec"]["volumes"]


@pytest.mark.parametrize(
    ("served", "expected"), [((), V1), ((V1BETA1,), V1BETA1), ((V1,), V1), ((V1, V1BETA1), V1)], ids=str
)
def test_external_secrets_are_of_the_version_that_is_served(served: tuple[str, ...], expected: str) -> None:
    options = tuple(option for version in served for option in ("--api-versions", version))
    made = of_kind(render({"externalSecrets": EVERYTHING["externalSecrets"]}, options=options), "ExternalSecret")
    assert {document["apiVersion"] for document in made} == {expected}


@pytest.mark.parametrize("kind", ["Job", "hook"])
def test_ttl_of_the_migration_can_be_left_out(kind: str) -> None:
    """Argo CD shows a Job that its TTL has deleted as OutOfSync."""
    assert workload(render(), kind)["spec"]["ttlSecondsAfterFinished"] == 86400
    assert workload(render({"migration": {"ttlSecondsAfterFinished": 0}}), kind)["spec"]["ttlSecondsAfterFinished"] == 0
    without = workload(render({"migration": {"ttlSecondsAfterFinished": None}}), kind)
    assert "ttlSecondsAfterFinished" not in without["spec"]
