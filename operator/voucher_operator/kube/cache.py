"""The last seen body of each resource that is still of interest, reduced to the fields that reconciling needs.

Filled by watch events and lists, read by the controllers. Only a cache: an object that is missing here is read or
listed again. See also: `controllers.feed` fills it; `status_writer` refreshes an object after a conflict.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from voucher_operator.kube.client import Body

_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "finalizers",
)


def key_of(body: Mapping[str, Any]) -> str:
    """`namespace/name`, the key in queues and the idempotency key in the ledger."""
    return f"{body['metadata']['namespace']}/{body['metadata']['name']}"


def slim(body: Mapping[str, Any]) -> Body:
    """Keep what reconciling needs; managedFields and annotations are most of an object's size."""
    metadata = {name: body["metadata"][name] for name in _METADATA if name in body["metadata"]}
    return {"metadata": metadata, "spec": body.get("spec", {}), "status": body.get("status", {})}


def is_older(body: Body, other: Body) -> bool:
    """Whether `body` shows an older spec than `other` of the same object."""
    one, two = body["metadata"], other["metadata"]
    return bool(one["uid"] == two["uid"] and one["generation"] < two["generation"])


class Cache:
    """Bodies by key."""

    def __init__(self) -> None:
        self._bodies: dict[str, Body] = {}
        self._keys_by_uid: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._bodies)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._bodies))

    def get(self, key: str) -> Body | None:
        """Return the last seen body, or None."""
        return self._bodies.get(key)

    def by_uid(self, uid: str) -> Body | None:
        """Return the body of the object with this uid, or None."""
        key = self._keys_by_uid.get(uid)
        return self._bodies.get(key) if key else None

    def put(self, body: Mapping[str, Any]) -> Body:
        """Store a body as it was just seen."""
        kept = slim(body)
        key = key_of(kept)
        self.drop(key)
        self._bodies[key] = kept
        self._keys_by_uid[kept["metadata"]["uid"]] = key
        return kept

    def read(self, body: Mapping[str, Any]) -> Body:
        """Store a body that was read, unless the watch has delivered a newer spec meanwhile.

        Returns the body that is stored now.
        """
        kept = slim(body)
        known = self._bodies.get(key_of(kept))
        return known if known is not None and is_older(kept, known) else self.put(body)

    def drop(self, key: str) -> None:
        """Remove an object that is deleted, or no longer of interest."""
        if (old := self._bodies.pop(key, None)) is not None:
            self._keys_by_uid.pop(old["metadata"]["uid"], None)

    def drop_object(self, body: Mapping[str, Any]) -> None:
        """Remove the object with the uid of `body`; an object that was created later under its name stays."""
        if (key := self._keys_by_uid.get(body["metadata"]["uid"])) is not None:
            self.drop(key)
