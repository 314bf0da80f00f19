"""Builds the Go tools of `tools/`, once, into a cache outside the work tree.

Each folder of `tools/` is a Go module with pinned `tool` lines. `python -m testbed.tools MODULE…` builds and prints the
folders. Neighbours: `control_plane` and `cluster` use the binaries; `gotool` finds Go and runs it.
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

from testbed.gotool import Go, Progress, build, find_go
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


_KUBERNETES = "k8s.io/component-base/version.git"
RECIPES: Mapping[str, Recipe] = {
    "control-plane": Recipe(
        stamps={f"{_KUBERNETES}Version": "v1.36.3", f"{_KUBERNETES}Major": "1", f"{_KUBERNETES}Minor": "36"},
        rename={"server": "etcd"},
    ),
    "helm": Recipe(stamps={"helm.sh/helm/v4/internal/version.version": "v4.3.1"}),
    "kubeconform": Recipe(stamps={"main.version": "v0.8.0"}),
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
    cache = _cache()
    target = cache / f"{module}-{_key(source, go, RECIPES[module])}"
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"{module}.lock", module):
        # Another process may have built it while this one waited.
        if not target.is_dir():
            _build_into(target, module, source, go)
    return target


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "voucher-operator"


def _key(source: Path, go: Go, recipe: Recipe) -> str:
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((source / name).read_bytes())
    digest.update(json.dumps([go.version, LDFLAGS, dict(recipe.stamps), dict(recipe.rename)]).encode())
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path, module: str) -> Iterator[None]:
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
        temporary.chmod(0o755)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def main() -> None:
    """Build the modules named on the command line, or all."""
    for module in sys.argv[1:] or RECIPES:
        print(ensure(module))


if __name__ == "__main__":
    main()
