"""Many lives of one replica, each ended by a kill that was ordered beforehand, at the price of one start.

Most of what a start costs is Python reading the modules. Here that is done once, and each life is a fork of it: a
process of its own with its own environment, which dies by its own SIGKILL, and whose end its parent sees as the kubelet
would. `Lives` is the test's side, `main` the parent's. Neighbour: `operator_process` is a replica with one life.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from testbed.operator_process import ROOT, OperatorProcess
from voucher_operator import cli
from voucher_operator.checkout.effects import VARIABLE
from voucher_operator.process import runner  # noqa: F401 - `cli` reads it late, and then in each life

_ORDERS: Final = "TESTBED_LIVES_ORDERS"
_DEATHS: Final = "TESTBED_LIVES_DEATHS"


class Lives(OperatorProcess):
    """A replica that is started by `start`, lives by `live`, and is ended for good by `stop` or `kill`."""

    def __init__(self, *, folder: Path, env: Mapping[str, str], **more: Any) -> None:
        """As its parent."""
        self._orders = folder / "orders"
        self._deaths = folder / "deaths"
        os.mkfifo(self._orders)
        self._deaths.touch()
        own = {
            "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}",
            _ORDERS: str(self._orders),
            _DEATHS: str(self._deaths),
        }
        super().__init__(folder=folder, env={**env, **own}, module="testbed.lives", **more)
        # For both, so that neither this nor the other end waits for the other one to open it.
        self._pipe = os.open(self._orders, os.O_RDWR)

    def live(self, **env: str) -> None:
        """Begin the next life, with this in its environment; one that is ordered no death is the last."""
        os.write(self._pipe, json.dumps(env).encode() + b"\n")

    @property
    def deaths(self) -> list[int]:
        """Exit codes of the lives that are over: minus the signal's number when one ended it."""
        return [int(line) for line in self._deaths.read_text().splitlines()]

    def close(self) -> None:
        """End whatever still lives."""
        if self.running:
            self.kill()
        os.close(self._pipe)


def main() -> int:
    """Live one life after the other, as ordered; the last one in this very process."""
    with open(os.environ[_ORDERS]) as orders:
        for line in orders:
            env = json.loads(line)
            if VARIABLE not in env:
                break
            _bury(_born(env))
    os.environ.update(env)
    return cli.main(["run"])


def _born(env: Mapping[str, str]) -> int:
    pid = os.fork()
    if pid == 0:
        os.environ.update(env)
        os._exit(cli.main(["run"]))
    return pid


def _bury(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    with open(os.environ[_DEATHS], "a") as deaths:
        deaths.write(f"{os.waitstatus_to_exitcode(status)}\n")


if __name__ == "__main__":
    sys.exit(main())
