"""What is asked of the API server besides watching: read, list, create, patch a status, delete, post Events.

One thin class over the `kubernetes` client's `ApiClient` (configuration, TLS, token rotation, connections). Its per-
API classes validate each argument of each call and parse each answer into models; here everything is JSON already,
every call has a time limit, and every failure is an ApiError, see `errors`. kopf watches (`watch`); the Lease
belongs to `voucher_operator.kube.leader_election`.
"""

import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

from voucher_operator.kube.errors import (
    ExpiredError,
    ForbiddenError,
    NotFoundError,
    error_of,
    is_authorization,
    right,
)
from voucher_operator.kube.kinds import ResourceKind
from voucher_operator.resources.errors import ApiError, ApiUnavailableError

log = logging.getLogger(__name__)

Body = dict[str, Any]

_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"
_PAGE = 500
_LISTS = 3
"""How often a list is begun that the API server cannot continue."""
_ERROR, _UNAUTHORIZED, _BROKEN = 400, 401, 500


class KubeApi:
    """The calls that controllers need; `open` before use."""

    client: client.ApiClient

    def __init__(self, *, timeout: float = 10.0, connections: int = 32) -> None:
        """`timeout` is of one call, in seconds; `connections` is the most at once."""
        self._timeout = timeout
        self._connections = connections
        self._down = False
        self._refused: set[tuple[str, str]] = set()

    async def open(self) -> None:
        """Load the in-cluster configuration or the KUBECONFIG file; raises ApiUnavailableError without either."""
        configuration = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            await _load_kubeconfig(configuration)
        configuration.connection_pool_maxsize = self._connections
        # As kopf does. Otherwise aiohttp looks for ~/.netrc and proxies in two other threads, at every call.
        configuration.client_session_kwargs = {"trust_env": False}
        self.client = client.ApiClient(configuration)

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()

    async def description(self, group_version: str) -> Body:
        """Read the OpenAPI document of a group and version; raises NotFoundError when there is none yet."""
        return await self._request("GET", f"/openapi/v3/apis/{group_version}")

    async def get(self, kind: ResourceKind, namespace: str, name: str) -> Body | None:
        """Read one object; None when there is no such object."""
        try:
            return await self._request("GET", kind.path(namespace, name))
        except NotFoundError:
            return None

    async def pages(self, kind: ResourceKind, namespace: str, field_selector: str = "") -> AsyncIterator[list[Body]]:
        """Yield the objects of a namespace page by page, so that memory stays flat however many there are.

        A list that the API server cannot continue is begun anew, so that an object may be yielded twice.
        Raises ExpiredError when that happens again and again.
        """
        for begun in range(1, _LISTS + 1):
            try:
                async for page in self._list(kind, namespace, field_selector):
                    yield page
            except ExpiredError:
                if begun == _LISTS:
                    raise
            else:
                return

    async def _list(self, kind: ResourceKind, namespace: str, field_selector: str) -> AsyncIterator[list[Body]]:
        token = ""
        while True:
            query = [("limit", str(_PAGE)), ("fieldSelector", field_selector), ("continue", token)]
            listing = await self._request("GET", kind.path(namespace), query=[pair for pair in query if pair[1]])
            yield listing["items"]
            token = listing["metadata"].get("continue", "")
            if not token:
                return

    async def patch_status(self, kind: ResourceKind, body: Body, status: Mapping[str, Any]) -> None:
        """Merge `status` into the object's, provided that it is still the very object that was read.

        Raises ConflictError when it has changed, NotFoundError when it is gone.
        """
        metadata = body["metadata"]
        preconditions = {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]}
        path = kind.path(metadata["namespace"], metadata["name"], "status")
        await self._request("PATCH", path, {"metadata": preconditions, "status": status}, parse=False)

    async def delete(self, kind: ResourceKind, namespace: str, name: str, uid: str) -> None:
        """Delete the very object with this uid; raises NotFoundError or ConflictError when that is gone."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        await self._request("DELETE", kind.path(namespace, name), options, parse=False)

    async def resource(self, group_version: str, plural: str) -> Body | None:
        """Read what the API server tells of a resource: `namespaced`, `verbs`…; None when it does not serve it."""
        try:
            found = await self._request("GET", f"/apis/{group_version}")
        except NotFoundError:
            return None
        return next((one for one in found["resources"] if one["name"] == plural), None)

    async def read(self, path: str) -> Body | None:
        """Read an object of any kind by its path; None when there is none."""
        try:
            return await self._request("GET", path)
        except NotFoundError:
            return None

    async def create(self, path: str, body: Body) -> Body:
        """Create an object of any kind in the collection at `path`.

        Raises ConflictError when it is there already, NotFoundError when its kind or namespace is not,
        NamespaceTerminatingError, ForbiddenError and InvalidError.
        """
        return await self._request("POST", path, body)

    async def create_event(self, namespace: str, event: Body) -> None:
        """Post an events.k8s.io/v1 Event."""
        await self._request("POST", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", event, parse=False)

    async def patch_event(self, namespace: str, name: str, patch: Body) -> None:
        """Merge into an Event (its series)."""
        path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events/{name}"
        await self._request("PATCH", path, patch, parse=False)

    async def _request(
        self,
        method: str,
        path: str,
        body: Body | None = None,
        *,
        query: Sequence[tuple[str, str]] = (),
        parse: bool = True,
    ) -> Body:
        """Make one call; raises ApiUnavailableError and the AnswerErrors of `errors`."""
        headers = {"Accept": _JSON, "Content-Type": _MERGE_PATCH if method == "PATCH" else _JSON}
        try:
            call = await self.client.param_serialize(
                method, path, header_params=headers, query_params=list(query), auth_settings=["BearerToken"]
            )
            # Handed over here, for it is JSON already: `param_serialize` would copy it piece by piece.
            response = await self.client.call_api(*call[:3], body, _request_timeout=self._timeout)
            data = await response.read()
        except (ApiException, aiohttp.ClientError, TimeoutError, OSError) as error:
            self._note(type(error).__name__)
            raise ApiUnavailableError(f"the API server cannot be reached ({type(error).__name__})") from None
        self._note(f"{response.status}" if response.status >= _BROKEN else None)
        if response.status >= _ERROR:
            refusal = error_of(response.status, str(response.reason or ""), data)
            self._note_refusal(method, path, response.status, refusal)
            raise refusal
        if self._refused:
            self._refused.discard((method, _collection(path)))
        return json.loads(data) if parse else {}

    def _note(self, fault: str | None) -> None:
        """Log each change between up and down, once, rather than every call that fails."""
        if fault is not None and not self._down:
            log.warning("the API server cannot be used", extra={"resource": "api", "reason": fault})
        elif fault is None and self._down:
            log.info("the API server can be used again", extra={"resource": "api", "reason": "Answered"})
        self._down = fault is not None

    def _note_refusal(self, method: str, path: str, status: int, error: ApiError) -> None:
        """Log once for each kind of call that it is not allowed, and which right is missing."""
        call = (method, _collection(path))
        if call in self._refused or not (status == _UNAUTHORIZED or isinstance(error, ForbiddenError)):
            return
        self._refused.add(call)
        extra = {"key": " ".join(call), "reason": f"{error}"}
        if not isinstance(error, ForbiddenError):
            log.warning("the API server refuses a call: it does not accept the operator's token", extra=extra)
        elif is_authorization(error):
            log.warning("the API server refuses a call: the right to %s is missing", right(method, path), extra=extra)
        else:
            log.warning("the API server refuses a call: an admission check forbids it", extra=extra)


async def _load_kubeconfig(configuration: client.Configuration) -> None:
    try:
        await config.load_kube_config(client_configuration=configuration)
    except config.ConfigException:
        raise ApiUnavailableError("no cluster is configured: run in a pod, or set KUBECONFIG to a file") from None


def _collection(path: str) -> str:
    """Return a path without an object's name: `/apis/<group>/<version>/namespaces/<namespace>/<resource>`."""
    parts = path.split("/")
    return "/".join(parts[: (7 if "namespaces" in parts else 5) - path.startswith("/api/")])
