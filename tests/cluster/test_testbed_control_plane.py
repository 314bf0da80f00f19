"""The control plane survives what the tests do to it."""

import json

import pytest

from testbed.control_plane import ControlPlane
from testbed.processes import TestbedError


def test_restarts_keep_data_address_and_tokens() -> None:
    with ControlPlane() as cluster:
        cluster.namespace("kept")
        cluster.kubectl("create", "serviceaccount", "somebody", "--namespace=kept")
        credentials = cluster.service_account_kubeconfig("kept", "somebody")
        for kill in (False, True):
            cluster.restart_apiserver(kill=kill)
            told = json.loads(cluster.kubectl(f"--kubeconfig={credentials}", "auth", "whoami", "--output=json"))
            assert told["status"]["userInfo"]["username"] == "system:serviceaccount:kept:somebody"
        cluster.stop_apiserver()
        with pytest.raises(TestbedError, match="kubectl get namespaces: "):
            cluster.kubectl("get", "namespaces")


def test_rights_are_enforced(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("create", "serviceaccount", "nobody", f"--namespace={namespace}")
    credentials = control_plane.service_account_kubeconfig(namespace, "nobody")
    assert "Forbidden" in control_plane.kubectl(f"--kubeconfig={credentials}", "get", "vouchers", check=False)
