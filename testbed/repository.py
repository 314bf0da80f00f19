"""A check of the repository itself, for `make check`: no file names a package registry.

Registries are a matter of a machine's own configuration (a mirror, a proxy): a file that names one works in one place.
See also: `make lock-check`, which compares requirements/*.txt with pyproject.toml.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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


def main() -> int:
    """Print the faults; return 1 when there are any."""
    faults = list(named_hosts(ROOT))
    print("\n".join(faults) or "repository: no registry is named")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
