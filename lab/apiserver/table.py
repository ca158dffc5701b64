"""Draws objects as rows; without it `kubectl get` would print names and ages only."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from lab.apiserver import jsonpath
from lab.apiserver.errors import Object
from lab.apiserver.registry import Resource

Cells = Callable[[Object], list[Any]]
Column = tuple[str, str, int, str]

_NAME_TOLD = (
    "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a "
    "client to request the generation of an appropriate name automatically. Name is primarily intended for creation "
    "idempotence and configuration definition. Cannot be updated. More info: "
    "https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"
)
_AGE_TOLD = "CreationTimestamp is a timestamp representing the server time when this object was created."


def age(timestamp: str | None) -> str:
    """How long ago, as kubectl writes it: 42s, 5m7s, 3h, 2d. `<unknown>` where there is no time."""
    if not timestamp:
        return "<unknown>"
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(timestamp)).total_seconds())
    return _duration(max(seconds, 0))


def _duration(seconds: int) -> str:
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _pair(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _pair(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _pair(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    return _pair(days // 365, "y", days % 365, "d") if days < 2920 else f"{days // 365}y"


def _pair(big: int, big_unit: str, small: int, small_unit: str) -> str:
    return f"{big}{big_unit}{small}{small_unit}" if small else f"{big}{big_unit}"


def _created(obj: Object) -> str:
    return age(obj["metadata"].get("creationTimestamp"))


def _pod(pod: Object) -> list[Any]:
    spec, status = pod.get("spec", {}), pod.get("status", {})
    statuses = status.get("containerStatuses") or []
    ready = sum(1 for entry in statuses if entry.get("ready"))
    restarts = sum(entry.get("restartCount", 0) for entry in statuses)
    said = status.get("reason") or status.get("phase") or "Unknown"
    for entry in statuses:
        state = entry.get("state", {})
        told = state.get("waiting") or state.get("terminated")
        if told and told.get("reason"):
            said = told["reason"]
    if pod["metadata"].get("deletionTimestamp"):
        said = "Terminating"
    return [
        f"{ready}/{len(spec.get('containers') or [])}",
        said,
        str(restarts),
        _created(pod),
        status.get("podIP") or "<none>",
        spec.get("nodeName") or "<none>",
        status.get("nominatedNodeName") or "<none>",
        "<none>",
    ]


def _node(node: Object) -> list[Any]:
    status = node.get("status", {})
    conditions = {entry["type"]: entry["status"] for entry in status.get("conditions") or []}
    said = {"True": "Ready", "False": "NotReady"}.get(conditions.get("Ready", ""), "Unknown")
    if node.get("spec", {}).get("unschedulable"):
        said += ",SchedulingDisabled"
    prefix = "node-role.kubernetes.io/"
    labels = node["metadata"].get("labels") or {}
    roles = sorted(key.removeprefix(prefix) for key in labels if key.startswith(prefix))
    addresses = {entry["type"]: entry["address"] for entry in status.get("addresses") or []}
    told = status.get("nodeInfo", {})
    return [
        said,
        ",".join(roles) or "<none>",
        _created(node),
        told.get("kubeletVersion", ""),
        addresses.get("InternalIP", "<none>"),
        addresses.get("ExternalIP", "<none>"),
        told.get("osImage") or "<unknown>",
        told.get("kernelVersion") or "<unknown>",
        told.get("containerRuntimeVersion") or "<unknown>",
    ]


def _namespace(namespace: Object) -> list[Any]:
    return [namespace.get("status", {}).get("phase", ""), _created(namespace)]


def _service(service: Object) -> list[Any]:
    spec = service.get("spec", {})
    ports = ",".join(f"{entry['port']}/{entry.get('protocol', 'TCP')}" for entry in spec.get("ports") or [])
    selector = ",".join(f"{key}={value}" for key, value in sorted((spec.get("selector") or {}).items()))
    external = ",".join(spec.get("externalIPs") or [])
    return [
        spec.get("type", ""),
        spec.get("clusterIP") or "<none>",
        external or "<none>",
        ports or "<none>",
        _created(service),
        selector or "<none>",
    ]


def _event(event: Object) -> list[Any]:
    about = event.get("involvedObject", {})
    last = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
    return [
        age(last),
        event.get("type", ""),
        event.get("reason", ""),
        f"{about.get('kind', '').lower()}/{about.get('name', '')}",
        event.get("message", "").strip(),
    ]


def _config_map(config_map: Object) -> list[Any]:
    return [len(config_map.get("data") or {}) + len(config_map.get("binaryData") or {}), _created(config_map)]


def _secret(secret: Object) -> list[Any]:
    return [secret.get("type", ""), len(secret.get("data") or {}), _created(secret)]


def _account(account: Object) -> list[Any]:
    return [len(account.get("secrets") or []), _created(account)]


def _signing_request(request: Object) -> list[Any]:
    spec, status = request["spec"], request.get("status") or {}
    told = ",".join(one["type"] for one in status.get("conditions") or []) or "Pending"
    issued = ",Issued" if status.get("certificate") else ""
    asked = spec.get("expirationSeconds")
    duration = f"{asked}s" if asked else "<none>"
    return [_created(request), spec["signerName"], spec.get("username", ""), duration, told + issued]


def _lease(lease: Object) -> list[Any]:
    return [lease.get("spec", {}).get("holderIdentity") or "", _created(lease)]


def _daemon_set(daemon_set: Object) -> list[Any]:
    status = daemon_set.get("status", {})
    fields = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled")
    counts = [status.get(field, 0) for field in (*fields, "numberAvailable")]
    pods = daemon_set.get("spec", {}).get("template", {}).get("spec", {})
    selector = ",".join(f"{key}={value}" for key, value in sorted((pods.get("nodeSelector") or {}).items()))
    return [*counts, selector or "<none>", _created(daemon_set)]


def _admission_policy(policy: Object) -> list[Any]:
    return [len(policy["spec"].get("validations") or []), "<unset>", _created(policy)]


def _admission_binding(binding: Object) -> list[Any]:
    return [binding["spec"]["policyName"], "<unset>", _created(binding)]


def _definition(crd: Object) -> list[Any]:
    return [crd["metadata"].get("creationTimestamp", "")]


def _slice(endpoint_slice: Object) -> list[Any]:
    ports = ",".join(str(entry.get("port", "*")) for entry in endpoint_slice.get("ports") or [])
    addresses = [address for entry in endpoint_slice.get("endpoints") or [] for address in entry.get("addresses", [])]
    told = ",".join(addresses[:3]) + (f" + {len(addresses) - 3} more..." if len(addresses) > 3 else "")
    return [endpoint_slice.get("addressType", ""), ports or "<unset>", told or "<unset>", _created(endpoint_slice)]


def _policy(policy: Object) -> list[Any]:
    labels = policy.get("spec", {}).get("podSelector", {}).get("matchLabels") or {}
    return [",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "<none>", _created(policy)]


_AGE: Column = ("Age", "string", 0, _AGE_TOLD)


def _columns(*names: str, wide: tuple[str, ...] = ()) -> tuple[Column, ...]:
    """Columns of text; `Age` and `#Number` are what they say."""
    found: list[Column] = []
    for name in (*names, *wide):
        kind = "integer" if name.startswith("#") else "string"
        word = name.removeprefix("#")
        found.append(_AGE if word == "Age" else (word, kind, 1 if name in wide else 0, f"{word} of the object."))
    return tuple(found)


_BUILTIN: dict[tuple[str, str], tuple[tuple[Column, ...], Cells]] = {
    ("", "pods"): (
        _columns("Ready", "Status", "Restarts", "Age", wide=("IP", "Node", "Nominated Node", "Readiness Gates")),
        _pod,
    ),
    ("", "nodes"): (
        _columns(
            "Status",
            "Roles",
            "Age",
            "Version",
            wide=("Internal-IP", "External-IP", "OS-Image", "Kernel-Version", "Container-Runtime"),
        ),
        _node,
    ),
    ("", "namespaces"): (_columns("Status", "Age"), _namespace),
    ("", "services"): (
        _columns("Type", "Cluster-IP", "External-IP", "Port(s)", "Age", wide=("Selector",)),
        _service,
    ),
    ("", "events"): (_columns("Last Seen", "Type", "Reason", "Object", "Message"), _event),
    ("", "configmaps"): (_columns("#Data", "Age"), _config_map),
    ("", "secrets"): (_columns("Type", "#Data", "Age"), _secret),
    ("", "serviceaccounts"): (_columns("#Secrets", "Age"), _account),
    ("apps", "daemonsets"): (
        _columns("#Desired", "#Current", "#Ready", "#Up-to-date", "#Available", "Node Selector", "Age"),
        _daemon_set,
    ),
    ("certificates.k8s.io", "certificatesigningrequests"): (
        _columns("Age", "SignerName", "Requestor", "RequestedDuration", "Condition"),
        _signing_request,
    ),
    ("coordination.k8s.io", "leases"): (_columns("Holder", "Age"), _lease),
    ("discovery.k8s.io", "endpointslices"): (_columns("AddressType", "Ports", "Endpoints", "Age"), _slice),
    ("networking.k8s.io", "networkpolicies"): (_columns("Pod-Selector", "Age"), _policy),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"): (
        _columns("#Validations", "ParamKind", "Age"),
        _admission_policy,
    ),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"): (
        _columns("PolicyName", "ParamRef", "Age"),
        _admission_binding,
    ),
    ("apiextensions.k8s.io", "customresourcedefinitions"): (_columns("Created At"), _definition),
}


def _printer_columns(resource: Resource) -> list[Object]:
    columns: list[Object] = (resource.definition or {}).get("additionalPrinterColumns") or [
        {
            "name": "Age",
            "type": "date",
            "jsonPath": ".metadata.creationTimestamp",
            "description": _AGE_TOLD,
        }
    ]
    return columns


def definitions(resource: Resource) -> list[Object]:
    """The columns of this resource."""
    name = {"name": "Name", "type": "string", "format": "name", "description": _NAME_TOLD, "priority": 0}
    if not resource.custom:
        return [name] + [
            {"name": word, "type": kind, "format": "", "description": told, "priority": priority}
            for word, kind, priority, told in _BUILTIN[resource.key][0]
        ]
    return [name] + [
        {
            "name": column["name"],
            "type": column["type"],
            "format": column.get("format", ""),
            "description": column.get(
                "description", f"Custom resource definition column (in JSONPath format): {column['jsonPath']}"
            ),
            "priority": column.get("priority", 0),
        }
        for column in _printer_columns(resource)
    ]


def _cell(column: Object, obj: Object) -> Any:
    found = jsonpath.find(column["jsonPath"], obj)
    if not found or found[0] is None:
        return None
    if column["type"] == "date":
        return age(str(found[0]))
    if column["type"] == "string" and not isinstance(found[0], str):
        return ",".join(str(value) for value in found)
    return found[0]


def row(resource: Resource, obj: Object, include: str) -> Object:
    """One object as a row; `include` is the client's includeObject: None, Metadata (the default) or Object."""
    if resource.custom:
        cells = [_cell(column, obj) for column in _printer_columns(resource)]
    else:
        cells = _BUILTIN[resource.key][1](obj)
    shown: Object = {"cells": [obj["metadata"]["name"], *cells]}
    if include == "Object":
        shown["object"] = obj
    elif include != "None":
        shown["object"] = partial(obj)
    return shown


def partial(obj: Object) -> Object:
    """Only the metadata, as PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def table(resource: Resource, objects: list[Object], metadata: Object, include: str, *, header: bool = True) -> Object:
    """A meta.k8s.io/v1 Table. A watch sends the header with its first event only."""
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions(resource) if header else None,
        "rows": [row(resource, obj, include) for obj in objects],
    }
