"""A shop: creates Redemptions through the API server and waits for the answers, as many at once as it has customers.

Runs in this process (`load`) and, as this very file and with nothing installed, in pods beside the operator
(`test_cap_race`): the standard library must do.
"""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_PATH = "/apis/billing.openova.io/v1alpha1/namespaces/{}/redemptions"
_MOUNTED = "/var/run/secrets/kubernetes.io/serviceaccount"
_BUSY = 429
_TRIES = 10


class Api:
    """The API server, for the holder of a token."""

    def __init__(self, server: str, token: str, context: ssl.SSLContext) -> None:
        self._server = server
        self._token = token
        self._context = context

    def open(self, path: str, body: Mapping[str, Any] | None = None, timeout: float = 30.0) -> Any:
        """Send a request (a POST if there is a body) and return the response. Raises OSError, HTTPError among them."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self._server + path, data, headers)
        return urllib.request.urlopen(request, timeout=timeout, context=self._context)

    def call_with_retries(self, path: str, body: Mapping[str, Any] | None = None, timeout: float = 30.0) -> Any:
        """Do as `open`; a server that is busy, or takes in a new CRD, is asked again after the time that it names."""
        for _ in range(_TRIES):
            try:
                return self.open(path, body, timeout)
            except urllib.error.HTTPError as error:
                if error.code != _BUSY:
                    raise RuntimeError(f"{error.code}: {error.read().decode()}") from None
                time.sleep(float(error.headers.get("Retry-After", 1)))
                error.close()
        raise RuntimeError("the API server is too busy")

    def create(self, path: str, body: Mapping[str, Any]) -> None:
        """Create an object."""
        self.call_with_retries(path, body).close()

    def watch(self, path: str, timeout: float) -> Iterator[dict[str, Any]]:
        """Yield an object now and whenever it changes, until the server ends the watch."""
        with self.call_with_retries(f"{path}&watch=true&timeoutSeconds={int(timeout)}", timeout=timeout + 10) as lines:
            for line in lines:
                yield json.loads(line)["object"]


class Shop:
    """Redeems one code for customers."""

    def __init__(self, api: Api, namespace: str, code: str, timeout: float = 120.0) -> None:
        self._api = api
        self._path = _PATH.format(namespace)
        self._code = code
        self._timeout = timeout

    def redeem(self, user: str, plan: str = "") -> str:
        """Redeem, and order a plan, by a Redemption of the customer's name; return the state in which it finished."""
        customer = {"userID": user, "tenantID": "kestrel", "email": f"{user}@example.com"}
        body = {
            "apiVersion": "billing.openova.io/v1alpha1",
            "kind": "Redemption",
            "metadata": {"name": user},
            "spec": {"code": self._code, "customer": customer, **({"order": {"planID": plan}} if plan else {})},
        }
        self._api.create(self._path, body)
        for seen in self._api.watch(f"{self._path}?fieldSelector=metadata.name={user}", self._timeout):
            status = seen.get("status") or {}
            if status.get("finished"):
                return str(status["state"])
        raise TimeoutError(f"{user} was not answered within {self._timeout:g} s")


def main() -> None:
    """In a pod: redeem the code for so many customers at once, and print how many finished in which state."""
    code, namespace, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with open(f"{_MOUNTED}/token") as token:
        context = ssl.create_default_context(cafile=f"{_MOUNTED}/ca.crt")
        shop = Shop(Api("https://kubernetes.default.svc", token.read(), context), namespace, code)
    users = [f"racer-{os.environ['JOB_COMPLETION_INDEX']}-{number}" for number in range(count)]
    with ThreadPoolExecutor(count) as pool:
        print(json.dumps(Counter(pool.map(shop.redeem, users))))


if __name__ == "__main__":
    main()
