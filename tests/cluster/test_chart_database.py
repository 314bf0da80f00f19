"""How the chart's pods come to the ledger: Secrets that may come late, and a migration that runs once a change."""

import pytest

from tests.cluster.chart import WORKLOADS, Document, container, hook, of_kind, render, the, workload

ALL_KEYS = ["username", "password", "host", "port", "dbname", "uri"]


def _volume(runs: Document) -> Document:
    found = {volume["name"]: volume for volume in runs["spec"]["template"]["spec"]["volumes"]}
    return dict(found["database"]["secret"])


@pytest.mark.parametrize(("kind", "secret"), [("Deployment", "app"), ("Job", "owner"), ("hook", "owner")])
def test_secret_is_mounted_and_may_come_late(kind: str, secret: str) -> None:
    """Operator and migration mount their own Secret alone, as an optional folder that follows its changes."""
    runs = workload(render({"database": {"existingSecret": "app", "ownerSecret": "owner"}}), kind)
    volume = _volume(runs)
    assert (volume["secretName"], volume["optional"], volume["defaultMode"]) == (secret, True, 0o440)
    assert [item["key"] for item in volume["items"]] == [item["path"] for item in volume["items"]] == ALL_KEYS
    (mount,) = [mount for mount in container(runs)["volumeMounts"] if mount["name"] == "database"]
    assert mount == {"name": "database", "mountPath": "/etc/voucher-operator/database", "readOnly": True}


@pytest.mark.parametrize(
    ("database", "environment", "keys"),
    [
        ({"host": "pg-rw.sme"}, {"PGHOST": "pg-rw.sme"}, ["username", "password", "port", "dbname"]),
        ({"port": 6432}, {"PGPORT": "6432"}, ["username", "password", "host", "dbname"]),
        ({"name": "sme_billing"}, {"PGDATABASE": "sme_billing"}, ["username", "password", "host", "port"]),
        (
            {"host": "h", "port": 1, "name": "n"},
            {"PGHOST": "h", "PGPORT": "1", "PGDATABASE": "n"},
            ["username", "password"],
        ),
    ],
    ids=["host", "port", "name", "all"],
)
@pytest.mark.parametrize("kind", WORKLOADS)
def test_values_win_over_the_secret(kind: str, database: Document, environment: Document, keys: list[str]) -> None:
    """What the values set is not mounted, so that the Secret cannot contradict it."""
    runs = workload(render({"database": database}), kind)
    found = {entry["name"]: entry.get("value") for entry in container(runs)["env"] if entry["name"].startswith("PG")}
    assert found == environment
    assert [item["key"] for item in _volume(runs)["items"]] == keys


@pytest.mark.parametrize("kind", WORKLOADS)
def test_migration_goes_around_the_pooler(kind: str) -> None:
    """Only the migration: the operator stays behind the pooler, and the port of both is allowed."""
    pooled, direct = {"PGHOST": "pooler.sme", "PGPORT": "6432"}, {"PGHOST": "pg-rw.sme", "PGPORT": "5433"}
    values = {"database": {"host": "pooler.sme", "port": 6432}, "migration": {"host": "pg-rw.sme", "port": 5433}}
    documents = render(values)
    runs = workload(documents, kind)
    found = {entry["name"]: entry.get("value") for entry in container(runs)["env"] if entry["name"].startswith("PG")}
    assert found == (pooled if kind == "Deployment" else direct)
    assert [item["key"] for item in _volume(runs)["items"]] == ["username", "password", "dbname"]
    for policy in of_kind(documents, "NetworkPolicy"):
        allowed = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
        assert {6432, 5433} <= allowed


@pytest.mark.parametrize("kind", WORKLOADS)
def test_server_certificate_is_verified(kind: str) -> None:
    """With its authority's certificate, which may come late and change; without one nothing is said."""
    verified = workload(render({"database": {"caSecret": {"name": "pg-ca", "key": "tls.crt"}}}), kind)
    environment = {entry["name"]: entry.get("value") for entry in container(verified)["env"]}
    (mount,) = [mount for mount in container(verified)["volumeMounts"] if mount["name"] == "ca"]
    assert environment["PGSSLMODE"] == "verify-full"
    assert environment["PGSSLROOTCERT"] == f"{mount['mountPath']}/ca.crt"
    (volume,) = [v["secret"] for v in verified["spec"]["template"]["spec"]["volumes"] if v["name"] == "ca"]
    assert (volume["secretName"], volume["optional"]) == ("pg-ca", True)
    assert volume["items"] == [{"key": "tls.crt", "path": "ca.crt"}]
    plain = workload(render(), kind)
    assert not any(entry["name"].startswith("PGSSL") for entry in container(plain)["env"])
    assert "ca" not in {volume["name"] for volume in plain["spec"]["template"]["spec"]["volumes"]}


def test_migration_has_no_rights() -> None:
    """It runs under an account that no Role is bound to, without a token, and waits for a Secret for days."""
    documents = render()
    job = the(documents, "Job")["spec"]
    pod = job["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    subjects = {subject["name"] for binding in of_kind(documents, "RoleBinding") for subject in binding["subjects"]}
    assert pod["serviceAccountName"] not in subjects
    assert pod["containers"][0]["args"] == ["migrate", "--wait=inf"]
    assert (pod["restartPolicy"], job["backoffLimit"], job["ttlSecondsAfterFinished"]) == ("OnFailure", 1000, 86400)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"migration": {"serviceAccountName": "mine"}}, "mine"),
        ({"serviceAccount": {"create": False, "name": "theirs"}}, "default"),
        ({}, "bp-voucher-operator-migration"),
    ],
)
def test_migration_has_its_service_account(values: Document, expected: str) -> None:
    """One of its own where accounts may be made."""
    documents = render(values)
    assert the(documents, "Job")["spec"]["template"]["spec"]["serviceAccountName"] == expected
    made = {account["metadata"]["name"] for account in of_kind(documents, "ServiceAccount")}
    assert ("bp-voucher-operator-migration" in made) == (expected == "bp-voucher-operator-migration")


@pytest.mark.parametrize(
    ("values", "expected"), [({}, "default"), ({"migration": {"serviceAccountName": "mine"}}, "mine")]
)
def test_hook_uses_an_account_that_exists_before_the_release(values: Document, expected: str) -> None:
    """An account of the release's own would come after the hook that needs it."""
    pod = hook(render(values))["spec"]["template"]["spec"]
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == (expected, False)


def test_hook_defers_to_the_job() -> None:
    """Nothing fails an installation; a ledger that refuses fails an upgrade, and helm prints the reason."""
    install, upgrade = (hook(render(options=options)) for options in ((), ("--is-upgrade",)))
    assert container(install)["args"] == ["migrate", "--wait=60", "--defer=always"]
    assert container(upgrade)["args"] == ["migrate", "--wait=60", "--defer=absent"]
    assert install["metadata"]["annotations"] == {
        "helm.sh/hook": "pre-install,pre-upgrade",
        "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
        "helm.sh/hook-output-log-policy": "hook-failed",
    }


@pytest.mark.parametrize(("timeout", "deadline"), [(60, 270), (0.5, 211), (80, 290)])
def test_hook_deadline_is_below_the_helm_timeout(timeout: float, deadline: int) -> None:
    """Whatever happens to its pod; a refusal is not tried for long, and its log stays."""
    job = hook(render({"migration": {"hookTimeout": timeout}}))["spec"]
    assert (job["activeDeadlineSeconds"], job["backoffLimit"]) == (deadline, 2)
    (rule,) = job["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [1, 2])
    assert rule["onExitCodes"]["containerName"] == job["template"]["spec"]["containers"][0]["name"]
    assert (job["template"]["spec"]["restartPolicy"], job["ttlSecondsAfterFinished"]) == ("Never", 86400)


@pytest.mark.parametrize(
    ("external", "events"),
    [
        ({"enabled": True, "ownerKey": "o"}, "pre-upgrade"),
        ({"enabled": True}, "pre-install,pre-upgrade"),
        ({"enabled": False, "ownerKey": "o"}, "pre-install,pre-upgrade"),
    ],
)
def test_hook_is_upgrade_only_when_the_release_brings_the_secret(external: Document, events: str) -> None:
    """An installation that brings the owner's Secret itself brings it after the hook."""
    secrets = {"secretStoreRef": {"name": "vault"}, "runtimeKey": "r", **external}
    assert hook(render({"externalSecrets": secrets}))["metadata"]["annotations"]["helm.sh/hook"] == events


def test_job_mode_has_no_hook() -> None:
    """Where helm must not wait for a pod, there is no hook; the Job is the same."""
    documents = render({"migration": {"mode": "job"}})
    assert the(documents, "Job") == the(render(), "Job")
    assert not any("helm.sh/hook" in document["metadata"].get("annotations", {}) for document in documents)


def test_migration_can_be_left_out() -> None:
    """No hook, no Job, no account and no policy for it."""
    documents = render({"migration": {"enabled": False}})
    assert not any(document["kind"] == "Job" for document in documents)
    assert len(of_kind(documents, "NetworkPolicy")) == 1
    assert [account["metadata"]["name"] for account in of_kind(documents, "ServiceAccount")] == ["bp-voucher-operator"]


def _job_name(values: Document) -> str:
    return str(the(render(values), "Job")["metadata"]["name"])


@pytest.mark.parametrize(
    "values",
    [
        {"image": {"tag": "0.2.0"}},
        {"database": {"ownerSecret": "other"}},
        {"migration": {"resources": {"limits": {"memory": "1Gi"}}}},
        {"extraEnv": [{"name": "A", "value": "b"}]},
        {"nodeSelector": {"a": "b"}},
    ],
    ids=str,
)
def test_changed_migration_is_another_job(values: Document) -> None:
    """A Job's template cannot be changed in place."""
    assert _job_name(values) != _job_name({})


@pytest.mark.parametrize(
    "values",
    [{"replicas": 5}, {"migration": {"mode": "job", "backoffLimit": 1, "ttlSecondsAfterFinished": 1}}],
    ids=str,
)
def test_unchanged_migration_is_the_same_job(values: Document) -> None:
    """What does not concern its template does not run it again."""
    assert _job_name(values) == _job_name({})
