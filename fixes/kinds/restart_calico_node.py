"""Deletes a node's calico-node pod, so that its DaemonSet starts a new one; a Felix that is stuck repairs nothing.

Its start also gives the node a tunnel address again, and checks the one it has against IPAM: nothing else does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network

from facts import Allocation, CalicoNode, CalicoPod, CalicoService, Cause, Fact, Leg, WireguardDevice, in_turn, say
from fixes import evidence
from fixes.calico import ApiError, Calico, Conflict, Object
from fixes.kind import ClusterKind, EvidenceChanged
from fixes.release import holding

ATTEMPTS = 20
READY_S = 90
LABEL = "k8s-app=calico-node"  # what the operator, the manifests and the chart all call it
CONTAINER = "calico-node"
TUNNEL_ADDRESS = {4: "projectcalico.org/IPv4VXLANTunnelAddr", 6: "projectcalico.org/IPv6VXLANTunnelAddr"}
WIREGUARD_KEY = {4: "projectcalico.org/WireguardPublicKey", 6: "projectcalico.org/WireguardPublicKeyV6"}
OWN = {TUNNEL_ADDRESS[4]: "vxlan-tunnel-addr-", TUNNEL_ADDRESS[6]: "vxlan-v6-tunnel-addr-"}  # handles, before the name


def title(arguments: Mapping[str, str], node: str) -> str:
    return say("Restart calico-node on {node} (delete pod {pod})", node=arguments["node"], pod=arguments["pod"])


def blast_radius(arguments: Mapping[str, str], node: str) -> str:
    stays = say(
        "{node}: what is programmed there stays and packets flow on; for about a minute new pods wait and changes are "
        "not followed. Where BIRD writes the routes, its sessions restart gracefully.",
        node=arguments["node"],
    )
    follows = say("It gets a tunnel address, and its peers follow.")
    return in_turn([stays, follows if arguments.get("annotation") in OWN else ""])


def undo(arguments: Mapping[str, str], node: str) -> str:
    return say("Not needed: its DaemonSet starts a new pod at once.")


def propose(cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    """node, pod (namespace/name, never used again by a DaemonSet), restarts (of its container, "" where nobody says).

    Of what stands in an annotation of the node also annotation, seen (its value, "" for none), handle (for whom IPAM
    holds that address, "" for nobody).
    """
    pod = next((fact for fact in facts if isinstance(fact, CalicoPod) and fact.node == cause.node), None)
    if pod is None or not pod.name:
        return None
    about: dict[str, str] | None = {}
    leg = evidence.first(Leg, cause, facts)
    if leg and evidence.of(WireguardDevice, cause, facts):
        about = {"annotation": WIREGUARD_KEY[leg.family], "seen": leg.source_wireguard_key}
    elif leg and (evidence.first(Allocation, cause, facts) or evidence.first(CalicoNode, cause, facts)):
        about = _of_tunnel_address(leg.family, cause, facts)
    if about is None:
        return None
    return {"node": pod.node, "pod": pod.name, "restarts": str(pod.restarts) if pod.restarts >= 0 else "", **about}


def _of_tunnel_address(family: int, cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    """None where a start gives it none: no pool selects the node, or each start ends for want of an address."""
    node = next(
        (one for one in facts if isinstance(one, CalicoNode) and (one.name, one.family) == (cause.node, family)), None
    )
    loops = any(isinstance(one, CalicoService) and one.node == cause.node and one.loops for one in facts)
    if node is None or not node.vxlan_expected or loops:
        return None
    seen = node.tunnel_address
    held = next((one for one in evidence.of(Allocation, cause, facts) if one.address == seen), None)
    if seen and held is None:
        return None
    return {"annotation": TUNNEL_ADDRESS[family], "seen": seen, "handle": held.handle if held else ""}


async def holds(calico: Calico, arguments: Mapping[str, str]) -> None:
    await _pod(calico, arguments)


def by_hand(arguments: Mapping[str, str]) -> list[str]:
    namespace, _, name = arguments["pod"].partition("/")
    return [f"kubectl --namespace {namespace} delete pod {name}"]


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
    tunnel = ""
    while True:
        pods = await calico.list("pods", labelSelector=LABEL, fieldSelector=f"spec.nodeName={node}")
        there = {_called(one): one for one in pods}
        ready = [name for name, one in there.items() if name != old and _ready(one)]
        if ready and old not in there:
            right, tunnel = await _tunnel(calico, arguments)
            if right:
                return True, f"{ready[0]} runs on {node} and is ready{tunnel}."
        if calico.now().timestamp() >= until:
            break
        await calico.pause(1.0)
    if old in there:
        return False, f"{old} is still there after {READY_S} s; look at the kubelet of {node}."
    if not there:
        return False, f"No new calico-node pod came to {node} within {READY_S} s; look at its DaemonSet."
    if ready:
        return False, f"{ready[0]} runs on {node} and is ready{tunnel}; look at its log."
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
    seen, now = arguments.get("restarts", ""), _restarts(pod)
    if seen and now and now != seen:
        raise EvidenceChanged(f"{namespace}/{name} was restarted since: {now} restarts now, {seen} when it was seen.")
    if "annotation" in arguments:
        await _annotated(calico, arguments, machine)
    return pod


async def _annotated(calico: Calico, arguments: Mapping[str, str], machine: Object) -> None:
    """Raises EvidenceChanged when the node's annotation, or whom IPAM holds its address for, is not as it was seen."""
    annotation, seen = arguments["annotation"], arguments.get("seen", "")
    if annotation not in (*TUNNEL_ADDRESS.values(), *WIREGUARD_KEY.values()):
        raise ValueError(f"{annotation!r} is not an annotation that calico-node writes at its start")
    now = _annotation(machine, annotation)
    if now != seen:
        changed = f"{annotation} of {arguments['node']} is {now or 'missing'} now; it was {seen or 'missing'}."
        raise EvidenceChanged(changed)
    if annotation in OWN and seen:
        handle = await _holder(calico, seen)
        if handle != arguments.get("handle", ""):
            raise EvidenceChanged(f"IPAM holds {seen} for {handle or 'nobody'} now.")


async def _tunnel(calico: Calico, arguments: Mapping[str, str]) -> tuple[bool, str]:
    """Has the node a tunnel address of its own, where it is about that? And how a sentence ends that tells it."""
    annotation, node = arguments.get("annotation", ""), arguments["node"]
    if annotation not in OWN:
        return True, ""
    address = _annotation(await calico.get("nodes", node) or {}, annotation)
    if not address:
        return False, ", but has no tunnel address yet"
    handle = await _holder(calico, address)
    if handle != OWN[annotation] + node:
        return False, f", but IPAM holds its tunnel address {address} for {handle or 'nobody'}"
    return True, f"; its tunnel address is {address}"


async def _holder(calico: Calico, address: str) -> str:
    """The handle that IPAM holds this address for, "" for none."""
    for block in await calico.list("ipamblocks"):
        spec: Object = block["spec"]
        if not spec.get("deleted") and ip_address(address) in ip_network(spec["cidr"]):
            return holding(spec, address).handle
    return ""


def _annotation(machine: Object, name: str) -> str:
    return str(((machine.get("metadata") or {}).get("annotations") or {}).get(name) or "")


def _restarts(pod: Object) -> str:
    known = (pod.get("status") or {}).get("containerStatuses") or ()
    return next(
        (str(one["restartCount"]) for one in known if one.get("name") == CONTAINER and "restartCount" in one), ""
    )


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
    by_hand=by_hand,
    execute=execute,
    verify=verify,
)
