"""Settings that contradict each other are refused at the start, in one line that names them."""

from typing import Any, cast

import pytest
from kubernetes.aio.leaderelection.electionconfig import Config

from voucher_operator.cli import main
from voucher_operator.settings import PREFIX, Settings
from voucher_operator.settings.cluster import RETRY_JITTER


def set_environment(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"{PREFIX}{name}", value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"LEASE_DURATION": "5", "RENEW_DEADLINE": "6"},
            "VOUCHER_OPERATOR_RENEW_DEADLINE (6) must be less than VOUCHER_OPERATOR_LEASE_DURATION (5)",
        ),
        (
            {"LEASE_DURATION": "9", "RENEW_DEADLINE": "9"},
            "VOUCHER_OPERATOR_RENEW_DEADLINE (9) must be less than VOUCHER_OPERATOR_LEASE_DURATION (9)",
        ),
        (
            {"RENEW_DEADLINE": "3", "RETRY_PERIOD": "2.5"},
            "VOUCHER_OPERATOR_RETRY_PERIOD (2.5), times 1.2, must be less than VOUCHER_OPERATOR_RENEW_DEADLINE (3)",
        ),
        (
            {"HTTP_PORT": "8090"},
            "VOUCHER_OPERATOR_HTTP_PORT and VOUCHER_OPERATOR_WEBHOOK_PORT (8090) must not be the same",
        ),
        ({"NAMESPACES": " , "}, "VOUCHER_OPERATOR_NAMESPACES: Tuple should have at least 1 item"),
        ({"RESYNC_INTERVAL": "inf"}, "VOUCHER_OPERATOR_RESYNC_INTERVAL: Input should be a finite number"),
        ({"BACKOFF_MAX": "nan"}, "VOUCHER_OPERATOR_BACKOFF_MAX: Input should be a finite number"),
        ({"RENEW_DEADLINE": "inf"}, "VOUCHER_OPERATOR_RENEW_DEADLINE: Input should be a finite number"),
        ({"CODE_PREFIXES": "sales=SALES-"}, "VOUCHER_OPERATOR_CODE_PREFIXES: must be JSON"),
        ({"CODE_PREFIXES": '{"sales": ["sales-"]}'}, "VOUCHER_OPERATOR_CODE_PREFIXES: String should match"),
        ({"POOL_SIZE": "1"}, "VOUCHER_OPERATOR_POOL_SIZE: Input should be greater than or equal to 2"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(
    given: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_environment(monkeypatch, given)
    assert main(["version"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"voucher-operator: {said}")


def test_all_contradictions_are_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_environment(monkeypatch, {"LEASE_DURATION": "5", "RETRY_PERIOD": "5"})
    assert main(["version"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.count("must be less than") == 2


@pytest.mark.parametrize(
    "given",
    [
        {"LEASE_DURATION": "4", "RENEW_DEADLINE": "3", "RETRY_PERIOD": "1.1"},
        {"LEASE_DURATION": "9", "RENEW_DEADLINE": "8.9", "RETRY_PERIOD": "7.4"},
        {"HTTP_PORT": "0", "WEBHOOK_PORT": "0"},
    ],
)
def test_settings_that_agree_are_accepted(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, given)
    settings = Settings()
    lock: Any = object()
    Config(lock, settings.lease_duration, settings.renew_deadline, settings.retry_period, cast("Any", lock), lock)


def test_jitter_is_that_of_the_election() -> None:
    lock: Any = object()
    assert Config(lock, 9, 6.0, 1.5, lock, lock).jitter_factor == RETRY_JITTER


def test_namespace_that_is_named_twice_is_served_once(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, {"NAMESPACES": "a, b,a"})
    assert Settings().namespaces == ("a", "b")
