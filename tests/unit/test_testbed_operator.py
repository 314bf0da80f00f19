"""Warnings and errors in an operator's log are found."""

from pathlib import Path

from testbed.operator_process import OperatorProcess

LOG = """\
{"time": "t", "level": "INFO", "logger": "a", "message": "all well"}
{"time": "t", "level": "WARNING", "logger": "a", "message": "ledger is away", "key": "billing/one"}
Traceback (most recent call last):

{"time": "t", "level": "ERROR", "logger": "b", "message": "broken"}
"""


def test_unexpected_log_lines_are_found(tmp_path: Path) -> None:
    operator = OperatorProcess(
        kubeconfig=tmp_path / "none", database_url="", namespaces=["billing"], folder=tmp_path, pod_name="one"
    )
    assert operator.unexpected() == []
    operator.log.write_text(LOG)
    assert len(operator.records()) == 4
    assert [record["message"] for record in operator.unexpected(["billing/one", "^no such"])] == [
        "Traceback (most recent call last):",
        "broken",
    ]
