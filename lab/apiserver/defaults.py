"""Fills in what a built-in kind always has; without it a created pod would look unlike any pod of a real cluster."""

from __future__ import annotations

from collections.abc import Callable

from lab.apiserver.errors import Object
from lab.apiserver.registry import Resource

Fill = Callable[[Object], None]


def _container(container: Object) -> None:
    container.setdefault("resources", {})
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    tag = container.get("image", "").rpartition("/")[2].partition(":")[2]
    container.setdefault("imagePullPolicy", "Always" if tag in ("", "latest") else "IfNotPresent")
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")


def _pod_spec(spec: Object) -> None:
    for field in ("containers", "initContainers"):
        for container in spec.get(field) or []:
            _container(container)
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")


def fill_pod(pod: Object) -> None:
    """What a pod always has, in place."""
    _pod_spec(pod.setdefault("spec", {}))
    pod["spec"].setdefault("enableServiceLinks", True)
    status = pod.setdefault("status", {})
    status.setdefault("phase", "Pending")
    status.setdefault("qosClass", _quality(pod["spec"]))
    for condition in status.get("conditions") or []:
        condition.setdefault("lastProbeTime", None)
        condition.setdefault("lastTransitionTime", None)


def _quality(spec: Object) -> str:
    """QoS class: how much of its resources a pod has asked for and limited."""
    resources = [container.get("resources", {}) for container in spec.get("containers") or []]
    if not any(entry.get("requests") or entry.get("limits") for entry in resources):
        return "BestEffort"
    for entry in resources:
        limits = entry.get("limits", {})
        if not {"cpu", "memory"} <= set(limits) or entry.get("requests", limits) != limits:
            return "Burstable"
    return "Guaranteed"


def _event(event: Object) -> None:
    event.setdefault("source", {})
    for field in ("firstTimestamp", "lastTimestamp", "eventTime"):
        event.setdefault(field, None)
    for field in ("reportingComponent", "reportingInstance"):
        event.setdefault(field, "")


def _service(service: Object) -> None:
    spec = service.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports") or []:
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port["port"])
    service.setdefault("status", {"loadBalancer": {}})


def _daemon_set(daemon_set: Object) -> None:
    spec = daemon_set.setdefault("spec", {})
    template = spec.setdefault("template", {})
    _pod_spec(template.setdefault("spec", {}))
    strategy = spec.setdefault("updateStrategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)
    spec.setdefault("revisionHistoryLimit", 10)
    counts = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")
    status = daemon_set.setdefault("status", {})
    for field in counts:
        status.setdefault(field, 0)


def _secret(secret: Object) -> None:
    secret.setdefault("type", "Opaque")


def _network_policy(policy: Object) -> None:
    spec = policy.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    spec.setdefault("policyTypes", ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])


def _definition(crd: Object) -> None:
    spec = crd["spec"]
    names = spec["names"]
    names.setdefault("listKind", f"{names['kind']}List")
    names.setdefault("singular", names["kind"].lower())
    spec.setdefault("conversion", {"strategy": "None"})
    stored = [version["name"] for version in spec["versions"] if version.get("storage")]
    crd.setdefault(
        "status", {"conditions": None, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored}
    )


_FILL: dict[tuple[str, str], Fill] = {
    ("", "pods"): fill_pod,
    ("", "events"): _event,
    ("", "services"): _service,
    ("", "secrets"): _secret,
    ("apps", "daemonsets"): _daemon_set,
    ("networking.k8s.io", "networkpolicies"): _network_policy,
    ("apiextensions.k8s.io", "customresourcedefinitions"): _definition,
}


def fill(resource: Resource, obj: Object) -> None:
    """What a client may leave out, in place. It counts as written by the client."""
    if resource.key in _FILL:
        _FILL[resource.key](obj)


def admit(resource: Resource, obj: Object) -> None:
    """What admission adds to a new object, in place. It counts as written by nobody."""
    if resource.key != ("", "pods"):
        return
    spec = obj["spec"]
    tolerations = spec.setdefault("tolerations", [])
    for condition in ("not-ready", "unreachable"):
        key = f"node.kubernetes.io/{condition}"
        if not any(entry.get("key") == key for entry in tolerations):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})
    spec.setdefault("priority", 0)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
