"""Gives a tunnel device the MAC its peers send to, and keeps its neighbors, which the kernel would forget with the old
one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from facts import Cause, Fact, Leg, Link, in_turn, say
from fixes import evidence, form
from fixes.kernel import Kernel
from fixes.kind import EvidenceChanged, NodeKind


def title(arguments: Mapping[str, str], node: str) -> str:
    return say(
        "Set the MAC of {device} on {node} to {mac}", device=arguments["device"], node=node, mac=arguments["mac"]
    )


def blast_radius(arguments: Mapping[str, str], node: str) -> str:
    return say(
        "{node}, one device: all tunnelled traffic to {node}, which is broken now. The kernel forgets the device's "
        "neighbors with its MAC; the permanent ones are written again at once.",
        node=node,
    )


def undo(arguments: Mapping[str, str], node: str) -> str:
    said = say(
        "{command}, though its peers send to the new one.",
        command=f"ip link set {arguments['device']} address {arguments['seen']}",
    )
    return in_turn([said, evidence.felix(arguments)])


def propose(cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    """device, its vni, mac (the one announced to its peers), seen (the one it has), felix_s."""
    leg = evidence.first(Leg, cause, facts)
    link = evidence.first(Link, cause, facts)
    if leg is None or link is None or cause.node != leg.source_node:
        return None
    if (link.node, link.device, link.found) != (cause.node, leg.tunnel_device, True):
        return None
    arguments = {
        "device": link.device,
        "vni": str(leg.vni),
        "mac": leg.source_tunnel_mac,
        "seen": link.mac,
        "felix_s": str(cause.heals_within_s),
    }
    return evidence.checked(arguments, _check)


def holds(kernel: Kernel, arguments: Mapping[str, str]) -> None:
    device, mac = _check(arguments)
    tunnel = kernel.device(device)
    if tunnel is None:
        raise EvidenceChanged(f"There is no device {device} any more.")
    if (tunnel.kind, str(tunnel.vni)) != ("vxlan", arguments["vni"]):
        raise EvidenceChanged(f"{device} is not the VXLAN device with VNI {arguments['vni']} any more.")
    if tunnel.mac == mac:
        raise EvidenceChanged(f"{device} is {mac} already; there is nothing left to do.")
    if tunnel.mac != arguments["seen"]:
        raise EvidenceChanged(f"{device} is {tunnel.mac} now; it was {arguments['seen']}.")


def preview(kernel: Kernel, arguments: Mapping[str, str]) -> list[str]:
    device, mac = _check(arguments)
    return [
        f"ip link set {device} address {mac}",
        *(f"ip neigh replace {to} lladdr {of} dev {device} nud permanent" for to, of in _written(kernel, device)),
    ]


def execute(kernel: Kernel, arguments: Mapping[str, str]) -> None:
    device, mac = _check(arguments)
    kept = _written(kernel, device)
    kernel.set_mac(device, mac)
    for address, of in kept:
        kernel.replace_neighbor(device, address, of)


def verify(kernel: Kernel, arguments: Mapping[str, str]) -> tuple[bool, str]:
    device, mac = _check(arguments)
    tunnel = kernel.device(device)
    if tunnel is None:
        return False, f"There is no device {device}."
    if tunnel.mac != mac:
        return False, f"{device} is {tunnel.mac}; it should be {mac}."
    return True, f"{device} is {mac} now, with {len(_written(kernel, device))} permanent neighbors."


def _written(kernel: Kernel, device: str) -> list[tuple[str, str]]:
    """Address and MAC of the device's permanent neighbors, which nothing but Felix would put back."""
    return [(one.address, one.mac) for one in kernel.neighbors(device) if one.state == "PERMANENT" and one.mac]


def _check(arguments: Mapping[str, str]) -> tuple[str, str]:
    """device, mac, each of its own form. Raises ValueError: nothing else may reach a kernel."""
    form.mac(arguments, "seen")
    form.number(arguments, "vni")
    return form.device(arguments), form.mac(arguments)


KIND = NodeKind(
    name="set_link_mac",
    title=title,
    blast_radius=blast_radius,
    undo=undo,
    propose=propose,
    holds=holds,
    preview=preview,
    execute=execute,
    verify=verify,
)
