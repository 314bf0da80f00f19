"""Builds the Go tools of `tools/`, once, into a cache outside the work tree.

Each folder of `tools/` is a Go module with pinned `tool` lines. `python -m testbed.tools MODULE…` builds and prints the
folders. See also: `control_plane` and `cluster` use the binaries; `gotool` finds Go and runs it.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from testbed.gotool import Go, Progress, build, download, find_go
from testbed.processes import TestbedError

ROOT = Path(__file__).resolve().parent.parent
LDFLAGS = "-s -w"


@dataclass(frozen=True)
class Recipe:
    """What a module's build needs beyond its go.mod."""

    stamps: Mapping[str, str] = field(default_factory=dict)
    """Go variables that carry the version."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """Binaries whose last path element says nothing."""
    crds: Mapping[str, str] = field(default_factory=dict)
    """Modules, as path@version with their checksums, whose CustomResourceDefinitions go into the folder `crds`."""


_KUBERNETES = "k8s.io/component-base/version.git"
RECIPES: Mapping[str, Recipe] = {
    "control-plane": Recipe(
        stamps={f"{_KUBERNETES}Version": "v1.36.3", f"{_KUBERNETES}Major": "1", f"{_KUBERNETES}Minor": "36"},
        rename={"server": "etcd"},
    ),
    # Of the controllers of the other kinds only the definitions are of use, and not all of them can be built.
    "flux": Recipe(
        crds={
            "github.com/fluxcd/kustomize-controller@v1.9.5": "h1:/XY2zy3K7fntyppEXIHG7oRMzmfgIt50eJzUfaPX1Kc=",
            "github.com/fluxcd/source-controller@v1.9.5": "h1:MFPyCodUi9hZIMaKDsC/rYbNoyzpvrAdrPVixj7W9F0=",
            "github.com/fluxcd/helm-controller@v1.6.4": "h1:u/Ew7LehrwDQaE/NqWdaB3XnNDCxRGDcp1FZl7RKj4g=",
        }
    ),
    "helm": Recipe(stamps={"helm.sh/helm/v4/internal/version.version": "v4.3.1"}),
    "kubeconform": Recipe(stamps={"main.version": "v0.8.0"}),
    # What Argo CD runs health scripts with.
    "lua": Recipe(),
    "nats": Recipe(),
    "stripe-mock": Recipe(stamps={"main.version": "0.203.0"}),
    "toxiproxy": Recipe(
        stamps={"github.com/Shopify/toxiproxy/v2.Version": "2.5.0"}, rename={"server": "toxiproxy-server"}
    ),
}


def ensure(module: str) -> Path:
    """Return the folder of the binaries of `tools/<module>`, after building them where they are absent.

    Safe when several processes ask at once: one builds, the others wait. Raises TestbedError when the build fails.
    """
    if module not in RECIPES:
        raise TestbedError(f"no tools/{module}; there are: {', '.join(RECIPES)}")
    source = ROOT / "tools" / module
    go = find_go(source / "go.mod")
    folder = cache()
    target = folder / f"{module}-{_key(source, go, RECIPES[module])}"
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f"{module}.lock", module):
        # Another process may have built it while this one waited.
        if not target.is_dir():
            _build_into(target, module, source, go)
    return target


def cache() -> Path:
    """Return the folder outside the work tree that keeps what was built or unpacked."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "voucher-operator"


def _key(source: Path, go: Go, recipe: Recipe) -> str:
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((source / name).read_bytes())
    parts = [go.version, LDFLAGS, dict(recipe.stamps), dict(recipe.rename)]
    digest.update(json.dumps([*parts, dict(recipe.crds)] if recipe.crds else parts).encode())
    return digest.hexdigest()[:16]


@contextmanager
def locked(path: Path, module: str) -> Iterator[None]:
    """Let one process at a time build `module`; the others wait, and say so."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{module}: another process builds it, waiting", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_into(target: Path, module: str, source: Path, go: Go) -> None:
    recipe = RECIPES[module]
    for left_over in target.parent.glob(f".{module}-*"):
        shutil.rmtree(left_over)
    temporary = Path(tempfile.mkdtemp(prefix=f".{module}-", dir=target.parent))
    try:
        flags = " ".join([LDFLAGS, *(f"-X {name}={value}" for name, value in recipe.stamps.items())])
        build(go, source, temporary, flags, Progress(module))
        for old, new in recipe.rename.items():
            (temporary / old).rename(temporary / new)
        _copy_crds(go, recipe, temporary)
        temporary.chmod(0o755)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _copy_crds(go: Go, recipe: Recipe, target: Path) -> None:
    for module, checksum in recipe.crds.items():
        (target / "crds").mkdir(exist_ok=True)
        for path in (download(go, module, checksum, target) / "config" / "crd" / "bases").glob("*.yaml"):
            # Without its mode: the module cache is read-only.
            shutil.copyfile(path, target / "crds" / path.name)


def main() -> None:
    """Build the modules named on the command line, or all."""
    for module in sys.argv[1:] or RECIPES:
        print(ensure(module))


if __name__ == "__main__":
    main()
