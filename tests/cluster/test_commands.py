"""Each command in an interpreter of its own, as people start it: what it reads late is there when it is needed."""

import pytest

from testbed.cluster import command
from testbed.control_plane import ControlPlane
from testbed.processes import TestbedError
from tests.cluster.conftest import Sovereign
from tests.cluster.resources import ready


def test_commands_run_in_their_own_interpreter(sovereign: Sovereign, control_plane: ControlPlane) -> None:
    api, url = sovereign.api, sovereign.ledger.database.runtime_url
    voucher = api.voucher()
    voucher.wait(ready("Issued"))
    assert api.redeem(voucher.code, user="by-command").result() == ("Redeemed", "Redeemed")
    env = {"KUBECONFIG": str(control_plane.kubeconfig)}
    assert command(url, "verify", f"--namespace={api.namespace}", env=env).strip() == "the ledger is consistent"
    assert voucher.code in command(url, "export", "vouchers")
    assert f"promo:{voucher.code}" in command(url, "balance", "by-command")
    assert command(url, "version").strip()
    with pytest.raises(TestbedError, match="delete the Voucher first"):
        command(url, "release", f"{api.namespace}/{voucher.name}", "--to=elsewhere")
    with pytest.raises(TestbedError, match="is not NAMESPACE/NAME"):
        command(url, "release", voucher.name, "--to=elsewhere")
    with pytest.raises(TestbedError, match="no cluster is configured"):
        command(url, "verify", f"--namespace={api.namespace}", env={"KUBECONFIG": "/nowhere"})
