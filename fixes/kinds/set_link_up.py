"""Sets up a device that somebody set down; a pod's interface Felix would leave down for ever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from facts import Cause, Fact, Leg, Link, PodInterface, in_turn, say
from fixes import evidence, form
from fixes.kernel import Kernel
from fixes.kind import EvidenceChanged, NodeKind

# Of devices Felix looks after; a program that is a tunnel itself, such as a WireGuard outside of the kernel, is a tun.
KINDS = ("vxlan", "ipip", "wireguard", "tun", "veth")


def title(arguments: Mapping[str, str], node: str) -> str:
    return say("Set {device} up on {node}", device=arguments["device"], node=node)


def blast_radius(arguments: Mapping[str, str], node: str) -> str:
    pod = arguments.get("pod")
    carries = say("traffic of {pod}", pod=pod) if pod else say("tunnelled traffic of {node}", node=node)
    return say(
        "{node}, one device: {carries}, which is broken now. Its routes and neighbors are Calico's to put back.",
        node=node,
        carries=carries,
    )


def undo(arguments: Mapping[str, str], node: str) -> str:
    return in_turn([say("{command}.", command=f"ip link set {arguments['device']} down"), evidence.felix(arguments)])


def propose(cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    """device, kind (of the device), pod (behind it, "" for a tunnel), felix_s."""
    leg = evidence.first(Leg, cause, facts)
    if leg is None or cause.node != leg.source_node:
        return None
    tunnel = evidence.first(Link, cause, facts)
    interface = evidence.first(PodInterface, cause, facts)
    if tunnel and (tunnel.node, tunnel.device, tunnel.found, tunnel.up) == (cause.node, leg.tunnel_device, True, False):
        arguments = {"device": tunnel.device, "kind": tunnel.link_kind, "pod": ""}
    elif interface and (interface.node, interface.found, interface.up) == (cause.node, True, False):
        arguments = {"device": interface.interface, "kind": "veth", "pod": leg.source}
    else:
        return None
    arguments["felix_s"] = str(cause.heals_within_s)
    return evidence.checked(arguments, _check)


def holds(kernel: Kernel, arguments: Mapping[str, str]) -> None:
    device, kind = _check(arguments)
    link = kernel.device(device)
    if link is None:
        raise EvidenceChanged(f"There is no device {device} any more.")
    if link.kind != kind:
        raise EvidenceChanged(f"{device} is a {link.kind or 'real'} device, not a {kind} device.")
    if link.up:
        raise EvidenceChanged(f"{device} is up already; there is nothing left to do.")


def preview(kernel: Kernel, arguments: Mapping[str, str]) -> list[str]:
    return by_hand(arguments)


def by_hand(arguments: Mapping[str, str]) -> list[str]:
    return [f"ip link set {_check(arguments)[0]} up"]


def execute(kernel: Kernel, arguments: Mapping[str, str]) -> None:
    kernel.set_up(_check(arguments)[0])


def verify(kernel: Kernel, arguments: Mapping[str, str]) -> tuple[bool, str]:
    device, _ = _check(arguments)
    link = kernel.device(device)
    if link is None:
        return False, f"There is no device {device}."
    return (True, f"{device} is up now.") if link.up else (False, f"{device} is down.")


def _check(arguments: Mapping[str, str]) -> tuple[str, str]:
    """device, kind, each of its own form. Raises ValueError: nothing else may reach a kernel."""
    kind = arguments.get("kind", "")
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is not a kind of device to be set up")
    return form.device(arguments), kind


KIND = NodeKind(
    name="set_link_up",
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
