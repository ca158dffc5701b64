"""Understands label and field selectors; without it every list would return everything."""

from __future__ import annotations

import re
from collections.abc import Callable

from lab.apiserver import jsonpath
from lab.apiserver.errors import Object, bad_request
from lab.apiserver.registry import Resource

Selector = Callable[[Object], bool]

_METADATA = {"metadata.name": "", "metadata.namespace": ""}
# The fields a client may select by, and the value an object has that does not carry the field.
_FIELDS: dict[tuple[str, str], dict[str, str]] = {
    ("", "pods"): {
        "spec.nodeName": "",
        "spec.restartPolicy": "Always",
        "spec.schedulerName": "default-scheduler",
        "spec.serviceAccountName": "",
        "spec.hostNetwork": "false",
        "status.phase": "",
        "status.podIP": "",
        "status.nominatedNodeName": "",
    },
    ("", "events"): {
        "involvedObject.kind": "",
        "involvedObject.namespace": "",
        "involvedObject.name": "",
        "involvedObject.uid": "",
        "involvedObject.apiVersion": "",
        "involvedObject.resourceVersion": "",
        "involvedObject.fieldPath": "",
        "reason": "",
        "reportingComponent": "",
        "source": "",
        "type": "",
    },
    ("", "nodes"): {"spec.unschedulable": "false"},
    ("", "namespaces"): {"status.phase": ""},
    ("certificates.k8s.io", "certificatesigningrequests"): {"spec.signerName": ""},
    ("", "secrets"): {"type": ""},
    ("", "services"): {"spec.clusterIP": "", "spec.type": ""},
}
_TOKENS = re.compile(r"\s*(==|!=|=|!|,|\(|\)|<|>|[^\s=!,()<>]+)")
_VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")


def _everything(_obj: Object) -> bool:
    return True


def parse_labels(text: str) -> Selector:
    """`app=one,tier!=db,zone in (a,b),zone notin (c),gpu,!spot,n>3`. Raises ApiError 400."""
    if not text.strip():
        return _everything
    tokens = _tokens(text)
    tests: list[Selector] = []
    while True:
        tests.append(_requirement(tokens))
        if not tokens:
            break
        separator = tokens.pop(0)
        if separator != ",":
            raise bad_request(f"unable to parse requirement: found '{separator}', expected: ',' or 'end of string'")
    return lambda obj: all(test(obj) for test in tests)


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    stripped = text.rstrip()
    while position < len(stripped):
        found = _TOKENS.match(stripped, position)
        if found is None:
            raise bad_request(f"unable to parse requirement: cannot read {stripped[position:]!r}")
        tokens.append(found[1])
        position = found.end()
    return tokens


def _labels(obj: Object) -> dict[str, str]:
    labels: dict[str, str] = obj["metadata"].get("labels") or {}
    return labels


def _word(tokens: list[str], expected: str) -> str:
    word = tokens.pop(0) if tokens else ""
    if not word or word in ("=", "==", "!=", "!", ",", "(", ")", "<", ">"):
        raise bad_request(f"unable to parse requirement: found '{word}', expected: {expected}")
    return word


def _value(tokens: list[str]) -> str:
    if not tokens or tokens[0] == ",":
        return ""
    value = _word(tokens, "identifier")
    if len(value) > 63 or not _VALUE.match(value):
        raise bad_request(
            f'unable to parse requirement: values[0][]: Invalid value: "{value}": a valid label must be an empty '
            "string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character"
        )
    return value


def _requirement(tokens: list[str]) -> Selector:
    if tokens and tokens[0] == "!":
        tokens.pop(0)
        absent = _word(tokens, "identifier")
        return lambda obj: absent not in _labels(obj)
    key = _word(tokens, "'!', identifier")
    if not tokens or tokens[0] == ",":
        return lambda obj: key in _labels(obj)
    operator = tokens.pop(0)
    if operator in ("in", "notin"):
        values = _values(tokens)
        if operator == "in":
            return lambda obj: _labels(obj).get(key) in values
        return lambda obj: _labels(obj).get(key) not in values
    if operator in ("<", ">"):
        return _numeric(key, operator, _word(tokens, "identifier"))
    if operator not in ("=", "==", "!="):
        raise bad_request(f"unable to parse requirement: found '{operator}', expected: in, notin, =, ==, !=, gt, lt")
    value = _value(tokens)
    if operator == "!=":
        return lambda obj: _labels(obj).get(key) != value
    return lambda obj: _labels(obj).get(key) == value


def _values(tokens: list[str]) -> frozenset[str]:
    if not tokens or tokens.pop(0) != "(":
        raise bad_request("unable to parse requirement: expected: '('")
    values: set[str] = set()
    while tokens and tokens[0] != ")":
        if tokens[0] == ",":
            tokens.pop(0)
            continue
        values.add(_word(tokens, "identifier"))
    if not tokens:
        raise bad_request("unable to parse requirement: found '', expected: ',' or ')'")
    tokens.pop(0)
    return frozenset(values)


def _numeric(key: str, operator: str, text: str) -> Selector:
    if not text.lstrip("-").isdigit():
        raise bad_request(f"unable to parse requirement: for '{operator}' operators, the value must be an integer")
    bound = int(text)

    def test(obj: Object) -> bool:
        value = _labels(obj).get(key, "")
        if not value.lstrip("-").isdigit():
            return False
        return int(value) > bound if operator == ">" else int(value) < bound

    return test


def parse_fields(text: str, resource: Resource) -> Selector:
    """`metadata.name=one,spec.nodeName!=node-a`, for the fields this resource may be selected by. Raises ApiError 400
    ("field label not supported")."""
    if not text.strip():
        return _everything
    known = dict(_METADATA) | _FIELDS.get(resource.key, {})
    for field in (resource.definition or {}).get("selectableFields", []):
        known[field["jsonPath"].removeprefix(".")] = ""
    tests: list[Selector] = []
    for term in text.split(","):
        found = re.match(r"^\s*([^=!]+?)\s*(==|!=|=)\s*(.*?)\s*$", term)
        if found is None:
            raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
        path, operator, value = found.groups()
        if path not in known:
            raise bad_request(f"field label not supported: {path}")
        tests.append(_field(path, operator == "!=", value, known[path]))
    return lambda obj: all(test(obj) for test in tests)


def _field(path: str, negated: bool, wanted: str, absent: str) -> Selector:
    def test(obj: Object) -> bool:
        # The source of an event is an object; its component is what the field means.
        values = jsonpath.find("." + ("source.component" if path == "source" else path), obj)
        return (_text(values[0], absent) if values else absent) == wanted

    return (lambda obj: not test(obj)) if negated else test


def _text(value: object, absent: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return absent if value is None else str(value)
