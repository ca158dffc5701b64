"""Knows which lists are merged by a key; without it a patch to one container would replace them all.

Strategic merge patches and field ownership ask the same question. For built-in kinds the answer is the table below
(the part of it that our kinds use), for custom resources it is in their schema.
"""

from __future__ import annotations

from collections.abc import Sequence

from lab.apiserver.registry import Resource
from lab.apiserver.schema import Schema, schema_of

# The last names of a path, and the keys of the entries there; no keys: a set of plain values.
_KEYS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("metadata", "ownerReferences"): ("uid",),
    ("metadata", "finalizers"): (),
    ("containers",): ("name",),
    ("initContainers",): ("name",),
    ("ephemeralContainers",): ("name",),
    ("volumes",): ("name",),
    ("imagePullSecrets",): ("name",),
    ("hostAliases",): ("ip",),
    ("env",): ("name",),
    ("volumeMounts",): ("mountPath",),
    ("volumeDevices",): ("devicePath",),
    ("topologySpreadConstraints",): ("topologyKey", "whenUnsatisfiable"),
    ("containers", "ports"): ("containerPort", "protocol"),
    ("initContainers", "ports"): ("containerPort", "protocol"),
    ("spec", "ports"): ("port", "protocol"),
    ("conditions",): ("type",),
    ("podIPs",): ("ip",),
    ("hostIPs",): ("ip",),
    ("status", "addresses"): ("type",),
    ("podCIDRs",): (),
    ("secrets",): ("name",),
}
_WHOLE = frozenset({"involvedObject", "related", "selector", "podSelector", "namespaceSelector", "source"})


def keys_of(resource: Resource, names: Sequence[str]) -> tuple[str, ...] | None:
    """The keys by which the entries of the list at `names` are told apart; () for a set, None for a list that is
    replaced as a whole."""
    if resource.custom and not (names and names[0] == "metadata"):
        found = _schema_at(resource, names)
        kind = found.get("x-kubernetes-list-type") if found else None
        if kind == "map":
            return tuple((found or {})["x-kubernetes-list-map-keys"])
        return () if kind == "set" else None
    for length in (2, 1):
        keys = _KEYS.get(tuple(names[-length:]))
        if keys is not None:
            return keys
    return None


def whole_map(resource: Resource, names: Sequence[str]) -> bool:
    """Whether the map at `names` belongs to one owner as a whole."""
    if resource.custom:
        found = _schema_at(resource, names)
        return bool(found) and (found or {}).get("x-kubernetes-map-type") == "atomic"
    return names[-1] in _WHOLE and names[0] != "metadata"


def _schema_at(resource: Resource, names: Sequence[str]) -> Schema | None:
    at: Schema | None = schema_of(resource.definition or {})
    for name in names:
        if at is None:
            return None
        if isinstance(at.get("items"), dict):
            at = at["items"]
        below = at.get("properties", {}).get(name, at.get("additionalProperties"))
        at = below if isinstance(below, dict) else None
    return at
