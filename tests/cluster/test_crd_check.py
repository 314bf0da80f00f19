"""An operator on older CRDs: it reports them and waits, instead of failing at each watch and losing its writes."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.cluster import CRDS, install_crds, install_rights
from testbed.control_plane import ControlPlane
from testbed.operator_process import OperatorProcess
from testbed.postgres import Database
from testbed.processes import wait_until
from voucher_operator.controllers.kinds import EXPECTED_CRDS
from voucher_operator.kube.crd_check import missing_fields

Document = dict[str, Any]


@pytest.fixture
def cluster(own_cluster: ControlPlane) -> Iterator[ControlPlane]:
    """CRDs belong to the whole cluster: other tests would fail."""
    yield own_cluster
    install_crds(own_cluster)


def _older(cluster: ControlPlane) -> list[str]:
    """Make CRDs of an earlier time: no selector, and a status with fewer fields."""
    present = [path.read_text() for path in sorted(CRDS.glob("*.yaml"))]
    for text in present:
        document = yaml.safe_load(text)
        (version,) = document["spec"]["versions"]
        version.pop("selectableFields")
        version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"].pop("state")
        version["additionalPrinterColumns"] = []
        cluster.kubectl("replace", "--filename=-", input=yaml.safe_dump(document))
    return present


def _words(operator: OperatorProcess) -> list[str]:
    return [record["message"] for record in operator.records() if "waiting for the CRDs" in record.get("message", "")]


@pytest.mark.xdist_group("own-cluster")
def test_operator_names_older_crds_and_waits_for_new_ones(
    cluster: ControlPlane, database18: Database, tmp_path: Path
) -> None:
    present = _older(cluster)
    namespace = cluster.namespace("older")
    rights = install_rights(cluster, [namespace])
    operator = OperatorProcess(
        kubeconfig=rights.kubeconfig,
        database_url=database18.runtime_url,
        namespaces=rights.namespaces,
        folder=tmp_path,
        env=rights.env,
    )
    operator.start()
    try:
        wait_until(lambda: bool(_words(operator)), "word of the older CRDs")
        wait_until(lambda: operator.ready()["problems"].get("resources") in _words(operator)[0], "the same on /readyz")
        (words,) = _words(operator)
        assert "older than the operator: " in words
        assert "selectable field Redemption.status.finished" in words
        assert "Voucher.status.state" in words
        for text in present:
            cluster.kubectl("replace", "--filename=-", input=text)
        operator.wait_ready()
    finally:
        operator.stop()
    assert operator.unexpected(["waiting for the CRDs"]) == []


def test_missing_fields_of_a_crd_are_listed(control_plane: ControlPlane) -> None:
    """And a removed field is reported."""
    path = "/openapi/v3/apis/billing.openova.io/v1alpha1"
    schemas = json.loads(control_plane.kubectl("get", f"--raw={path}"))["components"]["schemas"]
    assert list(missing_fields(EXPECTED_CRDS, schemas)) == []
    assert list(missing_fields(EXPECTED_CRDS, {})) == []
    name = next(name for name in schemas if name.endswith(".Voucher"))
    changed = copy.deepcopy(schemas)
    del changed[name]["properties"]["spec"]["properties"]["validUntil"]
    assert list(missing_fields(EXPECTED_CRDS, changed)) == ["Voucher.spec.validUntil"]
