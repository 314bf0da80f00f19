"""Monitoring comes with its toggles, where the cluster has it, and speaks of metrics that the operator really has."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from testbed.tools import ensure
from tests.cluster.chart import CHART, EVERYTHING, MONITORED, Document, helm, of_kind, render, the
from voucher_operator import telemetry

TOGGLES = ("serviceMonitor", "prometheusRule", "dashboard")
DASHBOARD: Document = json.loads((CHART / "dashboards/voucher-operator.json").read_text())
# What Prometheus adds to every series of a ServiceMonitor.
TARGET_LABELS = {"namespace", "job", "pod", "le"}


def _monitoring(documents: list[Document]) -> set[str]:
    kinds = {"ServiceMonitor": "serviceMonitor", "PrometheusRule": "prometheusRule", "ConfigMap": "dashboard"}
    return {kinds[document["kind"]] for document in documents if document["kind"] in kinds}


@pytest.mark.parametrize("toggle", TOGGLES)
def test_each_monitor_has_its_toggle(toggle: str) -> None:
    """And none comes to a cluster that would refuse it."""
    values = {"monitoring": {toggle: {"enabled": True}}}
    assert _monitoring(render(values, options=MONITORED)) == {toggle}
    assert _monitoring(render(values)) == set()


def test_monitoring_is_off_by_default() -> None:
    """Also where the cluster has it."""
    assert _monitoring(render(options=MONITORED)) == set()


@pytest.mark.parametrize("served", [True, False])
def test_platform_script_agrees(served: bool) -> None:
    """The script that the platform calls; it finds the fault in a chart without toggles."""
    environment = {**os.environ, "HELM": str(ensure("helm") / "helm")}
    chart = CHART if served else CHART / "templates"
    command = [CHART / "tests/observability-toggle.sh", chart]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode == 0) == served, done.stdout + done.stderr
    assert ("ok      on: Dashboard PrometheusRule ServiceMonitor" in done.stdout) == served


def test_platform_script_reports_a_monitor_without_toggle(tmp_path: Any) -> None:
    """A monitor that ignores its toggle is noticed."""
    packed = tmp_path / "chart"
    subprocess.run(["cp", "-rL", CHART, packed], check=True)
    monitor = packed / "templates/servicemonitor.yaml"
    monitor.write_text(monitor.read_text().replace("and .enabled", "and true"))
    environment = {**os.environ, "HELM": str(ensure("helm") / "helm")}
    done = subprocess.run(
        [CHART / "tests/observability-toggle.sh", packed], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "FAILED  default, API there: wanted nothing, got ServiceMonitor" in done.stderr


def test_notes_report_monitoring_that_was_left_out() -> None:
    """Otherwise the toggle would seem to be broken."""
    on = ("--set", "monitoring.dashboard.enabled=true")
    said = helm("install", "x", CHART, "--dry-run=client", *on).stdout
    assert "this cluster has no monitoring.coreos.com/v1" in said
    assert "monitoring.coreos.com" not in helm("install", "x", CHART, "--dry-run=client").stdout


def test_service_monitor_finds_the_service() -> None:
    """By its labels, its port's name and the path that the process serves."""
    documents = render(EVERYTHING, options=MONITORED, namespace="ops")
    monitor, service = the(documents, "ServiceMonitor"), the(documents, "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["namespaceSelector"]["matchNames"] == ["ops"] == [service["metadata"]["namespace"]]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == (service["spec"]["ports"][0]["name"], "/metrics")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def _known() -> dict[str, set[str]]:
    """Return every series that the operator can have, with its own labels."""
    known: dict[str, set[str]] = {"up": set()}
    for family in telemetry.REGISTRY.collect():
        suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}[family.type]
        collector = telemetry.REGISTRY._names_to_collectors[family.name]
        known |= {family.name + suffix: set(collector._labelnames) for suffix in suffixes}  # type: ignore[attr-defined]
    return known


def _expressions() -> Iterator[tuple[str, str]]:
    for rule in _rules():
        yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])


def _rules(values: Document = EVERYTHING) -> list[Document]:
    (group,) = the(render(values, options=MONITORED, release="x"), "PrometheusRule")["spec"]["groups"]
    return list(group["rules"])


def _faults(expression: str) -> Iterator[str]:
    """Yield what is wrong with a PromQL expression: a series, label or parenthesis that is not there."""
    known = _known()
    series = re.findall(r"\b(up|voucher_operator_\w+)\{([^}]*)\}", expression)
    bare = re.sub(r"\{[^}]*\}", "{}", expression)
    if len(series) != len(re.findall(r"\bup\b|\bvoucher_operator_\w+", bare)):
        yield "a series without a selector"
    for metric, matchers in series:
        labels = set(re.findall(r"(\w+)=", matchers))
        if not {"namespace", "job"} <= labels <= known.get(metric, set()) | TARGET_LABELS:
            yield f"{metric} has not all of these labels, or they are not of this release: {labels}"
        if metric not in known:
            yield f"no such series: {metric}"
    own = set().union(*(known.get(metric, set()) for metric, _ in series)) | TARGET_LABELS
    grouped = {label for by in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for label in by.split(", ")}
    yield from (f"no such label: {label}" for label in grouped - own)
    if expression.count("(") != expression.count(")"):
        yield "parentheses do not match"


def test_expressions_are_of_series_that_exist() -> None:
    """A metric or label that is renamed is noticed here, and every selector keeps to this release's series."""
    found = {(name, fault) for name, expression in _expressions() for fault in _faults(expression)}
    assert found == set()


@pytest.mark.parametrize(
    "expression",
    [
        "sum(voucher_operator_leader) > 1",
        'voucher_operator_leaders{namespace="a", job="b"}',
        'voucher_operator_leader{namespace="a"}',
        'voucher_operator_leader{namespace="a", job="b", reason="c"}',
        'sum by (outcom) (voucher_operator_redemptions_total{namespace="a", job="b"})',
        'max(up{namespace="a", job="b"}',
    ],
)
def test_wrong_expression_is_reported(expression: str) -> None:
    """The check above can fail."""
    assert list(_faults(expression))


def test_required_alerts_have_severity_and_runbook() -> None:
    """Each says what is wrong, what it means and what to do, and how urgent it is."""
    rules = {rule["alert"]: rule for rule in _rules()}
    assert {rule["labels"]["severity"] for rule in rules.values()} == {"critical", "warning"}
    critical = {name for name, rule in rules.items() if rule["labels"]["severity"] == "critical"}
    assert critical == {f"VoucherOperator{part}" for part in ("Down", "LedgerDown", "NoLeader", "ApiUnavailable")}
    assert {"VoucherOperatorQueueNotDraining", "VoucherOperatorDriftCorrected"} <= rules.keys()
    for rule in rules.values():
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert all(len(text) > 20 for text in rule["annotations"].values())
        assert set(re.findall(r"\$labels\.(\w+)", json.dumps(rule))) <= {"resource"}


def test_alerts_select_this_release() -> None:
    """The alerts of two releases in one cluster are separate; the job is the Service's name."""
    documents = render(EVERYTHING, options=MONITORED, release="x", namespace="ops")
    service = the(documents, "Service")["metadata"]["name"]
    text = json.dumps(the(documents, "PrometheusRule")["spec"])
    assert set(re.findall(r'namespace=\\"([^\\]*)', text)) == {"ops"}
    assert set(re.findall(r'job=\\"([^\\]*)', text)) == {service}


def test_queue_alert_uses_its_threshold() -> None:
    """The Sovereign sets the length of the queue."""
    monitoring = {"prometheusRule": {"enabled": True, "queueLength": 7}}
    (rule,) = [r for r in _rules({"monitoring": monitoring}) if r["alert"] == "VoucherOperatorQueueNotDraining"]
    assert rule["expr"].endswith("> 7")
    assert "More than 7 {{ $labels.resource }}s" in rule["annotations"]["summary"]


def test_dashboard_configmap_equals_the_file() -> None:
    """Grafana's sidecar finds it by its label and reads the file as it is."""
    (config,) = of_kind(render(EVERYTHING, options=MONITORED), "ConfigMap")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config["metadata"]["annotations"] == {"grafana_folder": "Billing"}
    (text,) = config["data"].values()
    assert json.loads(text) == DASHBOARD


def test_dashboard_shows_every_metric_without_overlap() -> None:
    """Panels do not overlap, ask the chosen data source, and show every metric there is."""
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in DASHBOARD["panels"])
    shown = json.dumps(DASHBOARD)
    assert [family.name for family in telemetry.REGISTRY.collect() if family.name not in shown] == []
