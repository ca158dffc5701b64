"""Keeps who owns which field (metadata.managedFields); without it server-side apply could not tell a conflict."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from lab.apiserver.errors import ApiError, Object
from lab.apiserver.lists import keys_of, whole_map
from lab.apiserver.plain import copy, now
from lab.apiserver.registry import Resource

Path = tuple[str, ...]
Paths = set[Path]

_NOBODYS = frozenset(
    {
        ("f:apiVersion",),
        ("f:kind",),
        ("f:metadata",),
        *(
            ("f:metadata", f"f:{name}")
            for name in (
                "name",
                "namespace",
                "uid",
                "resourceVersion",
                "generation",
                "creationTimestamp",
                "managedFields",
                "selfLink",
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
            )
        ),
    }
)
# A built-in object is never quite empty: these parts are there before anybody sets them, so nobody owns them.
_EMPTY: dict[tuple[str, str], Object] = {
    ("", "pods"): {"spec": {"containers": None}, "status": {}},
    ("apiextensions.k8s.io", "customresourcedefinitions"): {
        "spec": {"names": {}, "versions": None},
        "status": {"acceptedNames": {}, "conditions": None, "storedVersions": None},
    },
    ("", "events"): {
        "involvedObject": {},
        "source": {},
        "firstTimestamp": None,
        "lastTimestamp": None,
        "eventTime": None,
        "reportingComponent": "",
        "reportingInstance": "",
    },
    ("apps", "daemonsets"): {"spec": {"selector": None, "template": {"spec": {"containers": None}}}, "status": {}},
    ("discovery.k8s.io", "endpointslices"): {"endpoints": None, "ports": None},
}
_CONTAINER = object()


def _nodes(resource: Resource, obj: Object) -> dict[Path, Any]:
    """Every path in the object with its value; maps and lists that are merged have _CONTAINER."""
    found: dict[Path, Any] = {}

    def visit(value: Any, path: Path, names: tuple[str, ...]) -> None:
        if path in _NOBODYS and path != ("f:metadata",):
            return
        if isinstance(value, dict) and not (names and whole_map(resource, names)):
            if path:
                found[path] = _CONTAINER if value else {}
            for name, entry in value.items():
                visit(entry, (*path, f"f:{name}"), (*names, name))
            return
        keys = keys_of(resource, names) if isinstance(value, list) else None
        if keys is None:
            found[path] = value
            return
        found[path] = _CONTAINER if value else []
        for entry in value:
            visit(entry, (*path, _entry(keys, entry)), names)

    visit(obj, (), ())
    return {path: value for path, value in found.items() if path not in _NOBODYS}


def _entry(keys: tuple[str, ...], entry: Any) -> str:
    if not keys or not isinstance(entry, dict):
        return "v:" + json.dumps(entry, separators=(",", ":"))
    identity = {key: entry.get(key, "TCP" if key == "protocol" else None) for key in sorted(keys)}
    return "k:" + json.dumps(identity, separators=(",", ":"))


def _changed(before: Mapping[Path, Any], after: Mapping[Path, Any]) -> Paths:
    """What was added or has another value. A part that was there but null is not added by being filled."""
    changed: Paths = set()
    for path, value in after.items():
        if (
            path not in before
            or (value is not _CONTAINER and (before[path] is _CONTAINER or before[path] != value))
            or (value is _CONTAINER and before[path] not in (_CONTAINER, None, {}, []))
        ):
            changed.add(path)
    return changed


def _encode(paths: Iterable[Path]) -> Object:
    """FieldsV1. A path that has others below it says by "." that it is itself a member."""
    members = set(paths)
    tree: Object = {}
    for path in sorted(members):
        at = tree
        for element in path:
            at = at.setdefault(element, {})
    for path in members:
        at = tree
        for element in path:
            at = at[element]
        if at:
            at["."] = {}
    return tree


def _decode(tree: Object) -> Paths:
    members: Paths = set()

    def visit(node: Object, path: Path) -> None:
        if path and (not node or "." in node):
            members.add(path)
        for element, below in node.items():
            if element != ".":
                visit(below, (*path, element))

    visit(tree, ())
    return members


def _own_part(resource: Resource, subresource: str, paths: Paths) -> Paths:
    """What a write to this endpoint can own: the status belongs to its subresource, where there is one."""
    if subresource:
        return {path for path in paths if path[0] in ("f:status", "f:metadata")}
    return {path for path in paths if path[0] != "f:status"} if resource.has_status else paths


class _Owner:
    """One entry of managedFields while it is worked on."""

    def __init__(self, entry: Object) -> None:
        self.entry = entry
        self.paths = _decode(entry.get("fieldsV1", {}))

    def is_(self, manager: str, operation: str, subresource: str) -> bool:
        entry = self.entry
        return (entry["manager"], entry["operation"], entry.get("subresource", "")) == (manager, operation, subresource)

    def described(self) -> str:
        words = json.dumps(self.entry["manager"])
        if self.entry.get("subresource"):
            words += f' with subresource "{self.entry["subresource"]}"'
        if self.entry["operation"] == "Update":
            words += f" using {self.entry['apiVersion']}"
            if self.entry.get("time"):
                words += f" at {self.entry['time']}"
        return words

    def written(self) -> Object:
        return {**self.entry, "fieldsV1": _encode(self.paths)}


def _owners(obj: Object | None) -> list[_Owner]:
    return [_Owner(entry) for entry in (obj or {}).get("metadata", {}).get("managedFields") or []]


def _own(
    owners: list[_Owner], resource: Resource, manager: str, operation: str, subresource: str
) -> tuple[_Owner, list[_Owner]]:
    """The entry of this manager (a new one where there is none), and the others."""
    mine = next((owner for owner in owners if owner.is_(manager, operation, subresource)), None)
    if mine is None:
        entry: Object = {
            "manager": manager,
            "operation": operation,
            "apiVersion": resource.api_version,
            "time": now(),
            "fieldsType": "FieldsV1",
        }
        if subresource:
            entry["subresource"] = subresource
        mine = _Owner(entry)
    return mine, [owner for owner in owners if owner is not mine]


def _store(obj: Object, owners: Iterable[_Owner]) -> None:
    entries = [owner.written() for owner in owners if owner.paths]
    entries.sort(
        key=lambda entry: (
            entry["operation"] != "Apply",
            entry.get("time", ""),
            entry["manager"],
            entry.get("subresource", ""),
        )
    )
    if entries:
        obj["metadata"]["managedFields"] = entries
    else:
        obj["metadata"].pop("managedFields", None)


def updated(resource: Resource, old: Object | None, new: Object, manager: str, subresource: str = "") -> None:
    """Writes into `new` who owns what after `manager` created it (old is None), replaced or patched it."""
    given = new["metadata"].get("managedFields")
    if old is not None and given == []:
        # A client asks so to have the ownership forgotten.
        new["metadata"].pop("managedFields")
        return
    empty: Object = {} if resource.custom else _EMPTY.get(resource.key, {"spec": {}, "status": {}})
    before = _nodes(resource, empty if old is None else old)
    after = _nodes(resource, new)
    changed = _own_part(resource, subresource, _changed(before, after))
    mine, others = _own(_owners(old), resource, manager, "Update", subresource)
    gone = set(before) - set(after)
    for owner in others:
        owner.paths -= {path for path in changed if after[path] is not _CONTAINER} | gone
    if changed or mine.paths & gone:
        mine.entry = {**mine.entry, "time": now()}
    mine.paths = (mine.paths | changed) - gone
    _store(new, [*others, mine])


def applied(
    resource: Resource, live: Object | None, config: Object, manager: str, subresource: str, force: bool
) -> Object:
    """Server-side apply: `live` with `config` merged in, owned by `manager`. Raises ApiError 409 where another manager
    owns a field that would change, unless `force`."""
    wanted = _nodes(resource, config)
    leaves = {path for path, value in wanted.items() if value is not _CONTAINER or path[-1].startswith("k:")}
    members = _own_part(resource, subresource, leaves)
    present = _nodes(resource, live) if live is not None else {}
    mine, others = _own(_owners(live), resource, manager, "Apply", subresource)
    differing = {
        path
        for path in members
        if wanted[path] is not _CONTAINER and (path not in present or present[path] != wanted[path])
    }
    conflicts = [(owner, path) for owner in others for path in sorted(owner.paths & differing)]
    if conflicts and not force:
        raise _conflict(conflicts)
    for owner in others:
        owner.paths -= differing
    result = copy(live) if live is not None else copy(config)
    if live is not None:
        _merge(resource, result, config, ())
    kept: Paths = members.union(*(owner.paths for owner in others))
    for path in sorted(mine.paths - kept, key=len):
        if not any(other[: len(path)] == path for other in kept):
            _drop(resource, result, path)
    if mine.paths != members:
        mine.entry = {**mine.entry, "time": now()}
    mine.paths = members
    _store(result, [*others, mine])
    return result


def _conflict(conflicts: list[tuple[_Owner, Path]]) -> ApiError:
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {owner.described()}", "field": _dotted(path)}
        for owner, path in conflicts
    ]
    if len(causes) == 1:
        told = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        by_owner: dict[str, list[str]] = {}
        for owner, path in conflicts:
            by_owner.setdefault(owner.described(), []).append(_dotted(path))
        told = f"Apply failed with {len(causes)} conflicts: " + "\n".join(
            f"conflicts with {owner}:\n" + "\n".join(f"- {field}" for field in fields)
            for owner, fields in by_owner.items()
        )
    return ApiError(409, "Conflict", told, {"causes": causes})


def _dotted(path: Path) -> str:
    words = ""
    for element in path:
        kind, _, rest = element.partition(":")
        if kind == "f":
            words += f".{rest}"
        elif kind == "k":
            words += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in json.loads(rest).items()) + "]"
        else:
            words += f"[={rest}]"
    return words


def _merge(resource: Resource, live: Object, config: Object, names: tuple[str, ...]) -> None:
    for name, value in config.items():
        below = (*names, name)
        at = live.get(name)
        if isinstance(value, dict) and isinstance(at, dict) and not whole_map(resource, below):
            _merge(resource, at, value, below)
            continue
        keys = keys_of(resource, below) if isinstance(value, list) and isinstance(at, list) else None
        if keys is None:
            live[name] = value
            continue
        known = {_entry(keys, entry): entry for entry in live[name]}
        for entry in value:
            identity = _entry(keys, entry)
            if identity in known and isinstance(entry, dict):
                _merge(resource, known[identity], entry, below)
            elif identity not in known:
                live[name].append(entry)


def _drop(resource: Resource, obj: Object, path: Path) -> None:
    """Removes what this manager no longer applies and nobody else owns."""
    at: Any = obj
    names: tuple[str, ...] = ()
    for element in path[:-1]:
        at = _step(resource, at, element, names)
        if element.startswith("f:"):
            names = (*names, element[2:])
        if at is None:
            return
    last = path[-1]
    if last.startswith("f:"):
        if isinstance(at, dict):
            at.pop(last[2:], None)
    elif isinstance(at, list):
        keys = keys_of(resource, names) or ()
        at[:] = [entry for entry in at if _entry(keys, entry) != last]


def _step(resource: Resource, at: Any, element: str, names: tuple[str, ...]) -> Any:
    if element.startswith("f:"):
        return at.get(element[2:]) if isinstance(at, dict) else None
    keys = keys_of(resource, names) or ()
    return next((entry for entry in at if _entry(keys, entry) == element), None) if isinstance(at, list) else None
