"""The control plane keeps its data and enforces rights."""

import json

import pytest

from testbed.control_plane import ControlPlane
from testbed.processes import TestbedError


@pytest.mark.xdist_group("own-cluster")
def test_control_plane_keeps_data_address_and_tokens_after_a_stop(own_cluster: ControlPlane) -> None:
    """That a killed one keeps them too is seen in test_chaos_api.py."""
    own_cluster.namespace("kept")
    own_cluster.kubectl("create", "serviceaccount", "somebody", "--namespace=kept")
    credentials = own_cluster.service_account_kubeconfig("kept", "somebody")
    own_cluster.stop_apiserver()
    with pytest.raises(TestbedError, match="kubectl get namespaces: "):
        own_cluster.kubectl("get", "namespaces")
    own_cluster.start_apiserver()
    identity = json.loads(own_cluster.kubectl(f"--kubeconfig={credentials}", "auth", "whoami", "--output=json"))
    assert identity["status"]["userInfo"]["username"] == "system:serviceaccount:kept:somebody"


def test_rights_are_enforced(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("create", "serviceaccount", "nobody", f"--namespace={namespace}")
    credentials = control_plane.service_account_kubeconfig(namespace, "nobody")
    assert "Forbidden" in control_plane.kubectl(f"--kubeconfig={credentials}", "get", "vouchers", check=False)
