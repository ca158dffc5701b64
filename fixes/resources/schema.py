"""Holds a resource to the schema that the cluster itself publishes for it; without it what the API server would refuse
were put before people to approve, and what it does not know would be dropped in silence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from fixes.resources.fields import unknown
from fixes.resources.kinds import Object


def of_kind(document: Object, kind: str) -> Object | None:
    """The schema of `spec` in the OpenAPI document of a group version; None where that does not tell its fields."""
    schemas = (document.get("components") or {}).get("schemas") or {}
    for schema in schemas.values():
        kinds = schema.get("x-kubernetes-group-version-kind") or ()
        if any(one.get("kind") == kind for one in kinds):
            spec: Object = (schema.get("properties") or {}).get("spec") or {}
            return spec if spec.get("properties") else None
    return None


def wrong(value: Any, schema: Object, path: str = "spec") -> list[str]:
    """What of it the API server would refuse or drop, a sentence each. Rules in CEL are its own business."""
    return list(_wrong(value, schema, path))


def _wrong(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if value is None:  # is dropped, as if it had not been written
        return
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            yield f"{path}: {value!r} is neither a number nor text."
        return
    kind = schema.get("type")
    if kind and not _is(value, kind):
        yield f"{path}: {value!r} is not of the type {kind}."
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is not one of {', '.join(map(str, schema['enum']))}."
    if isinstance(value, str):
        yield from _text(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if "minimum" in schema and value < schema["minimum"]:
            yield f"{path}: {value} is less than {schema['minimum']}."
        if "maximum" in schema and value > schema["maximum"]:
            yield f"{path}: {value} is more than {schema['maximum']}."
    elif isinstance(value, list):
        if len(value) < schema.get("minItems", 0) or len(value) > schema.get("maxItems", len(value)):
            most = schema.get("maxItems", "any number")
            yield f"{path}: {len(value)} items; there may be {schema.get('minItems', 0)} to {most}."
        for number, one in enumerate(value):
            yield from _wrong(one, schema.get("items") or {}, f"{path}[{number}]")
    elif isinstance(value, dict):
        yield from _object(value, schema, path)


def _object(value: Object, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    known: Mapping[str, Any] = schema.get("properties") or {}
    others = schema.get("additionalProperties")
    for name in schema.get("required") or () if "." in path or "[" in path else ():  # of all of it: the API server
        if name not in value and "default" not in (known.get(name) or {}):
            yield f"{path}.{name}: has to be given."
    for name, one in value.items():
        if name in known:
            yield from _wrong(one, known[name], f"{path}.{name}")
        elif isinstance(others, Mapping):
            yield from _wrong(one, others, f"{path}.{name}")
        elif not schema.get("x-kubernetes-preserve-unknown-fields") and not others and known:
            yield unknown(str(name), known, path)


def _text(value: str, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if len(value) > schema.get("maxLength", len(value)):
        yield f"{path}: {len(value)} characters; there may be {schema['maxLength']}."
    if len(value) < schema.get("minLength", 0):
        yield f"{path}: is too short."
    if pattern := schema.get("pattern"):
        try:
            fits = re.search(pattern, value) is not None
        except re.error:  # Go knows forms that Python does not: the API server will say
            return
        if not fits:
            yield f"{path}: {value!r} does not have the form {pattern}."


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    forms: Mapping[str, Any] = {"string": str, "integer": int, "object": dict, "array": list}
    if kind == "number":
        return isinstance(value, int | float)
    return kind not in forms or isinstance(value, forms[kind])
