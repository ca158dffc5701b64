"""Answers a node's ask out of recorded kernels: without it our imitation of Calico would be judged, not Calico.

The probe's own collectors look; only what they read with is a recording. What was not recorded becomes `Blind`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import PurePath, PurePosixPath
from typing import Any, TypeVar

from facts import Bird, Blind, Fact, FelixHealth, LocalPod, Neighbor, NodeAsk, ProbeResult, SendProbe, Sighting, Watch
from node_probe import view
from node_probe.collectors import address, fdb, link, machine, neighbor, pod, route, routes, sysctl, tunnels
from node_probe.collectors.neighbor import UNRESOLVED
from node_probe.namespaces import CannotEnter, Inside
from node_probe.netlink import ANY_PORTS, Address, Device, Entry, NeighborTable, Netlink, Ports, Route
from node_probe.netlink_messages import NetlinkError
from node_probe.view import View
from tests.recordings import changeable, load

TABLES = {"default": 253, "main": 254, "local": 255}
PROTOCOLS = {"kernel": 2, "boot": 3, "static": 4}
SCOPES = {"global": 0, "link": 253, "host": 254}
REFUSING = {"blackhole": errno.EINVAL, "unreachable": errno.EHOSTUNREACH, "prohibit": errno.EACCES}
# The collectors whose every look goes through a View; others look where a recording has nothing.
READERS = {
    "address": address.collect,
    "fdb": fdb.collect,
    "link": link.collect,
    "machine": machine.collect,
    "neighbor": neighbor.collect,
    "pod": pod.collect,
    "route": route.collect,
    "routes": routes.collect,
    "sysctl": sysctl.collect,
    "tunnels": tunnels.collect,
}
# A switch that only the newest kernels have, that nobody sets and nobody recorded: it is not there.
YOUNGER = ("force_forwarding",)
GC_THRESH3 = 1024
RULE_FIELDS = {"priority", "src", "srclen", "table", "protocol"}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

# Each look compares addresses with all that were recorded, in all tests some million times the same.
ip_address, ip_network = functools.cache(ipaddress.ip_address), functools.cache(ipaddress.ip_network)

T = TypeVar("T")
Object = dict[str, Any]
Packets = Callable[[NodeAsk, SendProbe], str]  # "answered" | "silence" | "": nobody looked


class NotRecorded(ValueError):
    """Nobody looked at this when the state was recorded. Its text says at what."""


class Kernel:
    """One network namespace as `ip -d -j` and `bridge -j` printed it. May be changed: a wound is a change of it."""

    def __init__(self, files: dict[str, Any], directory: str) -> None:
        def read(name: str) -> list[Object]:
            found: list[Object] = changeable(files.get(f"{directory}/{name}.json", []))
            return [one for one in found if one]

        self.links = {one["ifname"]: one for one in read("ip-link")}
        self.addresses = {one["ifname"]: one["addr_info"] for one in read("ip-addr")}
        self.routes = read("ip-route")
        self.rules = read("ip-rule") or _default_rules()
        self.rules6 = read("ip6-rule") or _default_rules()
        self.neighbors = read("ip-neigh")
        self.fdb = read("bridge-fdb")
        lines = files.get(f"{directory}/sysctl.txt", "").splitlines()
        self.sysctls: dict[str, str] = dict(line.split(" = ") for line in lines)

    def remove_link(self, name: str) -> None:
        """Everything that hangs on a device goes with it."""
        self.links.pop(name, None)
        self.addresses.pop(name, None)
        self.routes = [one for one in self.routes if one.get("dev") != name]
        self.neighbors = [one for one in self.neighbors if one["dev"] != name]
        self.fdb = [one for one in self.fdb if one["ifname"] != name]
        self.sysctls = {path: value for path, value in self.sysctls.items() if f"/{name}/" not in path}


def _default_rules() -> list[Object]:
    """What every namespace starts with; those of pods were not recorded, and nobody touches them."""
    named = ((0, "local"), (32766, "main"), (32767, "default"))
    return [{"priority": priority, "src": "all", "table": table, "protocol": "kernel"} for priority, table in named]


class RecordedNetlink(Netlink):
    """Reads a Kernel as node_probe.netlink reads the running one."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def close(self) -> None:
        pass

    def link(self, name: str = "", *, index: int = 0) -> Device:
        links = self._kernel.links
        for one in links.values():
            if (one["ifindex"] == index) if index else (one["ifname"] == name):
                break
        else:
            raise _refused(errno.ENODEV)
        info = one.get("linkinfo", {})
        data = info.get("info_data", {}) if info.get("info_kind") == "vxlan" else {}
        below = links[data["link"]]["ifindex"] if data.get("link") in links else -1
        return Device(
            index=one["ifindex"],
            name=one["ifname"],
            up="UP" in one["flags"],
            lower_up="LOWER_UP" in one["flags"],
            operstate=one["operstate"],
            mac=one["address"],
            mtu=one["mtu"],
            kind=info.get("info_kind", ""),
            link=below if data else one.get("link_index", -1),
            link_namespace=one.get("link_netnsid", -1),
            vni=data.get("id", -1),
            vxlan_port=data.get("port", -1),
            vxlan_local=data.get("local", data.get("local6", "")),
            ipv6=self._ipv6(one["ifname"]),
            program=bool(one.get("xdp")),
        )

    def below(self, device: Device) -> list[Device]:
        return [self.link(one["ifname"]) for one in self._kernel.links.values() if one.get("master") == device.name]

    def addresses(self, index: int, family: int = socket.AF_INET) -> list[Address]:
        wanted = {socket.AF_INET: "inet", socket.AF_INET6: "inet6"}[socket.AddressFamily(family)]
        names = [self.link(index=index).name] if index else list(self._kernel.addresses)
        return [
            Address(self.link(name).index, one["local"], one["prefixlen"], duplicate=bool(one.get("dadfailed")))
            for name in names
            for one in self._kernel.addresses.get(name, [])
            if one["family"] == wanted
        ]

    def devices(self, kind: str) -> list[Device]:
        found = [self.link(name) for name in self._kernel.links]
        return [one for one in found if one.kind == kind]

    def neighbors(self, family: int, index: int = 0) -> list[Entry]:
        device = self.link(index=index).name if index else ""
        return [
            Entry(address=one["dst"], mac=one.get("lladdr", ""), state="|".join(one["state"]))
            for one in self._kernel.neighbors
            if one["dev"] in (device or one["dev"],) and (":" in one["dst"]) == (family == socket.AF_INET6)
        ]

    def selective_rules(self, family: int) -> list[str]:
        rules = self._kernel.rules6 if family == socket.AF_INET6 else self._kernel.rules
        return [f"{one['priority']}: fwmark {one['fwmark']} lookup {one['table']}" for one in rules if "fwmark" in one]

    def rule_for_own_packets(self, destination: str) -> str:
        return ""  # one by device would be none of RULE_FIELDS

    def neighbor_table(self, family: int) -> NeighborTable | None:
        """How full it may be was not recorded, and never changed: it is the kernel's own limit."""
        return NeighborTable(entries=len(self.neighbors(family)), limit=GC_THRESH3, refused=0)

    def holder(self, address: str) -> Device | None:
        for name, held in self._kernel.addresses.items():
            if any(ip_address(one["local"]) == ip_address(address) for one in held):
                return self.link(name)
        return None

    def route(self, destination: str, *, source: str = "", incoming: int = 0, ports: Ports = ANY_PORTS) -> Route:
        device = self.link(index=incoming).name if incoming else ""
        v4 = ":" not in destination
        if device and v4 and self._sysctl("forwarding", device) == "0" and self._local(destination) is None:
            raise _refused(errno.EHOSTUNREACH)
        if device and v4:
            self._filter(source, device)
        found = self._lookup(destination, source, device)
        if found["type"] in REFUSING:
            raise _refused(REFUSING[found["type"]])
        taken = self._route_of(found)
        return replace(taken, preferred_source="" if incoming else self._source(found, destination))

    def refusing_route(self, destination: str, error: int, *, beaten: int = -1) -> Route | None:
        kinds = [kind for kind, number in REFUSING.items() if number == error]
        covering = [
            self._route_of(one)
            for one in self._kernel.routes
            if one["type"] in kinds and ip_address(destination) in _network(one, destination)
        ]
        wins = [one for one in covering if one.table != TABLES["main"] or one.length > beaten]
        return max(wins, key=lambda one: (one.table == TABLES["main"], one.length, -one.metric), default=None)

    def routes(self, family: int, table: int = TABLES["main"]) -> list[Route]:
        origin = "::" if family == socket.AF_INET6 else "0.0.0.0"
        found = [one for one in self._kernel.routes if _of_family(one, origin)]
        return [self._route_of(one) for one in found if table in (0, _number(TABLES, one["table"]))]

    def default_route(self, family: int = socket.AF_INET) -> Route | None:
        origin = "::" if family == socket.AF_INET6 else "0.0.0.0"
        found = [
            one
            for one in self._kernel.routes
            if one["table"] == "main" and _of_family(one, origin) and _network(one, origin).prefixlen == 0
        ]
        return min(map(self._route_of, found), key=lambda one: one.metric, default=None)

    def neighbor(self, index: int, address: str) -> Entry:
        device = self.link(index=index).name
        for one in self._kernel.neighbors:
            if one["dev"] == device and ip_address(one["dst"]) == ip_address(address):
                return Entry(address=one["dst"], mac=one.get("lladdr", ""), state="|".join(one["state"]))
        raise _refused(errno.ENOENT)

    def fdb(self, index: int, mac: str) -> Entry:
        device = self.link(index=index).name
        for one in self._kernel.fdb:
            if one["ifname"] == device and one["mac"] == mac:
                return Entry(address=one.get("dst", ""), mac=mac, state="NOARP|PERMANENT")
        raise _refused(errno.ENOENT)

    def namespace_id(self, descriptor: int) -> int:
        raise NotRecorded("a recording has no open namespaces")

    def get(self, kind: int, body: bytes) -> bytes:
        raise NotRecorded(f"nobody asked a kernel for messages of kind {kind}")

    def dump(self, kind: int, body: bytes, parse: Callable[[bytes], T | None]) -> list[T]:
        raise NotRecorded(f"nobody asked a kernel for messages of kind {kind}")

    def _lookup(self, destination: str, source: str, incoming: str) -> Object:
        """The entry the kernel picks: rules in order, in each table the longest prefix, then the lowest metric.

        incoming: to tell equal link-local routes apart. Raises NetlinkError where none is left.
        """
        rules = self._kernel.rules6 if ":" in destination else self._kernel.rules
        for rule in sorted(rules, key=lambda one: one["priority"]):
            if "not" in rule and "fwmark" in rule:  # of what has no mark: this lookup's packets
                rule = {name: one for name, one in rule.items() if name not in ("not", "fwmark", "fwmask")}
            if unknown := rule.keys() - RULE_FIELDS:
                raise NotRecorded(f"whether this flow meets the rule {rule['priority']} ({', '.join(unknown)})")
            if rule["src"] != "all":
                selected = ip_network(f"{rule['src']}/{rule.get('srclen', '')}".rstrip("/"))
                if not source or ip_address(source) not in selected:
                    continue
            found = self._best(rule["table"], destination, incoming)
            if found is not None and found["type"] != "throw":
                return found
        raise _refused(errno.ENETUNREACH)

    def _best(self, table: str, destination: str, incoming: str = "") -> Object | None:
        covering = [
            one
            for one in self._kernel.routes
            if one["table"] == table
            and one["type"] != "multicast"
            and _of_family(one, destination)
            and ip_address(destination) in _network(one, destination)
        ]
        return min(
            covering,
            key=lambda one: (
                -_network(one, destination).prefixlen,
                one.get("metric", 0),
                incoming != "" and one.get("dev") != incoming,
            ),
            default=None,
        )

    def _source(self, route: Object, destination: str) -> str:
        """What the kernel's own packets carry: what the route says, else an address of its device, else another's.

        IPv6 takes of those the one that has most in common with the destination, IPv4 the first.
        """
        if "prefsrc" in route:
            return str(route["prefsrc"])
        family = "inet6" if ":" in destination else "inet"
        names = [route.get("dev", ""), *self._kernel.addresses]
        held = [(name, one) for name in names for one in self._kernel.addresses.get(name, [])]
        usable = [(name, one["local"]) for name, one in held if (one["family"], one["scope"]) == (family, "global")]
        if family == "inet6":
            usable.sort(key=lambda one: (one[0] != route.get("dev"), -_in_common(one[1], destination)))
        return usable[0][1] if usable else ""

    def _ipv6(self, device: str) -> bool:
        """Pods' switches were not recorded, but a device whose IPv6 is disabled has no address of it."""
        switch = self._kernel.sysctls.get(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6")
        if switch is not None:
            return switch == "0"
        return any(one["family"] == "inet6" for one in self._kernel.addresses.get(device, []))

    def _local(self, destination: str) -> Object | None:
        return self._best("local", destination)

    def _filter(self, source: str, device: str) -> None:
        """rp_filter: the way back must lead out by the same device. Raises NetlinkError where it does not."""
        if max(self._sysctl("rp_filter", "all"), self._sysctl("rp_filter", device)) != "1":
            return
        try:
            back = self._lookup(source, "", "")
        except NetlinkError:
            back = {}
        if back.get("dev") != device:
            raise _refused(errno.EXDEV)

    def _sysctl(self, switch: str, device: str) -> str:
        try:
            return self._kernel.sysctls[f"/proc/sys/net/ipv4/conf/{device}/{switch}"]
        except KeyError:
            raise NotRecorded(f"{switch} of {device}") from None

    def _table(self, route: Object) -> int:
        """While nobody has added a rule, IPv4 keeps its local table inside the main one and calls both main."""
        merged = "pref" not in route and len(self._kernel.rules) == len(_default_rules())
        return TABLES["main"] if merged and route["table"] == "local" else _number(TABLES, route["table"])

    def _route_of(self, one: Object) -> Route:
        if "nexthops" in one:
            raise NotRecorded(f"which of its next hops the route {one['dst']} takes")
        network = _network(one, one.get("gateway", "0.0.0.0"))
        gateway = one.get("gateway") or one.get("via", {}).get("host", "")
        return Route(
            type=one["type"],
            destination=str(network.network_address),
            length=network.prefixlen,
            next_hop=gateway,
            device=self.link(one["dev"]).index if "dev" in one else -1,
            table=self._table(one),
            protocol=_number(PROTOCOLS, one["protocol"]),
            scope=_number(SCOPES, one["scope"]),
            metric=one.get("metric", 0),
            onlink="onlink" in one["flags"],
            preferred_source="",
            mtu=next((metric["mtu"] for metric in one.get("metrics", ()) if "mtu" in metric), 0),
        )


def _way_of(look: RecordedView, address: str) -> Device | None:
    """The device by which the node itself sends there."""
    try:
        return look.netlink.link(index=look.netlink.route(address).device)
    except (NetlinkError, NotRecorded):
        return None


def _in_common(one: str, other: str) -> int:
    """Leading bits."""
    different = int(ip_address(one)) ^ int(ip_address(other))
    return ip_address(one).max_prefixlen - different.bit_length()


def _refused(number: int) -> NetlinkError:
    return NetlinkError(number, os.strerror(number))


def _number(names: dict[str, int], word: str) -> int:
    return names[word] if word in names else int(word)


def _of_family(route: Object, address: str) -> bool:
    """`default` names no family: its gateway, or what only IPv6 routes say, does."""
    six = ":" in route["dst"] or ":" in route.get("gateway", "") or "pref" in route
    return six == (":" in address)


def _network(route: Object, like: str) -> IPv4Network | IPv6Network:
    if route["dst"] == "default":
        return ip_network("::/0" if ":" in like else "0.0.0.0/0")
    return ip_network(route["dst"])


@dataclass(frozen=True, slots=True)
class RecordedInside(Inside):
    """A pod's recorded namespace: it can be read, and nothing can be run in it."""

    def run(self, work: Callable[[], Any]) -> Any:
        raise CannotEnter("what only a program inside the pod could see was not recorded")

    def close(self) -> None:
        pass


class RecordedView(View):
    """What one ask looks through when it is asked of a recording."""

    def __init__(self, node: Kernel, pods: dict[str, Kernel]) -> None:
        super().__init__(RecordedNetlink(node), deadline=0.0)
        self._kernels = pods

    def neighbor(self, node: str, device: str, address: str) -> Neighbor:
        seen = super().neighbor(node, device, address)
        if seen.state in UNRESOLVED and self.netlink.link(device).kind != "vxlan" and not device.startswith("cali"):
            raise NotRecorded(f"whether {address} would answer now; it was {seen.state}")
        return seen

    def _enter(self, pod: LocalPod) -> Inside | CannotEnter:
        host = self.device(pod.interface)
        if host is None:
            return CannotEnter(f"{pod.interface}, the interface of {pod.name}, does not exist")
        if pod.name not in self._kernels:
            return CannotEnter("its namespace was not recorded")
        reader = RecordedNetlink(self._kernels[pod.name])
        device = reader.link(index=host.link)
        if device.link != host.index:
            return CannotEnter(f"{device.name} of {pod.name} is not the other end of {host.name}")
        return RecordedInside(-1, reader, device)


class Recording:
    """A state of a cluster: its objects, its nodes' kernels, and those of the pods that were entered."""

    def __init__(self, state: str, *, rest_of: str = "") -> None:
        """rest_of: a state of the same cluster that has the objects and pods, where only nodes were recorded."""
        files = {
            **({name: one for name, one in load(rest_of).items() if not name.startswith("node-")} if rest_of else {}),
            **load(state),
        }
        listed = [name for name in files if name.startswith(("k8s/", "cr/"))]
        self.state = state
        self.objects: list[Object] = [changeable(one) for name in sorted(listed) for one in files[name]["items"]]
        nodes = {name.split("/")[0] for name in files if name.startswith("node-")}
        self.nodes = {node: Kernel(files, node) for node in sorted(nodes)}
        pods = {name.split("/")[1] for name in files if name.startswith("pods/")}
        self.pods = {pod.replace("_", "/", 1): Kernel(files, f"pods/{pod}") for pod in sorted(pods)}
        self.programs: list[Callable[[NodeAsk], list[Fact]]] = []  # what others than kernels would tell: BIRD, keys

    def answer(self, ask: NodeAsk, packets: Packets, felix: FelixHealth | None = None) -> list[Fact]:
        """What a probe on this node would have answered. felix: what Felix would; None where nobody asked it."""
        if ask.node not in self.nodes:
            return [Blind(node=ask.node, look="probe", reason="the kernel of this node was not recorded")]
        kernel = self.nodes[ask.node]
        look = RecordedView(kernel, self.pods)
        facts: list[Fact] = []
        with _switches(kernel):
            for name, collector in READERS.items():
                try:
                    facts.extend(collector(ask, look))
                except (ValueError, OSError) as error:
                    facts.append(Blind(node=ask.node, look=name, reason=str(error)))
        facts += [self._sent(ask, probe, look, packets(ask, probe)) for probe in ask.send]
        facts += [self._sighted(ask, one, look, packets) for one in ask.watch]
        facts += [fact for program in self.programs for fact in program(ask)]
        if ask.bird and not any(
            isinstance(fact, Bird) for fact in facts
        ):  # `calicoctl node status` of every recorded cluster: "BIRD is not running"
            facts.append(Bird(node=ask.node, family=ask.family, seen=True, running=False))
        if ask.felix:
            facts.append(felix or Blind(node=ask.node, look="felix", reason="Felix was not asked"))
        return facts

    def _sighted(self, ask: NodeAsk, watch: Watch, look: RecordedView, packets: Packets) -> Fact:
        """Nobody looked at network cards; but packets that were answered have left the one and reached the other."""
        passed = packets(ask, SendProbe(pod=watch.source, target=watch.target, protocol="icmp")) == "answered"
        uplink = look.uplink(ask)
        card = uplink if watch.peer else _way_of(look, watch.target)
        return Sighting(
            node=ask.node,
            way=watch.way,
            source_address=watch.source,
            target_address=watch.target,
            seen=2 if passed else -1,
            device=card.name if passed and card else "",
            outer_target=watch.peer if passed and watch.way == "out" and watch.encapsulation != "direct" else "",
            heard=passed and watch.way == "in",
            enclosed=passed and watch.way == "in",
        )

    def _sent(self, ask: NodeAsk, probe: SendProbe, look: RecordedView, outcome: str) -> Fact:
        if not outcome:
            what = f"{probe.protocol} from {probe.pod or ask.node} to {probe.target}"
            return Blind(node=ask.node, look="packets", reason=f"{what}: nobody sent any")
        pod = next((one for one in ask.local_pods if one.name == probe.pod), None)
        size = probe.size
        if size < 0 and pod:
            try:
                size = look.enter(pod).device.mtu
            except CannotEnter as error:
                return Blind(node=ask.node, look="packets", reason=f"{pod.name}: {error}")
        elif size < 0 and (way := _way_of(look, probe.target)):
            size = way.mtu
        answered = outcome == "answered"
        return ProbeResult(
            node=ask.node,
            pod=probe.pod,
            source_address=pod.address if pod else ask.uplink_address,
            target_address=probe.target,
            protocol=probe.protocol,
            port=probe.port,
            size=max(size, 0),
            sent=probe.count,
            answered=probe.count if answered else 0,
            outcome=outcome,
            rtt_us=300 if answered else -1,
        )


class _Switch:
    """A path below /proc/sys of a recorded kernel."""

    def __init__(self, sysctls: dict[str, str], path: PurePosixPath) -> None:
        self._sysctls = sysctls
        self._path = path

    def joinpath(self, *names: str) -> _Switch:
        return _Switch(self._sysctls, self._path.joinpath(*names))

    def __truediv__(self, name: str) -> _Switch:
        return self.joinpath(name)

    def read_text(self) -> str:
        if str(self._path) in self._sysctls:
            return self._sysctls[str(self._path)]
        if self._path.name in YOUNGER:
            raise FileNotFoundError(str(self._path))
        # A device whose settings were recorded has them all; one that has none is not there.
        if any(PurePosixPath(path).name == self._path.name for path in self._sysctls):
            raise FileNotFoundError(str(self._path))
        raise NotRecorded(f"{self._path}")


@contextlib.contextmanager
def _switches(kernel: Kernel) -> Iterator[None]:
    """The probe's own modules read this kernel's switches."""

    def recorded(path: PurePath) -> _Switch:
        return _Switch(kernel.sysctls, PurePosixPath(path))

    switches, devices = sysctl.SWITCHES, view.DEVICES
    try:
        sysctl.SWITCHES = {family: recorded(path) for family, path in switches.items()}  # type: ignore[misc]
        view.DEVICES = recorded(devices)  # type: ignore[assignment]
        yield
    finally:
        sysctl.SWITCHES, view.DEVICES = switches, devices
