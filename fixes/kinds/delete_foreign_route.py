"""Deletes a route that stands before Calico's own; what is not by a device of Felix's it leaves there for ever.

What leads into its tunnel or to a pod it removes at its next refresh where it does not want it. There this is for a
node whose Felix does not: the route must still be there one refresh after it was seen, unless a person wants it now.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from facts import AddressHolders, Allocation, CalicoNode, Cause, Fact, Leg, RouteLookup, in_turn, say
from fixes import evidence, form
from fixes.kernel import Kernel
from fixes.kind import EvidenceChanged, NodeKind
from fixes.looks import again_after, second_look
from node_probe.netlink import RT_TABLE_MAIN, Device, Route

# Of `ip route` and network managers. The kernel's own come with an address; a daemon would write its own again.
BY_HAND = {3: "boot", 4: "static"}
FELIX = {80: "80"}  # its own protocol: by its own devices it removes its own, too
REFUSALS = ("blackhole", "unreachable", "prohibit")
TUNNELS = ("vxlan", "ipip", "wireguard")  # by these and pods' interfaces Felix removes what it does not want


def title(arguments: Mapping[str, str], node: str) -> str:
    return say("Delete the route {route} on {node}", route=_told(arguments), node=node)


def blast_radius(arguments: Mapping[str, str], node: str) -> str:
    return say(
        "{node}, one route: all that {node} sends to {destination}. It then goes by Calico's own route for {block}.",
        node=node,
        destination=arguments["destination"],
        block=arguments["block"],
    )


def undo(arguments: Mapping[str, str], node: str) -> str:
    return in_turn([say("{command}.", command=f"ip route add {_told(arguments)}"), evidence.felix(arguments)])


def propose(cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    """destination, type, next_hop, device (both "" where it refuses), protocol, metric, address (looked up), block (the
    prefix of Calico's route behind it), behind (the device of that route, "" for any), felix_s; and of a route that
    Felix removes felix_port, again_after_s."""
    leg = evidence.first(Leg, cause, facts)
    looks = evidence.of(RouteLookup, cause, facts)
    if leg is None or len(looks) != 1 or looks[0].node != cause.node or looks[0].several:
        return None
    look = looks[0]
    if look.next_hop_object:
        return None  # its next hop may be of other routes, too, and is a person's to look at
    if look.table != RT_TABLE_MAIN or not leg.target_block or look.metric < 0:
        return None
    node = next(
        (one for one in facts if isinstance(one, CalicoNode) and (one.name, one.family) == (cause.node, leg.family)),
        None,
    )
    to_a_pod = look.device.startswith(tuple(filter(None, node.interface_prefix.split(",")))) if node else False
    if to_a_pod and not _only_the_targets(leg, facts):
        return None
    refuses = look.type in REFUSALS
    block, behind = _behind(cause, leg, facts)
    arguments = {
        "destination": look.prefix,
        "type": look.type,
        "next_hop": "" if refuses else look.next_hop,
        "device": "" if refuses else look.device,
        "protocol": str(look.protocol),
        "metric": str(look.metric),
        "address": leg.target_address,
        "block": block,
        "behind": behind,
        "felix_s": str(cause.heals_within_s),
    }
    if not refuses and (to_a_pod or look.device == leg.tunnel_device):
        arguments["felix_port"] = str(node.felix_health_port if node else 9099)
        arguments["again_after_s"] = again_after(node)
    return evidence.checked(arguments, _check)


def _only_the_targets(leg: Leg, facts: Sequence[Fact]) -> bool:
    """A route to another pod's interface may be that pod's own, where two have one address."""
    holders = [one for one in facts if isinstance(one, AddressHolders) and one.address == leg.target_address]
    return bool(holders) and all(one.pods == (leg.target,) for one in holders)


def _behind(cause: Cause, leg: Leg, facts: Sequence[Fact]) -> tuple[str, str]:
    """Prefix and device of the route that must be there instead: the pod's own, that of a borrowed address, or the
    block's."""
    alone = str(ipaddress.ip_network(leg.target_address))
    if cause.node == leg.target_node:
        return alone, leg.target_interface
    held = next((one for one in facts if isinstance(one, Allocation) and one.address == leg.target_address), None)
    if held and held.block_node and held.node and held.block_node != held.node:
        return alone, leg.expected_device
    return leg.target_block, ""


def holds(kernel: Kernel, arguments: Mapping[str, str]) -> None:
    _check(arguments)
    route = _find(kernel, arguments)
    if route is None:
        raise EvidenceChanged(f"There is no route {_told(arguments)} any more; there is nothing left to do.")
    device = kernel.device(arguments["device"]) if arguments["device"] else None
    to_a_pod = device and device.kind == "veth" and not kernel.holds_addresses(device.name, _family(arguments))
    if device and (device.kind in TUNNELS or to_a_pod) and "again_after_s" not in arguments:
        raise EvidenceChanged(f"{device.name} is a {device.kind} device: what leads there is Felix's to remove.")
    if device and to_a_pod:
        _nobody_answers(kernel, device, arguments["address"])
    if route.type == "unicast":
        way = kernel.way(arguments["address"])
        if way.route is None or (way.route.prefix, way.device) != (route.prefix, arguments["device"]):
            raise EvidenceChanged(f"The way to {arguments['address']} is {way} now, which is another.")
    if not any(_follows(kernel, one, route, arguments) for one in kernel.routes(_family(arguments))):
        raise EvidenceChanged(f"There is no route of Calico for {arguments['block']} that would lead there instead.")
    if "again_after_s" not in arguments or not second_look(arguments):
        return
    if kernel.felix_ready(form.number(arguments, "felix_port")):
        raise EvidenceChanged("Felix is alive here, and at its refresh left this route: it wants it.")


def _nobody_answers(kernel: Kernel, device: Device, address: str) -> None:
    """The question's own packets went there: a pod that has the address has answered for it."""
    entry = kernel.neighbor(device.name, address)
    if entry is not None and entry.mac:
        raise EvidenceChanged(f"{address} has answered behind {device.name} ({entry.mac}): a pod there may have it.")


def preview(kernel: Kernel, arguments: Mapping[str, str]) -> list[str]:
    return by_hand(arguments)


def by_hand(arguments: Mapping[str, str]) -> list[str]:
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


def _follows(kernel: Kernel, one: Route, route: Route, arguments: Mapping[str, str]) -> bool:
    """Is it what the kernel takes once `route` is gone?"""
    if one.type != "unicast" or one.prefix != arguments["block"]:
        return False
    if one.prefix == route.prefix and one.metric <= route.metric:
        return False
    behind = arguments.get("behind", "")
    device = kernel.device(behind) if behind else None
    return not behind or (device is not None and device.index == one.device)


def _family(arguments: Mapping[str, str]) -> int:
    return ipaddress.ip_network(arguments["destination"]).version


def _told(arguments: Mapping[str, str]) -> str:
    """As iproute2 takes it."""
    kind = f"{arguments['type']} " if arguments["type"] in REFUSALS else ""
    via = f" via {arguments['next_hop']}" if arguments["next_hop"] else ""
    by = f" dev {arguments['device']}" if arguments["device"] else ""
    metric = f" metric {arguments['metric']}" if arguments["metric"] != "0" else ""
    return (
        f"{kind}{arguments['destination']}{via}{by} proto {_protocols(arguments)[int(arguments['protocol'])]}{metric}"
    )


def _protocols(arguments: Mapping[str, str]) -> Mapping[int, str]:
    return {**BY_HAND, **FELIX} if "again_after_s" in arguments else BY_HAND


def _check(arguments: Mapping[str, str]) -> None:
    """All is of its own form. Raises ValueError: nothing else may reach a kernel."""
    form.complete(arguments, "device", "next_hop")
    destination, block = form.prefix(arguments, "destination"), form.prefix(arguments, "block")
    address = form.address(arguments)
    inner, outer = ipaddress.ip_network(destination), ipaddress.ip_network(block)
    if inner.version != outer.version or not inner.subnet_of(outer):  # type: ignore[arg-type]
        raise ValueError(f"{destination} is not a part of the block {block}")
    if inner == outer and (inner.num_addresses > 1 or not arguments.get("behind")):
        raise ValueError(f"{destination} is not a part of the block, but all of it")
    if ipaddress.ip_address(address) not in inner:
        raise ValueError(f"{address} is not in {destination}")
    if form.number(arguments, "protocol") not in _protocols(arguments):
        raise ValueError(f"protocol {arguments['protocol']} is not of routes written by hand")
    form.number(arguments, "metric")
    if arguments.get("behind"):
        form.device(arguments, "behind")
    if "again_after_s" in arguments:
        form.number(arguments, "again_after_s")
        form.number(arguments, "felix_port")
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
    by_hand=by_hand,
    execute=execute,
    verify=verify,
    may_hurry=True,
)
