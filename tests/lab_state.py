"""Prints what the kernels of a lab hold, one line a thing, so that two moments or a recording can be compared.

Inside a lab `main` prints JSON {namespace: [line, ...]}.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import dumps
from lab.kernel import FAMILIES, IFA_ADDRESS, IFA_LOCAL, LOCAL, MAIN, Kernel, Route
from lab.namespaces import NETNS_DIRECTORY, Namespace
from node_probe.firewall.arming import GET_TABLE, NEW_TABLE, TABLE_NAME
from node_probe.netlink_messages import attributes
from node_probe.nfnetlink import DUMP, NFTABLES, dumped, message, netfilter
from tests.lab_python import python

if TYPE_CHECKING:
    from lab.client import Lab

TABLES = {MAIN: "main", LOCAL: "local", 253: "default"}
PROTOCOLS = {2: "kernel", 3: "boot", 4: "static"}
SCOPES = {0: "global", 253: "link", 254: "host"}
SYSCTLS = {
    "ipv4/conf": ("rp_filter", "forwarding", "proxy_arp", "route_localnet", "accept_local", "arp_ignore"),
    "ipv4/neigh": ("proxy_delay",),
    "ipv6/conf": ("forwarding", "proxy_ndp", "accept_ra", "disable_ipv6"),
}


def link_line(
    name: str, kind: str, flags: list[str], state: str, mtu: int, mac: str, txqlen: int, vxlan: dict[str, Any]
) -> str:
    """`vxlan`: id, local, link, port, learning."""
    extra = " ".join(f"{key} {vxlan[key]}" for key in ("id", "local", "link", "port", "learning") if key in vxlan)
    up = " ".join(flag for flag in ("UP", "LOWER_UP") if flag in flags)
    return f"link {name} {kind} {up} state {state} mtu {mtu} mac {mac} txqlen {txqlen} {extra}".rstrip()


def route_line(route: Route) -> str:
    words = [
        f"route {route.kind} {route.destination}",
        f"via {route.gateway}" if route.gateway else "",
        f"dev {route.device}" if route.device else "",
        f"table {TABLES.get(route.table, route.table)} proto {PROTOCOLS.get(route.protocol, route.protocol)}",
        f"scope {SCOPES.get(route.scope, route.scope)}",
        f"metric {route.metric}" if route.metric else "",
        "onlink" if route.onlink else "",
        f"mtu {route.mtu}" if route.mtu else "",
        f"src {route.source}" if route.source else "",
    ]
    return " ".join(filter(None, words))


def lines_of(kernel: Kernel) -> list[str]:
    """Everything of one namespace, sorted."""
    found = []
    links = kernel.links()
    names = {link.index: link.name for link in links.values()}
    for link in links.values():
        flags = [word for word, set_ in (("UP", link.up), ("LOWER_UP", link.lower_up)) if set_]
        vxlan: dict[str, Any] = {}
        if link.kind == "vxlan":
            vxlan = {
                "id": link.vni,
                "local": link.local,
                "link": link.parent,
                "port": link.port,
                "learning": link.learning,
            }
        found.append(link_line(link.name, link.kind, flags, link.state, link.mtu, link.mac, link.txqlen, vxlan))
    for (_, length, _, scope, index), has in kernel.namespace.reader.dump(dumps.ADDRESSES):
        address = dumps.address(has.get(IFA_LOCAL) or has.get(IFA_ADDRESS))
        found.append(f"addr {names[index]} {address}/{length} scope {SCOPES.get(scope, scope)}")
    for family in FAMILIES:
        found += [route_line(one) for one in kernel.routes(family)]
        found += [
            f"rule IPv{family} {priority} {source} {TABLES.get(table, table)}"
            for priority, table, source in kernel.rules(family)
        ]
        entries = kernel.neighbors(family=family)
        found += [f"neigh {address} {device} {mac} {state}" for address, device, mac, state in entries]
    found += [f"fdb {mac} {device} {peer} {state}" for mac, device, peer, state in kernel.fdb()]
    with kernel.namespace.entered():
        found += [f"firewall table {name}" for name in _tables()]
        found.append(f"sysctl ipv4/ip_forward {_sysctl('ipv4/ip_forward')}")
        for group, settings in SYSCTLS.items():
            for interface in sorted(path.name for path in Path("/proc/sys/net", group).iterdir()):
                for setting in settings:
                    name = f"{group}/{interface}/{setting}"
                    if (group, interface) not in (("ipv4/neigh", "default"),):
                        found.append(f"sysctl {name} {_sysctl(name)}")
    return sorted(found)


def _tables() -> list[str]:
    """Of every family."""
    with netfilter() as wire:
        wire.send(message(NFTABLES << 8 | GET_TABLE, DUMP, 1, b""))
        tables = [attributes(body) for _, body in dumped(wire, NFTABLES << 8 | NEW_TABLE)]
    return [table[TABLE_NAME].rstrip(b"\0").decode() for table in tables]


def _sysctl(name: str) -> str:
    descriptor = os.open(f"/proc/sys/net/{name}", os.O_RDONLY)
    try:
        return os.read(descriptor, 4096).decode().strip()
    finally:
        os.close(descriptor)


def read(lab: Lab) -> dict[str, list[str]]:
    """The lines of every namespace of a running lab, by its name under /run/netns."""
    done = python(lab, lab.status()["nodes"][0]["name"], "from tests import lab_state; lab_state.main()")
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def main() -> None:
    found = {}
    for path in sorted(NETNS_DIRECTORY.iterdir()):
        namespace = Namespace(path.name, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        found[path.name] = lines_of(Kernel(namespace))
    json.dump(found, sys.stdout)
