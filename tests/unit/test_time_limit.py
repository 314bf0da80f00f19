"""A process that does not stop in time ends itself, whatever holds it."""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from testbed.interpreter import environment
from testbed.processes import free_port, wait_until

HANGS = """
async def ignore_cancellation(*_):
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
"""
LIMITED = f"""
import asyncio, time
from voucher_operator.process.time_limit import TimeLimit
from voucher_operator.telemetry import configure_logging
{HANGS}
async def main():
    with TimeLimit(0.3, "the work"):
        {{hold}}
configure_logging("INFO")
asyncio.run(main())
"""
OPERATOR = f"""
import asyncio, sys
from voucher_operator import cli
from voucher_operator.kube.leader_election import Leadership
{HANGS}
Leadership.run = ignore_cancellation
sys.exit(cli.main(["run"]))
"""
CONTROLLERS = f"""
import asyncio, sys
from types import SimpleNamespace
from voucher_operator.process import run
from voucher_operator.settings import Settings
from voucher_operator.telemetry import configure_logging
{HANGS}
async def nothing(*_):
    return []
async def main():
    run.build_controllers = lambda _: SimpleNamespace(feed=SimpleNamespace(queues=[]), vouchers=None)
    run.crds = SimpleNamespace(wait_until_served=nothing, log_fault=nothing)
    run.Operator._ledger_tasks = lambda *_: []
    run.Operator._own_tasks = lambda *_: [asyncio.create_task(ignore_cancellation(), name="watcher")]
    run.Operator._watch = nothing
    leading = asyncio.create_task(run.Operator(Settings(stop_timeout=0.3)).lead())
    await asyncio.sleep(0.1)
    leading.cancel()
    await asyncio.wait([leading])
configure_logging("INFO")
asyncio.run(main())
"""


def run(code: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment("", {}), capture_output=True, text=True, timeout=30
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "hold",
    [
        'await asyncio.create_task(ignore_cancellation(), name="watcher")',
        "time.sleep(60)",
        "await asyncio.to_thread(time.sleep, 60)",
        "asyncio.get_running_loop().run_in_executor(None, time.sleep, 60); await asyncio.sleep(60)",
    ],
)
def test_process_ends_itself_after_the_limit(hold: str) -> None:
    code, log = run(LIMITED.format(hold=hold))
    assert code == 1
    (record,) = [json.loads(line) for line in log.splitlines()]
    assert (record["level"], record["message"]) == (
        "ERROR",
        "the work did not stop within 0.3 s: the process ends now",
    )
    assert ("watcher" in record["detail"]) is ("watcher" in hold)


def test_limit_that_is_kept_has_no_effect() -> None:
    assert run(LIMITED.format(hold="pass") + "time.sleep(0.6)\n") == (0, "")


def test_replica_whose_controllers_do_not_stop_after_a_lost_lease_ends_itself() -> None:
    """It would neither lead again nor be restarted."""
    code, log = run(CONTROLLERS)
    assert code == 1
    assert "the controllers did not stop within 0.3 s: the process ends now" in log
    assert "watcher" in log


def test_process_ends_although_nobody_reads_its_log() -> None:
    """The pipe is full, and the log line is never written."""
    code = LIMITED.format(hold="time.sleep(60)").replace("asyncio.run", "import os, sys\nasyncio.run")
    full = "import os, fcntl\nos.set_blocking(2, False)\ntry:\n    while True:\n        os.write(2, b'x' * 4096)\n"
    code = f"{full}except BlockingIOError:\n    os.set_blocking(2, True)\n{code}"
    process = subprocess.Popen([sys.executable, "-c", code], env=environment("", {}), stderr=subprocess.PIPE)
    try:
        assert process.wait(30) == 1
    finally:
        process.kill()
        process.communicate()


def test_operator_that_cannot_stop_after_sigterm_ends_itself(tmp_path: Path) -> None:
    """Without API server and ledger; the election does not end by a cancellation."""
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    config = {"clusters": [cluster], "contexts": [context], "users": [{"name": "u", "user": {}}]}
    (tmp_path / "kubeconfig").write_text(json.dumps(config | {"current-context": "c", "kind": "Config"}))
    port = free_port()
    env = {
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "VOUCHER_OPERATOR_HTTP_PORT": str(port),
        "VOUCHER_OPERATOR_WEBHOOK_PORT": str(free_port()),
        "VOUCHER_OPERATOR_STOP_TIMEOUT": "0.5",
    }
    with (tmp_path / "log").open("w") as log:
        whole = environment("postgresql://nobody@127.0.0.1:1/none", env)
        process = subprocess.Popen([sys.executable, "-c", OPERATOR], env=whole, stdout=log, stderr=log)
    try:
        wait_until(lambda: answers(port), "answer of the probes")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 1
    finally:
        process.kill()
        process.wait()
    assert "the process did not stop within 0.5 s: the process ends now" in (tmp_path / "log").read_text()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False
