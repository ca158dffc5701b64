"""What one ask looks through: the node's kernel and the pods entered; without it each collector would enter anew."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from facts import LocalPod, Neighbor, NodeAsk, RouteLookup, Way
from facts.flow import TUNNEL_DEVICES
from node_probe.namespaces import CannotEnter, Inside, enter
from node_probe.netlink import ANY_PORTS, RT_TABLE_MAIN, Device, Netlink, Ports
from node_probe.netlink_messages import NetlinkError

# How a lookup may end; anything else (a timeout, no memory, no permission) is no answer about the route.
REFUSED = {"ENETUNREACH", "EHOSTUNREACH", "EINVAL", "EACCES", "EXDEV", "ENODEV"}
DEVICES = Path("/proc/sys/net/ipv4/conf")  # shows the namespace of the thread that reads it
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
OWN = frozenset(TUNNEL_DEVICES.values())
APART = ("127.", "169.254.", "::1", "fe80:")  # no address other nodes could use


class View:
    """Reads of one ask, from any thread. Closed when the last collector of the ask is done with it."""

    def __init__(self, netlink: Netlink, deadline: float) -> None:
        """deadline: time.monotonic() by which the ask is to be answered."""
        self.netlink = netlink
        self.deadline = deadline
        self._lock = threading.Lock()
        self._lookups: dict[Way, list[RouteLookup]] = {}
        self._pods: dict[str, Inside | CannotEnter] = {}

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for pod in self._pods.values():
            if isinstance(pod, Inside):
                pod.close()
        self._pods.clear()

    def device(self, name: str) -> Device | None:
        """None when there is no such device. Raises NetlinkError when the kernel does not say."""
        try:
            return self.netlink.link(name)
        except NetlinkError as error:
            if error.name == "ENODEV":
                return None
            raise

    def uplink(self, ask: NodeAsk) -> Device | None:
        """The device that holds the node address; None when none does, or none was asked for."""
        return self.netlink.holder(ask.uplink_address) if ask.uplink_address else None

    def below(self, ask: NodeAsk) -> Device | None:
        """The device the tunnel's packets leave by, even when it holds no address any more; None when not known."""
        tunnel = self.device(ask.tunnel_device) if ask.tunnel_device else None
        return self.netlink.link(index=tunnel.link) if tunnel and tunnel.kind == "vxlan" and tunnel.link > 0 else None

    def on_the_way(self, ask: NodeAsk) -> list[str]:
        """The devices by which the packets of an ask come and go: the uplink and what it is made of, the tunnel's and
        those of the pods. Only those that are there. Raises NetlinkError."""
        tunnel = self.device(ask.tunnel_device) if ask.tunnel_device else None
        waiting = [one for one in (self.uplink(ask), self.below(ask), tunnel) if one]
        waiting += [one for pod in ask.local_pods if (one := self.device(pod.interface))]
        found: dict[str, None] = {}
        while waiting:
            one = waiting.pop(0)
            if one.name not in found:
                found[one.name] = None
                waiting += self.netlink.below(one)
        return list(found)

    def programs(self, device: Device) -> tuple[str, ...]:
        """Names of it and of the devices below it that have a program (XDP) of their own."""
        found: dict[str, bool] = {}
        waiting = [device]
        while waiting:
            one = waiting.pop(0)
            if one.name not in found:
                found[one.name] = one.program
                waiting += self.netlink.below(one)
        return tuple(name for name, program in found.items() if program)

    def home(self, ask: NodeAsk) -> Device | None:
        """The device the node address belongs on, even when none holds it any more: the one below the tunnel, one with
        another address of this family, or the one with the node's address of the other family. None: nothing tells."""
        found = self.uplink(ask) or self.below(ask) or next((device for device, _ in self.others(ask)), None)
        return found or (self.netlink.holder(ask.twin_address) if ask.twin_address else None)

    def others(self, ask: NodeAsk) -> Iterator[tuple[Device, str]]:
        """The node's other addresses of this family, no pod's and no tunnel's."""
        pods = {pod.interface for pod in ask.local_pods}
        for one in self.netlink.addresses(0, FAMILIES[ask.family]):
            if not one.address.startswith(APART) and one.address != ask.uplink_address:
                device = self.netlink.link(index=one.device)
                if device.name not in OWN and device.name not in pods:
                    yield device, one.address

    def enter(self, pod: LocalPod) -> Inside:
        """The pod's namespace, found once per ask. Raises CannotEnter."""
        with self._lock:
            if pod.interface not in self._pods:
                self._pods[pod.interface] = self._enter(pod)
            found = self._pods[pod.interface]
        if isinstance(found, CannotEnter):
            raise found
        return found

    def _enter(self, pod: LocalPod) -> Inside | CannotEnter:
        try:
            host = self.device(pod.interface)
            if host is None:
                return CannotEnter(
                    f"{pod.interface}, the interface of {pod.name}, does not exist, so nothing leads into the pod"
                )
            return enter(self.netlink, host)
        except CannotEnter as error:
            return error

    def ways(self, ask: NodeAsk) -> list[Way]:
        """The asked ones, each with the name of the device its packets come in by."""
        uplink = self.uplink(ask) if any(way.by_uplink for way in ask.ways) else None
        name = uplink.name if uplink else ""
        return [msgspec.structs.replace(way, incoming=name) if way.by_uplink else way for way in ask.ways]

    def lookups(self, node: str, way: Way) -> list[RouteLookup]:
        """What the kernel would do with packets of this way: sent by the node itself, then (where given) coming in by
        a device."""
        with self._lock:  # asked once: neighbors and forwarding entries are those of the very routes that are reported
            if way not in self._lookups:
                self._lookups[way] = list(self._asked(node, way))
            return self._lookups[way]

    def _asked(self, node: str, way: Way) -> Iterator[RouteLookup]:
        ports = Ports(way.protocol, way.source_port, way.target_port)
        if not (way.source and way.incoming):
            yield self._lookup(node, way.destination, ports=ports)
            return
        # Of the flow's own packets with their ports: the other lookup tells what the routes alone say.
        if not self.rule_for_own_packets(way):
            routes = self._lookup(node, way.destination, ports=ANY_PORTS)
            yield routes
            yield self._lookup(node, way.destination, way.source, way.incoming, routes, ports=ports)
            return
        # What it says of this node's own packets is nothing to those that come in.
        flow = self._lookup(node, way.destination, way.source, way.incoming, ports=ports)
        if flow.found:
            yield msgspec.structs.replace(flow, source="", incoming="", rp_filter=-1)
        yield flow

    def rule_for_own_packets(self, way: Way) -> str:
        """The policy routing rule that has a lookup for what the node itself sends say nothing of the way's packets,
        which come in by a device; "" for none."""
        return self.netlink.rule_for_own_packets(way.destination) if way.source and way.incoming else ""

    def hops(self, ask: NodeAsk) -> list[tuple[str, str]]:
        """(device, address) of each neighbor the ways lead to or should lead to, local pods included, each once.

        A link-scope route has no next hop: the destination itself is the neighbor.
        """
        found: dict[tuple[str, str], None] = {}
        for way in self.ways(ask):
            for lookup in self.lookups(ask.node, way):
                if lookup.type == "unicast" and lookup.device:
                    found[lookup.device, lookup.next_hop or way.destination] = None
            if way.expected_next_hop:
                found[ask.tunnel_device, way.expected_next_hop] = None
        found |= {(pod.interface, pod.address): None for pod in ask.local_pods}
        return list(found)

    def neighbor(self, node: str, device: str, address: str) -> Neighbor:
        """The kernel's entry. No entry, no device: `found=False`."""
        try:
            entry = self.netlink.neighbor(self.netlink.link(device).index, address)
        except NetlinkError as error:
            if error.name not in ("ENOENT", "ENODEV"):
                raise
            return Neighbor(node=node, device=device, address=address, found=False)
        return Neighbor(node=node, device=device, address=address, found=True, mac=entry.mac, state=entry.state)

    def _lookup(
        self,
        node: str,
        destination: str,
        source: str = "",
        incoming: str = "",
        output: RouteLookup | None = None,
        *,
        ports: Ports,
    ) -> RouteLookup:
        rp_filter = -1
        try:
            index = self.netlink.link(incoming).index if incoming else 0
            if incoming and ":" not in destination:  # IPv6 has no such switch
                rp_filter = _rp_filter(incoming)
            route = self.netlink.route(destination, source=source, incoming=index, ports=ports)
        except NetlinkError as error:
            if error.name not in REFUSED:
                raise
            refused = RouteLookup(
                node=node,
                destination=destination,
                source=source,
                incoming=incoming,
                found=False,
                error=error.name,
                rp_filter=rp_filter,
            )
            # rp_filter refuses an input lookup with the very error of a blackhole: only when it is off, or when the
            # output lookup ended the same way, is the blackhole the reason.
            if rp_filter > 0 and (output is None or output.error != error.name):
                return refused
            entry = self.netlink.refusing_route(destination, error.errno or 0, beaten=_length_in_main(output))
            if entry is None:
                return refused
            return msgspec.structs.replace(
                refused,
                type=entry.type,
                prefix=entry.prefix,
                table=entry.table,
                protocol=entry.protocol,
                scope=entry.scope,
                metric=entry.metric,
                next_hop_object=entry.next_hop_object,
            )
        return RouteLookup(
            node=node,
            destination=destination,
            source=source,
            incoming=incoming,
            found=True,
            type=route.type,
            prefix=route.prefix,
            next_hop=route.next_hop,
            device=self.netlink.link(index=route.device).name if route.device > 0 else "",
            several=tuple(f"{hop} dev {self.netlink.link(index=index).name}".strip() for hop, index in route.several),
            table=route.table,
            protocol=route.protocol,
            scope=route.scope,
            metric=route.metric,
            onlink=route.onlink,
            mtu=route.mtu,
            rp_filter=rp_filter,
            preferred_source=route.preferred_source,
        )


def _length_in_main(output: RouteLookup | None) -> int:
    """The prefix length of the entry the main table has for the node's own packets; -1 where another table, or none,
    decides on them."""
    if output is None or not output.found or output.table != RT_TABLE_MAIN:
        return -1
    return int(output.prefix.rpartition("/")[2])


def _rp_filter(device: str) -> int:
    """The reverse path filter in effect on a device that is there: the stricter of its own and everybody's."""
    return max(int((DEVICES / name / "rp_filter").read_text()) for name in ("all", device))
