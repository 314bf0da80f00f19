"""A PostgreSQL server inside the cluster, with its Service, its volume, and Secrets in CloudNativePG's shape.

Databases and logins are made per installation. See also: postgres/ is the image and its objects; `release` is given
the Secrets.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from testbed.processes import Daemon, temporary_folder, wait_until
from tests.e2e.cluster import Document, Kind
from tests.e2e.objects import secret

POD = "ledger-0"
SERVICE = "ledger-rw"
_OBJECTS = Path(__file__).parent / "postgres" / "server.yaml"
_FORWARDED = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ")


@dataclass(frozen=True)
class Login:
    """A role with a password, for one database of the server."""

    database: str
    role: str
    password: str
    host: str

    def secret(self, name: str, password: str | None = None) -> Document:
        """Return the Secret that CloudNativePG would write for it, or one with another password."""
        word = password or self.password
        uri = f"postgresql://{self.role}:{word}@{self.host}:5432/{self.database}"
        line = f"{self.host}:5432:{self.database}:{self.role}:{word}"
        names = {"username": self.role, "user": self.role, "password": word, "dbname": self.database}
        document = secret(name, **names, host=self.host, port="5432", uri=uri, pgpass=line)
        return document | {"type": "kubernetes.io/basic-auth"}


class Server:
    """The server; one a cluster."""

    def __init__(self, kind: Kind, namespace: str) -> None:
        """Prepare; nothing runs yet."""
        self._kind = kind
        self.namespace = namespace
        self._host = f"{SERVICE}.{namespace}.svc"

    def install(self) -> None:
        """Apply it; `await_ready` is the caller's."""
        self._kind.namespace(self.namespace)
        self._kind.apply(*yaml.safe_load_all(_OBJECTS.read_text()), namespace=self.namespace)

    def await_ready(self) -> None:
        """Wait until the Service has somewhere to send to."""
        self._kind.wait(f"pod/{POD}", "create", self.namespace)
        self._kind.wait(f"pod/{POD}", "condition=Ready", self.namespace, timeout=120)

    def stop(self) -> None:
        """Take the server away, until `start`."""
        self._scale(0)
        self._kind.wait(f"pod/{POD}", "delete", self.namespace)

    def start(self) -> None:
        """Bring it back, and wait until it answers."""
        self._scale(1)
        self.await_ready()

    def _scale(self, replicas: int) -> None:
        self._kind.kubectl("scale", "statefulset/ledger", f"--replicas={replicas}", f"--namespace={self.namespace}")

    def delete_pod(self) -> None:
        """Delete the server's pod, as a drained machine would; it comes back by itself, with its data.

        A second is too short for an orderly end, so the server crashes. Not by force: the next pod would then start
        beside the old one, two servers on the same data, and what the old one still commits would be lost.
        """
        self._kind.kubectl("delete", "pod", POD, f"--namespace={self.namespace}", "--grace-period=1")

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run statements as superuser, return the rows: a line each, columns between `|`. Raises TestbedError."""
        psql = ("psql", "-qtA", "-v", "ON_ERROR_STOP=1", "-f", "-", database)
        place = f"--namespace={self.namespace}"
        return self._kind.kubectl("exec", "-i", place, POD, "--", *psql, input=statement).strip()

    def login(self, role: str, database: str, *, create: bool = True) -> Login:
        """Return a login with a new password, and create its role if `create` is true."""
        login = Login(database, role, secrets.token_hex(8), self._host)
        if create:
            self.create(login)
        return login

    def create(self, login: Login) -> None:
        """Make the login's role, or give it the login's password."""
        self.sql(
            f"DO $$ BEGIN CREATE ROLE {login.role} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$; "
            f"ALTER ROLE {login.role} LOGIN PASSWORD '{login.password}'"
        )

    def database(self, name: str) -> Login:
        """Make a database and return its owner, a role of the same name, as CloudNativePG does."""
        owner = self.login(name, name)
        self.sql(f"CREATE DATABASE {name} OWNER {name}")
        return owner

    @contextmanager
    def forwarded(self, login: Login) -> Iterator[str]:
        """Open a way to the server from here; yield a URL."""
        command = [str(part) for part in self._kind.command("port-forward", f"pod/{POD}", ":5432")]
        with temporary_folder("forward") as folder:
            tunnel = Daemon("port-forward", [*command, f"--namespace={self.namespace}"], folder / "log")
            tunnel.start()
            try:
                wait_until(lambda: _FORWARDED.search(tunnel.tail()) is not None, "tunnel", alive=tunnel)
                found = _FORWARDED.search(tunnel.tail())
                assert found is not None
                yield f"postgresql://{login.role}:{login.password}@127.0.0.1:{found[1]}/{login.database}"
            finally:
                tunnel.stop()
