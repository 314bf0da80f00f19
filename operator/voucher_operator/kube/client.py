"""Calls of the API server other than watches: read, list, create, patch a status, delete, post Events.

One thin class over the `kubernetes` client's `ApiClient` (configuration, TLS, token rotation, connections). Its per-
API classes validate each argument of each call and parse each response into models; here everything is JSON already,
every call has a time limit, and every failure is an ApiError. See also: `errors`; `controllers.watch` has the watches,
by kopf; `leader_election` has the Lease.
"""

import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

from voucher_operator.kube.errors import (
    ExpiredError,
    NotFoundError,
    error_of,
)
from voucher_operator.kube.kinds import ResourceKind
from voucher_operator.kube.refusals import RefusalLog
from voucher_operator.resources.errors import ApiUnavailableError

log = logging.getLogger(__name__)

Body = dict[str, Any]

_JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_MERGE_PATCH = "application/merge-patch+json"
_PAGE = 500
_LISTS = 3
"""Attempts for a list whose continue token expires."""
_ERROR, _SERVER_ERROR = 400, 500


class KubeApi:
    """The calls that controllers need; call `open` before use."""

    client: client.ApiClient

    def __init__(
        self, *, timeout: float = 10.0, connections: int = 32, fence: Callable[[], None] = lambda: None
    ) -> None:
        """`timeout` is the limit of one call in seconds; `connections` is the maximum number of connections.

        `fence` is called before each call that writes, and raises when this process may not write any more.
        """
        self._fence = fence
        self._timeout = timeout
        self._connections = connections
        self._down = False
        self._refusals = RefusalLog()

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
        """Read the OpenAPI document of a group and version; raises NotFoundError when the server has none yet."""
        return await self._request("GET", f"/openapi/v3/apis/{group_version}")

    async def get(self, kind: ResourceKind, namespace: str, name: str) -> Body | None:
        """Read one object; None when there is no such object."""
        try:
            return await self._request("GET", kind.path(namespace, name))
        except NotFoundError:
            return None

    async def pages(self, kind: ResourceKind, namespace: str, field_selector: str = "") -> AsyncIterator[list[Body]]:
        """Yield the objects of a namespace page by page, so that memory use does not depend on their number.

        A list whose continue token has expired is started again, so an object may be yielded twice.
        Raises ExpiredError when that fails three times.
        """
        for attempt in range(1, _LISTS + 1):
            try:
                async for page in self._list(kind, namespace, field_selector):
                    yield page
            except ExpiredError:
                if attempt == _LISTS:
                    raise
            else:
                return

    async def slow_pages(self, kind: ResourceKind, namespace: str, field_selector: str) -> AsyncIterator[list[Body]]:
        """Yield the same for a caller that may take longer than a continue token lives: no object twice.

        What is left when a token has expired is listed as it is then. Raises ExpiredError when the API server does not
        offer that.
        """
        token, expired = "", ""
        while True:
            try:
                page, token = await self._page(kind, namespace, field_selector, token)
            except ExpiredError as error:
                if not error.rest or token == expired:
                    raise
                token = expired = error.rest
                continue
            yield page
            if not token:
                return

    async def _list(self, kind: ResourceKind, namespace: str, field_selector: str) -> AsyncIterator[list[Body]]:
        token = ""
        while True:
            page, token = await self._page(kind, namespace, field_selector, token)
            yield page
            if not token:
                return

    async def _page(
        self, kind: ResourceKind, namespace: str, field_selector: str, token: str
    ) -> tuple[list[Body], str]:
        """Read one page of a list, and the token of the next one; "" after the last one."""
        query = [("limit", str(_PAGE)), ("fieldSelector", field_selector), ("continue", token)]
        listing = await self._request("GET", kind.path(namespace), query=[pair for pair in query if pair[1]])
        return listing["items"], listing["metadata"].get("continue", "")

    async def patch_status(self, kind: ResourceKind, body: Body, status: Mapping[str, Any]) -> None:
        """Merge `status` into the object's status, on condition that uid and resourceVersion are those of `body`.

        Raises ConflictError when the object has changed, NotFoundError when it does not exist.
        """
        metadata = body["metadata"]
        preconditions = {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]}
        path = kind.path(metadata["namespace"], metadata["name"], "status")
        await self._request("PATCH", path, {"metadata": preconditions, "status": status}, parse=False)

    async def remove_finalizer(self, kind: ResourceKind, body: Body, finalizer: str) -> None:
        """Remove a finalizer, on condition that the object has not changed; raises ConflictError and NotFoundError."""
        metadata = body["metadata"]
        others = [one for one in metadata["finalizers"] if one != finalizer]
        preconditions = {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]}
        path = kind.path(metadata["namespace"], metadata["name"])
        await self._request("PATCH", path, {"metadata": {**preconditions, "finalizers": others}}, parse=False)

    async def delete(self, kind: ResourceKind, namespace: str, name: str, uid: str) -> None:
        """Delete the object with this uid; raises NotFoundError or ConflictError when it no longer exists."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        await self._request("DELETE", kind.path(namespace, name), options, parse=False)

    async def resource(self, group_version: str, plural: str) -> Body | None:
        """Read the discovery entry of a resource: `namespaced`, `verbs`…; None when the server does not serve it."""
        return (await self.resources(group_version)).get(plural)

    async def resources(self, group_version: str) -> dict[str, Body]:
        """Read the discovery entries of a group and version by name; a subresource's is `plural/subresource`."""
        try:
            found = await self._request("GET", f"/apis/{group_version}")
        except NotFoundError:
            return {}
        return {one["name"]: one for one in found["resources"]}

    async def metadata(self, path: str) -> Body | None:
        """Read the metadata of an object of any kind by its path; None when it does not exist."""
        try:
            found: Body = (await self._request("GET", path, accept=_METADATA))["metadata"]
        except NotFoundError:
            return None
        return found

    async def read(self, path: str) -> Body | None:
        """Read an object of any kind by its path; None when it does not exist."""
        try:
            return await self._request("GET", path)
        except NotFoundError:
            return None

    async def create(self, path: str, body: Body) -> Body:
        """Create an object of any kind in the collection at `path`.

        Raises ConflictError when it exists already, NotFoundError when its kind or namespace does not exist,
        NamespaceTerminatingError, ForbiddenError and InvalidError.
        """
        return await self._request("POST", path, body)

    async def create_event(self, namespace: str, event: Body) -> None:
        """Post an events.k8s.io/v1 Event."""
        await self._request("POST", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", event, parse=False)

    async def patch_event(self, namespace: str, name: str, patch: Body) -> None:
        """Merge a patch into an Event, for its series."""
        path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events/{name}"
        await self._request("PATCH", path, patch, parse=False)

    async def _request(
        self,
        method: str,
        path: str,
        body: Body | None = None,
        *,
        query: Sequence[tuple[str, str]] = (),
        accept: str = _JSON,
        parse: bool = True,
    ) -> Body:
        """Make one call; raises ApiUnavailableError and the ResponseErrors of `errors`."""
        if method != "GET":
            self._fence()
        headers = {"Accept": accept, "Content-Type": _MERGE_PATCH if method == "PATCH" else _JSON}
        try:
            call = await self.client.param_serialize(
                method, path, header_params=headers, query_params=list(query), auth_settings=["BearerToken"]
            )
            # The body is passed here because it is JSON already: `param_serialize` would copy every value of it.
            response = await self.client.call_api(*call[:3], body, _request_timeout=self._timeout)
            data = await response.read()
        except (ApiException, aiohttp.ClientError, TimeoutError, OSError) as error:
            self._log_availability(type(error).__name__)
            raise ApiUnavailableError(f"the API server cannot be reached ({type(error).__name__})") from None
        self._log_availability(f"{response.status}" if response.status >= _SERVER_ERROR else None)
        if response.status >= _ERROR:
            refusal = error_of(response.status, str(response.reason or ""), data)
            self._refusals.refused(method, path, response.status, refusal)
            raise refusal
        self._refusals.accepted(method, path)
        return json.loads(data) if parse else {}

    def _log_availability(self, fault: str | None) -> None:
        """Log each change between available and unavailable once, not every call that fails."""
        if fault is not None and not self._down:
            log.warning("the API server cannot be used", extra={"resource": "api", "reason": fault})
        elif fault is None and self._down:
            log.info("the API server can be used again", extra={"resource": "api", "reason": "Available"})
        self._down = fault is not None


async def _load_kubeconfig(configuration: client.Configuration) -> None:
    try:
        await config.load_kube_config(client_configuration=configuration)
    except config.ConfigException:
        raise ApiUnavailableError("no cluster is configured: run in a pod, or set KUBECONFIG") from None
