"""A proxy that cuts or delays the connections to a server. See also: tests of chaos start the operator behind it."""

import json
import urllib.request
from pathlib import Path
from typing import Self

from testbed.processes import Daemon, free_port, wait_until
from testbed.tools import ensure


class Proxy:
    """A proxy to a server whose connections can be cut: toxiproxy on a port of its own. A context manager."""

    def __init__(self, upstream: str, folder: Path) -> None:
        """Lead to `upstream` (host:port); `folder` takes the log and kubeconfigs."""
        self.address = f"127.0.0.1:{free_port()}"
        self._upstream = upstream
        self._folder = folder
        self._api = f"http://127.0.0.1:{free_port()}"
        server = ensure("toxiproxy") / "toxiproxy-server"
        command: list[str | Path] = [server, "-host", "127.0.0.1", "-port", self._api.rpartition(":")[2]]
        self._daemon = Daemon("toxiproxy", command, folder / "toxiproxy.log")

    def __enter__(self) -> Self:
        self._daemon.start()
        wait_until(lambda: self._ask("GET", "/version"), "answer of toxiproxy", alive=self._daemon)
        assert self._ask("POST", "/proxies", {"name": "way", "listen": self.address, "upstream": self._upstream})
        return self

    def __exit__(self, *_: object) -> None:
        self._daemon.kill()

    def cut(self) -> None:
        """Close all connections and take no new ones."""
        assert self._ask("POST", "/proxies/way", {"enabled": False})

    def restore(self) -> None:
        """Accept connections again."""
        assert self._ask("POST", "/proxies/way", {"enabled": True})

    def add_latency(self, milliseconds: int) -> None:
        """Add a latency in both directions, so that a cut finds requests under way."""
        for stream in ("upstream", "downstream"):
            toxic = {"name": stream, "type": "latency", "stream": stream, "attributes": {"latency": milliseconds}}
            assert self._ask("POST", "/proxies/way/toxics", toxic)

    def remove_latency(self) -> None:
        """Let what follows pass at once."""
        for stream in ("upstream", "downstream"):
            assert self._ask("DELETE", f"/proxies/way/toxics/{stream}")

    def kubeconfig(self, direct: Path) -> Path:
        """Write a copy of a kubeconfig that uses this proxy."""
        config = json.loads(direct.read_text())
        config["clusters"][0]["cluster"]["server"] = f"https://{self.address}"
        path = self._folder / "through-the-proxy.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        return path

    def _ask(self, method: str, path: str, body: object = None) -> bool:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._api + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return bool(answer.status < 500)
        except OSError:
            return False
