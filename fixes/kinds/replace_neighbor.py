"""Writes the neighbor entry of a peer's tunnel address as it should be; deleting it would cut the path for good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from facts import Cause, Fact, Leg, Neighbor
from fixes import evidence, form
from fixes.kernel import Kernel
from fixes.kind import EvidenceChanged, NodeKind
from node_probe.netlink import Entry


def title(arguments: Mapping[str, str], node: str) -> str:
    return f"Replace the neighbor {arguments['address']} on {node}"


def blast_radius(arguments: Mapping[str, str], node: str) -> str:
    return f"{node}, one entry on {arguments['device']}: traffic {node} -> {arguments['peer']}, which is broken now."


def undo(arguments: Mapping[str, str], node: str) -> str:
    said = f"Not needed: {arguments['mac']} is what Felix itself would write for {arguments['peer']}."
    return f"{said} {evidence.felix(arguments)}"


def propose(cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    """device, its vni, address, mac (as it should be), seen ("" for no entry), peer (node behind it), felix_s."""
    leg = evidence.first(Leg, cause, facts)
    if leg is None:
        return None
    entry = next(
        (
            fact
            for fact in evidence.of(Neighbor, cause, facts)
            if (fact.node, fact.device, fact.address) == (leg.source_node, leg.tunnel_device, leg.target_tunnel_address)
        ),
        None,
    )
    if entry is None or cause.node != leg.source_node or entry.mac == leg.target_tunnel_mac:
        return None
    arguments = {
        "device": leg.tunnel_device,
        "vni": str(leg.vni),
        "address": leg.target_tunnel_address,
        "mac": leg.target_tunnel_mac,
        "seen": entry.mac if entry.found else "",
        "peer": leg.target_node,
        "felix_s": str(cause.heals_within_s),
    }
    try:
        _check(arguments)
    except ValueError:
        return None
    return arguments


def holds(kernel: Kernel, arguments: Mapping[str, str]) -> None:
    device, address, mac = _check(arguments)
    tunnel = kernel.device(device)
    if tunnel is None:
        raise EvidenceChanged(f"There is no device {device} any more.")
    if (tunnel.kind, str(tunnel.vni)) != ("vxlan", arguments.get("vni")):
        raise EvidenceChanged(f"{device} is not the VXLAN device with VNI {arguments.get('vni')} any more.")
    entry = kernel.neighbor(device, address)
    if _right(entry, mac):
        raise EvidenceChanged(f"{address} on {device} is {mac} already; there is nothing left to do.")
    now, seen = entry.mac if entry else "", arguments.get("seen", "")
    if now != seen:
        raise EvidenceChanged(f"{address} on {device} is {now or 'unresolved'} now; it was {seen or 'unresolved'}.")


def preview(kernel: Kernel, arguments: Mapping[str, str]) -> list[str]:
    device, address, mac = _check(arguments)
    return [f"ip neigh replace {address} lladdr {mac} dev {device} nud permanent"]


def execute(kernel: Kernel, arguments: Mapping[str, str]) -> None:
    kernel.replace_neighbor(*_check(arguments))


def verify(kernel: Kernel, arguments: Mapping[str, str]) -> tuple[bool, str]:
    device, address, mac = _check(arguments)
    entry = kernel.neighbor(device, address)
    if _right(entry, mac):
        return True, f"{address} on {device} is {mac} now."
    if entry is None:
        return False, f"{address} on {device} has no entry; it should be {mac}."
    return (
        False,
        f"{address} on {device} is {entry.mac or 'unresolved'} ({entry.state}); it should be {mac}, PERMANENT.",
    )


def _right(entry: Entry | None, mac: str) -> bool:
    return entry is not None and (entry.mac, entry.state) == (mac, "PERMANENT")


def _check(arguments: Mapping[str, str]) -> tuple[str, str, str]:
    """device, address, mac, each of its own form. Raises ValueError: nothing else may reach a kernel."""
    return form.device(arguments), form.address(arguments), form.mac(arguments)


KIND = NodeKind(
    name="replace_neighbor",
    title=title,
    blast_radius=blast_radius,
    undo=undo,
    propose=propose,
    holds=holds,
    preview=preview,
    execute=execute,
    verify=verify,
)
