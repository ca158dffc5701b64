"""The little of a node's kernel that a fix may touch; without it every kind of fix would reach for netlink itself."""

from __future__ import annotations

import contextlib
import errno
import http.client
import ipaddress
import os
import socket
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fixes import offload
from node_probe.netlink import (
    NTF_SELF,
    NUD_PERMANENT,
    RTNH_F_ONLINK,
    Device,
    Entry,
    Netlink,
    Route,
)
from node_probe.netlink_messages import NetlinkError

NUD_STALE = 4  # linux/neighbour.h
# A container's own is read-only: there it is another door to the same, which follows the network of who reads.
SYSCTL = Path(os.environ.get("CALICO_WHY_SYSCTL") or "/proc/sys")
FELIX_S = 2.0


@dataclass(frozen=True, slots=True)
class Way:
    """Where the kernel sends the node's own packets to an address: its entry, or the name of its refusal."""

    route: Route | None = None
    device: str = ""  # of that entry
    error: str = ""  # ENETUNREACH, EINVAL, ...

    def __str__(self) -> str:
        """As evidence carries it: "10.244.2.0/26 via 10.244.2.0 dev vxlan.calico metric 0", or the refusal."""
        if self.route is None:
            return self.error
        return way(self.route.prefix, self.route.next_hop, self.device, self.route.metric)


def way(prefix: str, next_hop: str, device: str, metric: int) -> str:
    """A route in the words in which two looks are compared."""
    via = f" via {next_hop}" if next_hop else ""
    return f"{prefix}{via} dev {device} metric {metric}"


class Kernel:
    """The kernel of this process's network namespace. Every method blocks for a millisecond and raises OSError.

    Not for a thread whose event loop runs.
    """

    def device(self, name: str) -> Device | None:
        """The device of this name, None when there is none."""
        with Netlink() as netlink, _absent(errno.ENODEV):
            return netlink.link(name)
        return None

    def holder(self, address: str) -> Device | None:
        """The device that holds this address of the node, None when none does."""
        with Netlink() as netlink:
            return netlink.holder(address)

    def holds_addresses(self, device: str, family: int) -> bool:
        """Is it a device the node itself speaks by? A pod's interface holds no address here."""
        with Netlink() as netlink:
            held = netlink.addresses(netlink.link(device).index, _FAMILY[family])
        return any(not ipaddress.ip_address(one.address).is_link_local for one in held)

    def devices(self, kind: str) -> list[Device]:
        """All devices of one kind, such as "veth"."""
        with Netlink() as netlink:
            return netlink.devices(kind)

    def neighbor(self, device: str, address: str) -> Entry | None:
        """The entry for this address on this device, None when the device or the entry is not there."""
        with Netlink() as netlink, _absent(errno.ENODEV, errno.ENOENT):
            return netlink.neighbor(netlink.link(device).index, address)
        return None

    def neighbors(self, device: str) -> list[Entry]:
        """All entries of a device, of both families."""
        with Netlink() as netlink:
            index = netlink.link(device).index
            return [one for family in (socket.AF_INET, socket.AF_INET6) for one in netlink.neighbors(family, index)]

    def replace_neighbor(self, device: str, address: str, mac: str) -> None:
        """`ip neigh replace ADDRESS lladdr MAC dev DEVICE nud permanent`"""
        with _writing() as (ip, netlink):
            ip.neigh("replace", ifindex=netlink.link(device).index, dst=address, lladdr=mac, state=NUD_PERMANENT)

    def relearn_neighbor(self, device: str, address: str, mac: str) -> None:
        """`ip neigh replace ADDRESS lladdr MAC dev DEVICE nud stale`: the kernel checks it when it next needs it."""
        with _writing() as (ip, netlink):
            ip.neigh("replace", ifindex=netlink.link(device).index, dst=address, lladdr=mac, state=NUD_STALE)

    def delete_neighbor(self, device: str, address: str) -> None:
        """`ip neigh del ADDRESS dev DEVICE`"""
        with _writing() as (ip, netlink):
            ip.neigh("del", ifindex=netlink.link(device).index, dst=address)

    def forwarding(self, device: str, mac: str) -> Entry | None:
        """The forwarding entry for this MAC on this VXLAN device, None when the device or the entry is not there."""
        with Netlink() as netlink, _absent(errno.ENODEV, errno.ENOENT):
            return netlink.fdb(netlink.link(device).index, mac)
        return None

    def replace_forwarding(self, device: str, mac: str, address: str) -> None:
        """`bridge fdb replace MAC dev DEVICE dst ADDRESS self permanent`"""
        with _writing() as (ip, netlink):
            own = {"flags": NTF_SELF, "state": NUD_PERMANENT}  # its own table, not that of a bridge it may be part of
            ip.fdb("replace", ifindex=netlink.link(device).index, lladdr=mac, dst=address, **own)

    def way(self, address: str) -> Way:
        """`ip route get ADDRESS fibmatch`"""
        with Netlink() as netlink:
            try:
                route = netlink.route(address)
            except NetlinkError as error:
                return Way(error=error.name)
            return Way(route, netlink.link(index=route.device).name if route.device > 0 else "")

    def routes(self, family: int) -> list[Route]:
        """The main table of one family, 4 or 6."""
        with Netlink() as netlink:
            return netlink.routes(_FAMILY[family])

    def replace_route(self, route: Route) -> None:
        """`ip route replace`: the entry with this prefix and metric becomes exactly this one."""
        with _writing() as (ip, _):
            ip.route("replace", **_written(route))

    def delete_route(self, route: Route) -> None:
        """`ip route del`, exactly this entry."""
        with _writing() as (ip, _):
            ip.route("del", **_written(route))

    def set_up(self, device: str) -> None:
        """`ip link set DEVICE up`"""
        with _writing() as (ip, netlink):
            ip.link("set", index=netlink.link(device).index, state="up")

    def set_mac(self, device: str, mac: str) -> None:
        """`ip link set DEVICE address MAC`. The kernel forgets all neighbors of the device, permanent ones too."""
        with _writing() as (ip, netlink):
            ip.link("set", index=netlink.link(device).index, address=mac)

    def sysctl(self, path: str) -> str | None:
        """Its value by its path below /proc/sys, None when there is no such switch."""
        try:
            return (SYSCTL / path).read_text().strip()
        except FileNotFoundError:
            return None

    def set_sysctl(self, path: str, value: str) -> None:
        (SYSCTL / path).write_text(value)

    def sums(self, device: str) -> bool | None:
        """Does the device, not the kernel, sum up what it sends? None where it does not say."""
        return offload.active(device)

    def stop_sums(self, device: str) -> None:
        """`ethtool -K DEVICE tx-checksum-ip-generic off`"""
        offload.switch_off(device)

    def felix_ready(self, port: int) -> bool:
        """Felix of this node says that it is alive and has its dataplane in order."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=FELIX_S)
        try:
            connection.request("GET", "/readiness")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


def _written(route: Route) -> dict[str, Any]:
    """A route as pyroute2 takes it."""
    family = socket.AF_INET6 if ":" in route.destination else socket.AF_INET
    words: dict[str, Any] = {
        "family": family,
        "dst": route.prefix,
        "type": route.type,
        "table": route.table,
        "proto": route.protocol,
        "flags": RTNH_F_ONLINK if route.onlink else 0,
    }
    if family == socket.AF_INET:
        words["scope"] = route.scope
    if route.metric:
        words["priority"] = route.metric
    if route.next_hop:
        words["gateway"] = route.next_hop
    if route.device > 0:
        words["oif"] = route.device
    if route.mtu:
        words["metrics"] = {"mtu": route.mtu}
    return words


@contextlib.contextmanager
def _writing() -> Generator[tuple[Any, Netlink]]:
    """pyroute2's socket to write by, and ours to read by; what the kernel refuses is an OSError like any other."""
    # Here, not above: whoever only proposes fixes or shows them must not carry these twenty megabytes.
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError as Refused

    try:
        with Netlink() as netlink, IPRoute() as ip:
            yield ip, netlink
    except Refused as refused:
        raise NetlinkError(refused.code, os.strerror(refused.code)) from refused


@contextlib.contextmanager
def _absent(*errors: int) -> Generator[None]:
    """The kernel's "there is no such thing" is an answer; any other refusal is an error."""
    try:
        yield
    except NetlinkError as error:
        if error.errno not in errors:
            raise
