"""Knows which resources exist; without it the store could not tell a pod from a typing error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lab.apiserver.errors import ApiError, Object

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
STATUS_VERBS = ("get", "patch", "update")


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource as discovery tells it. `definition` is the CRD's version entry for a custom resource."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    has_status: bool = False
    has_generation: bool = False
    verbs: tuple[str, ...] = ALL_VERBS
    singular: str = ""
    list_kind: str = ""
    definition: Object | None = field(default=None, compare=False, repr=False)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def key(self) -> tuple[str, str]:
        return (self.group, self.plural)

    @property
    def qualified(self) -> str:
        """`pods`, `widgets.example.org`"""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def singular_name(self) -> str:
        return self.singular or self.kind.lower()

    @property
    def list_kind_name(self) -> str:
        return self.list_kind or f"{self.kind}List"

    @property
    def subresources(self) -> tuple[str, ...]:
        """Endpoints beside the object's own."""
        if self.plural == "certificatesigningrequests":
            return ("approval", "status")
        return ("status",) if self.has_status else ()

    @property
    def custom(self) -> bool:
        return self.definition is not None


def _builtin(
    group: str,
    version: str,
    plural: str,
    kind: str,
    namespaced: bool,
    short_names: tuple[str, ...] = (),
    categories: tuple[str, ...] = (),
    status: bool = False,
    generation: bool = False,
    verbs: tuple[str, ...] = ALL_VERBS,
) -> Resource:
    return Resource(group, version, plural, kind, namespaced, short_names, categories, status, generation, verbs)


BUILTIN: tuple[Resource, ...] = (
    _builtin("", "v1", "configmaps", "ConfigMap", True, ("cm",)),
    _builtin("", "v1", "events", "Event", True, ("ev",)),
    _builtin(
        "",
        "v1",
        "namespaces",
        "Namespace",
        False,
        ("ns",),
        status=True,
        verbs=("create", "delete", "get", "list", "patch", "update", "watch"),
    ),
    _builtin("", "v1", "nodes", "Node", False, ("no",), status=True),
    _builtin("", "v1", "pods", "Pod", True, ("po",), ("all",), status=True, generation=True),
    _builtin("", "v1", "secrets", "Secret", True),
    _builtin("", "v1", "serviceaccounts", "ServiceAccount", True, ("sa",)),
    _builtin("", "v1", "services", "Service", True, ("svc",), ("all",), status=True),
    _builtin("apps", "v1", "daemonsets", "DaemonSet", True, ("ds",), ("all",), status=True, generation=True),
    _builtin("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True, ("netpol",), generation=True),
    _builtin(
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        False,
        ("crd", "crds"),
        ("api-extensions",),
        status=True,
        generation=True,
    ),
    _builtin(
        "admissionregistration.k8s.io",
        "v1",
        "validatingadmissionpolicies",
        "ValidatingAdmissionPolicy",
        False,
        categories=("api-extensions",),
        status=True,
        generation=True,
    ),
    _builtin(
        "admissionregistration.k8s.io",
        "v1",
        "validatingadmissionpolicybindings",
        "ValidatingAdmissionPolicyBinding",
        False,
        categories=("api-extensions",),
        generation=True,
    ),
    _builtin(
        "certificates.k8s.io",
        "v1",
        "certificatesigningrequests",
        "CertificateSigningRequest",
        False,
        ("csr",),
        status=True,
    ),
    _builtin("coordination.k8s.io", "v1", "leases", "Lease", True),
    _builtin("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", True, generation=True),
)

# Questions that are asked by creating an object, which nobody keeps.
REVIEWS: tuple[Resource, ...] = (
    _builtin("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", False, verbs=("create",)),
    _builtin("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", False, verbs=("create",)),
    _builtin(
        "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False, verbs=("create",)
    ),
    _builtin(
        "authorization.k8s.io", "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", False, verbs=("create",)
    ),
    _builtin("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", False, verbs=("create",)),
)


def resource_of_definition(crd: Object) -> Resource:
    """The resource a CustomResourceDefinition brings. Raises ApiError where it has other than one served version."""
    spec = crd["spec"]
    served = [version for version in spec["versions"] if version.get("served")]
    if len(served) != 1:
        raise ApiError(
            500,
            "InternalError",
            f"this server keeps exactly one served version of a custom resource, {crd['metadata']['name']} has "
            f"{len(served)}",
        )
    version = served[0]
    names = spec["names"]
    return Resource(
        group=spec["group"],
        version=version["name"],
        plural=names["plural"],
        kind=names["kind"],
        namespaced=spec["scope"] == "Namespaced",
        short_names=tuple(names.get("shortNames", ())),
        categories=tuple(names.get("categories", ())),
        has_status="status" in version.get("subresources", {}),
        has_generation=True,
        verbs=("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"),
        singular=names.get("singular", ""),
        list_kind=names.get("listKind", ""),
        definition=version,
    )


class Registry:
    """The resources served now: the built-in ones and those that CRDs brought."""

    def __init__(self) -> None:
        self._resources: dict[tuple[str, str], Resource] = {resource.key: resource for resource in BUILTIN}

    def __iter__(self) -> Iterator[Resource]:
        return iter(list(self._resources.values()))

    def add(self, resource: Resource) -> None:
        self._resources[resource.key] = resource

    def remove(self, key: tuple[str, str]) -> None:
        self._resources.pop(key, None)

    def by_path(self, group: str, version: str, plural: str) -> Resource | None:
        resource = self._resources.get((group, plural))
        return resource if resource is not None and resource.version == version else None

    def by_kind(self, api_version: str, kind: str) -> Resource | None:
        return next(
            (entry for entry in self._resources.values() if entry.kind == kind and entry.api_version == api_version),
            None,
        )

    def find(self, word: str) -> Resource:
        """`pods`, `ippools`, `ippools.crd.projectcalico.org`. A bare plural that several groups have means the first
        of: core, other built-in ones, custom ones. Raises ApiError 404 for an unknown word."""
        plural, _, group = word.partition(".")
        if group:
            resource = self._resources.get((group, plural))
        else:
            resource = next((entry for entry in self._resources.values() if entry.plural == plural), None)
        if resource is None:
            raise ApiError(404, "NotFound", f'the server doesn\'t have a resource type "{word}"')
        return resource
