"""Writes a neighbor entry as it should be; deleting a tunnel's would cut the path for good.

On a tunnel device nothing learns, so the entry is permanent, as Felix writes it. On any other one it takes the place of
one that somebody wrote for ever, and the kernel itself checks it from then on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from facts import Cause, Fact, Leg, Link, Neighbor, PodInterface, in_turn, say
from fixes import evidence, form
from fixes.kernel import Kernel
from fixes.kind import EvidenceChanged, NodeKind
from node_probe.netlink import Entry

STATIC = frozenset({"PERMANENT", "NOARP"})


def title(arguments: Mapping[str, str], node: str) -> str:
    return say("Replace the neighbor {address} on {node}", address=arguments["address"], node=node)


def blast_radius(arguments: Mapping[str, str], node: str) -> str:
    return say(
        "{node}, one entry on {device}: traffic {node} -> {peer}, which is broken now.",
        node=node,
        device=arguments["device"],
        peer=arguments["peer"],
    )


def undo(arguments: Mapping[str, str], node: str) -> str:
    if not arguments["vni"]:
        address, seen, device = (arguments[name] for name in ("address", "seen", "device"))
        said = say("{command}.", command=f"ip neigh replace {address} lladdr {seen} dev {device} nud permanent")
    else:
        said = say(
            "Not needed: {right} is what Felix itself would write for {peer}.",
            right=arguments["mac"],
            peer=arguments["peer"],
        )
    return in_turn([said, evidence.felix(arguments)])


def propose(cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    """device, its vni ("" for no tunnel), address, mac (as it should be), seen ("" for no entry), peer (node or pod
    behind it), felix_s."""
    leg = evidence.first(Leg, cause, facts)
    if leg is None:
        return None
    found = (
        _of_tunnel(leg, cause, facts)
        if cause.node == leg.source_node and evidence.first(Link, cause, facts) is None
        else _of_peer(leg, cause, facts) or _of_pod(leg, cause, facts)
    )
    if found is None or (found["vni"] == "" and not found["seen"]) or found["seen"] == found["mac"]:
        return None
    arguments = {**found, "felix_s": str(cause.heals_within_s)}
    return evidence.checked(arguments, _check)


def _of_tunnel(leg: Leg, cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    entry = _entry(cause, facts, leg.source_node, leg.tunnel_device, leg.target_tunnel_address)
    if entry is None:
        return None
    return {
        "device": leg.tunnel_device,
        "vni": str(leg.vni),
        "address": leg.target_tunnel_address,
        "mac": leg.target_tunnel_mac,
        "seen": entry.mac if entry.found else "",
        "peer": leg.target_node,
    }


def _of_peer(leg: Leg, cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    """The peer's node address by the uplink, and the MAC the peer's own probe read."""
    uplinks = {(one.node, one.node_address): one for one in evidence.of(Link, cause, facts)}
    own = uplinks.get((leg.source_node, leg.source_node_address))
    peer = uplinks.get((leg.target_node, leg.target_node_address))
    if own is None or peer is None or cause.node != leg.source_node:
        return None
    entry = _entry(cause, facts, leg.source_node, own.device, leg.target_node_address)
    return _on_another(entry, peer.mac, leg.target_node)


def _of_pod(leg: Leg, cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    """A pod by its own interface, and the MAC that was read inside it."""
    pod = evidence.first(PodInterface, cause, facts)
    if pod is None or not pod.entered or (cause.node, pod.pod) != (leg.target_node, leg.target):
        return None
    return _on_another(_entry(cause, facts, pod.node, pod.interface, leg.target_address), pod.pod_mac, leg.target)


def _on_another(entry: Neighbor | None, mac: str, peer: str) -> dict[str, str] | None:
    if entry is None or not STATIC & set(entry.state.split("|")):
        return None
    return {"device": entry.device, "vni": "", "address": entry.address, "mac": mac, "seen": entry.mac, "peer": peer}


def _entry(cause: Cause, facts: Sequence[Fact], node: str, device: str, address: str) -> Neighbor | None:
    wanted = (node, device, address)
    found = (one for one in evidence.of(Neighbor, cause, facts) if (one.node, one.device, one.address) == wanted)
    return next(found, None)


def holds(kernel: Kernel, arguments: Mapping[str, str]) -> None:
    device, address, mac = _check(arguments)
    link, vni = kernel.device(device), arguments["vni"]
    if link is None:
        raise EvidenceChanged(f"There is no device {device} any more.")
    if vni and (link.kind, str(link.vni)) != ("vxlan", vni):
        raise EvidenceChanged(f"{device} is not the VXLAN device with VNI {vni} any more.")
    if not vni and link.kind == "vxlan":
        raise EvidenceChanged(f"{device} is a VXLAN device: nothing learns there.")
    entry = kernel.neighbor(device, address)
    if _right(entry, mac, vni):
        raise EvidenceChanged(f"{address} on {device} is {mac} already; there is nothing left to do.")
    now, seen = entry.mac if entry else "", arguments.get("seen", "")
    if now != seen:
        raise EvidenceChanged(f"{address} on {device} is {now or 'unresolved'} now; it was {seen or 'unresolved'}.")
    if entry and not vni and not STATIC & set(entry.state.split("|")):
        raise EvidenceChanged(f"{address} on {device} is {entry.state} now: the kernel checks it itself.")


def preview(kernel: Kernel, arguments: Mapping[str, str]) -> list[str]:
    return by_hand(arguments)


def by_hand(arguments: Mapping[str, str]) -> list[str]:
    device, address, mac = _check(arguments)
    return [f"ip neigh replace {address} lladdr {mac} dev {device} nud {'permanent' if arguments['vni'] else 'stale'}"]


def execute(kernel: Kernel, arguments: Mapping[str, str]) -> None:
    device, address, mac = _check(arguments)
    if arguments["vni"]:
        kernel.replace_neighbor(device, address, mac)
    else:
        kernel.relearn_neighbor(device, address, mac)


def verify(kernel: Kernel, arguments: Mapping[str, str]) -> tuple[bool, str]:
    device, address, mac = _check(arguments)
    entry = kernel.neighbor(device, address)
    if _right(entry, mac, arguments["vni"]):
        return True, f"{address} on {device} is {mac} now."
    if entry is None:
        return False, f"{address} on {device} has no entry; it should be {mac}."
    wanted = f"{mac}, PERMANENT" if arguments["vni"] else f"{mac}, and checked by the kernel"
    return False, f"{address} on {device} is {entry.mac or 'unresolved'} ({entry.state}); it should be {wanted}."


def _right(entry: Entry | None, mac: str, vni: str) -> bool:
    if entry is None or entry.mac != mac:
        return False
    return entry.state == "PERMANENT" if vni else not STATIC & set(entry.state.split("|"))


def _check(arguments: Mapping[str, str]) -> tuple[str, str, str]:
    """device, address, mac, each of its own form. Raises ValueError: nothing else may reach a kernel."""
    if arguments.get("vni") != "":
        form.number(arguments, "vni")
    return form.device(arguments), form.address(arguments), form.mac(arguments)


KIND = NodeKind(
    name="replace_neighbor",
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
