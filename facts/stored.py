"""How Kubernetes and Calico keep what every reader of their objects needs; without it each would have its own idea."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Object = Mapping[str, Any]

FINISHED = ("Succeeded", "Failed")


def metadata(resource: Object) -> dict[str, Any]:
    """Metadata of a Calico resource as its author wrote it.

    In group crd.projectcalico.org Calico keeps labels, annotations and, of policies, the name in one annotation; only
    its own keys are on the object itself.
    """
    own: dict[str, Any] = dict(resource.get("metadata") or {})
    annotations: dict[str, str] = own.get("annotations") or {}
    text = annotations.get("projectcalico.org/metadata")
    if text is None:
        return own
    try:
        kept = json.loads(text)
    except ValueError:
        return own
    if not isinstance(kept, dict):
        return own
    for key in ("labels", "annotations"):
        own[key] = {**(kept.get(key) or {}), **(own.get(key) or {})}
    own["annotations"].pop("projectcalico.org/metadata", None)
    if kept.get("name"):
        own["name"] = kept["name"]
    return own


def pod_name(pod: Object) -> str:
    """namespace/name"""
    return f"{pod['metadata'].get('namespace', '')}/{pod['metadata']['name']}"


def finished(pod: Object) -> bool:
    """It ran to its end: its address may be another pod's by now."""
    return (pod.get("status") or {}).get("phase") in FINISHED


def addresses(pod: Object) -> tuple[str, ...]:
    """Addresses of a pod as Calico finds them: status first, then the annotations CNI wrote; none once torn down."""
    status: Object = pod.get("status") or {}
    annotations: Object = pod["metadata"].get("annotations") or {}
    torn_down = pod["metadata"].get("deletionTimestamp") and annotations.get("cni.projectcalico.org/podIP") == ""
    if finished(pod) or torn_down:
        return ()
    for found in (
        [str(one.get("ip") or "") for one in status.get("podIPs") or ()],
        [str(status.get("podIP") or "")],
        annotated(pod),
    ):
        if any(found):
            return tuple(one for one in found if one)
    return ()


def annotated(pod: Object) -> list[str]:
    """The addresses CNI wrote on the pod when it set up its network."""
    annotations: Object = pod["metadata"].get("annotations") or {}
    kept = str(annotations.get("cni.projectcalico.org/podIPs") or annotations.get("cni.projectcalico.org/podIP") or "")
    return [one.strip().split("/")[0] for one in kept.split(",") if one.strip()]
