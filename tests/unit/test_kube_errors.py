"""Each failed response of the API server is one error class; the log names a missing permission."""

import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from voucher_operator.controllers.kinds import REDEMPTION
from voucher_operator.controllers.secret_codes import SecretCodes
from voucher_operator.kube import refusals
from voucher_operator.kube.client import KubeApi
from voucher_operator.kube.errors import (
    BusyError,
    ConflictError,
    ExpiredError,
    ForbiddenError,
    InvalidError,
    NamespaceTerminatingError,
    NotFoundError,
    error_of,
    permission,
)
from voucher_operator.kube.shared_reads import SharedReads
from voucher_operator.resources.base import SecretKeyRef
from voucher_operator.resources.errors import ApiError, ApiUnavailableError, SecretUnreadableError

TERMINATING = {"message": "no", "details": {"causes": [{"reason": "NamespaceTerminating"}]}}
NO_RIGHT = {"message": 'secrets "code" is forbidden: User "u" cannot get resource "secrets" in the namespace "billing"'}
DENIED = {"message": "admission webhook denied the request: NamespaceTerminating is a word as any other"}


def body(said: object) -> bytes:
    return json.dumps(said).encode()


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (400, {"message": "bad"}, InvalidError),
        (401, {}, ApiUnavailableError),
        (403, NO_RIGHT, ForbiddenError),
        (403, DENIED, ForbiddenError),
        (403, TERMINATING, NamespaceTerminatingError),
        (404, {}, NotFoundError),
        (405, {}, InvalidError),
        (408, {}, ApiUnavailableError),
        (409, {}, ConflictError),
        (410, {}, ExpiredError),
        (413, {}, InvalidError),
        (422, {"message": "spec.code: Required value"}, InvalidError),
        (429, {}, ApiUnavailableError),
        (500, {}, ApiUnavailableError),
        (503, {}, ApiUnavailableError),
        (504, {}, ApiUnavailableError),
    ],
)
def test_each_status_has_its_error(status: int, said: object, kind: type[ApiError]) -> None:
    assert type(error_of(status, "Reason", body(said))) is kind


@pytest.mark.parametrize(
    "data", [b"", b"<html>", b"[]", b'"text"', b'{"details": null}', b'{"details": {"causes": [1]}}']
)
def test_answer_that_is_no_status_is_read_by_its_number(data: bytes) -> None:
    for status, kind in ((403, ForbiddenError), (404, NotFoundError), (502, ApiUnavailableError)):
        assert type(error_of(status, "Reason", data)) is kind


@pytest.mark.parametrize(
    ("method", "path", "named"),
    [
        (
            "PATCH",
            "/apis/billing.openova.io/v1alpha1/namespaces/a/redemptions/one/status",
            "patch redemptions/status of billing.openova.io in namespace a",
        ),
        (
            "GET",
            "/apis/billing.openova.io/v1alpha1/namespaces/a/vouchers",
            "list vouchers of billing.openova.io in namespace a",
        ),
        (
            "DELETE",
            "/apis/billing.openova.io/v1alpha1/namespaces/a/redemptions/one",
            "delete redemptions of billing.openova.io in namespace a",
        ),
        ("GET", "/api/v1/namespaces/a/secrets/code", "get secrets in namespace a"),
        ("POST", "/apis/catalyst.openova.io/v1alpha1/organizations", "create organizations of catalyst.openova.io"),
        ("GET", "/apis/billing.openova.io/v1alpha1", "get /apis/billing.openova.io/v1alpha1"),
    ],
)
def test_permission_is_named_as_in_a_role(method: str, path: str, named: str) -> None:
    assert permission(method, path) == named


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes
    reason: str = "Reason"

    async def read(self) -> bytes:
        return self.body


@dataclass
class Server:
    """Answers what `answer` says for a query."""

    answer: Callable[[dict[str, str]], tuple[int, object]]
    queries: list[dict[str, str]] = field(default_factory=list)

    async def param_serialize(self, method: str, path: str, *, query_params: Any, **_: Any) -> tuple[str, str, None]:
        self.queries.append(dict(query_params))
        return method, path, None

    async def call_api(self, *_: object, **__: object) -> Response:
        status, said = self.answer(self.queries[-1])
        return Response(status, body(said))


def asking(answer: Callable[[dict[str, str]], tuple[int, object]]) -> tuple[KubeApi, Server]:
    api, server = KubeApi(), Server(answer)
    api.client = server  # type: ignore[assignment]
    return api, server


async def listed(api: KubeApi) -> list[list[Any]]:
    return [page async for page in api.pages(REDEMPTION, "a")]


async def test_list_that_cannot_be_continued_is_begun_anew() -> None:
    expired = [True]

    def answer(query: dict[str, str]) -> tuple[int, object]:
        if "continue" not in query:
            return 200, {"items": [1], "metadata": {"continue": "second"}}
        return (410, {}) if expired.pop() else (200, {"items": [2], "metadata": {}})

    api, _ = asking(answer)
    expired.insert(0, False)
    assert await listed(api) == [[1], [1], [2]]


async def test_list_that_can_never_be_continued_is_given_up() -> None:
    api, server = asking(
        lambda query: (410, {}) if "continue" in query else (200, {"items": [], "metadata": {"continue": "2"}})
    )
    with pytest.raises(ExpiredError):
        await listed(api)
    assert ["continue" in query for query in server.queries] == [False, True] * 3


async def test_slow_list_is_continued_with_the_token_that_is_offered() -> None:
    """Each token expires once, and nothing is listed twice."""
    rest = {"message": "too old", "metadata": {"continue": "rest"}}
    answers: list[tuple[int, object]] = [
        (200, {"items": [1], "metadata": {"continue": "second"}}),
        (410, rest),
        (200, {"items": [2], "metadata": {"continue": "third"}}),
        (410, rest),
        (200, {"items": [3], "metadata": {}}),
    ]
    api, server = asking(lambda _: answers.pop(0))
    pages: list[Any] = [page async for page in api.slow_pages(REDEMPTION, "a", "")]
    assert pages == [[1], [2], [3]]
    assert [query.get("continue") for query in server.queries] == [None, "second", "rest", "third", "rest"]


@pytest.mark.parametrize(("offered", "calls"), [("", 2), ("rest", 3)])
async def test_slow_list_that_can_never_be_continued_is_given_up(offered: str, calls: int) -> None:
    expired = (410, {"metadata": {"continue": offered}})
    first = (200, {"items": [], "metadata": {"continue": "2"}})
    api, server = asking(lambda query: expired if "continue" in query else first)
    with pytest.raises(ExpiredError):
        assert [page async for page in api.slow_pages(REDEMPTION, "a", "")] == []
    assert len(server.queries) == calls


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (NO_RIGHT, "missing permission: get secrets in namespace billing"),
        (DENIED, "admission control denies it"),
    ],
)
async def test_refused_call_is_logged_once_with_what_is_missing(
    said: object, words: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "_REFUSED_FOR_LONG", 0.0)
    api, _ = asking(lambda _: (403, said))
    for name in ("code", "other"):
        with caplog.at_level(logging.WARNING), pytest.raises(SecretUnreadableError):
            await SecretCodes(SharedReads(api, "Secret")).read("billing", SecretKeyRef(name=name, key="code"))
    assert [record.getMessage() for record in caplog.records] == [f"the API server refuses a call: {words}"]


@pytest.mark.parametrize(("status", "said"), [(403, NO_RIGHT), (401, "Unauthorized")])
async def test_refusals_of_an_api_server_that_has_just_started_are_not_logged(
    status: int, said: object, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not read its Roles. A call that is still refused after ten seconds is logged, once."""
    now = 1000.0
    monkeypatch.setattr(refusals, "time", SimpleNamespace(monotonic=lambda: now))
    refused = True
    api, _ = asking(lambda _: (status, said) if refused else (200, {}))

    async def call(at: float, *, refuse: bool = True) -> int:
        """Return how many lines are logged so far."""
        nonlocal now, refused
        now, refused = 1000.0 + at, refuse
        with contextlib.suppress(ApiError):
            await api.read("/api/v1/namespaces/billing/secrets/code")
        return len([one for one in caplog.records if "refuses a call" in one.getMessage()])

    assert [await call(0), await call(3), await call(9.9)] == [0, 0, 0]
    assert await call(9.95, refuse=False) == 0
    assert [await call(11), await call(20.5)] == [0, 0]
    assert [await call(21), await call(22), await call(99)] == [1, 1, 1]
    assert await call(100, refuse=False) == 1
    assert [await call(101), await call(111)] == [1, 2]


async def test_denial_of_one_object_is_logged_although_others_are_accepted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(refusals, "time", SimpleNamespace(monotonic=lambda: now))
    answers = [(403, DENIED), (200, {})]
    api, _ = asking(lambda _: answers[0])

    async def call(at: float, name: str, answer: int) -> int:
        nonlocal now
        now, answers[:] = 1000.0 + at, [answers[answer], answers[1 - answer]]
        with contextlib.suppress(ApiError):
            await api.read(f"/api/v1/namespaces/billing/secrets/{name}")
        answers.sort(key=lambda one: -one[0])
        return len(caplog.records)

    assert [await call(0, "denied", 0), await call(1, "accepted", 1), await call(11, "denied", 0)] == [0, 0, 1]
    assert [await call(12, "other", 0), await call(13, "denied", 1), await call(14, "denied", 0)] == [1, 1, 1]
    assert await call(25, "denied", 0) == 2


async def test_read_that_was_not_sent_says_nothing_about_the_secret() -> None:
    """The status must not say that the Secret cannot be read."""

    async def refuse(*_: Any, **__: Any) -> None:
        raise BusyError("many wait")

    api, _ = asking(lambda _: (500, {}))
    secrets = SharedReads(api, "Secret")
    secrets.read = refuse  # type: ignore[method-assign]
    with pytest.raises(BusyError):
        await SecretCodes(secrets).read("billing", SecretKeyRef(name="a", key="code"))
