"""Reads what a client sent; without it every handler would parse paths, options and bodies in its own way."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from lab.apiserver import protobuf
from lab.apiserver.access import User
from lab.apiserver.errors import ApiError, Object, bad_request, invalid
from lab.apiserver.registry import Resource

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Target:
    """What a path speaks of: /api/v1/namespaces/shop/pods/cart/status"""

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    def verb(self, method: str, query: Mapping[str, str]) -> str:
        """The verb access is decided about."""
        if self.name:
            # A watch of one object is asked for as a list of one.
            return "watch" if method == "GET" and truth(query, "watch") else _VERBS.get(method, method.lower())
        if method in ("GET", "HEAD"):
            return "watch" if truth(query, "watch") else "list"
        return "deletecollection" if method == "DELETE" else _VERBS.get(method, method.lower())


def parse_path(path: str) -> Target | None:
    """The target of a resource path; None for any other path (discovery, /version, ...)."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and not (group == "" and len(rest) == 3 and rest[2] == "status"):
        namespace, rest = rest[1], rest[2:]
    elif rest[0] == "namespaces" and len(rest) > 1 and group == "":
        namespace = rest[1]
    if len(rest) > 3:
        return None
    padded = [*rest, "", ""]
    return Target(group, version, padded[0], namespace, padded[1], padded[2])


def truth(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "").lower() in ("1", "true")


def number(query: Mapping[str, str], name: str) -> int:
    """A whole number, 0 where it is not given. Raises ApiError 400."""
    text = query.get(name, "")
    if not text:
        return 0
    if not text.isdigit():
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def version(query: Mapping[str, str], name: str = "resourceVersion") -> int | None:
    """A resourceVersion; None for none or "0", which both mean "any". Raises ApiError 400."""
    text = query.get(name, "")
    if text in ("", "0"):
        return None
    if not text.isdigit():
        raise bad_request(f"Invalid value: {json.dumps(text)}: strconv.ParseUint: invalid syntax")
    return int(text)


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How a client wants its write done."""

    dry_run: bool
    manager: str
    manager_given: bool
    validation: str
    force: bool
    user: User | None = None  # None: the lab itself, which no admission policy stops


def write_options(query: Mapping[str, str], agent: str) -> WriteOptions:
    """Raises ApiError 400 and 422 for values that do not exist."""
    dry_run = query.get("dryRun", "")
    if dry_run not in ("", "All"):
        raise invalid(
            "meta.k8s.io",
            "CreateOptions",
            "",
            [
                {
                    "reason": "FieldValueNotSupported",
                    "message": f'Unsupported value: ["{dry_run}"]: supported values: "All"',
                    "field": "dryRun",
                }
            ],
        )
    validation = query.get("fieldValidation", "") or "Warn"
    if validation not in ("Ignore", "Warn", "Strict"):
        raise bad_request(f'fieldValidation: Unsupported value: "{validation}"')
    given = query.get("fieldManager", "")
    manager = given or agent.partition("/")[0] or "unknown"
    return WriteOptions(bool(dry_run), manager[:128], bool(given), validation, truth(query, "force"))


def unsupported(*accepted: str) -> ApiError:
    return ApiError(
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted),
    )


def decode(body: bytes, content_type: str, resource: Resource) -> Any:
    """The body of a POST or PUT: JSON, YAML, for a few kinds protobuf. Raises ApiError 400 and 415."""
    if content_type == protobuf.CONTENT_TYPE and protobuf.understood(resource):
        return protobuf.decode(body, resource)
    if content_type in ("application/json", "application/octet-stream", ""):
        return decode_json(body, resource.kind)
    if content_type in ("application/yaml", "application/x-yaml"):
        return decode_yaml(body)
    raise unsupported("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")


def decode_json(body: bytes, kind: str) -> Any:
    """Raises ApiError 400, in the words of the real server."""
    try:
        return json.loads(body)
    except ValueError as error:
        text = body.decode(errors="replace")
        place = error.pos if isinstance(error, json.JSONDecodeError) else 0
        if place >= len(text.rstrip()):
            why = "unexpected end of JSON input"
        else:
            why = f"invalid character '{text[place]}' looking for beginning of value"
        raise bad_request(
            f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; "
            f"json parse error: {why} ({text[:1000]})"
        ) from None


def delete_options(body: bytes, content_type: str) -> Object:
    """DeleteOptions, empty where none were sent. Raises ApiError 400 and 415."""
    if not body.strip():
        return {}
    if content_type == protobuf.CONTENT_TYPE:
        return protobuf.delete_options(body)
    found = decode_yaml(body) if content_type == "application/yaml" else decode_json(body, "DeleteOptions")
    if not isinstance(found, dict):
        raise bad_request("the body must be DeleteOptions")
    return found


def decode_yaml(body: bytes) -> Any:
    try:
        return json.loads(json.dumps(yaml.load(body, Loader=_Loader)))
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise bad_request(f"error converting YAML to JSON: {error}") from None


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: a time stays the text it is."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def decode_patch(body: bytes) -> Any:
    """A patch in JSON. Raises ApiError 400."""
    try:
        return json.loads(body)
    except ValueError as error:
        raise bad_request(f"error decoding patch: {error}") from None


def checked_kind(obj: Any, resource: Resource) -> Object:
    """`obj`, where it is of the resource's kind. Raises ApiError 400."""
    if not isinstance(obj, dict):
        raise bad_request(f"the object provided is unrecognized (must be of type {resource.kind})")
    obj.setdefault("kind", resource.kind)
    obj.setdefault("apiVersion", resource.api_version)
    if obj["apiVersion"] != resource.api_version:
        raise bad_request(
            f"the API version in the data ({obj['apiVersion']}) does not match the expected API version "
            f"({resource.api_version})"
        )
    if obj["kind"] != resource.kind:
        raise bad_request(
            f"{obj['kind']} in version {json.dumps(resource.version)} cannot be handled as a {resource.kind}: "
            f"unexpected kind {obj['kind']}"
        )
    if not isinstance(obj.setdefault("metadata", {}), dict):
        raise bad_request("metadata must be an object")
    return obj


def continue_token(version: int, start: tuple[str, str]) -> str:
    """Where the next page of a list begins: after `start`, in the state of `version`."""
    told = {"v": "meta.k8s.io/v1", "rv": version, "start": f"{start[0]}/{start[1]}\u0000"}
    return base64.urlsafe_b64encode(json.dumps(told, separators=(",", ":")).encode()).decode().rstrip("=")


def read_continue(token: str) -> tuple[int, tuple[str, str]]:
    """Raises ApiError 400 for a token that is none."""
    try:
        told = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, _, name = str(told["start"]).rstrip("\u0000").partition("/")
        return int(told["rv"]), (namespace, name)
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise bad_request("continue key is not valid: illegal base64 data") from None
