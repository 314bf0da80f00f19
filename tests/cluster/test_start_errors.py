"""Start errors that only a new start can fix end the process with one line."""

import socket
from pathlib import Path

import pytest

from testbed.operator_process import OperatorProcess
from testbed.processes import wait_until
from tests.conftest import Operators


def last_line(operator: OperatorProcess, code: int = 1) -> str:
    """Wait for its end, which is a failure, and return the one line for people."""
    wait_until(lambda: operator.returncode is not None, "end of the operator")
    assert operator.returncode == code
    (line,) = (line for line in operator.log.read_text().splitlines() if not line.startswith("{"))
    return line


def test_start_without_cluster_ends_with_one_line(operators: Operators, tmp_path: Path) -> None:
    operator = operators.start(env={"KUBECONFIG": str(tmp_path / "absent")}, interpreter=True)
    assert last_line(operator) == ("voucher-operator: no cluster is configured: run in a pod, or set KUBECONFIG")
    operators.allow += ["Config not found", "no cluster is configured"]


def test_start_with_contradictory_lease_times_ends_with_one_line(operators: Operators) -> None:
    operator = operators.start(env={"VOUCHER_OPERATOR_LEASE_DURATION": "5", "VOUCHER_OPERATOR_RENEW_DEADLINE": "6"})
    assert last_line(operator, code=2) == (
        "voucher-operator: VOUCHER_OPERATOR_RENEW_DEADLINE (6) must be less than VOUCHER_OPERATOR_LEASE_DURATION (5)"
    )
    operators.allow.append("must be less than")


@pytest.mark.parametrize("part", ["HTTP", "WEBHOOK"])
def test_start_with_a_port_in_use_ends_with_one_line(operators: Operators, tmp_path: Path, part: str) -> None:
    (tmp_path / "webhook-secret").write_text("whsec_x")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        env = {
            f"VOUCHER_OPERATOR_{part}_PORT": str(port),
            "VOUCHER_OPERATOR_STRIPE_WEBHOOK_SECRET_FILE": str(tmp_path / "webhook-secret"),
        }
        words = last_line(operators.start(env=env))
    assert words == (
        f"voucher-operator: cannot listen on port {port} (Address already in use): "
        f"free the port, or set VOUCHER_OPERATOR_{part}_PORT"
    )
    operators.allow.append("cannot listen on")
