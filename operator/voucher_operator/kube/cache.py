"""The last seen body of each resource that is still of interest, reduced to the fields that reconciling needs.

Filled by watch events and lists, read by the controllers. Only a cache: an object that is missing here is read or
listed again. Tens of thousands of bodies are kept, and few are read at a time, so they are stored compressed: a tenth
of what Python's dictionaries take. What is asked of all of them at once is stored beside them.

See also: `controllers.feed` fills it; `status_writer` refreshes an object after a conflict.
"""

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from sys import intern
from typing import Any, Final

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
_WINDOW: Final = -12
"""Raw deflate over 4 KiB: a body has no more, and a larger window costs memory and time at each one."""


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


@dataclass(frozen=True, slots=True)
class Version:
    """Which object was seen, and which version of it; `resource_version` and `generation` None where it has none."""

    uid: str
    resource_version: str | None
    generation: int | None
    deleted: bool
    """Whether its deletion has begun."""

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Version":
        """Read it from a body."""
        metadata = body["metadata"]
        version, generation = metadata.get("resourceVersion"), metadata.get("generation")
        return cls(intern(metadata["uid"]), version, generation, "deletionTimestamp" in metadata)

    def is_missing(self, body: Body) -> bool:
        """Whether `body` is another object, or shows a newer spec of this one."""
        other = Version.of(body)
        return self.uid != other.uid or (self.generation or 0) < (other.generation or 0)

    def shows_same_spec(self, other: "Version | None") -> bool:
        """Whether it is the same object with the same spec, deleted alike; the status may differ."""
        return other is not None and (self.uid, self.generation, self.deleted) == (
            other.uid,
            other.generation,
            other.deleted,
        )


class Cache:
    """Bodies by key."""

    def __init__(self, sample: bytes = b"", marks: Callable[[Body], Iterable[str]] = lambda _: ()) -> None:
        """`sample`: a body as JSON that is like most of them, which makes them smaller.

        `marks`: words by which some of the bodies are found again without a look at all (`marked`).
        """
        self._bodies: dict[str, tuple[Version, bytes]] = {}
        self._keys_by_uid: dict[str, str] = {}
        self._sample = sample
        self._marks = marks
        self._marked: dict[str, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._bodies)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._bodies))

    def get(self, key: str) -> Body | None:
        """Return the last seen body, or None; a copy, which may be changed."""
        found = self._bodies.get(key)
        return None if found is None else self._unpack(found[1])

    def by_uid(self, uid: str) -> Body | None:
        """Return the body of the object with this uid, or None."""
        key = self._keys_by_uid.get(uid)
        return self.get(key) if key else None

    def version(self, key: str) -> Version | None:
        """Return which version was last seen, or None; much cheaper than the body."""
        found = self._bodies.get(key)
        return None if found is None else found[0]

    def key_of_uid(self, uid: str) -> str | None:
        """Return the key of the object with this uid, or None."""
        return self._keys_by_uid.get(uid)

    def marked(self, mark: str) -> list[str]:
        """Return the keys of the bodies with this mark."""
        return list(self._marked.get(mark, ()))

    def put(self, body: Mapping[str, Any]) -> Body:
        """Store a body as it was just seen."""
        kept = slim(body)
        key = intern(key_of(kept))
        self.drop(key)
        version = Version.of(kept)
        self._bodies[key] = (version, self._pack(kept))
        self._keys_by_uid[version.uid] = key
        for mark in self._marks(kept):
            self._marked.setdefault(mark, {})[key] = None
        return kept

    def read(self, body: Mapping[str, Any]) -> Body:
        """Store a body that was read, unless the watch has delivered a newer spec meanwhile.

        Returns the body that is stored now.
        """
        kept = slim(body)
        known = self.get(key_of(kept))
        return known if known is not None and is_older(kept, known) else self.put(body)

    def drop(self, key: str) -> None:
        """Remove an object that is deleted, or no longer of interest."""
        if (old := self._bodies.pop(key, None)) is not None:
            self._keys_by_uid.pop(old[0].uid, None)
            for keys in self._marked.values():
                keys.pop(key, None)

    def drop_object(self, body: Mapping[str, Any]) -> None:
        """Remove the object with the uid of `body`; an object that was created later under its name stays."""
        if (key := self._keys_by_uid.get(body["metadata"]["uid"])) is not None:
            self.drop(key)

    def _pack(self, body: Body) -> bytes:
        packer = zlib.compressobj(level=6, wbits=_WINDOW, memLevel=5, zdict=self._sample)
        text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
        return packer.compress(text.encode("utf-8", "surrogatepass")) + packer.flush()

    def _unpack(self, packed: bytes) -> Body:
        unpacker = zlib.decompressobj(wbits=_WINDOW, zdict=self._sample)
        body: Body = json.loads(unpacker.decompress(packed).decode("utf-8", "surrogatepass"))
        return body
