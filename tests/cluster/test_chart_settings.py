"""The chart's values reach the process: every setting has its variable, and the defaults are the same."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.cluster.chart import EVERYTHING, WORKLOADS, Document, container, hook, render, the, workload
from voucher_operator.settings import Settings

PREFIX = "VOUCHER_OPERATOR_"
# Credentials come in mounted files, pods listen where they always do, and there is one Stripe.
NOT_OFFERED = {"DATABASE_URL", "STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET"}
NOT_OFFERED |= {"STRIPE_API_BASE"}
# Known only in the cluster, or the release's own.
PER_RELEASE = {"database_dir", "excluded_secrets", "namespaces", "pod_name", "pod_namespace", "lease_name"}
MOUNTED = {
    "stripe_api_key_file": Path("/etc/voucher-operator/stripe/api-key"),
    "stripe_webhook_secret_file": Path("/etc/voucher-operator/stripe/webhook-secret"),
    "nats_url_file": Path("/etc/voucher-operator/nats/url"),
    "nats_user_file": Path("/etc/voucher-operator/nats/user"),
    "nats_password_file": Path("/etc/voucher-operator/nats/password"),
    "nats_token_file": Path("/etc/voucher-operator/nats/token"),
}
POD = {"metadata.name": "voucher-operator-abc", "metadata.namespace": "billing"}


def _environment(runs: Document) -> dict[str, str]:
    """Return the container's environment as the kubelet would set it."""
    found = {}
    for entry in container(runs)["env"]:
        source = entry.get("valueFrom")
        found[entry["name"]] = POD[source["fieldRef"]["fieldPath"]] if source else entry["value"]
    return found


def _settings(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings()


def test_chart_sets_exactly_the_offered_settings() -> None:
    """A setting that is added, renamed or misspelt is noticed here."""
    known = {(field.validation_alias or name).upper() for name, field in Settings.model_fields.items()}  # type: ignore[union-attr]
    environment = _environment(the(render(EVERYTHING), "Deployment"))
    given = {name.removeprefix(PREFIX) for name in environment if name.startswith(PREFIX)}
    assert given == known - NOT_OFFERED


def test_chart_defaults_equal_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chart changes no default; what is the release's own is as it should be."""
    given = _settings(monkeypatch, _environment(the(render(), "Deployment")))
    defaults = {name: field.default for name, field in Settings.model_fields.items() if name not in PER_RELEASE}
    assert {name: getattr(given, name) for name in defaults} == defaults | MOUNTED
    assert given.database_dir == Path("/etc/voucher-operator/database")
    assert given.excluded_secrets == (
        "voucher-operator-database",
        "voucher-operator-database-owner",
        "voucher-operator-stripe",
        "voucher-operator-nats",
    )
    assert (given.namespaces, given.lease_name) == (("billing",), "bp-voucher-operator")
    assert (given.pod_name, given.pod_namespace) == ("voucher-operator-abc", "billing")


@pytest.mark.parametrize(
    ("values", "setting", "expected"),
    [
        ({"currency": "KWD"}, "currency", "KWD"),
        ({"runtimeRole": "vouchers"}, "runtime_role", "vouchers"),
        ({"database": {"poolSize": 9}}, "pool_size", 9),
        ({"database": {"pooler": "transaction"}}, "pooler", "transaction"),
        (
            {"database": {"existingSecret": "a", "ownerSecret": "b"}},
            "excluded_secrets",
            ("a", "b", "voucher-operator-stripe", "voucher-operator-nats"),
        ),
        ({"codes": {"unlabelledSecrets": ["*-code", "1e3"]}}, "unlabelled_code_secrets", ("*-code", "1e3")),
        (
            {"codes": {"prefixes": {"sales": ["SALES-", "1E3"], "billing": [""]}}},
            "code_prefixes",
            {"sales": ("SALES-", "1E3"), "billing": ("",)},
        ),
        ({"logLevel": "DEBUG"}, "log_level", "DEBUG"),
        ({"workers": 64}, "workers", 64),
        ({"watchNamespaces": ["one", "2"]}, "namespaces", ("one", "2")),
        ({"unservedVouchers": "revoke"}, "unserved_vouchers", "revoke"),
        ({"intervals": {"counterSync": 0.5}}, "counter_sync_interval", 0.5),
        ({"intervals": {"resync": 86400}}, "resync_interval", 86400.0),
        ({"intervals": {"statusCheck": 60}}, "status_check_interval", 60.0),
        ({"intervals": {"secret": 1}}, "secret_interval", 1.0),
        ({"intervals": {"backoffMax": 60}}, "backoff_max", 60.0),
        ({"intervals": {"notFoundGrace": 0}}, "not_found_grace", 0.0),
        ({"intervals": {"finalizerTimeout": 0}}, "finalizer_timeout", 0.0),
        ({"terminationGracePeriodSeconds": 1}, "stop_timeout", 0.8),
        ({"terminationGracePeriodSeconds": 3600}, "stop_timeout", 2880.0),
        ({"sovereign": "1e3.example"}, "sovereign", "1e3.example"),
        ({"catalog": {"url": "http://catalog:8080"}}, "catalog_url", "http://catalog:8080"),
        (
            {"catalog": {"existingConfigMap": "prices"}},
            "catalog_file",
            Path("/etc/voucher-operator/catalog/catalog.json"),
        ),
        ({"stripe": {"timeout": 5}}, "stripe_timeout", 5.0),
        ({"stripe": {"webhookMaxBytes": 1048576}}, "webhook_max_bytes", 1_048_576),
        ({"stripe": {"minimumMinor": 0}}, "stripe_minimum_minor", 0),
        ({"stripe": {"minimumMinor": 1000000}}, "stripe_minimum_minor", 1_000_000),
        (
            {"checkout": {"successUrl": "https://x/{CHECKOUT_SESSION_ID}"}},
            "checkout_success_url",
            "https://x/{CHECKOUT_SESSION_ID}",
        ),
        ({"checkout": {"cancelUrl": "https://x"}}, "checkout_cancel_url", "https://x"),
        ({"checkout": {"deadline": 43200}}, "payment_deadline", 43_200),
        ({"checkout": {"lookupInterval": 60}}, "session_lookup_interval", 60.0),
        ({"redemptions": {"anyTenant": True}}, "any_tenant", True),
        ({"redemptions": {"wrongCodes": 0}}, "wrong_codes", 0),
        ({"redemptions": {"wrongCodes": 10000}}, "wrong_codes", 10_000),
        ({"redemptions": {"wrongCodesSeconds": 86400}}, "wrong_codes_seconds", 86_400.0),
        ({"nats": {"url": "nats://a:1,tls://b:2"}}, "nats_url", SecretStr("nats://a:1,tls://b:2")),
        ({"nats": {"stream": "1e3"}}, "nats_stream", "1e3"),
        ({"nats": {"subjectPrefix": "a.b"}}, "nats_subject_prefix", "a.b"),
        ({"lease": {"name": "1e3"}}, "lease_name", "1e3"),
        ({"lease": {"duration": 15}}, "lease_duration", 15.0),
        ({"lease": {"renewDeadline": 7}}, "renew_deadline", 7.0),
        ({"lease": {"retryPeriod": 2.5}}, "retry_period", 2.5),
    ],
)
def test_value_reaches_its_setting(
    monkeypatch: pytest.MonkeyPatch, values: Document, setting: str, expected: Any
) -> None:
    """Each value ends in the setting of its meaning, with a type that the settings accept."""
    assert getattr(_settings(monkeypatch, _environment(the(render(values), "Deployment"))), setting) == expected


def test_migration_gets_currency_and_runtime_role(monkeypatch: pytest.MonkeyPatch) -> None:
    """The migration fixes the currency and grants to the role that the operator uses."""
    values = {"currency": "KWD", "runtimeRole": "vouchers"}
    documents = render(values)
    assert _environment(the(documents, "Job")) == _environment(hook(documents))
    given = _settings(monkeypatch, _environment(the(documents, "Job")))
    assert (given.currency, given.runtime_role) == ("KWD", "vouchers")
    assert given.database_dir == Path("/etc/voucher-operator/database")


@pytest.mark.parametrize("kind", WORKLOADS)
def test_pods_have_a_user_name_for_kopf(kind: str) -> None:
    """A bare uid has no name; without LOGNAME the process would not start."""
    assert _environment(workload(render(), kind))["LOGNAME"] == "voucher-operator"


@pytest.mark.parametrize("kind", WORKLOADS)
def test_services_do_not_become_settings(kind: str) -> None:
    """A Service called voucher-operator would set VOUCHER_OPERATOR_PORT and more of our prefix."""
    assert workload(render(), kind)["spec"]["template"]["spec"]["enableServiceLinks"] is False
