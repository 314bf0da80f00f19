"""A real PgBouncer before a PostgreSQL server, in session or in transaction mode.

It is the one on the PATH, or Debian's package: downloaded by apt and unpacked into the cache, because installing it
would start a service. See also: `postgres` has the servers; `tools` has the cache.
"""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psycopg

from testbed.postgres import Database, PostgresServer
from testbed.processes import Daemon, TestbedError, free_port, temporary_folder, wait_until
from testbed.tools import cache, locked

Mode = Literal["session", "transaction", "statement"]

_PACKAGE = "pgbouncer"


class PgBouncer:
    """One PgBouncer on loopback for all databases of a server; a context manager."""

    def __init__(self, server: PostgresServer, mode: Mode, *, pool_size: int = 20, clients: int = 200) -> None:
        """Prepare; nothing runs yet. `pool_size`: sessions for each database and role; `clients`: connections to it."""
        self.port = 0
        self._server = server
        self._settings = {
            "pool_mode": mode,
            "default_pool_size": str(pool_size),
            "max_client_conn": str(clients),
            "query_wait_timeout": "10",
        }
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Start, and return when it answers. Raises TestbedError."""
        with contextlib.ExitStack() as started:
            folder = started.enter_context(temporary_folder("pgbouncer"))
            folder.chmod(0o755)
            self.port = free_port()
            binary, libraries = _binary()
            daemon = Daemon(
                _PACKAGE,
                [binary, self._configuration(folder)],
                folder / "pgbouncer.log",
                env={**os.environ, "LD_LIBRARY_PATH": libraries} if libraries else None,
                cwd=folder,
            )
            daemon.start()
            started.callback(daemon.kill)
            wait_until(self._answers, "answer of PgBouncer", 20, alive=daemon)
            self._resources = started.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._resources.close()

    def database(self, database: Database) -> Database:
        """Return the same database with URLs that lead through this PgBouncer; the administrator's stays direct."""
        return replace(database, owner_url=self.url(database.owner_url), runtime_url=self.url(database.runtime_url))

    def url(self, url: str) -> str:
        """Return a URL of the server that leads through this PgBouncer."""
        return url.replace(f":{self._server.port}/", f":{self.port}/")

    def _configuration(self, folder: Path) -> Path:
        lines = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": str(folder / "users.txt"),
            # It refuses to run as root, and drops root's rights itself.
            **({"user": "nobody"} if os.geteuid() == 0 else {}),
            **self._settings,
        }
        configuration = folder / "pgbouncer.ini"
        databases = f"[databases]\n* = host=127.0.0.1 port={self._server.port}\n[pgbouncer]\n"
        configuration.write_text(databases + "".join(f"{name} = {value}\n" for name, value in lines.items()))
        users = [f'"{role}" "{password}"\n' for role, password in self._server.passwords.items()]
        (folder / "users.txt").write_text("".join(users))
        return configuration

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url(self._server.admin_url), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def _binary() -> tuple[Path, str | None]:
    """Return PgBouncer's binary, and the path of its libraries if it is not installed."""
    if (found := shutil.which(_PACKAGE, path=f"{os.environ.get('PATH', '')}:/usr/sbin")) is not None:
        return Path(found), None
    folder = cache() / _PACKAGE
    if not folder.is_dir():
        cache().mkdir(parents=True, exist_ok=True)
        with locked(cache() / f"{_PACKAGE}.lock", _PACKAGE):
            if not folder.is_dir():
                _unpack_into(folder)
    libraries = {str(path.parent) for path in folder.glob("**/lib*.so.*")}
    return folder / "usr" / "sbin" / _PACKAGE, ":".join(sorted(libraries))


def _unpack_into(target: Path) -> None:
    if shutil.which("apt-get") is None:
        raise TestbedError("PgBouncer is not installed: install the package pgbouncer of this system")
    temporary = Path(tempfile.mkdtemp(prefix=f".{_PACKAGE}-", dir=target.parent))
    try:
        _download_into(temporary)
        for package in temporary.glob("*.deb"):
            _run(temporary, "dpkg-deb", "--extract", package.name, "unpacked")
        (temporary / "unpacked").rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _download_into(folder: Path) -> None:
    """Download the package and its libraries; on a machine that has no lists of packages yet, as root, those first."""
    if os.geteuid() == 0 and subprocess.run(["apt-cache", "show", _PACKAGE], capture_output=True).returncode != 0:
        _run(folder, "apt-get", "update")
    depends = re.findall(r"Depends: (lib\S+)", _run(folder, "apt-cache", "depends", "--no-recommends", _PACKAGE))
    _run(folder, "apt-get", "download", _PACKAGE, *(name for name in depends if name != "libc6"))


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise TestbedError(f"{command[0]} failed; run apt-get update once as root, or install pgbouncer\n{done.stderr}")
    return done.stdout
