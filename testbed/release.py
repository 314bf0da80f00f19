"""Sets the version of everything that is released together: `make release VERSION=1.2.3`.

Project, package, chart, blueprint and the Flux tree each name it, because each is read alone by somebody else: pip,
people, helm, the platform's catalog, a Sovereign. See also: tests/cluster/test_delivery_versions.py holds them
together.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from testbed.processes import TestbedError

ROOT = Path(__file__).resolve().parent.parent
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
"""Plain, as it means the same to pip, helm and a container's tag."""


@dataclass(frozen=True)
class Place:
    """One line that names the version."""

    path: str
    line: str
    """Regular expression of what stands before the version, at the beginning of the only such line."""

    def read(self, root: Path) -> str:
        """Return the version that is named here. Raises TestbedError unless there is exactly one."""
        return str(self._match(root)["version"])

    def write(self, root: Path, version: str) -> None:
        """Name another version, and change nothing else. Raises TestbedError as `read` does."""
        found = self._match(root)
        start, end = found.span("version")
        text = found.string
        (root / self.path).write_text(text[:start] + version + text[end:])

    def _match(self, root: Path) -> re.Match[str]:
        text = (root / self.path).read_text()
        found = list(re.finditer(rf"^{self.line}(?P<version>{_VERSION.pattern})(?=\"?$)", text, re.MULTILINE))
        if len(found) != 1:
            raise TestbedError(f"{self.path}: {len(found)} lines name a version after {self.line!r}, not one")
        return found[0]


_CHART = "charts/bp-voucher-operator"
PLACES = (
    Place("pyproject.toml", 'version = "'),
    Place("operator/voucher_operator/__init__.py", '__version__ = "'),
    Place(f"{_CHART}/Chart.yaml", "version: "),
    Place(f"{_CHART}/Chart.yaml", "appVersion: "),
    Place(f"{_CHART}/blueprint.yaml", "  version: "),
    # Six blanks: below spec.chart.spec of the HelmRelease.
    Place("clusters/_template/bootstrap-kit/49-voucher-operator.yaml", "      version: "),
)


def versions(root: Path = ROOT) -> Iterator[tuple[Place, str]]:
    """Yield each place with the version that it names. Raises TestbedError when one names none."""
    yield from ((place, place.read(root)) for place in PLACES)


def release(version: str, root: Path = ROOT) -> None:
    """Name `version` everywhere, or nowhere. Raises TestbedError for what is no version, or a place without one."""
    if not _VERSION.fullmatch(version):
        raise TestbedError(f"not a version: {version!r}; say make release VERSION=1.2.3")
    list(versions(root))
    for place in PLACES:
        place.write(root, version)


def main() -> int:
    """Set the version named on the command line; return 1 and change nothing when that cannot be."""
    try:
        release("".join(sys.argv[1:]))
    except (TestbedError, OSError) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    print("\n".join(f"{version}  {place.path}" for place, version in versions()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
