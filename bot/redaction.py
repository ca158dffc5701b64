"""What of an object may leave the cluster in a bundle; without it a secret would lie in a channel for ever."""

from __future__ import annotations

from typing import Any

ANNOTATIONS = ("projectcalico.org/", "k8s.v1.cni.cncf.io/", "operator.tigera.io/")  # of whatever name they are part of
METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "labels",
    "creationTimestamp",
    "deletionTimestamp",
    "ownerReferences",
)
# Of Kubernetes' own objects these fields, a path each, and no others: no environment, no arguments, no volumes.
FIELDS = {
    "pods": (
        "spec.nodeName",
        "spec.hostNetwork",
        "spec.serviceAccountName",
        "spec.containers.name",
        "spec.containers.image",
        "spec.containers.ports",
        "status.phase",
        "status.reason",
        "status.podIP",
        "status.podIPs",
        "status.hostIP",
        "status.conditions",
        "status.containerStatuses",
    ),
    "nodes": (
        "spec.podCIDRs",
        "spec.taints",
        "spec.unschedulable",
        "status.addresses",
        "status.conditions",
        "status.nodeInfo",
    ),
    "services": ("spec", "status"),
    "namespaces": ("status.phase",),
    "serviceaccounts": (),
    "networkpolicies.networking.k8s.io": ("spec",),
}


def allowed(plural: str, resource: dict[str, Any]) -> dict[str, Any]:
    """What of an object may leave the cluster: of Calico's kinds their spec and status, of Kubernetes' own FIELDS."""
    metadata = resource.get("metadata") or {}
    annotations = {
        key: value
        for key, value in (metadata.get("annotations") or {}).items()
        if any(part in key for part in ANNOTATIONS)
    }
    kept: dict[str, Any] = {
        "metadata": {
            **{name: metadata[name] for name in METADATA if name in metadata},
            **({"annotations": annotations} if annotations else {}),
        }
    }
    for path in FIELDS.get(plural, ("spec", "status")):
        _copy(resource, kept, path.split("."))
    return kept


def _copy(source: dict[str, Any], target: dict[str, Any], path: list[str]) -> None:
    first, rest = path[0], path[1:]
    if first not in source:
        return
    value = source[first]
    if not rest:
        target[first] = value
    elif isinstance(value, list):
        kept = target.setdefault(first, [{} for _ in value])
        for one, other in zip(value, kept, strict=True):
            _copy(one, other, rest)
    elif isinstance(value, dict):
        _copy(value, target.setdefault(first, {}), rest)
