"""Writes the OpenAPI v3 documents; without it `kubectl apply` and `explain` could not know what the server checks.

`openapi_meta.json` holds Kubernetes' own schemas of metadata, Status and options, and its query parameters.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from lab.apiserver.errors import Object
from lab.apiserver.registry import Registry, Resource
from lab.apiserver.schema import schema_of

_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_LIST = (
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
)
_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_DELETE = (
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
)
# Strategic merge is served for built-in kinds but not told: clients then take the merge keys they were built with,
# as these documents do not carry any.
_PATCHES = ("application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json")


@lru_cache(maxsize=1)
def _meta() -> Object:
    found: Object = json.loads((Path(__file__).parent / "openapi_meta.json").read_text(encoding="utf-8"))
    return found


def index(registry: Registry) -> Object:
    """`/openapi/v3`: where the document of each group version is."""
    paths: Object = {}
    for resource in registry:
        place = f"apis/{resource.api_version}" if resource.group else f"api/{resource.version}"
        told = json.dumps([entry.definition for entry in registry if entry.group == resource.group], sort_keys=True)
        digest = hashlib.sha256(told.encode()).hexdigest().upper()
        paths[place] = {"serverRelativeURL": f"/openapi/v3/{place}?hash={digest}"}
    return {"paths": paths}


def document(registry: Registry, group: str, version: str) -> Object | None:
    """`/openapi/v3/apis/<group>/<version>`"""
    found = [entry for entry in registry if entry.group == group and entry.version == version]
    if not found:
        return None
    schemas: Object = dict(_meta()["schemas"])
    paths: Object = {}
    for resource in sorted(found, key=lambda entry: entry.plural):
        paths.update(_paths(resource))
        schemas.update(_schemas(resource))
    title = "Kubernetes CRD Swagger" if found[0].custom else "Kubernetes"
    return {
        "openapi": "3.0.0",
        "info": {"title": title, "version": "v0.1.0"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _model(resource: Resource) -> str:
    if not resource.custom:
        return f"io.k8s.api.{resource.group.partition('.')[0] or 'core'}.{resource.version}.{resource.kind}"
    return ".".join([*reversed(resource.group.split(".")), resource.version, resource.kind])


def _kind(resource: Resource, kind: str) -> list[Object]:
    return [{"group": resource.group, "kind": kind, "version": resource.version}]


def _ref(model: str) -> Object:
    return {"$ref": f"#/components/schemas/{model}"}


_API_VERSION = {
    "description": "APIVersion defines the versioned schema of this representation of an object. Servers should "
    "convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
    "type": "string",
}
_KIND = {
    "description": "Kind is a string value representing the REST resource this object represents. Servers may infer "
    "this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
    "type": "string",
}


def _schemas(resource: Resource) -> Object:
    model = _model(resource)
    if resource.custom:
        schema = dict(schema_of(resource.definition or {}))
    else:
        anything: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        schema = {"type": "object", "properties": {"spec": anything, "status": anything}, **anything}
    metadata = {"description": "Standard object's metadata.", "allOf": [_ref(f"{_META}.ObjectMeta")]}
    head = {"apiVersion": _API_VERSION, "kind": _KIND, "metadata": metadata}
    schema["properties"] = {**head, **{k: v for k, v in schema.get("properties", {}).items() if k not in head}}
    schema["x-kubernetes-group-version-kind"] = _kind(resource, resource.kind)
    listed: Object = {
        "description": f"{resource.list_kind_name} is a list of {resource.kind}",
        "type": "object",
        "required": ["items"],
        "properties": {
            **head,
            "items": {"description": f"List of {resource.plural}.", "type": "array", "items": _ref(model)},
            "metadata": {"description": "Standard list metadata.", "allOf": [_ref(f"{_META}.ListMeta")]},
        },
        "x-kubernetes-group-version-kind": _kind(resource, resource.list_kind_name),
    }
    selectable = (resource.definition or {}).get("selectableFields")
    if selectable:
        told = [{"fieldPath": entry["jsonPath"].removeprefix(".")} for entry in selectable]
        schema["x-kubernetes-selectable-fields"] = told
        listed["x-kubernetes-selectable-fields"] = told
    return {model: schema, _model_of_list(resource): listed}


def _model_of_list(resource: Resource) -> str:
    return _model(resource).rpartition(".")[0] + f".{resource.list_kind_name}"


def _content(model: str) -> Object:
    return {"content": {kind: {"schema": _ref(model)} for kind in ("application/json", "application/yaml")}}


def _responses(model: str, *statuses: str) -> Object:
    words = {"200": "OK", "201": "Created", "202": "Accepted"}
    told: Object = {status: {"description": words[status], **_content(model)} for status in statuses}
    return {**told, "401": {"description": "Unauthorized"}}


def _parameters(*names: str) -> list[Any]:
    return [_meta()["parameters"][name] for name in names]


def _camel(text: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in text.split("."))


def _paths(resource: Resource) -> Object:
    base = f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}"
    scope = "/namespaces/{namespace}" if resource.namespaced else ""
    many = f"{base}{scope}/{resource.plural}"
    group = _camel(resource.group or "core")
    tag = f"{group[0].lower()}{group[1:]}_{resource.version}"
    place = ("namespace",) if resource.namespaced else ()
    told = f"{group}{resource.version.upper()}{'Namespaced' if resource.namespaced else ''}{resource.kind}"
    model, models = _model(resource), _model_of_list(resource)
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}

    def operation(action: str, identifier: str, words: str, names: tuple[str, ...], responses: Object) -> Object:
        found: Object = {
            "tags": [tag],
            "description": words,
            "operationId": identifier,
            "responses": responses,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind,
        }
        if names:
            found["parameters"] = _parameters(*names)
        return found

    def one(suffix: str, words: str) -> Object:
        body = {**_content(model), "required": True}
        patches = {
            "content": {form: {"schema": _ref(f"{_META}.Patch")} for form in _PATCHES},
            "required": True,
        }
        return {
            "get": operation(
                "get",
                f"read{told}{suffix}",
                f"read {words}the specified {resource.kind}",
                ("resourceVersion",),
                _responses(model, "200"),
            ),
            "put": {
                **operation(
                    "put",
                    f"replace{told}{suffix}",
                    f"replace {words}the specified {resource.kind}",
                    _WRITE,
                    _responses(model, "200", "201"),
                ),
                "requestBody": body,
            },
            "patch": {
                **operation(
                    "patch",
                    f"patch{told}{suffix}",
                    f"partially update {words}the specified {resource.kind}",
                    (*_WRITE, "force"),
                    _responses(model, "200"),
                ),
                "requestBody": patches,
            },
            "parameters": _parameters("name", *place, "pretty"),
        }

    listing = operation(
        "list", f"list{told}", f"list objects of kind {resource.kind}", _LIST, _responses(models, "200")
    )
    found: Object = {
        many: {
            "get": listing,
            "post": {
                **operation(
                    "post",
                    f"create{told}",
                    f"create a {resource.kind}",
                    _WRITE,
                    _responses(model, "200", "201", "202"),
                ),
                "requestBody": {**_content(model), "required": True},
            },
            "delete": operation(
                "deletecollection",
                f"delete{told.replace('Namespaced', 'CollectionNamespaced')}",
                f"delete collection of {resource.kind}",
                _LIST,
                _responses(f"{_META}.Status", "200"),
            ),
            "parameters": _parameters(*place, "pretty"),
        },
        f"{many}/{{name}}": {
            **one("", ""),
            "delete": {
                **operation(
                    "delete",
                    f"delete{told}",
                    f"delete a {resource.kind}",
                    _DELETE,
                    _responses(f"{_META}.Status", "200", "202"),
                ),
                "requestBody": _content(f"{_META}.DeleteOptions"),
            },
        },
    }
    for subresource in resource.subresources:
        found[f"{many}/{{name}}/{subresource}"] = one(subresource.capitalize(), f"{subresource} of ")
    if resource.namespaced:
        everywhere = {key: value for key, value in listing.items() if key != "parameters"}
        identifier = f"list{told.replace('Namespaced', '')}ForAllNamespaces"
        found[f"{base}/{resource.plural}"] = {
            "get": {**everywhere, "operationId": identifier},
            "parameters": _parameters(*_LIST[:5], "pretty", *_LIST[5:]),
        }
    return found
