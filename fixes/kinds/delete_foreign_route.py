"""Deletes a route somebody wrote by hand before Calico's own; Felix leaves it for ever, since it is not its."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from facts import Cause, Fact, Leg, RouteLookup
from fixes import evidence, form
from fixes.kernel import Kernel
from fixes.kind import EvidenceChanged, NodeKind
from node_probe.netlink import RT_TABLE_MAIN, Route

# Of `ip route` and network managers. The kernel's own come with an address; a daemon would write its own again.
BY_HAND = {3: "boot", 4: "static"}
REFUSALS = ("blackhole", "unreachable", "prohibit")
TUNNELS = ("vxlan", "ipip", "wireguard")  # by these and pods' interfaces Felix removes what it does not want


def title(arguments: Mapping[str, str], node: str) -> str:
    return f"Delete the route {_told(arguments)} on {node}"


def blast_radius(arguments: Mapping[str, str], node: str) -> str:
    return (
        f"{node}, one route: all that {node} sends to {arguments['destination']}. It then goes by Calico's own route "
        f"for {arguments['block']}."
    )


def undo(arguments: Mapping[str, str], node: str) -> str:
    return f"ip route add {_told(arguments)}. {evidence.felix(arguments)}"


def propose(cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    """destination, type, next_hop, device (both "" where it refuses), protocol, metric, address (looked up), block
    (it is part of), felix_s."""
    leg = evidence.first(Leg, cause, facts)
    looks = evidence.of(RouteLookup, cause, facts)
    if leg is None or len(looks) != 1 or looks[0].node != cause.node or looks[0].several:
        return None
    look = looks[0]
    if look.table != RT_TABLE_MAIN or not leg.target_block or look.metric < 0:
        return None
    refuses = look.type in REFUSALS
    arguments = {
        "destination": look.prefix,
        "type": look.type,
        "next_hop": "" if refuses else look.next_hop,
        "device": "" if refuses else look.device,
        "protocol": str(look.protocol),
        "metric": str(look.metric),
        "address": leg.target_address,
        "block": leg.target_block,
        "felix_s": str(cause.heals_within_s),
    }
    return evidence.checked(arguments, _check)


def holds(kernel: Kernel, arguments: Mapping[str, str]) -> None:
    _check(arguments)
    route = _find(kernel, arguments)
    if route is None:
        raise EvidenceChanged(f"There is no route {_told(arguments)} any more; there is nothing left to do.")
    device = kernel.device(arguments["device"]) if arguments["device"] else None
    pod_s = device and device.kind == "veth" and not kernel.holds_addresses(device.name, _family(arguments))
    if device and (device.kind in TUNNELS or pod_s):
        raise EvidenceChanged(f"{device.name} is a {device.kind} device: what leads there is Felix's to remove.")
    if route.type == "unicast":
        way = kernel.way(arguments["address"])
        if way.route is None or way.route.prefix != route.prefix:
            raise EvidenceChanged(f"The way to {arguments['address']} is {way} now, which is another.")
    if not any(_covers(one, arguments["block"]) for one in kernel.routes(_family(arguments))):
        raise EvidenceChanged(f"There is no route of Calico for {arguments['block']} that would lead there instead.")


def preview(kernel: Kernel, arguments: Mapping[str, str]) -> list[str]:
    _check(arguments)
    return [f"ip route del {_told(arguments)}"]


def execute(kernel: Kernel, arguments: Mapping[str, str]) -> None:
    _check(arguments)
    route = _find(kernel, arguments)
    if route is None:
        raise ValueError(f"there is no route {_told(arguments)} any more")
    kernel.delete_route(route)


def verify(kernel: Kernel, arguments: Mapping[str, str]) -> tuple[bool, str]:
    _check(arguments)
    way = kernel.way(arguments["address"])
    if _find(kernel, arguments) is not None:
        return False, f"The route {_told(arguments)} is there."
    return True, f"The route is gone; the way to {arguments['address']} is {way} now."


def _find(kernel: Kernel, arguments: Mapping[str, str]) -> Route | None:
    """Exactly this one, of the main table."""
    device = kernel.device(arguments["device"]) if arguments["device"] else None
    if arguments["device"] and device is None:
        return None
    wanted = (arguments["destination"], arguments["type"], arguments["next_hop"])
    numbers = (int(arguments["protocol"]), int(arguments["metric"]))
    for one in kernel.routes(_family(arguments)):
        by = device is None or one.device == device.index  # of a refusal IPv6 names lo, IPv4 nothing
        if (one.prefix, one.type, one.next_hop) == wanted and (one.protocol, one.metric) == numbers and by:
            return one
    return None


def _covers(route: Route, block: str) -> bool:
    """The block's own route, or that of one address where a block is one."""
    return route.type == "unicast" and route.prefix == block


def _family(arguments: Mapping[str, str]) -> int:
    return ipaddress.ip_network(arguments["destination"]).version


def _told(arguments: Mapping[str, str]) -> str:
    """As iproute2 takes it."""
    kind = f"{arguments['type']} " if arguments["type"] in REFUSALS else ""
    via = f" via {arguments['next_hop']}" if arguments["next_hop"] else ""
    by = f" dev {arguments['device']}" if arguments["device"] else ""
    metric = f" metric {arguments['metric']}" if arguments["metric"] != "0" else ""
    return f"{kind}{arguments['destination']}{via}{by} proto {BY_HAND[int(arguments['protocol'])]}{metric}"


def _check(arguments: Mapping[str, str]) -> None:
    """All is of its own form. Raises ValueError: nothing else may reach a kernel."""
    form.complete(arguments, "device", "next_hop")
    destination, block = form.prefix(arguments, "destination"), form.prefix(arguments, "block")
    address = form.address(arguments)
    inner, outer = ipaddress.ip_network(destination), ipaddress.ip_network(block)
    if inner.version != outer.version or not inner.subnet_of(outer) or inner == outer:  # type: ignore[arg-type]
        raise ValueError(f"{destination} is not a part of the block {block}")
    if ipaddress.ip_address(address) not in inner:
        raise ValueError(f"{address} is not in {destination}")
    if form.number(arguments, "protocol") not in BY_HAND:
        raise ValueError(f"protocol {arguments['protocol']} is not of routes written by hand")
    form.number(arguments, "metric")
    if arguments.get("type") == "unicast":
        form.device(arguments)
        if arguments.get("next_hop"):
            form.address(arguments, "next_hop")
    elif arguments.get("type") not in REFUSALS or arguments.get("device") or arguments.get("next_hop"):
        raise ValueError(f"{arguments.get('type')!r} is not the type of a route that may be deleted")


KIND = NodeKind(
    name="delete_foreign_route",
    title=title,
    blast_radius=blast_radius,
    undo=undo,
    propose=propose,
    holds=holds,
    preview=preview,
    execute=execute,
    verify=verify,
)
