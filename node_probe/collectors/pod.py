"""Both ends of a local pod's veth and what listens behind it; the last metre is where many a path ends."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec

from facts import Blind, Fact, Listener, LocalPod, NodeAsk, PodInterface, PodRoute, Way
from node_probe.namespaces import CannotEnter, Inside
from node_probe.netlink import LISTENING, NetlinkError, Sockets
from node_probe.view import REFUSED, View

# The thread's own view: /proc/net would show the namespace of the process.
PRINTED = Path("/proc/thread-self/net")


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """PodInterface of each local pod, PodRoute to whatever it shall send to, the node's RouteLookups of its gateway,
    and Listener where a port is asked; Blind for a pod that cannot be entered."""
    for pod in ask.local_pods:
        outside = _outside(ask.node, pod, view)
        try:
            entered = view.enter(pod)
            inside = _inside(outside, entered)
            yield inside
            if inside.pod_default_next_hop:
                # The node answers for a gateway that nobody has, but only when it has a route to it.
                way = Way(destination=inside.pod_default_next_hop, source=pod.address, incoming=pod.interface)
                yield from view.lookups(ask.node, way)
            for target in dict.fromkeys(probe.target for probe in ask.send if probe.pod == pod.name):
                yield _route(ask.node, pod, target, entered)
            if pod.protocol:
                held = entered.run(partial(listening, pod.protocol, pod.port))
                yield Listener(
                    node=ask.node,
                    pod=pod.name,
                    protocol=pod.protocol,
                    port=pod.port,
                    found=bool(held),
                    addresses=held,
                )
        except CannotEnter as error:
            yield outside
            yield Blind(node=ask.node, look="pod", reason=f"{pod.name}: {error}")


def _outside(node: str, pod: LocalPod, view: View) -> PodInterface:
    device = view.device(pod.interface)
    if device is None:
        return PodInterface(node=node, pod=pod.name, interface=pod.interface, found=False)
    return PodInterface(
        node=node,
        pod=pod.name,
        interface=pod.interface,
        found=True,
        up=device.up,
        lower_up=device.lower_up,
        mac=device.mac,
        mtu=device.mtu,
    )


def _inside(outside: PodInterface, entered: Inside) -> PodInterface:
    read, device = entered.netlink, entered.device
    default = read.default_route()
    gateway = default.next_hop if default else ""
    mac, state = _neighbor(entered, gateway) if gateway else ("", "")
    return msgspec.structs.replace(
        outside,
        entered=True,
        pod_device=device.name,
        pod_up=device.up,
        pod_mac=device.mac,
        pod_mtu=device.mtu,
        pod_addresses=tuple(f"{one.address}/{one.length}" for one in read.addresses(device.index)),
        pod_default_next_hop=gateway,
        pod_gateway_mac=mac,
        pod_gateway_state=state,
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


def _route(node: str, pod: LocalPod, target: str, entered: Inside) -> PodRoute:
    read = entered.netlink
    try:
        route = read.route(target)
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
    )


def listening(protocol: str, port: int) -> tuple[str, ...]:
    """Addresses of this namespace on which a socket waits for anybody on this port; "0.0.0.0" and "::" for all.

    Raises ValueError for a protocol that is neither tcp nor udp.
    """
    if protocol not in LISTENING:
        raise ValueError(f"{protocol!r} has no listening sockets; ask for tcp or udp")
    try:
        with Sockets() as sockets:
            return tuple(dict.fromkeys(sockets.listening(protocol, port)))
    except OSError:
        # A kernel without socket diagnosis. Second choice: printing them walks the connections of the whole node.
        return printed(protocol, port)


def printed(protocol: str, port: int) -> tuple[str, ...]:
    """The same out of /proc/net/{tcp,tcp6,udp,udp6}."""
    found: dict[str, None] = {}
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
                        found[_address(address)] = None
                elif protocol == "tcp":
                    break  # listeners come first; behind them may be a hundred thousand connections
    return tuple(found)


def _address(text: str) -> str:
    """Hexadecimal words in the machine's byte order, as the kernel prints them. IPv4 held by an IPv6 socket is IPv4."""
    packed = b"".join(struct.pack("=I", int(text[i : i + 8], 16)) for i in range(0, len(text), 8))
    if packed[:12] == bytes(10) + b"\xff\xff":
        packed = packed[12:]
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
