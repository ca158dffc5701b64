"""Reads who may do what out of RBAC manifests; without it nobody would know whether an installation may do its work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Manifest = Mapping[str, Any]
ACCOUNTS = "system:serviceaccount:"  # what the user name of each ServiceAccount begins with

# What Kubernetes lets everybody do who has a token (system:basic-user): ask who they are and what they may.
BASIC = (
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
)


class Grant(NamedTuple):
    """One verb on one resource. namespace "": in all of them and beside them. names: none means any.

    verb, group and resource may be "*"; a subresource is a part of the resource, such as `pods/log`.
    """

    verb: str
    group: str
    resource: str
    namespace: str = ""
    names: tuple[str, ...] = ()

    def covers(self, verb: str, group: str, resource: str, namespace: str = "", name: str = "") -> bool:
        """As Kubernetes' RBAC decides: a name that is not known yet, as on create, is not among `names`."""
        return (
            self.verb in (verb, "*")
            and self.group in (group, "*")
            and self.resource in (resource, "*")
            and self.namespace in (namespace, "")
            and (not self.names or name in self.names)
        )


def read(path: Path) -> list[Manifest]:
    """The manifests of a file."""
    return list(yaml.load_all(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def account(name: str, namespace: str) -> str:
    """The user name of a ServiceAccount."""
    return f"{ACCOUNTS}{namespace}:{name}"


def groups_of_account(namespace: str) -> tuple[str, ...]:
    return ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")


def grants(manifests: Iterable[Manifest], user: str, groups: Iterable[str] = ()) -> tuple[Grant, ...]:
    """What bindings among these manifests grant to a user, and what everybody has. Raises KeyError for a binding of a
    role that is not among them."""
    manifests = list(manifests)
    found = [Grant("create", group, resource) for group, resource in BASIC]
    roles = {_called(one["kind"], one["metadata"]): one for one in manifests if one["kind"] in ("Role", "ClusterRole")}
    for binding in manifests:
        if binding["kind"] not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        metadata = binding["metadata"]
        if not any(_is(subject, user, groups, metadata) for subject in binding.get("subjects") or ()):
            continue
        reference = binding["roleRef"]
        role = roles[_called(reference["kind"], {**metadata, "name": reference["name"]})]
        found += of_role(role, metadata.get("namespace", "") if binding["kind"] == "RoleBinding" else "")
    return tuple(found)


def of_role(role: Manifest, namespace: str) -> list[Grant]:
    """Each rule of a role taken apart. namespace: of its binding, "" for one that binds everywhere."""
    return [
        Grant(verb, group, resource, namespace, tuple(rule.get("resourceNames") or ()))
        for rule in role.get("rules") or ()
        for verb in rule["verbs"]
        for group in rule.get("apiGroups") or ()
        for resource in rule.get("resources") or ()
    ]


def _called(kind: str, metadata: Manifest) -> tuple[str, str, str]:
    return kind, str(metadata.get("namespace", "")) if kind == "Role" else "", str(metadata["name"])


def _is(subject: Manifest, user: str, groups: Iterable[str], binding: Manifest) -> bool:
    if subject["kind"] == "ServiceAccount":
        return account(subject["name"], subject.get("namespace") or binding.get("namespace", "")) == user
    return subject["name"] == user if subject["kind"] == "User" else subject["name"] in groups
