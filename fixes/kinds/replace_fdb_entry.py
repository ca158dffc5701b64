"""Sends frames for a peer's tunnel MAC to the peer's node again; without it they would go to nobody, or to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from facts import Cause, Fact, FdbEntry, Leg, in_turn, say
from fixes import evidence, form
from fixes.kernel import Kernel
from fixes.kind import EvidenceChanged, NodeKind
from node_probe.netlink import Device, Entry


def title(arguments: Mapping[str, str], node: str) -> str:
    return say(
        "Send frames for {mac} to {address} on {node}", mac=arguments["mac"], address=arguments["address"], node=node
    )


def blast_radius(arguments: Mapping[str, str], node: str) -> str:
    return say(
        "{node}, one forwarding entry of {device}: traffic {node} -> {peer}, which is broken now.",
        node=node,
        device=arguments["device"],
        peer=arguments["peer"],
    )


def undo(arguments: Mapping[str, str], node: str) -> str:
    said = say(
        "Not needed: {right} is what Felix itself would write for {peer}.",
        right=arguments["address"],
        peer=arguments["peer"],
    )
    return in_turn([said, evidence.felix(arguments)])


def propose(cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    """device, its vni, mac, address (of the peer's node), seen ("" for no entry), peer (node behind it), felix_s."""
    leg = evidence.first(Leg, cause, facts)
    entry = evidence.first(FdbEntry, cause, facts)
    if leg is None or entry is None or cause.node != leg.source_node:
        return None
    if (entry.node, entry.device, entry.mac) != (leg.source_node, leg.tunnel_device, leg.target_tunnel_mac):
        return None
    arguments = {
        "device": leg.tunnel_device,
        "vni": str(leg.vni),
        "mac": leg.target_tunnel_mac,
        "address": leg.target_node_address,
        "seen": _told(entry.peer, entry.port, entry.vni) if entry.found else "",
        "peer": leg.target_node,
        "felix_s": str(cause.heals_within_s),
    }
    return evidence.checked(arguments, _check)


def holds(kernel: Kernel, arguments: Mapping[str, str]) -> None:
    device, mac, address = _check(arguments)
    tunnel = kernel.device(device)
    if tunnel is None:
        raise EvidenceChanged(f"There is no device {device} any more.")
    if (tunnel.kind, str(tunnel.vni)) != ("vxlan", arguments["vni"]):
        raise EvidenceChanged(f"{device} is not the VXLAN device with VNI {arguments['vni']} any more.")
    entry = kernel.forwarding(device, mac)
    if _right(entry, tunnel, address):
        raise EvidenceChanged(f"{device} sends {mac} to {address} already; there is nothing left to do.")
    now, seen = _of(entry), arguments["seen"]
    if now != seen:
        raise EvidenceChanged(f"{device} sends {mac} to {now or 'nobody'} now; it was {seen or 'nobody'}.")


def preview(kernel: Kernel, arguments: Mapping[str, str]) -> list[str]:
    return by_hand(arguments)


def by_hand(arguments: Mapping[str, str]) -> list[str]:
    device, mac, address = _check(arguments)
    return [f"bridge fdb replace {mac} dev {device} dst {address} self permanent"]


def execute(kernel: Kernel, arguments: Mapping[str, str]) -> None:
    kernel.replace_forwarding(*_check(arguments))


def verify(kernel: Kernel, arguments: Mapping[str, str]) -> tuple[bool, str]:
    device, mac, address = _check(arguments)
    tunnel, entry = kernel.device(device), kernel.forwarding(device, mac)
    if tunnel is not None and _right(entry, tunnel, address):
        return True, f"{device} sends {mac} to {address} now."
    return False, f"{device} sends {mac} to {_of(entry) or 'nobody'}; it should be {address}."


def _right(entry: Entry | None, tunnel: Device, address: str) -> bool:
    """Port and VNI of its own count only where they are others than the device's."""
    if entry is None or "PERMANENT" not in entry.state.split("|"):
        return False
    return entry.address == address and entry.port in (-1, tunnel.vxlan_port) and entry.vni in (-1, tunnel.vni)


def _of(entry: Entry | None) -> str:
    return _told(entry.address, entry.port, entry.vni) if entry else ""


def _told(address: str, port: int, vni: int) -> str:
    own = [f"port {port}"] if port != -1 else []
    own += [f"vni {vni}"] if vni != -1 else []
    return " ".join([address or "nowhere", *own])


def _check(arguments: Mapping[str, str]) -> tuple[str, str, str]:
    """device, mac, address, each of its own form. Raises ValueError: nothing else may reach a kernel."""
    form.complete(arguments, "seen")
    form.number(arguments, "vni")
    return form.device(arguments), form.mac(arguments), form.address(arguments)


KIND = NodeKind(
    name="replace_fdb_entry",
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
