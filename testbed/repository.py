"""Checks of the repository itself, for `make check`: the locks agree with what is asked for, and no registry is named.

Registries are a matter of a machine's own configuration (a mirror, a proxy): a file that names one works in one place.
See also: `make lock` writes requirements/*.txt from pyproject.toml.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
# In pieces, so that this file does not name them either.
_HOSTS = (
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("proxy", "golang", "org"),
    ("sum", "golang", "org"),
    ("npmjs", "org"),
    ("crates", "io"),
    ("docker", "io"),
    ("ghcr", "io"),
    ("quay", "io"),
    ("gcr", "io"),
    ("registry", "k8s", "io"),
    ("repo", "maven", "apache", "org"),
    ("deb", "debian", "org"),
)
_HOST = re.compile(r"(?<![\w-])(" + "|".join(re.escape(".".join(host)) for host in _HOSTS) + r")(?![\w.-]*\w)")
_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)(?P<rest>.*)$")


def named_hosts(root: Path) -> Iterator[str]:
    """Yield a fault for each line of a file under version control that names a package registry's host."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        path = root / name
        # Checksums are of modules' paths, which look like hosts.
        if path.name == "go.sum" or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            for match in _HOST.finditer(line):
                yield f"{name}:{number}: names the registry {match.group()}"


def pins(lock: str) -> dict[str, str]:
    """Return name -> version of a lock's text. Raises ValueError for a line that is neither pin, hash nor comment."""
    found = {}
    for line in lock.splitlines():
        if not line or line.startswith((" ", "#")):
            continue
        match = _PIN.match(line)
        if match is None:
            raise ValueError(f"not a pin: {line}")
        found[str(canonicalize_name(match["name"]))] = match["version"]
    return found


def lock_faults(root: Path) -> Iterator[str]:
    """Yield a fault for each requirement that a lock does not satisfy, and for each package without a hash."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    direct = project["project"]["dependencies"]
    wanted = {"run": direct, "dev": direct + project["dependency-groups"]["dev"]}
    locks = {name: (root / "requirements" / f"{name}.txt").read_text() for name in wanted}
    for name, requirements in wanted.items():
        pinned = pins(locks[name])
        for text in requirements:
            requirement = Requirement(text)
            version = pinned.get(canonicalize_name(requirement.name))
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                yield f"requirements/{name}.txt: {text} is asked for, {version or 'nothing'} is locked; run `make lock`"
        yield from _hash_faults(name, locks[name])
    different = pins(locks["run"]).items() - pins(locks["dev"]).items()
    for package, version in sorted(different):
        yield f"requirements/dev.txt: not {package}=={version} as in run.txt; run `make lock`"


def _hash_faults(name: str, lock: str) -> Iterator[str]:
    for block in re.split(r"\n(?=\S)", lock):
        if "==" in block.partition("\n")[0] and "--hash=sha256:" not in block:
            yield f"requirements/{name}.txt: no hash for {block.partition(' ')[0]}"


def main() -> int:
    """Print the faults; return 1 when there are any."""
    faults = [*named_hosts(ROOT), *lock_faults(ROOT)]
    print("\n".join(faults) or "repository: locks agree, no registry is named")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
