"""The webhook port opens once there is a signing secret, without a restart."""

import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from testbed.processes import wait_until
from tests.conftest import Operators


def listens(port: int) -> bool:
    """Whether a server listens."""
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def test_webhook_port_opens_when_the_secret_comes(operators: Operators, tmp_path: Path) -> None:
    secret = tmp_path / "webhook-secret"
    operator = operators.start(env={"VOUCHER_OPERATOR_STRIPE_WEBHOOK_SECRET_FILE": str(secret)})
    operator.wait_ready()
    assert not listens(operator.webhook_port)
    secret.write_text("whsec_late")
    wait_until(lambda: listens(operator.webhook_port), "port of webhooks")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{operator.webhook_port}/billing/webhook", b"{}", timeout=10)
    with refused.value as answer:
        assert answer.code == 400
