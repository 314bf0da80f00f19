"""Argo CD's health script reads resources as kstatus does; run by the interpreter that Argo CD has inside."""

import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.interpreter import ROOT
from testbed.kstatus import kstatus
from testbed.tools import ensure

KEY = "resource.customizations.health.billing.openova.io_{}"
HEALTH = {"InProgress": "Progressing", "Failed": "Degraded", "Current": "Healthy"}


def script(kind: str) -> str:
    config = yaml.safe_load((ROOT / "docs" / "argocd" / "argocd-cm.yaml").read_text())
    return str(config["data"][KEY.format(kind)])


def lua(value: Any) -> str:
    """Write a value as Lua does."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"[{lua(key)}] = {lua(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ", ".join(lua(one) for one in value) + "}"
    return f'"{value}"' if isinstance(value, str) else str(value)


def health(folder: Path, kind: str, bodies: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return status and message of each resource."""
    (folder / "health.lua").write_text(script(kind))
    loop = "for _, one in ipairs(all) do obj = one; local hs = health(); print(hs.status .. '|' .. hs.message) end"
    (folder / "all.lua").write_text(
        f"local health = assert(loadfile('health.lua'))\nlocal all = {lua(bodies)}\n{loop}\n"
    )
    done = subprocess.run([ensure("lua") / "glua", "all.lua"], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rows = [line.partition("|") for line in done.stdout.splitlines()]
    return [(status, message) for status, _, message in rows]


def body(observed: int, **conditions: str | None) -> dict[str, Any]:
    listed = [
        {"type": kind, "status": status, "reason": f"Because{kind}", "message": "it is so"}
        for kind, status in conditions.items()
        if status is not None
    ]
    return {"metadata": {"generation": 2}, "status": {"observedGeneration": observed, "conditions": listed}}


@pytest.mark.parametrize("kind", ["Voucher", "Redemption"])
def test_health_script_equals_kstatus(tmp_path: Path, kind: str) -> None:
    states = product((-1, 1, 2), ("True", "False", "Unknown"), (None, "True", "False"), (None, "True", "False"))
    bodies = [body(seen, Ready=one, Reconciling=two, Stalled=three) for seen, one, two, three in states]
    results = health(tmp_path, kind, bodies)
    assert [status for status, _ in results] == [HEALTH[kstatus(one)] for one in bodies]
    assert {status for status, _ in results} == set(HEALTH.values())


def test_health_message_is_of_the_deciding_condition(tmp_path: Path) -> None:
    bodies = [
        {"metadata": {"generation": 1}},
        body(2),
        body(2, Ready="False", Reconciling="True"),
        body(2, Ready="False", Stalled="True"),
        body(2, Ready="True", Redeemable="False"),
    ]
    assert health(tmp_path, "Voucher", bodies) == [
        ("Progressing", "The operator has not seen it yet."),
        ("Progressing", "Not ready yet."),
        ("Progressing", "BecauseReconciling: it is so"),
        ("Degraded", "BecauseStalled: it is so"),
        ("Healthy", "BecauseReady: it is so"),
    ]
