"""Both ends of a local pod's veth and what listens behind it; the last metre is where many a path ends."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

import msgspec

from facts import Blind, Fact, Listener, LocalPod, NodeAsk, PodInterface, PodRoute, Way
from node_probe.namespaces import CannotEnter, Inside
from node_probe.netlink import LISTENING, Bound, Ports, Sockets, bound
from node_probe.netlink_messages import NetlinkError
from node_probe.view import FAMILIES, REFUSED, View

# The thread's own view: /proc/net would show the namespace of the process.
PRINTED = Path("/proc/thread-self/net")


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """PodInterface of each local pod, PodRoute to whatever it shall send to, the node's RouteLookups of its gateway,
    and Listener where a port is asked; Blind for a pod that cannot be entered."""
    for pod in ask.local_pods:
        outside = _outside(ask, pod, view)
        try:
            entered = view.enter(pod)
            inside = _inside(outside, entered, pod.address)
            yield inside
            if inside.pod_default_next_hop and ask.family == 4:
                # The node answers for a gateway that nobody has, but only when it has a route to it. IPv6's gateway
                # is an address of the pod's own interface on the node.
                way = Way(destination=inside.pod_default_next_hop, source=pod.address, incoming=pod.interface)
                yield from view.lookups(ask.node, way)
            for target, ports in _sends(ask, pod).items():
                yield _route(ask.node, pod, target, ports, entered)
            if pod.protocol:
                sockets = entered.run(partial(listening, pod.protocol, pod.port))
                seen = listener(ask, pod.name, pod.protocol, pod.port, sockets)
                if not seen.found:
                    others = tuple(entered.run(partial(other_ports, pod.protocol, ask.family)))
                    seen = msgspec.structs.replace(seen, other_ports=others)
                yield seen
        except CannotEnter as error:
            yield outside
            yield Blind(node=ask.node, look="pod", reason=f"{pod.name}: {error}")


def _outside(ask: NodeAsk, pod: LocalPod, view: View) -> PodInterface:
    device = view.device(pod.interface)
    if device is None:
        return PodInterface(node=ask.node, pod=pod.name, family=ask.family, interface=pod.interface, found=False)
    return PodInterface(
        node=ask.node,
        pod=pod.name,
        family=ask.family,
        interface=pod.interface,
        found=True,
        up=device.up,
        lower_up=device.lower_up,
        mac=device.mac,
        mtu=device.mtu,
        program=device.program,
    )


def _inside(outside: PodInterface, entered: Inside, address: str) -> PodInterface:
    read, device = entered.netlink, entered.device
    default = read.default_route(FAMILIES[outside.family])
    gateway = default.next_hop if default else ""
    mac, state = _neighbor(entered, gateway) if gateway else ("", "")
    if default and not gateway:
        gateway = default.destination  # as the kernel itself calls it: each target is a neighbor
    held = read.addresses(device.index, FAMILIES[outside.family])
    holder = None if any(one.address == address for one in held) else read.holder(address)
    neighbors = read.neighbors(FAMILIES[outside.family], device.index)
    return msgspec.structs.replace(
        outside,
        entered=True,
        pod_device=device.name,
        pod_up=device.up,
        pod_mac=device.mac,
        pod_mtu=device.mtu,
        pod_ipv6=device.ipv6 or outside.family == 4,
        pod_addresses=tuple(f"{one.address}/{one.length}" for one in held),
        pod_duplicates=tuple(f"{one.address}/{one.length}" for one in held if one.duplicate),
        pod_holder=holder.name if holder else "",
        pod_default_next_hop=gateway,
        pod_gateway_mac=mac,
        pod_gateway_state=state,
        pod_asking=tuple(one.address for one in neighbors if one.state == "INCOMPLETE"),
    )


def _neighbor(entered: Inside, gateway: str) -> tuple[str, str]:
    """MAC and state."""
    try:
        entry = entered.netlink.neighbor(entered.device.index, gateway)
    except NetlinkError as error:
        if error.name == "ENOENT":
            return "", ""
        raise
    return entry.mac, entry.state


def _sends(ask: NodeAsk, pod: LocalPod) -> dict[str, Ports]:
    """To whom a pod sends: packets of the asked kind, or the answers to such."""
    found: dict[str, Ports] = {}
    for probe in ask.send:
        if probe.pod != pod.name:
            continue
        if probe.port:
            found[probe.target] = Ports(probe.protocol, target=probe.port)
        elif probe.target not in found:
            found[probe.target] = Ports(pod.protocol, source=pod.port) if pod.protocol else Ports(probe.protocol)
    return found


def _route(node: str, pod: LocalPod, target: str, ports: Ports, entered: Inside) -> PodRoute:
    read = entered.netlink
    try:
        route = read.route(target, ports=ports)
        source = route.preferred_source
        if source:  # with its address on, as it goes out, a packet may meet a rule about that
            route = read.route(target, source=source, ports=ports)
    except NetlinkError as error:
        if error.name not in REFUSED:
            raise
        return PodRoute(node=node, pod=pod.name, destination=target, found=False, error=error.name)
    return PodRoute(
        node=node,
        pod=pod.name,
        destination=target,
        found=True,
        prefix=route.prefix,
        next_hop=route.next_hop,
        device=read.link(index=route.device).name if route.device > 0 else "",
        source=source,
    )


def listener(ask: NodeAsk, name: str, protocol: str, port: int, sockets: Collection[Bound]) -> Listener:
    """What these sockets are to packets of the asked family."""
    held = dict.fromkeys(one.address for one in sockets if ask.family in one.families)
    others = dict.fromkeys(one.address for one in sockets if ask.family not in one.families)
    fullest = max(
        (one for one in sockets if ask.family in one.families and one.backlog >= 0),
        key=lambda one: one.waiting - one.backlog,
        default=None,
    )
    return Listener(
        node=ask.node,
        pod=name,
        family=ask.family,
        protocol=protocol,
        port=port,
        found=bool(held),
        addresses=tuple(held),
        waiting=fullest.waiting if fullest else -1,
        backlog=fullest.backlog if fullest else -1,
        other_family=tuple(others),
    )


def listening(protocol: str, port: int) -> list[Bound]:
    """The sockets of this namespace that wait for anybody on this port.

    Raises ValueError for a protocol that is neither tcp nor udp.
    """
    if protocol not in LISTENING:
        raise ValueError(f"{protocol!r} has no listening sockets; ask for tcp or udp")
    try:
        with Sockets() as sockets:
            return sockets.listening(protocol, port)
    except OSError:
        # A kernel without socket diagnosis. Second choice: printing them walks the connections of the whole node.
        return printed(protocol, port)


def other_ports(protocol: str, family: int) -> list[int]:
    """Where in this namespace something does wait for anybody; empty also where the kernel does not say."""
    try:
        with Sockets() as sockets:
            return sockets.ports(protocol, family)
    except OSError:
        return []


def printed(protocol: str, port: int) -> list[Bound]:
    """The same out of /proc/net/{tcp,tcp6,udp,udp6}, which do not say that a socket on "::" takes IPv6 only."""
    found: list[Bound] = []
    for table in (PRINTED / protocol, PRINTED / f"{protocol}6"):
        try:
            lines = table.open()
        except FileNotFoundError:  # a kernel without IPv6
            continue
        with lines:
            next(lines)
            for line in lines:
                _, local, _, state, *_ = line.split(maxsplit=4)
                if int(state, 16) == LISTENING[protocol][1]:
                    address, _, number = local.partition(":")
                    if int(number, 16) == port:
                        found.append(bound(_packed(address)))
                elif protocol == "tcp":
                    break  # listeners come first; behind them may be a hundred thousand connections
    return found


def _packed(text: str) -> bytes:
    """Hexadecimal words in the machine's byte order, as the kernel prints them."""
    return b"".join(struct.pack("=I", int(text[i : i + 8], 16)) for i in range(0, len(text), 8))
