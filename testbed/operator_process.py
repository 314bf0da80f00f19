"""The operator as a process of its own, with what a pod would give it: environment, credentials, signals.

See also: `cluster` makes its credentials, `fork_server` starts it faster; tests read its log, probes and metrics.
"""

import http.client
import json
import re
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import SIGCONT, SIGSTOP, SIGTERM
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from testbed.fork_server import ForkedProcess, ForkServer
from testbed.interpreter import RUN_MODULE, environment
from testbed.processes import Daemon, TestbedError, free_port, wait_until

_PROBLEM_LEVELS = ("WARNING", "ERROR", "CRITICAL")


class OperatorProcess:
    """One replica; start it, and start it again under the same name after `stop` or `kill`."""

    def __init__(
        self,
        *,
        kubeconfig: Path,
        database_url: str,
        namespaces: Sequence[str],
        folder: Path,
        pod_name: str | None = None,
        env: Mapping[str, str] | None = None,
        fork_server: ForkServer | None = None,
    ) -> None:
        """Prepare a replica for `namespaces`, the first of which holds the Lease.

        `folder` takes its log, `env` adds to or replaces its environment. It is started as the image does it, by an
        interpreter of its own, unless there is a `fork_server`, which is faster.
        """
        self.pod_name = pod_name or f"operator-{secrets.token_hex(3)}"
        self.port = free_port()
        self.webhook_port = free_port()
        self.log = folder / f"{self.pod_name}.log"
        own = {
            "KUBECONFIG": str(kubeconfig),
            "VOUCHER_OPERATOR_NAMESPACES": ",".join(namespaces),
            "VOUCHER_OPERATOR_POD_NAME": self.pod_name,
            "VOUCHER_OPERATOR_POD_NAMESPACE": namespaces[0],
            "VOUCHER_OPERATOR_HTTP_PORT": str(self.port),
            "VOUCHER_OPERATOR_WEBHOOK_PORT": str(self.webhook_port),
        }
        self._env = environment(database_url, own | dict(env or {}))
        self._fork_server = fork_server
        self._daemon = self._prepared({})

    @property
    def pid(self) -> int:
        """Process id."""
        return self._daemon.pid

    @property
    def running(self) -> bool:
        """False before `start` and after its end."""
        return self._daemon.running

    @property
    def returncode(self) -> int | None:
        """Exit code of the last run, minus the signal's number when one ended it; None while it runs."""
        return self._daemon.returncode

    def start(self, env: Mapping[str, str] | None = None) -> None:
        """Start, with `env` added to the environment of this run alone; returns at once."""
        if self.running:
            raise TestbedError(f"{self.pod_name} runs already")
        self._daemon = self._prepared(env or {})
        self._daemon.start()

    def stop(self, timeout: float = 40.0) -> None:
        """End it by SIGTERM. Raises TestbedError when its exit code is not 0, or when it does not end in time."""
        code = self._daemon.stop(SIGTERM, timeout)
        if code != 0:
            raise TestbedError(f"{self.pod_name} ended with code {code}\n{self._daemon.tail()}")

    def kill(self) -> None:
        """End it by SIGKILL, at whichever line it is."""
        self._daemon.kill()

    def sigstop(self) -> None:
        """Stop it by SIGSTOP, as on a machine that hangs."""
        self._daemon.send(SIGSTOP)

    def sigcont(self) -> None:
        """Continue it by SIGCONT."""
        self._daemon.send(SIGCONT)

    def ready(self) -> dict[str, Any]:
        """Return what /readyz says: `ready`, `problems` (part -> one line), `leader`…; empty when nobody answers."""
        try:
            return dict(json.loads(self._get("/readyz")))
        except (OSError, http.client.HTTPException, ValueError):
            return {}

    def wait_ready(self, timeout: float = 60.0, *, leader: bool = False) -> None:
        """Wait until /readyz says that it is ready, and that it leads if `leader`. Raises TestbedError."""

        def is_ready() -> bool:
            answer = self.ready()
            return bool(answer.get("ready")) and (bool(answer.get("leader")) or not leader)

        wait_until(is_ready, f"readiness of {self.pod_name}", timeout, alive=self._daemon)

    def metrics(self) -> dict[str, float]:
        """Return all samples of /metrics: `name` or `name{label="value",…}` with sorted labels -> value."""
        samples = {}
        for family in text_string_to_metric_families(self._get("/metrics")):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
                samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return samples

    def peak_memory(self) -> int:
        """Return the most resident memory that the running process ever had, in bytes (Linux)."""
        match = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        assert match is not None
        return int(match.group(1)) * 1024

    def records(self) -> list[dict[str, Any]]:
        """Return the log of all its runs, oldest first; a line that is not JSON becomes an ERROR of `output`."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return [_record(line) for line in lines if line.strip()]

    def unexpected(self, allow: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Return the records of WARNING and above in whose JSON none of the regular expressions `allow` is found."""
        loud = [record for record in self.records() if record.get("level") in _PROBLEM_LEVELS]
        return [record for record in loud if not any(re.search(pattern, json.dumps(record)) for pattern in allow)]

    def _prepared(self, env: Mapping[str, str]) -> Daemon:
        whole = self._env | dict(env)
        if self._fork_server is not None:
            return ForkedProcess(self.pod_name, self._fork_server, ["run"], self.log, env=whole)
        command = [sys.executable, "-c", RUN_MODULE, "voucher_operator.cli", "run"]
        return Daemon(self.pod_name, command, self.log, env=whole)

    def _get(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5.0) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode()


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    return record if isinstance(record, dict) else {"level": "ERROR", "logger": "output", "message": line}
