"""Tells clients what is served; without it kubectl would know no resource by name."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable

from lab.apiserver.errors import Object
from lab.apiserver.registry import REVIEWS, STATUS_VERBS, Registry, Resource

VERSION: Object = {
    "major": "1",
    "minor": "34",
    "emulationMajor": "1",
    "emulationMinor": "34",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "33",
    "gitVersion": "v1.34.2",
    "gitCommit": "calico-why-lab",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "go1.26.8",
    "compiler": "gc",
    "platform": "linux/amd64",
}


def core_versions(address: str) -> Object:
    """`/api`. `address` is host:port of this server."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def _by_group(registry: Registry) -> dict[str, dict[str, list[Resource]]]:
    groups: dict[str, dict[str, list[Resource]]] = {}
    for resource in (*registry, *REVIEWS):
        groups.setdefault(resource.group, {}).setdefault(resource.version, []).append(resource)
    return groups


def _group(name: str, versions: Iterable[str]) -> Object:
    told = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": told, "preferredVersion": told[0]}


def groups(registry: Registry) -> Object:
    """`/apis`"""
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [_group(name, versions) for name, versions in _by_group(registry).items() if name],
    }


def group(registry: Registry, name: str) -> Object | None:
    """`/apis/<group>`"""
    versions = _by_group(registry).get(name)
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)} if versions and name else None


def _storage_version_hash(resource: Resource) -> str:
    # CustomResourceDefinitions are still stored in the version they began with.
    version = "v1beta1" if resource.plural == "customresourcedefinitions" else resource.version
    told = f"{resource.group}/{version}/{resource.kind}"
    return base64.b64encode(hashlib.sha256(told.encode()).digest()[:8]).decode()


def resources(registry: Registry, name: str, version: str) -> Object | None:
    """`/api/v1`, `/apis/<group>/<version>`"""
    found = _by_group(registry).get(name, {}).get(version)
    if found is None:
        return None
    entries: list[Object] = []
    for resource in sorted(found, key=lambda entry: entry.plural):
        entry: Object = {
            "name": resource.plural,
            "singularName": resource.singular_name,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": list(resource.verbs),
        }
        if resource.short_names:
            entry["shortNames"] = list(resource.short_names)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        if resource not in REVIEWS:
            entry["storageVersionHash"] = _storage_version_hash(resource)
        entries.append(entry)
        entries += [
            {
                "name": f"{resource.plural}/{subresource}",
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": list(STATUS_VERBS),
            }
            for subresource in resource.subresources
        ]
    told: Object = {"kind": "APIResourceList", "groupVersion": found[0].api_version, "resources": entries}
    if name:
        told["apiVersion"] = "v1"
    return told


def aggregated(registry: Registry, *, core: bool) -> Object:
    """apidiscovery.k8s.io/v2: all groups (or the core group) with their resources in one answer."""
    items: list[Object] = []
    for name, versions in _by_group(registry).items():
        if bool(name) == core:
            continue
        told = [
            {
                "version": version,
                "resources": [_aggregated(resource) for resource in sorted(found, key=lambda entry: entry.plural)],
                "freshness": "Current",
            }
            for version, found in versions.items()
        ]
        items.append({"metadata": {"name": name} if name else {}, "versions": told})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _aggregated(resource: Resource) -> Object:
    kind = {
        "group": resource.group if resource.custom else "",
        "version": resource.version if resource.custom else "",
        "kind": resource.kind,
    }
    told: Object = {
        "resource": resource.plural,
        "responseKind": kind,
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular_name,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        told["shortNames"] = list(resource.short_names)
    if resource.categories:
        told["categories"] = list(resource.categories)
    if resource.subresources:
        told["subresources"] = [
            {"subresource": one, "responseKind": kind, "verbs": list(STATUS_VERBS)} for one in resource.subresources
        ]
    return told
