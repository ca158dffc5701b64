"""Holds custom resources to their CRD's schema; without it the lab would accept what a cluster refuses.

Pruning, defaulting and validation of structural schemas, and the CEL rules in them. Formats other than date-time are
not checked. A CRD with what cannot be checked here is refused by `check`.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from lab.apiserver import cel, jsonpath
from lab.apiserver.errors import ApiError, Object

NOT_CHECKED: Object = {
    "reason": "FieldValueInvalid",
    "message": "Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation",
    "field": "<nil>",
}
# Of these the metadata schema is the same for every object, so a CRD's own schema does not speak of them.
_TOP = ("apiVersion", "kind", "metadata")
_ABSENT = object()
_MISREAD = ("x-kubernetes-embedded-resource",)

Schema = dict[str, Any]
Causes = list[Object]


def schema_of(definition: Object) -> Schema:
    """The openAPIV3Schema of one version of a CRD."""
    found: Schema = definition.get("schema", {}).get("openAPIV3Schema", {"type": "object"})
    return found


def check(crd: Object) -> None:
    """Refuses (ApiError 500) a CRD whose schema asks for what this server cannot hold anybody to."""
    try:
        for version in crd["spec"]["versions"]:
            _check(schema_of(version), "")
            for entry in version.get("additionalPrinterColumns", []) + version.get("selectableFields", []):
                jsonpath.find(entry["jsonPath"], {})
    except cel.CelError as error:
        name = crd["metadata"]["name"]
        raise ApiError(
            500, "InternalError", f"this server cannot evaluate a rule of CustomResourceDefinition {name}: {error}"
        ) from None


def _check(schema: Schema, where: str, in_list: bool = False) -> None:
    for word in _MISREAD:
        if schema.get(word):
            raise cel.CelError(f"{word} at {where or 'the top'} is unknown here")
    for rule in schema.get("x-kubernetes-validations", []):
        compiled = cel.compile_rule(rule["rule"])
        if "oldSelf" in compiled.names and (in_list or rule.get("optionalOldSelf")):
            raise cel.CelError(f"oldSelf inside a list, or optional, at {where} is unknown here")
        if "messageExpression" in rule:
            cel.compile_rule(rule["messageExpression"])
    for name, entry in schema.get("properties", {}).items():
        _check(entry, f"{where}.{name}", in_list)
    for word in ("items", "additionalProperties", "not"):
        if isinstance(schema.get(word), dict):
            _check(schema[word], f"{where}.{word}", in_list or word == "items")
    for word in ("allOf", "anyOf", "oneOf"):
        for entry in schema.get(word, []):
            _check(entry, f"{where}.{word}", in_list)


def prune(schema: Schema, obj: Object) -> list[str]:
    """Removes the fields the schema does not know, in place; returns their paths (`spec.colour`)."""
    removed: list[str] = []
    _prune({**schema, "properties": {**schema.get("properties", {}), **dict.fromkeys(_TOP, _ANY)}}, obj, "", removed)
    return removed


_ANY: Schema = {"x-kubernetes-preserve-unknown-fields": True}


def _prune(schema: Schema, value: Any, path: str, removed: list[str]) -> None:
    if isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            for number, entry in enumerate(value):
                _prune(items, entry, f"{path}[{number}]", removed)
        return
    if not isinstance(value, dict):
        return
    properties = schema.get("properties", {})
    additional = schema.get("additionalProperties")
    for name in list(value):
        below = f"{path}.{name}" if path else name
        if name in properties:
            _prune(properties[name], value[name], below, removed)
        elif isinstance(additional, dict):
            _prune(additional, value[name], below, removed)
        elif not additional and not schema.get("x-kubernetes-preserve-unknown-fields"):
            del value[name]
            removed.append(below)


def default(schema: Schema, value: Any) -> None:
    """Fills in what the schema gives a default, in place."""
    if isinstance(value, list):
        if isinstance(schema.get("items"), dict):
            for entry in value:
                default(schema["items"], entry)
        return
    if not isinstance(value, dict):
        return
    for name, entry in schema.get("properties", {}).items():
        if "default" in entry and (name not in value or (value[name] is None and not entry.get("nullable"))):
            value[name] = _fresh(entry["default"])
        if name in value:
            default(entry, value[name])
    if isinstance(schema.get("additionalProperties"), dict):
        for entry in value.values():
            default(schema["additionalProperties"], entry)


def _fresh(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _fresh(entry) for key, entry in value.items()}
    return [_fresh(entry) for entry in value] if isinstance(value, list) else value


def validate(schema: Schema, obj: Object, old: Object | None) -> Causes:
    """What the schema and its rules have against `obj`, as the causes of a 422. Against `old`, what did not change is
    not held against it (a real server ratchets so, too)."""
    causes: Causes = []
    for name in sorted(schema.get("properties", {})):
        if name in obj and name not in _TOP:
            before = _ABSENT if old is None else old.get(name, _ABSENT)
            _validate(schema["properties"][name], obj[name], before, name, causes)
    for name in schema.get("required", []):
        if name not in obj:
            causes.append(_required(name))
    if causes:
        return [*causes, NOT_CHECKED] if _has_rules(schema) else causes
    _rules(schema, obj, _ABSENT if old is None else old, "", causes)
    return causes


def _has_rules(schema: Schema) -> bool:
    if schema.get("x-kubernetes-validations"):
        return True
    below = list(schema.get("properties", {}).values())
    below += [schema[word] for word in ("items", "additionalProperties") if isinstance(schema.get(word), dict)]
    return any(_has_rules(entry) for entry in below)


def _cause(reason: str, message: str, field: str) -> Object:
    return {"reason": reason, "message": message, "field": field}


def _required(field: str) -> Object:
    return _cause("FieldValueRequired", "Required value", field)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    return str(value)


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
_NAMES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}


def _fits(schema: Schema, value: Any) -> bool:
    if schema.get("x-kubernetes-int-or-string"):
        return isinstance(value, int | str) and not isinstance(value, bool)
    wanted: str | None = schema.get("type")
    if wanted is None:
        return True
    if isinstance(value, bool):
        return wanted == "boolean"
    if wanted == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[wanted])


def _validate(schema: Schema, value: Any, old: Any, path: str, causes: Causes) -> None:
    if value is None and schema.get("nullable"):
        return
    if old is not _ABSENT and value == old:
        return
    if not _fits(schema, value):
        found = "null" if value is None else _NAMES[type(value)]
        wanted = "integer or string" if schema.get("x-kubernetes-int-or-string") else schema["type"]
        causes.append(
            _cause(
                "FieldValueTypeInvalid",
                f'Invalid value: "{found}": {path} in body must be of type {wanted}: "{found}"',
                path,
            )
        )
        return
    if "enum" in schema and value not in schema["enum"]:
        supported = ", ".join(_shown(entry) for entry in schema["enum"])
        causes.append(
            _cause("FieldValueNotSupported", f"Unsupported value: {_shown(value)}: supported values: {supported}", path)
        )
    if isinstance(value, str):
        _validate_text(schema, value, path, causes)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _validate_number(schema, value, path, causes)
    elif isinstance(value, list):
        _validate_list(schema, value, old, path, causes)
    elif isinstance(value, dict):
        _validate_object(schema, value, old, path, causes)
    _validate_combined(schema, value, path, causes)


def _invalid(value: Any, path: str, words: str) -> Object:
    return _cause("FieldValueInvalid", f"Invalid value: {_shown(value)}: {path} in body {words}", path)


def _validate_text(schema: Schema, value: str, path: str, causes: Causes) -> None:
    if len(value) < schema.get("minLength", 0):
        causes.append(_invalid(value, path, f"should be at least {schema['minLength']} chars long"))
    if len(value) > schema.get("maxLength", len(value)):
        causes.append(_cause("FieldValueTooLong", f"Too long: may not be more than {schema['maxLength']} bytes", path))
    if "pattern" in schema and not re.search(schema["pattern"], value):
        causes.append(_invalid(value, path, f"should match '{schema['pattern']}'"))
    if schema.get("format") == "date-time":
        try:
            datetime.fromisoformat(value)
        except ValueError:
            causes.append(_invalid(value, path, f"must be of type date-time: {_shown(value)}"))


def _validate_number(schema: Schema, value: float, path: str, causes: Causes) -> None:
    if "minimum" in schema:
        least = schema["minimum"]
        if schema.get("exclusiveMinimum") and value <= least:
            causes.append(_invalid(value, path, f"should be greater than {least}"))
        elif value < least:
            causes.append(_invalid(value, path, f"should be greater than or equal to {least}"))
    if "maximum" in schema:
        most = schema["maximum"]
        if schema.get("exclusiveMaximum") and value >= most:
            causes.append(_invalid(value, path, f"should be less than {most}"))
        elif value > most:
            causes.append(_invalid(value, path, f"should be less than or equal to {most}"))
    if "multipleOf" in schema and value % schema["multipleOf"]:
        causes.append(_invalid(value, path, f"should be a multiple of {schema['multipleOf']}"))


def _validate_list(schema: Schema, value: list[Any], old: Any, path: str, causes: Causes) -> None:
    if len(value) < schema.get("minItems", 0):
        causes.append(_invalid(len(value), path, f"should have at least {schema['minItems']} items"))
    if len(value) > schema.get("maxItems", len(value)):
        causes.append(
            _cause("FieldValueTooMany", f"Too many: {len(value)}: must have at most {schema['maxItems']} items", path)
        )
    kind = schema.get("x-kubernetes-list-type")
    seen: list[Any] = []
    for number, entry in enumerate(value):
        below = f"{path}[{number}]"
        identity = _identity(schema, kind, entry)
        if identity is not None:
            if identity in seen:
                causes.append(_cause("FieldValueDuplicate", f"Duplicate value: {_shown(identity)}", below))
            seen.append(identity)
        before = old[number] if isinstance(old, list) and number < len(old) else _ABSENT
        _validate(schema.get("items", {}), entry, before, below, causes)


def _identity(schema: Schema, kind: str | None, entry: Any) -> Any:
    if kind == "set":
        return entry
    if kind == "map" and isinstance(entry, dict):
        return {key: entry.get(key) for key in schema.get("x-kubernetes-list-map-keys", [])}
    return None


def _validate_object(schema: Schema, value: Object, old: Any, path: str, causes: Causes) -> None:
    before = old if isinstance(old, dict) else {}
    properties = schema.get("properties", {})
    for name in sorted(properties):
        if name in value:
            _validate(properties[name], value[name], before.get(name, _ABSENT), f"{path}.{name}", causes)
    for name in schema.get("required", []):
        if name not in value:
            causes.append(_required(f"{path}.{name}"))
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict):
        for name in sorted(set(value) - set(properties)):
            _validate(additional, value[name], before.get(name, _ABSENT), f"{path}.{name}", causes)
    if len(value) < schema.get("minProperties", 0):
        causes.append(_invalid(len(value), path, f"should have at least {schema['minProperties']} properties"))
    if len(value) > schema.get("maxProperties", len(value)):
        causes.append(
            _cause(
                "FieldValueTooMany",
                f"Too many: {len(value)}: must have at most {schema['maxProperties']} properties",
                path,
            )
        )


def _validate_combined(schema: Schema, value: Any, path: str, causes: Causes) -> None:
    def held(entry: Schema) -> bool:
        found: Causes = []
        _validate(entry, value, _ABSENT, path, found)
        return not found

    for entry in schema.get("allOf", []):
        _validate(entry, value, _ABSENT, path, causes)
    if "anyOf" in schema and not any(held(entry) for entry in schema["anyOf"]):
        causes.append(_invalid(value, path, "must validate at least one schema (anyOf)"))
    if "oneOf" in schema and sum(held(entry) for entry in schema["oneOf"]) != 1:
        causes.append(_invalid(value, path, "must validate one and only one schema (oneOf)"))
    if "not" in schema and held(schema["not"]):
        causes.append(_invalid(value, path, "must not validate the schema (not)"))


# The rules of a schema are compiled again for every write: they are few and short, and so need no cache to go stale.
def _rules(schema: Schema, value: Any, old: Any, path: str, causes: Causes) -> None:
    unchanged = old is not _ABSENT and value == old
    for rule in schema.get("x-kubernetes-validations", []):
        compiled = cel.compile_rule(rule["rule"])
        transition = "oldSelf" in compiled.names
        if (transition and old is _ABSENT) or (unchanged and not transition):
            continue
        values = {"self": value, "oldSelf": old} if transition else {"self": value}
        try:
            if compiled.evaluate(values) is True:
                continue
            words = _words(rule, values)
        except cel.CelError as error:
            words = f"{error} evaluating rule: {rule.get('message', rule['rule'])}"
        field = f"{path}{rule['fieldPath']}" if "fieldPath" in rule else path
        shown = _shown(schema.get("type", "object"))
        causes.append(_cause(rule.get("reason", "FieldValueInvalid"), f"Invalid value: {shown}: {words}", field))
    if isinstance(value, dict):
        before = old if isinstance(old, dict) else {}
        properties = schema.get("properties", {})
        additional = schema.get("additionalProperties")
        for name, entry in value.items():
            below = properties.get(name, additional)
            if isinstance(below, dict):
                _rules(below, entry, before.get(name, _ABSENT), f"{path}.{name}".removeprefix("."), causes)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for number, entry in enumerate(value):
            _rules(schema["items"], entry, _ABSENT, f"{path}[{number}]", causes)


def _words(rule: Object, values: dict[str, Any]) -> str:
    if "messageExpression" in rule:
        said = cel.compile_rule(rule["messageExpression"]).evaluate(values)
        if isinstance(said, str) and said:
            return said
    fallback: str = rule.get("message", f"failed rule: {rule['rule']}")
    return fallback
