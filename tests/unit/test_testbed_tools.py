"""The Go tools are built once, by one builder, and pinned so that the packaged Go can build them."""

import re
import subprocess
from pathlib import Path

import pytest

from testbed import gotool, tools
from testbed.processes import TestbedError

MODULES = sorted(tools.RECIPES)


def test_every_module_has_a_recipe() -> None:
    assert sorted(path.parent.name for path in (tools.ROOT / "tools").glob("*/go.mod")) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_packaged_go_is_new_enough(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no Go is installed, the one from the requirements must do."""
    monkeypatch.setattr("testbed.gotool.shutil.which", lambda _: None)
    go = gotool.find_go(tools.ROOT / "tools" / module / "go.mod")
    assert go.binary.parts[-3:] == ("go", "bin", "go")


def test_too_old_a_go_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module x\n\ngo 1.999.0\n")
    with pytest.raises(TestbedError, match=r"Go 1\.999\.0 or newer is needed, found: go1"):
        gotool.find_go(tmp_path / "go.mod")


@pytest.mark.parametrize("module", MODULES)
def test_stamps_are_the_pinned_versions(module: str) -> None:
    """A stamp that lags behind go.mod would lie about what was built."""
    go_mod = (tools.ROOT / "tools" / module / "go.mod").read_text()
    versions = {value for name, value in tools.RECIPES[module].stamps.items() if name.lower().endswith("version")}
    for version in versions:
        assert re.search(rf"^\s.* v{re.escape(version.removeprefix('v'))}( // indirect)?$", go_mod, re.MULTILINE), (
            version
        )


def test_build_is_used_again_and_one_that_failed_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = gotool.find_go(tools.ROOT / "tools" / "lua" / "go.mod")
    compiled = subprocess.run([go.binary, "env", "GOCACHE"], check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.setenv("GOCACHE", compiled)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tools, "ROOT", tmp_path)
    monkeypatch.setattr(tools, "RECIPES", {"own": tools.Recipe(rename={"own": "renamed"})})
    source = tmp_path / "tools" / "own"
    source.mkdir(parents=True)
    (source / "go.mod").write_text("module example.invalid/own\n\ngo 1.26.0\n\ntool example.invalid/own\n")
    (source / "go.sum").touch()
    (source / "main.go").write_text("package main\n\nfunc main() { undefined() }\n")
    with pytest.raises(TestbedError, match="undefined: undefined"):
        tools.ensure("own")
    assert list((tmp_path / "cache" / "voucher-operator").glob("*own-*")) == []
    (source / "main.go").write_text("package main\n\nfunc main() {}\n")
    built = tools.ensure("own")
    assert [path.name for path in built.iterdir()] == ["renamed"]
    (source / "main.go").unlink()
    assert tools.ensure("own") == built


def test_module_with_another_checksum_is_refused(tmp_path: Path) -> None:
    go = gotool.find_go(tools.ROOT / "tools" / "lua" / "go.mod")
    module, checksum = "github.com/yuin/gopher-lua@v1.1.2", "h1:yF/FjE3hD65tBbt0VXLE13HWS9h34fdzJmrWRXwobGA="
    assert (gotool.download(go, module, checksum, tmp_path) / "go.mod").is_file()
    with pytest.raises(TestbedError, match=r"its checksum is h1:yF/.*, not h1:other="):
        gotool.download(go, module, "h1:other=", tmp_path)
