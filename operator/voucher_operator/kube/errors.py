"""The errors of a call that the API server answered with a failure, by what the caller can do next.

    ApiError                        resources.errors
    ├── BusyError                   not sent: too many calls of its kind wait already; retry later
    ├── ApiUnavailableError         no response, 401, 408, 429 or 5xx: retry later
    └── ResponseError               refused; the same call fails again until something changes
        ├── NotFoundError           404: the object, its kind or its namespace does not exist
        ├── ConflictError           409: exists already, or changed since it was read: read it again
        ├── ExpiredError            410: the continue token has expired: start the list again
        ├── NamespaceTerminatingError  403: the namespace is being deleted, nothing can be created in it
        ├── ForbiddenError          403: a permission is missing, or admission control denies the call
        └── InvalidError            400, 422 and the other 4xx: the request or its object is invalid

See also: `client` raises them; `permission` names the permission that a call needs.
"""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from voucher_operator.resources.errors import ApiError, ApiUnavailableError

_RETRIABLE: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
_UNAUTHORIZED: Final = re.compile(r'User "[^"]*" cannot \w+ ')
_RESOURCE: Final = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/[^/]+/(?:namespaces/(?P<namespace>[^/]+)/)?"
    r"(?P<resource>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>[^/]+))?)?"
)
_VERBS: Final = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}


class BusyError(ApiError):
    """The call was not sent: too many calls of its kind wait for their turn already."""


class ResponseError(ApiError):
    """The API server refused the call; `detail` is its message, in one line."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class NotFoundError(ResponseError):
    """The object, its kind or its namespace does not exist."""


class ConflictError(ResponseError):
    """The object exists already, or has changed since it was read; read it again."""


class ExpiredError(ResponseError):
    """The continue token of a list has expired; start the list again.

    `rest`: a new token, with which the list can be continued as it is now; "" if the API server offers none.
    """

    def __init__(self, message: str, detail: str = "", rest: str = "") -> None:
        super().__init__(message, detail)
        self.rest = rest


class NamespaceTerminatingError(ResponseError):
    """The namespace is being deleted: nothing can be created in it."""


class ForbiddenError(ResponseError):
    """A permission is missing, or admission control denies the call."""


class InvalidError(ResponseError):
    """The API server considers the request or its object invalid."""


_BY_STATUS: Final[Mapping[int, type[ResponseError]]] = {
    HTTPStatus.FORBIDDEN: ForbiddenError,
    HTTPStatus.NOT_FOUND: NotFoundError,
    HTTPStatus.CONFLICT: ConflictError,
}


def error_of(status: int, reason: str, data: bytes) -> ApiError:
    """Return the error for a response of status 400 or above; `data` is its body, a metav1.Status or anything else."""
    message = f"the API server answered {status} {reason}".rstrip()
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _RETRIABLE:
        return ApiUnavailableError(message)
    answer = _parsed(data)
    if status == HTTPStatus.FORBIDDEN and _is_terminating(answer):
        return NamespaceTerminatingError("the namespace is being deleted", _detail(answer))
    if status == HTTPStatus.GONE:
        return ExpiredError(message, _detail(answer), _rest(answer))
    return _BY_STATUS.get(status, InvalidError)(message, _detail(answer))


def is_authorization(error: ForbiddenError | InvalidError) -> bool:
    """Whether authorization refused the call (a missing permission); otherwise admission control did."""
    return _UNAUTHORIZED.search(error.detail) is not None


def permission(method: str, path: str) -> str:
    """Name the permission of a call as in a Role: `patch redemptions/status of billing.openova.io in namespace a`.

    For a path that is not a resource the path itself is named: `get /openapi/v3`.
    """
    found = _RESOURCE.fullmatch(path)
    if found is None:
        return f"{method.lower()} {path}"
    verb = _VERBS.get(method) or ("get" if found["name"] else "list")
    resource = found["resource"] + (f"/{found['sub']}" if found["sub"] else "")
    group = f" of {found['group']}" if found["group"] else ""
    namespace = f" in namespace {found['namespace']}" if found["namespace"] else ""
    return f"{verb} {resource}{group}{namespace}"


def _is_terminating(answer: Mapping[str, Any]) -> bool:
    details = answer.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    return any(isinstance(one, dict) and one.get("reason") == "NamespaceTerminating" for one in causes or ())


def _rest(answer: Mapping[str, Any]) -> str:
    metadata = answer.get("metadata")
    return str(metadata.get("continue") or "") if isinstance(metadata, dict) else ""


def _detail(answer: Mapping[str, Any]) -> str:
    return " ".join(str(answer.get("message") or "").split())


def _parsed(data: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(data)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
