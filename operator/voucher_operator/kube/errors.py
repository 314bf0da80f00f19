"""The errors of a call that the API server has answered, one for each thing that a caller may do next.

    ApiError                        resources.errors
    ├── ApiUnavailableError         no answer, 401, 408, 429 or 5xx: try again later
    └── AnswerError                 answered and not done; the same call has the same answer until something changes
        ├── NotFoundError           404: the object, its kind or its namespace is not there
        ├── ConflictError           409: there already, or changed since it was read: read it again
        ├── ExpiredError            410: the list cannot be continued: begin it anew
        ├── NamespaceTerminatingError  403 of a namespace that is being deleted: nothing can be created in it
        ├── ForbiddenError          403: a right is missing, or an admission check forbids it
        └── InvalidError            400, 422 and the other 4xx: the request is not as the server wants it

See also: `kube` raises them; `right` names the right that a call needs.
"""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from voucher_operator.resources.errors import ApiError, ApiUnavailableError

_LATER: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
_NO_RIGHT: Final = re.compile(r'User "[^"]*" cannot \w+ ')
_RESOURCE: Final = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/[^/]+/(?:namespaces/(?P<namespace>[^/]+)/)?"
    r"(?P<resource>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>[^/]+))?)?"
)
_VERBS: Final = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}


class AnswerError(ApiError):
    """The API server has answered and not done it; `detail` is what it said, in one line."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class NotFoundError(AnswerError):
    """The object, its kind or its namespace is not there."""


class ConflictError(AnswerError):
    """The object is there already, or has changed since it was read; read it again."""


class ExpiredError(AnswerError):
    """The list cannot be continued, for the server no longer has it as it was; begin it anew."""


class NamespaceTerminatingError(AnswerError):
    """The namespace is being deleted: nothing can be created in it any more."""


class ForbiddenError(AnswerError):
    """A right is missing, or an admission check forbids the call."""


class InvalidError(AnswerError):
    """The request or its object is not as the API server wants it."""


_BY_STATUS: Final[Mapping[int, type[AnswerError]]] = {
    HTTPStatus.FORBIDDEN: ForbiddenError,
    HTTPStatus.NOT_FOUND: NotFoundError,
    HTTPStatus.CONFLICT: ConflictError,
    HTTPStatus.GONE: ExpiredError,
}


def error_of(status: int, reason: str, data: bytes) -> ApiError:
    """Return the error for an answer of 400 or above; `data` is its body, a metav1.Status or anything else."""
    message = f"the API server answered {status} {reason}".rstrip()
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _LATER:
        return ApiUnavailableError(message)
    said = _parsed(data)
    if status == HTTPStatus.FORBIDDEN and _is_terminating(said):
        return NamespaceTerminatingError("the namespace is being deleted", _detail(said))
    return _BY_STATUS.get(status, InvalidError)(message, _detail(said))


def is_authorization(error: ForbiddenError) -> bool:
    """Whether a right is missing, by the API server's authorization; else an admission check forbids it."""
    return _NO_RIGHT.search(error.detail) is not None


def right(method: str, path: str) -> str:
    """Name the right that a call needs as a Role does: `patch redemptions/status of billing.openova.io in namespace a`.

    A path that is no resource's is named itself: `get /openapi/v3`.
    """
    found = _RESOURCE.fullmatch(path)
    if found is None:
        return f"{method.lower()} {path}"
    verb = _VERBS.get(method) or ("get" if found["name"] else "list")
    resource = found["resource"] + (f"/{found['sub']}" if found["sub"] else "")
    group = f" of {found['group']}" if found["group"] else ""
    namespace = f" in namespace {found['namespace']}" if found["namespace"] else ""
    return f"{verb} {resource}{group}{namespace}"


def _is_terminating(said: Mapping[str, Any]) -> bool:
    details = said.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    return any(isinstance(one, dict) and one.get("reason") == "NamespaceTerminating" for one in causes or ())


def _detail(said: Mapping[str, Any]) -> str:
    return " ".join(str(said.get("message") or "").split())


def _parsed(data: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(data)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
