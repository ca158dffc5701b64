"""Checks an object's metadata; without it the lab would take names that no cluster takes."""

from __future__ import annotations

import re
import secrets

from lab.apiserver import errors
from lab.apiserver.errors import Object
from lab.apiserver.registry import Resource

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_SUBDOMAIN_TOLD = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_TOLD = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_VALUE_TOLD = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
# Kinds whose name is one label: it becomes part of a DNS name.
_ONE_LABEL = frozenset({("", "namespaces"), ("", "services")})
_METADATA = frozenset(
    {
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "labels",
        "managedFields",
        "name",
        "namespace",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)
# What the real server makes generated names of: no vowels, nothing that looks like another character.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def generate(prefix: str) -> str:
    """`prefix` and five random characters."""
    return prefix[:58] + "".join(secrets.choice(_ALPHABET) for _ in range(5))


def prune(obj: Object) -> list[str]:
    """Removes metadata fields that do not exist, in place; returns their paths."""
    unknown = sorted(set(obj["metadata"]) - _METADATA)
    for name in unknown:
        del obj["metadata"][name]
    return [f"metadata.{name}" for name in unknown]


def check(resource: Resource, obj: Object) -> list[Object]:
    """What is wrong with the metadata, as the causes of a 422."""
    metadata = obj["metadata"]
    name = metadata.get("name", "")
    causes: list[Object] = []
    if not name:
        causes.append(
            {
                "reason": "FieldValueRequired",
                "message": "Required value: name or generateName is required",
                "field": "metadata.name",
            }
        )
    else:
        pattern, told, longest = (
            (_LABEL, _LABEL_TOLD, 63) if resource.key in _ONE_LABEL else (_SUBDOMAIN, _SUBDOMAIN_TOLD, 253)
        )
        if len(name) > longest:
            causes.append(_invalid("metadata.name", name, f"must be no more than {longest} characters"))
        if not pattern.fullmatch(name):
            causes.append(_invalid("metadata.name", name, told))
    for key, value in (metadata.get("labels") or {}).items():
        if not _KEY.fullmatch(key):
            causes.append(_invalid("metadata.labels", key, "name part must consist of alphanumeric characters"))
        if not isinstance(value, str) or len(value) > 63 or not _VALUE.fullmatch(value):
            causes.append(_invalid("metadata.labels", str(value), _VALUE_TOLD))
    return causes


def _invalid(field: str, value: str, told: str) -> Object:
    return {"reason": "FieldValueInvalid", "message": f'Invalid value: "{value}": {told}', "field": field}


def check_definition(crd: Object) -> None:
    """Refuses (ApiError 422) a CustomResourceDefinition without the parts everything else reads."""
    spec = crd.get("spec") or {}
    names = spec.get("names") or {}
    missing = [
        field
        for field, value in (
            ("spec.group", spec.get("group")),
            ("spec.scope", spec.get("scope")),
            ("spec.names.plural", names.get("plural")),
            ("spec.names.kind", names.get("kind")),
            ("spec.versions", spec.get("versions")),
        )
        if not value
    ]
    causes = [{"reason": "FieldValueRequired", "message": "Required value", "field": field} for field in missing]
    for number, version in enumerate(spec.get("versions") or []):
        if "openAPIV3Schema" not in version.get("schema", {}):
            field = f"spec.versions[{number}].schema.openAPIV3Schema"
            causes.append(
                {"reason": "FieldValueRequired", "message": "Required value: schemas are required", "field": field}
            )
    name, wanted = crd["metadata"].get("name", ""), f"{names.get('plural')}.{spec.get('group')}"
    if not missing and name != wanted:
        causes.append(_invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    if causes:
        raise errors.invalid("apiextensions.k8s.io", "CustomResourceDefinition", name, causes)
