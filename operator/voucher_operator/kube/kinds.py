"""What names a kind of resource at the API server. See also: `controllers.kinds` has those of this operator."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ResourceKind:
    """One namespaced kind, as its CRD names it: `plural` is in paths, `kind` in objects."""

    group: str
    version: str
    kind: str
    plural: str

    @property
    def api_version(self) -> str:
        """`group/version`, as in `apiVersion`."""
        return f"{self.group}/{self.version}"

    def path(self, namespace: str, *rest: str) -> str:
        """Return the path of the collection in a namespace, or of what is below it: a name, a subresource."""
        return "/".join((f"/apis/{self.api_version}/namespaces/{namespace}/{self.plural}", *rest))
