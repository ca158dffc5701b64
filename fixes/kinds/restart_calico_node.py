"""Deletes a node's calico-node pod, so that its DaemonSet starts a new one; a Felix that is stuck repairs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from facts import CalicoPod, Cause, Fact
from fixes.calico import ApiError, Calico, Conflict, Object
from fixes.kind import ClusterKind, EvidenceChanged

ATTEMPTS = 20
READY_S = 90
LABEL = "k8s-app=calico-node"  # what the operator, the manifests and the chart all call it


def title(arguments: Mapping[str, str], node: str) -> str:
    return f"Restart calico-node on {arguments['node']} (delete pod {arguments['pod']})"


def blast_radius(arguments: Mapping[str, str], node: str) -> str:
    return (
        f"{arguments['node']}: what is programmed there stays and packets flow on; for about a minute new pods wait "
        "and changes are not followed. Where BIRD writes the routes, its sessions restart gracefully."
    )


def undo(arguments: Mapping[str, str], node: str) -> str:
    return "Not needed: its DaemonSet starts a new pod at once."


def propose(cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    """node, pod (namespace/name): the name of a DaemonSet's pod is never used again."""
    pod = next((fact for fact in facts if isinstance(fact, CalicoPod) and fact.node == cause.node), None)
    if pod is None or not pod.name:
        return None
    return {"node": pod.node, "pod": pod.name}


async def holds(calico: Calico, arguments: Mapping[str, str]) -> None:
    await _pod(calico, arguments)


async def preview(calico: Calico, arguments: Mapping[str, str]) -> list[str]:
    pod = await _pod(calico, arguments)
    metadata = pod["metadata"]
    return [f"kubectl --namespace {metadata['namespace']} delete pod {metadata['name']}  # uid {metadata['uid']}"]


async def execute(calico: Calico, arguments: Mapping[str, str]) -> None:
    for _ in range(ATTEMPTS):
        pod = await _pod(calico, arguments)
        try:
            await calico.delete("pods", pod)
            return
        except Conflict:  # its status is written all the time
            continue
    raise ApiError("The pod is being changed by others all the time; it was not deleted. Try again.")


async def verify(calico: Calico, arguments: Mapping[str, str]) -> tuple[bool, str]:
    """Waits until the new pod is ready, or until that has taken too long."""
    node, old = arguments["node"], arguments["pod"]
    until = calico.now().timestamp() + READY_S
    while True:
        pods = await calico.list("pods", labelSelector=LABEL, fieldSelector=f"spec.nodeName={node}")
        there = {_called(one): one for one in pods}
        ready = [name for name, one in there.items() if name != old and _ready(one)]
        if ready and old not in there:
            return True, f"{ready[0]} runs on {node} and is ready."
        if calico.now().timestamp() >= until:
            break
        await calico.pause(1.0)
    if old in there:
        return False, f"{old} is still there after {READY_S} s; look at the kubelet of {node}."
    if not there:
        return False, f"No new calico-node pod came to {node} within {READY_S} s; look at its DaemonSet."
    return False, f"{next(iter(there))} on {node} is not ready after {READY_S} s; look at its log."


async def _pod(calico: Calico, arguments: Mapping[str, str]) -> Object:
    """The pod as it is now. Raises EvidenceChanged unless it is calico-node there, and its node can start another."""
    namespace, _, name = arguments.get("pod", "").partition("/")
    node = arguments.get("node", "")
    if not namespace or not name or not node:
        raise ValueError("the request does not say which pod of which node")
    pod = await calico.get("pods", name, namespace)
    if pod is None:
        raise EvidenceChanged(f"There is no pod {namespace}/{name} any more: it was restarted already.")
    metadata = pod["metadata"]
    owners = metadata.get("ownerReferences") or ()
    if (metadata.get("labels") or {}).get("k8s-app") != "calico-node" or (pod.get("spec") or {}).get(
        "nodeName"
    ) != node:
        raise EvidenceChanged(f"{namespace}/{name} is not the calico-node pod of {node}.")
    if not any(one.get("kind") == "DaemonSet" and one.get("controller") for one in owners):
        raise EvidenceChanged(f"{namespace}/{name} is of no DaemonSet: nothing would start it again.")
    if metadata.get("deletionTimestamp"):
        raise EvidenceChanged(f"{namespace}/{name} is being deleted already.")
    machine = await calico.get("nodes", node)
    if machine is None or not _ready(machine):
        raise EvidenceChanged(f"{node} is not ready: its kubelet would not start another pod.")
    return pod


def _ready(one: Object) -> bool:
    conditions = (one.get("status") or {}).get("conditions") or ()
    return any(condition.get("type") == "Ready" and condition.get("status") == "True" for condition in conditions)


def _called(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


KIND = ClusterKind(
    name="restart_calico_node",
    title=title,
    blast_radius=blast_radius,
    undo=undo,
    propose=propose,
    holds=holds,
    preview=preview,
    execute=execute,
    verify=verify,
)
