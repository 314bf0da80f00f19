"""Names and paths of a kind of resource. See also: `controllers.kinds` has the two kinds of this operator."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ResourceKind:
    """One namespaced kind, as in its CRD: `plural` is used in paths, `kind` in objects."""

    group: str
    version: str
    kind: str
    plural: str

    @property
    def api_version(self) -> str:
        """`group/version`, as in `apiVersion`."""
        return f"{self.group}/{self.version}"

    @property
    def crd_path(self) -> str:
        """The path of its CRD."""
        return f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{self.plural}.{self.group}"

    def path(self, namespace: str, *rest: str) -> str:
        """Return the path of the collection in a namespace, followed by `rest`: a name, a subresource."""
        return "/".join((f"/apis/{self.api_version}/namespaces/{namespace}/{self.plural}", *rest))
