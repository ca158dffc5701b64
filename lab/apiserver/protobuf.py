"""Reads the few objects kubectl sends as protobuf; without it `kubectl create namespace` and `auth can-i` would fail.

Only what the tables below name is understood; anything else is refused with 415, as a server without protobuf would.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from lab.apiserver.errors import Object, bad_request
from lab.apiserver.registry import Resource

CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
# Field number: (name, what it holds): "text" once, "texts" repeated, "map" of text to text, "bytes" a map of text to
# bytes (base64 in JSON), "skip", or a message.
_Fields = dict[int, tuple[str, Any]]

_METADATA: _Fields = {
    1: ("name", "text"),
    2: ("generateName", "text"),
    3: ("namespace", "text"),
    4: ("selfLink", "skip"),
    5: ("uid", "skip"),
    6: ("resourceVersion", "skip"),
    7: ("generation", "skip"),
    8: ("creationTimestamp", "skip"),
    11: ("labels", "map"),
    12: ("annotations", "map"),
    14: ("finalizers", "texts"),
}
_KINDS: dict[str, _Fields] = {
    "Namespace": {1: ("metadata", _METADATA), 2: ("spec", {1: ("finalizers", "texts")}), 3: ("status", "skip")},
    "ConfigMap": {1: ("metadata", _METADATA), 2: ("data", "map")},
    "Secret": {1: ("metadata", _METADATA), 2: ("data", "bytes"), 3: ("type", "text")},
    "ServiceAccount": {1: ("metadata", _METADATA)},
    "SelfSubjectReview": {1: ("metadata", _METADATA), 2: ("status", "skip")},
    "SelfSubjectRulesReview": {
        1: ("metadata", _METADATA),
        2: ("spec", {1: ("namespace", "text")}),
        3: ("status", "skip"),
    },
    "SelfSubjectAccessReview": {
        1: ("metadata", _METADATA),
        2: (
            "spec",
            {
                1: (
                    "resourceAttributes",
                    {
                        1: ("namespace", "text"),
                        2: ("verb", "text"),
                        3: ("group", "text"),
                        4: ("version", "text"),
                        5: ("resource", "text"),
                        6: ("subresource", "text"),
                        7: ("name", "text"),
                    },
                ),
                2: ("nonResourceAttributes", {1: ("path", "text"), 2: ("verb", "text")}),
            },
        ),
        3: ("status", "skip"),
    },
    "TokenReview": {
        1: ("metadata", _METADATA),
        2: ("spec", {1: ("token", "text"), 2: ("audiences", "texts")}),
        3: ("status", "skip"),
    },
}


_DELETE_OPTIONS: _Fields = {
    1: ("gracePeriodSeconds", "skip"),
    2: ("preconditions", {1: ("uid", "text"), 2: ("resourceVersion", "text")}),
    3: ("orphanDependents", "skip"),
    4: ("propagationPolicy", "text"),
    5: ("dryRun", "texts"),
}


def understood(resource: Resource) -> bool:
    """Whether objects of this kind can be read from protobuf."""
    return not resource.custom and resource.kind in _KINDS


def decode(body: bytes, resource: Resource) -> Object:
    """The object in a Kubernetes protobuf envelope. Raises ApiError 400 for what cannot be read."""
    return _read(body, _KINDS[resource.kind], resource.kind)


def delete_options(body: bytes) -> Object:
    """DeleteOptions in a Kubernetes protobuf envelope. Raises ApiError 400."""
    return _read(body, _DELETE_OPTIONS, "DeleteOptions")


def _read(body: bytes, fields: _Fields, kind: str) -> Object:
    try:
        if not body.startswith(_MAGIC):
            raise ValueError("the envelope is missing")
        envelope = dict(_entries(body[len(_MAGIC) :]))
        head = dict(_entries(_bytes(envelope[1])))
        obj = _message(_bytes(envelope[2]), fields)
        return {"apiVersion": _bytes(head[1]).decode(), "kind": _bytes(head[2]).decode(), **obj}
    except (KeyError, IndexError, ValueError) as error:
        raise bad_request(f"this server cannot read the protobuf of {kind}: {error}") from None


def _bytes(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where bytes were expected")
    return value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _entries(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
        elif wire == 2:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("the message ends too early")
            yield number, data[at : at + length]
            at += length
        else:
            raise ValueError(f"wire type {wire} is unknown here")


def _message(data: bytes, fields: _Fields) -> Object:
    found: Object = {}
    for number, value in _entries(data):
        if number not in fields:
            raise ValueError(f"field {number} is unknown here")
        name, holds = fields[number]
        if holds == "skip":
            continue
        content = _bytes(value)
        if isinstance(holds, dict):
            found[name] = _message(content, holds)
        elif holds in ("map", "bytes"):
            pair = dict(_entries(content))
            held = _bytes(pair.get(2, b""))
            told = base64.b64encode(held) if holds == "bytes" else held
            found.setdefault(name, {})[_bytes(pair[1]).decode()] = told.decode()
        elif holds == "texts":
            found.setdefault(name, []).append(content.decode())
        elif content:
            # An empty text is how protobuf says that there is none.
            found[name] = content.decode()
    return found
