"""Load in the background: customers who redeem, one after the other, in a few threads.

See also: `shop` does it; the tests of faults and of the upgrade use it.
"""

import base64
import json
import ssl
import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.processes import wait_until
from tests.e2e.shop import Api, Shop

_THREADS = 4


def api(kubeconfig: Path) -> Api:
    """Return the API server for the token in a kubeconfig."""
    content = json.loads(kubeconfig.read_text())
    cluster = content["clusters"][0]["cluster"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    return Api(cluster["server"], content["users"][0]["user"]["token"], context)


class Load:
    """Redeems one code, each time for another customer, from start to end; a context manager.

    With a plan, every other customer orders it.
    """

    def __init__(self, api: Api, namespace: str, code: str, prefix: str, plan: str = "") -> None:
        self.states: Counter[str] = Counter()
        """In which state how many Redemptions have finished."""
        self.times: list[float] = []
        """When each of them was seen, by `time.monotonic`."""
        self._plan = plan
        self._shop = Shop(api, namespace, code)
        self._prefix = prefix
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(_THREADS)]

    def __enter__(self) -> Self:
        """Start."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let what is under way be answered, and raise what went wrong."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._errors and error is None:
            raise self._errors[0]

    @property
    def finished(self) -> int:
        """How many were answered."""
        return self.states.total()

    def await_more(self, count: int = 10, timeout: float = 90) -> None:
        """Wait until so many more were answered."""
        goal = self.finished + count
        wait_until(lambda: self.finished >= goal or bool(self._errors), f"{count} more answers", timeout=timeout)

    def _work(self, thread: int) -> None:
        number = 0
        try:
            while not self._stop.is_set():
                # Every other customer orders, if there is a plan.
                state = self._shop.redeem(f"{self._prefix}-{thread}-{number}", self._plan if number % 2 else "")
                self.times.append(time.monotonic())
                self.states[state] += 1
                number += 1
        except BaseException as error:
            self._errors.append(error)
