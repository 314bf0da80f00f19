"""Everything that is released together names one version, and `make release` moves all of it."""

import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed import release
from testbed.processes import TestbedError
from tests.cluster.chart import CHART, ROOT

BLUEPRINT: dict[str, Any] = yaml.safe_load((CHART / "blueprint.yaml").read_text())
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the files that name the version."""
    for place in release.PLACES:
        copy = tmp_path / place.path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / place.path, copy)
    return tmp_path


def _yaml(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def test_all_places_name_one_version() -> None:
    """Project, package, chart, blueprint and Flux tree."""
    found = {f"{place.path} {place.line}": version for place, version in release.versions()}
    assert len(found) == 6
    assert len(set(found.values())) == 1, found


def test_release_changes_every_version_line(tree: Path) -> None:
    """Read as what they are, not as text; every other line stays."""
    release.release("12.30.4", tree)
    chart, blueprint = (
        _yaml(tree / "charts/bp-voucher-operator" / name)[0] for name in ("Chart.yaml", "blueprint.yaml")
    )
    slot = {d["kind"]: d for d in _yaml(tree / "clusters/_template/bootstrap-kit/49-voucher-operator.yaml")}
    assert [
        tomllib.loads((tree / "pyproject.toml").read_text())["project"]["version"],
        chart["version"],
        chart["appVersion"],
        blueprint["spec"]["version"],
        slot["HelmRelease"]["spec"]["chart"]["spec"]["version"],
    ] == ["12.30.4"] * 5
    assert '__version__ = "12.30.4"' in (tree / "operator/voucher_operator/__init__.py").read_text()
    for path in {place.path for place in release.PLACES}:
        before, after = ((root / path).read_text().splitlines() for root in (ROOT, tree))
        changed = [new for old, new in zip(before, after, strict=True) if old != new]
        assert len(changed) == sum(place.path == path for place in release.PLACES)


@pytest.mark.parametrize("version", ["", "1.2", "v1.2.3", "1.2.3-rc.1", "01.2.3", "1.2.3 ", "1.2.3\n"])
def test_invalid_version_is_refused(tree: Path, version: str) -> None:
    """What pip, helm or a tag would read differently."""
    with pytest.raises(TestbedError, match="not a version"):
        release.release(version, tree)


def test_release_changes_nothing_when_a_line_is_missing(tree: Path) -> None:
    """A file that lost its line is named, and the others are left alone."""
    chart = tree / "charts/bp-voucher-operator/Chart.yaml"
    chart.write_text(chart.read_text().replace("appVersion: ", "appVersion:  "))
    before = (tree / "pyproject.toml").read_text()
    with pytest.raises(TestbedError, match=r"Chart\.yaml: 0 lines name a version after 'appVersion: '"):
        release.release("9.9.9", tree)
    assert (tree / "pyproject.toml").read_text() == before


def test_blueprint_names_the_chart() -> None:
    """The platform's shape, with what it requires."""
    chart = _yaml(CHART / "Chart.yaml")[0]
    assert (BLUEPRINT["apiVersion"], BLUEPRINT["kind"]) == ("catalyst.openova.io/v1alpha1", "Blueprint")
    assert BLUEPRINT["metadata"]["name"] == chart["name"] == CHART.name
    spec = BLUEPRINT["spec"]
    assert spec["card"]["title"]
    assert spec["card"]["summary"]
    assert {"visibility", "owner", "configSchema", "depends", "manifests", "upgrades", "observability"} <= spec.keys()
    assert (CHART / spec["manifests"]["chart"] / "Chart.yaml").samefile(CHART / "Chart.yaml")


def test_blueprint_depends_on_what_the_flux_slot_waits_for() -> None:
    """Twice the same list, for two readers."""
    slot = _yaml(ROOT / "clusters/_template/bootstrap-kit/49-voucher-operator.yaml")
    (helm_release,) = [document for document in slot if document["kind"] == "HelmRelease"]
    waits = [dependency["name"] for dependency in helm_release["spec"]["dependsOn"]]
    assert [dependency["blueprint"] for dependency in BLUEPRINT["spec"]["depends"]] == waits


def _differences(schema: dict[str, Any], values: dict[str, Any], path: str = "") -> list[str]:
    """Return the properties of a configSchema that the chart does not have, or has with another default."""
    found = []
    for name, part in schema["properties"].items():
        if name not in values:
            found.append(f"{path}{name}: no such value")
        elif "properties" in part:
            found += _differences(part, values[name], f"{path}{name}.")
        elif part["default"] != values[name]:
            found.append(f"{path}{name}: {part['default']!r} is not {values[name]!r}")
    return found


def test_blueprint_offers_values_of_the_chart() -> None:
    """Every property is a value of the chart, with its default."""
    assert _differences(BLUEPRINT["spec"]["configSchema"], VALUES) == []
    wrong = {"properties": {"currency": {"default": "KWD"}, "currencies": {}, "image": {"properties": {"tga": {}}}}}
    assert len(_differences(wrong, VALUES)) == 3


def test_blueprint_names_files_and_toggles_that_exist() -> None:
    """The catalog follows these references."""
    observability = BLUEPRINT["spec"]["observability"]
    assert all((CHART / file).is_file() for file in observability["dashboards"]["files"])
    for path in (
        observability["serviceMonitor"],
        observability["prometheusRule"],
        observability["dashboards"]["value"],
    ):
        value: Any = VALUES
        for key in path.split("."):
            value = value[key]
        assert value is False
