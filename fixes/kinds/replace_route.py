"""Writes a route as Felix itself would, to the letter; one that differs in anything would be a second one beside it.

Felix puts its routes back at each refresh, so this is for a node whose Felix does not: the route must still be wrong
one refresh after it was seen to be, unless a person wants it now.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from facts import Allocation, CalicoNode, Cause, Fact, Leg, RouteLookup, in_turn, say
from facts.version import release, since
from fixes import evidence, form
from fixes.kernel import Kernel, Way, way
from fixes.kind import EvidenceChanged, NodeKind
from fixes.looks import again_after, second_look
from node_probe.netlink import RT_TABLE_MAIN, Device, Route

KERNEL, BOOT, FELIX = 2, 3, 80  # route protocols
UNIVERSE, LINK = 0, 253  # scopes
PROTOCOLS = {BOOT: "boot", 4: "static"}
METRIC_OF_IPV6 = 1024  # the kernel's, for a route that names none
MTU_SINCE, METRIC_SINCE = (3, 31), (3, 32)  # of Felix's routes by a tunnel, and to pods (calico_truth.md 1.4, lab)
BY = ("tunnel", "uplink", "pod")


def title(arguments: Mapping[str, str], node: str) -> str:
    return say("Replace the route {destination} on {node}", destination=arguments["destination"], node=node)


def blast_radius(arguments: Mapping[str, str], node: str) -> str:
    return say(
        "{node}, one route: what {node} sends to {destination} ({peer}), which is broken now.",
        node=node,
        destination=arguments["destination"],
        peer=arguments["peer"],
    )


def undo(arguments: Mapping[str, str], node: str) -> str:
    said = say(
        "Not needed: it is what Felix itself would write. To take it away: {command}.",
        command=f"ip route del {arguments['destination']}",
    )
    return in_turn([said, evidence.felix(arguments)])


def propose(cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    """destination, by ("tunnel" | "uplink" | "pod"), device (of tunnel and pod), own (the node's address on its
    uplink), next_hop, address (the one looked up), seen (what the kernel did with it), version (of Calico), peer (node
    or pod behind it), felix_s, felix_port, again_after_s."""
    leg = evidence.first(Leg, cause, facts)
    looks = evidence.of(RouteLookup, cause, facts)
    if leg is None or len(looks) != 1 or looks[0].node != cause.node:
        return None
    look = looks[0]
    node = next(
        (one for one in facts if isinstance(one, CalicoNode) and (one.name, one.family) == (cause.node, leg.family)),
        None,
    )
    held = next((one for one in facts if isinstance(one, Allocation) and one.address == leg.target_address), None)
    where = _to_pod(leg) if cause.node == leg.target_node else _to_block(leg, held)
    if where is None or look.table not in (-1, RT_TABLE_MAIN):
        return None
    if _would_lose(where, look, leg):
        return None
    arguments = {
        **where,
        "own": leg.source_node_address if where["by"] == "uplink" else "",
        "address": leg.target_address,
        "seen": _of_lookup(look),
        "version": leg.calico_version,
        "felix_s": str(cause.heals_within_s),
        "felix_port": str(node.felix_health_port if node else 9099),
        "again_after_s": again_after(node),
    }
    return evidence.checked(arguments, _check)


def _to_pod(leg: Leg) -> dict[str, str]:
    """A pod of this node, by its own interface."""
    return {
        "destination": str(ipaddress.ip_network(leg.target_address)),
        "by": "pod",
        "device": leg.target_interface,
        "next_hop": "",
        "peer": leg.target,
    }


def _to_block(leg: Leg, held: Allocation | None) -> dict[str, str] | None:
    """The block of a pod of another node, by the tunnel or the uplink; one address where it was borrowed of a block.

    Where nobody knows whose the block is, a route for all of it could cut off others' pods.
    """
    if leg.route_by != "felix" or leg.encapsulation not in ("vxlan", "direct") or not leg.expected_next_hop:
        return None
    if leg.target_address == leg.target_tunnel_address:
        return None  # a tunnel address outside its node's blocks has a route of another form
    if held is None or held.node != leg.target_node or not held.block_node:
        return None
    borrowed = held.block_node != leg.target_node
    destination = str(ipaddress.ip_network(leg.target_address)) if borrowed else leg.target_block
    by = "tunnel" if leg.expected_device else "uplink"
    return {
        "destination": destination,
        "by": by,
        "device": leg.expected_device,
        "next_hop": leg.expected_next_hop,
        "peer": leg.target_node,
    }


def _would_lose(where: Mapping[str, str], look: RouteLookup, leg: Leg) -> bool:
    """The kernel would go on taking what it takes now, which has to go first (delete_foreign_route)."""
    if not look.prefix or look.metric < 0:
        return False
    known, found = ipaddress.ip_network(where["destination"]).prefixlen, ipaddress.ip_network(look.prefix).prefixlen
    if known != found or (where["by"] == "pod" and leg.family == 4 and release(leg.calico_version) is None):
        return found > known
    metric = METRIC_OF_IPV6 if leg.family == 6 else 0
    if where["by"] == "pod" and since(leg.calico_version, METRIC_SINCE, unknown=False):
        metric = 1024
    return look.metric < metric


def _of_lookup(look: RouteLookup) -> str:
    """The same words as `fixes.kernel.Way`."""
    return way(look.prefix, look.next_hop, look.device, look.metric) if look.found else look.error


def holds(kernel: Kernel, arguments: Mapping[str, str]) -> None:
    destination, address = _check(arguments)
    wanted, device = _wanted(kernel, arguments)
    if not device.up:
        raise EvidenceChanged(f"{device.name} is down; it takes no route.")
    found = kernel.way(address)
    if _right(found, wanted):
        raise EvidenceChanged(f"{destination} leads by {device.name} already; there is nothing left to do.")
    seen = arguments["seen"]
    if str(found) != seen and not _another_of_several(found, seen):
        raise EvidenceChanged(f"The way to {address} is {found} now; it was {seen}.")
    if found.route and not _beats(wanted, found.route):
        raise EvidenceChanged(f"{found} would win over the route that is to be written; delete it first.")
    if second_look(arguments) and kernel.felix_ready(form.number(arguments, "felix_port")):
        raise EvidenceChanged(
            f"Felix is alive here, and at its refresh did not write {destination}: it does not want it and would "
            "remove it again."
        )


def by_hand(arguments: Mapping[str, str]) -> list[str]:
    """Only the kernel's other routes of Felix tell all that Felix would write; what is missing it adds."""
    destination, _ = _check(arguments)
    by, device = arguments["by"], arguments["device"]
    first = [f"ip route del {destination}"] if _refused(destination, arguments["seen"]) else []
    if by == "uplink":
        return [*first, f"ip route replace {destination} via {arguments['next_hop']} proto {FELIX}"]
    if by == "tunnel":
        return [*first, f"ip route replace {destination} via {arguments['next_hop']} dev {device} proto {FELIX} onlink"]
    late = " metric 1024" if since(arguments.get("version", ""), METRIC_SINCE, unknown=False) else ""
    link = " scope link" if ":" not in destination else ""
    return [f"ip route replace {destination} dev {device} proto {FELIX}{link}{late}"]


def preview(kernel: Kernel, arguments: Mapping[str, str]) -> list[str]:
    _check(arguments)
    wanted, device = _wanted(kernel, arguments)
    first = [f"ip route del {wanted.prefix}"] if _in_the_way(kernel, wanted) else []
    via = f" via {wanted.next_hop}" if wanted.next_hop else ""
    words = f"ip route replace {wanted.prefix}{via} dev {device.name} proto {_protocol(wanted)}"
    words += " scope link" if wanted.scope == LINK else ""
    words += f" metric {wanted.metric}" if wanted.metric else ""
    words += " onlink" if wanted.onlink else ""
    return [*first, words + (f" mtu {wanted.mtu}" if wanted.mtu else "")]


def execute(kernel: Kernel, arguments: Mapping[str, str]) -> None:
    _check(arguments)
    wanted, _ = _wanted(kernel, arguments)
    wrong = _in_the_way(kernel, wanted)
    if wrong is None:
        kernel.replace_route(wanted)
        return
    kernel.delete_route(wrong)
    try:
        kernel.replace_route(wanted)
    except OSError:
        kernel.replace_route(wrong)
        raise


def _in_the_way(kernel: Kernel, wanted: Route) -> Route | None:
    """Over IPv6 the kernel refuses a next hop to which a route already leads by another device: the wrong route itself,
    where the next hop lies in the block."""
    found = kernel.way(wanted.next_hop).route if ":" in wanted.next_hop else None
    return found if found and found.prefix == wanted.prefix and found.device != wanted.device else None


def _refused(destination: str, seen: str) -> bool:
    """The same, as far as what was seen tells it."""
    return ":" in destination and seen.startswith(f"{destination} ")


def verify(kernel: Kernel, arguments: Mapping[str, str]) -> tuple[bool, str]:
    destination, address = _check(arguments)
    wanted, _ = _wanted(kernel, arguments)
    found = kernel.way(address)
    if _right(found, wanted):
        return True, f"The way to {address} is {found} now, as Felix writes it."
    return False, f"The way to {address} is {found}; it should be by the route {destination} as Felix writes it."


def _right(found: Way, wanted: Route) -> bool:
    return found.route is not None and replace(found.route, preferred_source="") == wanted


def _another_of_several(found: Way, seen: str) -> bool:
    """Of a route with several next hops each look takes one."""
    return found.route is not None and len(found.route.several) > 1 and seen.startswith(f"{found.route.prefix} ")


def _beats(wanted: Route, found: Route) -> bool:
    """Would the kernel take the one that is to be written, in place of this one or before it?"""
    return (wanted.length, -wanted.metric) >= (found.length, -found.metric)


def _wanted(kernel: Kernel, arguments: Mapping[str, str]) -> tuple[Route, Device]:
    """Felix's own route: what the arguments say, and for the rest what its other routes on this node are like."""
    network = ipaddress.ip_network(arguments["destination"])
    by, version = arguments["by"], arguments.get("version", "")
    device = kernel.holder(arguments["own"]) if by == "uplink" else kernel.device(arguments["device"])
    if device is None:
        raise EvidenceChanged(f"There is no device {arguments['device'] or 'with ' + arguments['own']} any more.")
    if device.kind != {"tunnel": "vxlan", "pod": "veth"}.get(by, device.kind):
        raise EvidenceChanged(f"{device.name} is a {device.kind or 'real'} device.")
    table = [
        one
        for one in kernel.routes(network.version)
        if one.type == "unicast" and one.protocol != KERNEL and one.prefix != str(network)
    ]
    pods = _to_pods(table, kernel.devices("veth"), network.max_prefixlen)
    towards = {one.index for one in kernel.devices("vxlan")} if by == "pod" else {device.index}
    blocks = [one for one in table if one.onlink and one.next_hop and one.device in towards]
    common = METRIC_OF_IPV6 if network.version == 6 else 0
    sibling = _commonest(pods if by == "pod" else blocks)
    if sibling is None:
        sibling = _unlike(by, _commonest(blocks if by == "pod" else pods), device, version, common)
    link = by == "pod" and network.version == 4
    wanted = Route(
        type="unicast",
        destination=str(network.network_address),
        length=network.prefixlen,
        next_hop=arguments["next_hop"],
        device=device.index,
        table=RT_TABLE_MAIN,
        protocol=sibling.protocol,
        scope=LINK if link else UNIVERSE,
        metric=sibling.metric,
        onlink=by != "pod",
        preferred_source="",
        mtu=sibling.mtu,
    )
    return wanted, device


def _to_pods(table: Iterable[Route], veths: Iterable[Device], length: int) -> list[Route]:
    """Felix's routes to the node's own pods: of single addresses, each by a veth."""
    indexes = {one.index for one in veths}
    return [one for one in table if one.length == length and not one.next_hop and one.device in indexes]


def _commonest(routes: Sequence[Route]) -> Route | None:
    if not routes:
        return None
    ((protocol, metric, mtu), _), *_ = Counter((one.protocol, one.metric, one.mtu) for one in routes).most_common(1)
    return next(one for one in routes if (one.protocol, one.metric, one.mtu) == (protocol, metric, mtu))


def _unlike(by: str, other: Route | None, device: Device, version: str, common: int) -> Route:
    """What Felix would make of it, told by its routes of the other kind. Raises EvidenceChanged where they do not."""
    if other is None or (release(version) is None and by != "uplink"):
        raise EvidenceChanged("No other route of Felix here tells how it writes them; restart calico-node instead.")
    if by == "pod":
        return replace(other, metric=1024 if since(version, METRIC_SINCE, unknown=False) else common, mtu=0)
    if by == "uplink":
        return replace(other, protocol=FELIX if other.protocol == BOOT else other.protocol, metric=common, mtu=0)
    return replace(other, metric=common, mtu=device.mtu if since(version, MTU_SINCE, unknown=False) else 0)


def _protocol(route: Route) -> str:
    return PROTOCOLS.get(route.protocol, str(route.protocol))


def _check(arguments: Mapping[str, str]) -> tuple[str, str]:
    """destination, address; all is of its own form. Raises ValueError: nothing else may reach a kernel."""
    form.complete(arguments, "device", "own", "next_hop", "seen")
    destination, address = form.prefix(arguments, "destination"), form.address(arguments)
    by = arguments.get("by", "")
    if by not in BY:
        raise ValueError(f"{by!r} is not a way Felix's routes lead")
    if by == "uplink":
        form.address(arguments, "own")
    else:
        form.device(arguments)
    if by == "pod":
        if arguments.get("next_hop") or destination != str(ipaddress.ip_network(address)):
            raise ValueError(f"{destination} is not a route to the pod {address}")
    else:
        form.address(arguments, "next_hop")
    if ipaddress.ip_address(address) not in ipaddress.ip_network(destination):
        raise ValueError(f"{address} is not in {destination}")
    form.number(arguments, "felix_port")
    return destination, address


KIND = NodeKind(
    name="replace_route",
    title=title,
    blast_radius=blast_radius,
    undo=undo,
    propose=propose,
    holds=holds,
    preview=preview,
    by_hand=by_hand,
    execute=execute,
    verify=verify,
    may_hurry=True,
)
