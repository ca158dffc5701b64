"""A patch applied to a resource, by RFC 7386 or RFC 6902; without it the smallest change takes all of it."""

from __future__ import annotations

import copy
from typing import Any

from bot.errors import UserError
from fixes.resources.kinds import Object

KEPT = ("apiVersion", "kind", "status")
OWN = ("labels", "annotations")  # of metadata, all that a patch may touch


def patched(found: Object, patch: Any, kind: str) -> Object:
    """kind: "merge" or "json". Raises UserError for a patch that does not fit, or that touches what nobody writes."""
    if kind == "json":
        made = _json(found, patch)
    else:
        if not isinstance(patch, dict):
            raise UserError("A merge patch is a mapping, such as {spec: {natOutgoing: true}}; a list is --type json.")
        if unknown := [str(name) for name in patch if name not in (*KEPT, "metadata", "spec")]:
            raise UserError(f"A resource has no {unknown[0]!r}, only metadata and spec; write {{spec: {{...}}}}.")
        made = _merged(found, patch)
    if not isinstance(made, dict) or not isinstance(made.get("metadata"), dict):
        raise UserError("After this patch it would be no resource any more.")
    for name in KEPT:
        if made.get(name) != found.get(name):
            raise UserError(f"A patch does not change {name}.")
    own = {key: value for key, value in found["metadata"].items() if key not in OWN}
    if {key: value for key, value in made["metadata"].items() if key not in OWN} != own:
        raise UserError("Of metadata a patch changes labels and annotations only.")
    return made


def _merged(found: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    made = dict(found) if isinstance(found, dict) else {}
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = _merged(made.get(name), value)
    return made


def _json(found: Object, patch: Any) -> Any:
    if not isinstance(patch, list) or not all(isinstance(one, dict) and "op" in one and "path" in one for one in patch):
        raise UserError('A JSON patch is a list of operations, such as [{"op": "remove", "path": "/spec/order"}].')
    made: Any = copy.deepcopy(found)
    for one in patch:
        try:
            made = _operation(made, one)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            why = str(error) or "there is no such place"
            raise UserError(f"The patch does not fit: {one['op']} {one['path']} ({why}).") from error
    return made


def _operation(made: Any, one: Object) -> Any:
    op, path = str(one["op"]), _path(one["path"])
    if op == "test":
        if _at(made, path) != one["value"]:
            raise ValueError("the value is another one")
        return made
    if op in ("move", "copy"):
        source = _path(one["from"])
        value = copy.deepcopy(_at(made, source))
        return _set(_removed(made, source) if op == "move" else made, path, value, insert=True)
    if op == "remove":
        return _removed(made, path)
    if op in ("add", "replace"):
        if op == "replace":
            _at(made, path)
        return _set(made, path, copy.deepcopy(one["value"]), insert=op == "add")
    raise ValueError("there is add, remove, replace, move, copy and test")


def _path(text: Any) -> list[str]:
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise ValueError("a path begins with /")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _at(made: Any, path: list[str]) -> Any:
    for part in path:
        made = made[_index(made, part)]
    return made


def _removed(made: Any, path: list[str]) -> Any:
    if not path:
        raise ValueError("the whole resource is not removed by a patch")
    holder = _at(made, path[:-1])
    del holder[_index(holder, path[-1])]
    return made


def _set(made: Any, path: list[str], value: Any, *, insert: bool) -> Any:
    if not path:
        return value
    holder = _at(made, path[:-1])
    if isinstance(holder, list) and insert:
        at = len(holder) if path[-1] == "-" else int(path[-1])
        if not 0 <= at <= len(holder):
            raise IndexError("the list is not that long")
        holder.insert(at, value)
    else:
        holder[_index(holder, path[-1])] = value
    return made


def _index(holder: Any, part: str) -> Any:
    if isinstance(holder, list):
        if not part.isascii() or not part.isdigit():
            raise ValueError(f"{part!r} is no place in a list")
        return int(part)
    if not isinstance(holder, dict):
        raise TypeError(f"there is nothing below {part!r}")
    return part
