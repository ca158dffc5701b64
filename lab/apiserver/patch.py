"""Applies the patches clients send; without it `kubectl edit`, `label` and `apply` could not change anything."""

from __future__ import annotations

from typing import Any

from lab.apiserver.errors import ApiError, Object, bad_request
from lab.apiserver.lists import keys_of
from lab.apiserver.plain import copy
from lab.apiserver.registry import Resource

MERGE = "application/merge-patch+json"
JSON = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386; `target` is not changed."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def _failed() -> ApiError:
    return ApiError(422, "Invalid", "the server rejected our request due to an error in our request", {})


def json_patch(target: Object, operations: Any) -> Object:
    """RFC 6902; `target` is not changed. Raises ApiError 400 for what is no patch, 422 where it does not apply."""
    if not isinstance(operations, list):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    result: Any = copy(target)
    for operation in operations:
        try:
            result = _operation(result, operation)
        except (KeyError, IndexError, TypeError, ValueError):
            raise _failed() from None
    if not isinstance(result, dict):
        raise _failed()
    return result


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError(text)
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _get(document: Any, path: list[str]) -> Any:
    for part in path:
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


def _operation(document: Any, operation: Object) -> Any:
    kind, path = operation["op"], _pointer(operation["path"])
    if kind == "test":
        if _get(document, path) != operation["value"]:
            raise ValueError("test")
        return document
    if kind in ("add", "replace"):
        value = copy({"value": operation["value"]})["value"]
    elif kind in ("copy", "move"):
        source = _pointer(operation["from"])
        value = copy({"value": _get(document, source)})["value"]
        if kind == "move":
            document = _remove(document, source)
        kind = "add"
    elif kind == "remove":
        return _remove(document, path)
    else:
        raise ValueError(kind)
    return _put(document, path, value, replace=kind == "replace")


def _put(document: Any, path: list[str], value: Any, *, replace: bool) -> Any:
    if not path:
        return value
    holder, last = _get(document, path[:-1]), path[-1]
    if isinstance(holder, list):
        index = len(holder) if last == "-" else int(last)
        if not 0 <= index <= len(holder):
            raise IndexError(last)
        if replace:
            holder[index] = value
        else:
            holder.insert(index, value)
        return document
    if replace and last not in holder:
        raise KeyError(last)
    holder[last] = value
    return document


def _remove(document: Any, path: list[str]) -> Any:
    holder = _get(document, path[:-1])
    del holder[int(path[-1]) if isinstance(holder, list) else path[-1]]
    return document


def strategic(resource: Resource, target: Object, patch: Object) -> Object:
    """Kubernetes' own patch for built-in kinds: lists of things with a key are merged by it, `$patch: delete|replace`,
    `$deleteFromPrimitiveList/x`, `$setElementOrder/x` and `$retainKeys` are understood."""
    merged: Object = _strategic(resource, copy(target), patch, ())
    return merged


def _strategic(resource: Resource, target: Any, patch: Any, names: tuple[str, ...]) -> Any:
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    if patch.get("$patch") == "delete":
        return {}
    result = target if isinstance(target, dict) else {}
    for name in set(result) - set(patch.get("$retainKeys", result)):
        del result[name]
    for name, value in patch.items():
        below = (*names, name)
        if name.startswith("$deleteFromPrimitiveList/"):
            field = name.partition("/")[2]
            result[field] = [entry for entry in result.get(field, []) if entry not in value]
        elif name.startswith("$"):
            continue
        elif value is None:
            result.pop(name, None)
        elif isinstance(value, list):
            result[name] = _strategic_list(resource, result.get(name), value, below)
        else:
            result[name] = _strategic(resource, result.get(name), value, below)
    for name, order in patch.items():
        if name.startswith("$setElementOrder/"):
            _order(resource, result, name.partition("/")[2], order, names)
    return result


def _merge_key(resource: Resource, names: tuple[str, ...]) -> tuple[str, ...] | None:
    """Strategic merge tells entries apart by one key, also where ownership needs two."""
    keys = keys_of(resource, names)
    return keys if keys is None else keys[:1]


def _strategic_list(resource: Resource, target: Any, patch: list[Any], names: tuple[str, ...]) -> list[Any]:
    keys = _merge_key(resource, names)
    if keys is None or not isinstance(target, list):
        plain = [entry for entry in patch if not (isinstance(entry, dict) and entry.get("$patch") == "delete")]
        return [_strategic(resource, None, entry, names) for entry in plain if entry != {"$patch": "replace"}]
    if not keys:
        return target + [entry for entry in patch if entry not in target]
    key = keys[0]
    if any(isinstance(entry, dict) and entry == {"$patch": "replace"} for entry in patch):
        return [entry for entry in patch if entry != {"$patch": "replace"}]
    result = list(target)
    for entry in patch:
        if not isinstance(entry, dict) or key not in entry:
            raise bad_request(f"map: {entry} does not contain declared merge key: {key}")
        at = next((number for number, known in enumerate(result) if known.get(key) == entry[key]), None)
        if entry.get("$patch") == "delete":
            result = [known for known in result if known.get(key) != entry[key]]
        elif at is None:
            result.append(_strategic(resource, None, entry, names))
        else:
            result[at] = _strategic(resource, result[at], entry, names)
    return result


def _order(resource: Resource, result: Object, field: str, order: list[Any], names: tuple[str, ...]) -> None:
    """Entries in the order told; those it does not name stay behind."""
    keys = _merge_key(resource, (*names, field))
    if keys is None or not isinstance(result.get(field), list):
        return
    wanted = [entry.get(keys[0]) if keys and isinstance(entry, dict) else entry for entry in order]

    def place(entry: Any) -> int:
        identity = entry.get(keys[0]) if keys and isinstance(entry, dict) else entry
        return wanted.index(identity) if identity in wanted else len(wanted)

    result[field].sort(key=place)
