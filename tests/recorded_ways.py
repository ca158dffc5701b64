"""Whole recorded clusters as they would be with another encapsulation, out of calico.md 2, 3.2 to 3.4 and 3.6.

No kernel here has devices of type ipip, wireguard or bond. So nothing of these clusters is recorded from such a device;
but everything around it is, and the product reads all of it as it reads a running cluster: API objects, routes, rules,
links and switches. A way changes a Recording in place, and ways can follow each other.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from facts import BgpPeer, Bird, Fact, NodeAsk, WireguardDevice, WireguardPeer
from tests.recorded_kernel import Kernel, Object, Recording
from tests.recorded_states import ADDRESS, TUNNEL, annotate, resource

Way = Callable[[Recording], None]

BIRD, FELIX = "12", "80"  # protocols of their routes
IPIP_ADDRESS = "projectcalico.org/IPv4IPIPTunnelAddr"
VXLAN = {4: "vxlan.calico", 6: "vxlan-v6.calico"}
ADDRESSES = {4: ADDRESS, 6: "projectcalico.org/IPv6Address"}
TUNNELS = {4: TUNNEL, 6: "projectcalico.org/IPv6VXLANTunnelAddr"}
HANDLES = {4: "vxlan-tunnel-addr-", 6: "vxlan-v6-tunnel-addr-"}
UPLINK, BOND = "eth0", "bond0"
WIREGUARD = {4: "wireguard.cali", 6: "wg-v6.cali"}
PUBLIC_KEY = "projectcalico.org/WireguardPublicKey"
WIREGUARD_PORT = {4: 51820, 6: 51821}
WIREGUARD_MTU = {4: 1440, 6: 1420}
WIREGUARD_TABLE = {4: "1", 6: "2"}
WIREGUARD_MARK = "0x200000"


# ---- tunnels and routes


def ipip(by: str = BIRD, mode: str = "Always") -> Way:
    """The IPv4 pools use IPIP, and `by` writes the routes. IPv6 has no IPIP and stays as it is."""

    def change(recording: Recording) -> None:
        for pool in _pools(recording, 4):
            pool["spec"].update(vxlanMode="Never", ipipMode=mode)
        _written_by(recording, by, "EnabledIPIPOnly")
        for node in recording.nodes:
            annotate(recording, node, IPIP_ADDRESS, _annotation(recording, node, TUNNEL))
        _route(recording, 4, by, device="tunl0", cross_subnet=mode == "CrossSubnet")
        for node, kernel in recording.nodes.items():
            held = kernel.addresses.get(VXLAN[4], [])
            switches = _switches(kernel, VXLAN[4])
            _add_device(kernel, "tunl0", "ipip", mtu=1480, mac="0.0.0.0")
            kernel.addresses["tunl0"] = [{**one, "label": "tunl0"} for one in held if one["family"] == "inet"]
            kernel.sysctls.update({path.replace("/vxlan.calico/", "/tunl0/"): one for path, one in switches.items()})
            kernel.remove_link(VXLAN[4])
            for one in kernel.addresses["tunl0"]:
                kernel.routes.append(_own_address("tunl0", one["local"]))
            _rename_handle(recording, node, HANDLES[4], "ipip-tunnel-addr-", "ipipTunnelAddress")
            annotate(recording, node, TUNNEL, "")
        if by == BIRD:
            _run_bird(recording, 4)

    return change


def plain(by: str = BIRD) -> Way:
    """No pool has an encapsulation, and `by` writes the routes. Only for nodes of one subnet."""

    def change(recording: Recording) -> None:
        for family in _families(recording):
            for pool in _pools(recording, family):
                pool["spec"].update(vxlanMode="Never", ipipMode="Never")
            _route(recording, family, by)
            for node, kernel in recording.nodes.items():
                _free(recording, node, family)
                kernel.remove_link(VXLAN[family])
            if by == BIRD:
                _run_bird(recording, family)
        _written_by(recording, by, "Enabled")

    return change


def wireguard(without: str = "") -> Way:
    """All nodes encrypt, but for one whose kernel cannot; whatever the pools say goes on beside it."""

    def change(recording: Recording) -> None:
        families = _families(recording)
        spec = resource(recording, "FelixConfiguration", "default")["spec"]
        spec.update(wireguardEnabled=True, **({"wireguardEnabledV6": True} if 6 in families else {}))
        for family in families:
            members = [node for node in recording.nodes if node != without]
            owned = {node: _take(recording, node, family) for node in members}
            of_tunnels = {address: node for node, address in owned.items()} | _tunnels(recording, family)
            leads = {node: _leads(recording, node, family) | of_tunnels for node in recording.nodes}
            for node, address in owned.items():
                annotate(recording, node, f"{PUBLIC_KEY}{_suffix(family)}", _key(node))
                annotate(recording, node, f"projectcalico.org/IPv{family}WireguardInterfaceAddr", address)
                _encrypt(recording.nodes[node], family, address, leads[node], {*members} - {node})
            recording.programs.append(_keys(recording, family, leads, members))
        _shrink_pods(recording, min(WIREGUARD_MTU[family] for family in families))

    return change


def ebpf(recording: Recording) -> None:
    """Calico's eBPF dataplane: its VXLAN device takes all it is to do from each packet (3.31 on)."""
    resource(recording, "FelixConfiguration", "default")["spec"]["bpfEnabled"] = True
    for kernel in recording.nodes.values():
        for name in VXLAN.values():
            if name in kernel.links:
                kernel.links[name]["linkinfo"]["info_data"] = {"external": True, "port": 4789}
        kernel.fdb = [one for one in kernel.fdb if one["ifname"] not in VXLAN.values()]
        kernel.neighbors = [one for one in kernel.neighbors if one["dev"] not in VXLAN.values()]


def host_local(recording: Recording) -> None:
    """The plugin host-local gives addresses out of each node's podCIDR, and Calico has no blocks. Nothing is borrowed,
    and IPv4 only."""
    for block in [one for one in recording.objects if one["kind"] == "IPAMBlock"]:
        node = str(block["spec"]["affinity"]).removeprefix("host:")
        if ":" not in block["spec"]["cidr"]:
            spec = resource(recording, "Node", node)["spec"]
            spec.update(podCIDR=block["spec"]["cidr"], podCIDRs=[block["spec"]["cidr"]])
    ours = ("IPAMBlock", "IPAMHandle", "BlockAffinity", "IPAMConfig")
    recording.objects[:] = [one for one in recording.objects if one["kind"] not in ours]


def bonded(recording: Recording) -> None:
    """Every node's uplink is a bond of two network cards."""
    for node, kernel in recording.nodes.items():
        bond = kernel.links.pop(UPLINK)
        for path in [path for path in kernel.sysctls if f"/{UPLINK}/" in path]:
            kernel.sysctls[path.replace(f"/{UPLINK}/", f"/{BOND}/")] = kernel.sysctls[path]
        for number, card in enumerate((UPLINK, "eth1")):
            up = number == 0
            kernel.links[card] = {
                **copy.deepcopy(bond),
                "ifname": card,
                "ifindex": 100 + number,
                "flags": [*bond["flags"], "SLAVE"] if up else ["NO-CARRIER", "BROADCAST", "MULTICAST", "SLAVE", "UP"],
                "operstate": "UP" if up else "DOWN",
                "master": BOND,
                "linkinfo": {"info_slave_kind": "bond", "info_slave_data": {"state": "ACTIVE" if up else "BACKUP"}},
            }
        data = {"mode": "active-backup", "active_slave": UPLINK, "miimon": 100}
        kernel.links[BOND] = {
            **{name: one for name, one in bond.items() if name not in ("link_index", "link_netnsid")},
            "ifname": BOND,
            "flags": [*bond["flags"], "MASTER"],
            "linkinfo": {"info_kind": "bond", "info_data": data},
        }
        kernel.addresses[BOND] = [{**one, "label": BOND} for one in kernel.addresses.pop(UPLINK)]
        for listed, key in ((kernel.routes, "dev"), (kernel.neighbors, "dev"), (kernel.fdb, "ifname")):
            for one in listed:
                if one.get(key) == UPLINK:
                    one[key] = BOND
        for link in kernel.links.values():
            data = link.get("linkinfo", {}).get("info_data", {})
            if data.get("link") == UPLINK:
                data["link"] = BOND
        interfaces = _annotation(recording, node, "projectcalico.org/Interfaces")
        annotate(recording, node, "projectcalico.org/Interfaces", interfaces.replace(f'"{UPLINK}"', f'"{BOND}"'))


# ---- what is in the objects


def _pools(recording: Recording, family: int) -> list[Object]:
    pools = [one for one in recording.objects if one["kind"] == "IPPool"]
    return [one for one in pools if ip_network(one["spec"]["cidr"]).version == family]


def _families(recording: Recording) -> list[int]:
    return [family for family in (4, 6) if _pools(recording, family)]


def _annotation(recording: Recording, node: str, name: str) -> str:
    return str(resource(recording, "Node", node)["metadata"]["annotations"].get(name, ""))


def _written_by(recording: Recording, by: str, felix: str) -> None:
    """Both settings say so, as they have to."""
    resource(recording, "FelixConfiguration", "default")["spec"]["programClusterRoutes"] = (
        felix if by == FELIX else "Disabled"
    )
    rest = {"EnabledIPIPOnly": "EnabledNoEncapOnly", "Enabled": "Disabled"}[felix]
    known = [one for one in recording.objects if one["kind"] == "BGPConfiguration"]
    if not known:
        like = resource(recording, "FelixConfiguration", "default")
        known = [{"apiVersion": like["apiVersion"], "kind": "BGPConfiguration", "metadata": {"name": "default"}}]
        recording.objects += known
    known[0].setdefault("spec", {})["programClusterRoutes"] = rest if by == FELIX else "Enabled"


def _blocks(recording: Recording, family: int) -> list[Object]:
    blocks = [one["spec"] for one in recording.objects if one["kind"] == "IPAMBlock"]
    return [spec for spec in blocks if ip_network(spec["cidr"]).version == family]


def _rename_handle(recording: Recording, node: str, old: str, new: str, kind: str) -> None:
    for spec in _blocks(recording, 4):
        for one in spec["attributes"]:
            if one.get("handle_id") == old + node:
                one.update(handle_id=new + node, secondary={"node": node, "type": kind})
    handle = resource(recording, "IPAMHandle", old + node)
    handle["metadata"]["name"] = handle["spec"]["handleID"] = new + node


def _free(recording: Recording, node: str, family: int) -> None:
    """The node gives its tunnel's address back."""
    handle = HANDLES[family] + node
    for spec in _blocks(recording, family):
        indices = [number for number, one in enumerate(spec["attributes"]) if one.get("handle_id") == handle]
        for ordinal, index in enumerate(spec["allocations"]):
            if index in indices:
                spec["allocations"][ordinal] = None
                spec["unallocated"].append(ordinal)
    recording.objects.remove(resource(recording, "IPAMHandle", handle))
    annotate(recording, node, TUNNELS[family], "")


def _take(recording: Recording, node: str, family: int) -> str:
    """An address for the node's WireGuard device, of its own block where it has one."""
    blocks = _blocks(recording, family)
    spec = next((one for one in blocks if one["affinity"] == f"host:{node}"), blocks[0])
    handle = f"wireguard-{'v6-' if family == 6 else ''}tunnel-addr-{node}"
    kind = f"wireguard{_suffix(family)}TunnelAddress"
    ordinal = spec["unallocated"].pop(0)
    spec["attributes"].append({"handle_id": handle, "secondary": {"node": node, "type": kind}})
    spec["allocations"][ordinal] = len(spec["attributes"]) - 1
    fresh = (
        copy.deepcopy(resource(recording, "IPAMHandle", HANDLES[family] + node))
        if _has_tunnel(recording, node, family)
        else copy.deepcopy(next(one for one in recording.objects if one["kind"] == "IPAMHandle"))
    )
    fresh["metadata"]["name"] = fresh["spec"]["handleID"] = handle
    fresh["spec"]["block"] = {spec["cidr"]: 1}
    recording.objects.append(fresh)
    return str(ip_network(spec["cidr"])[ordinal])


def _has_tunnel(recording: Recording, node: str, family: int) -> bool:
    return bool(_annotation(recording, node, TUNNELS[family]))


# ---- what is in the kernels


def _tunnels(recording: Recording, family: int) -> dict[str, str]:
    """Tunnel address -> node. Felix treats these as it treats pods'."""
    names = (TUNNELS[family], IPIP_ADDRESS) if family == 4 else (TUNNELS[family],)
    found = {_annotation(recording, node, name): node for node in recording.nodes for name in names}
    return {address: node for address, node in found.items() if address}


def _leads(recording: Recording, node: str, family: int) -> dict[str, str]:
    """Destination -> node, of each route of this node to another's pods; its own are its own."""
    peers: dict[str, str] = {}
    for peer in recording.nodes:
        written = _annotation(recording, peer, ADDRESSES[family])
        peers |= {str(ip_interface(written).ip): peer} if written else {}
    tunnels = _tunnels(recording, family)
    peers |= tunnels
    found = {}
    for one in recording.nodes[node].routes:
        if one["table"] != "main" or one["dst"] == "default" or ip_network(one["dst"]).version != family:
            continue
        if one.get("gateway") in peers or one["dst"] in tunnels:
            found[one["dst"]] = peers[one.get("gateway") or one["dst"]]
        elif one["type"] == "blackhole" or one.get("dev", "").startswith("cali"):
            found[one["dst"]] = node
    return {dst: peer for dst, peer in found.items() if not ip_network(dst).is_link_local}


def _route(recording: Recording, family: int, by: str, *, device: str = "", cross_subnet: bool = False) -> None:
    """Routes to other nodes' blocks lead to those nodes' own addresses, by the tunnel device or by the uplink."""
    interfaces = {node: ip_interface(_annotation(recording, node, ADDRESSES[family])) for node in recording.nodes}
    for node, kernel in recording.nodes.items():
        leads = _leads(recording, node, family)
        kept = []
        for one in kernel.routes:
            peer = leads.get(one["dst"], node) if one["table"] == "main" else node
            if peer != node:
                near = interfaces[peer].ip in interfaces[node].network
                by_uplink = not device or (cross_subnet and near)
                route = {
                    **one,
                    "gateway": str(interfaces[peer].ip),
                    "dev": _holder(kernel, str(interfaces[node].ip)) if by_uplink else device,
                    "flags": [] if by_uplink and by == BIRD else ["onlink"],
                    "protocol": by,
                    "scope": "global",
                }
                if by == BIRD:
                    route.pop("metrics", None)
                kept.append(route)
            elif one["type"] == "blackhole" and ip_network(one["dst"]).version == family:
                kept.append({**one, "protocol": by})
            else:
                kept.append(one)
        kernel.routes = kept


def _holder(kernel: Kernel, address: str) -> str:
    return str(next(name for name, held in kernel.addresses.items() if address in [one["local"] for one in held]))


def _add_device(kernel: Kernel, name: str, kind: str, *, mtu: int, mac: str = "") -> None:
    kernel.links[name] = {
        "address": mac,
        "flags": ["NOARP", "UP", "LOWER_UP"],
        "ifindex": max(one["ifindex"] for one in kernel.links.values()) + 1,
        "ifname": name,
        "linkinfo": {"info_kind": kind},
        "mtu": mtu,
        "operstate": "UNKNOWN",
    }


def _own_address(device: str, address: str) -> Object:
    return {
        "dev": device, "dst": address, "flags": [], "prefsrc": address, "protocol": "kernel", "scope": "host",
        "table": "local", "type": "local", **({"metric": 0, "pref": "medium"} if ":" in address else {}),
    }  # fmt: skip


def _switches(kernel: Kernel, device: str) -> dict[str, str]:
    return {path: one for path, one in kernel.sysctls.items() if f"/{device}/" in path}


def _encrypt(kernel: Kernel, family: int, address: str, leads: dict[str, str], peers: set[str]) -> None:
    """The device, its address, and a table of Felix's own that all unmarked packets look into first."""
    device, table = WIREGUARD[family], WIREGUARD_TABLE[family]
    _add_device(kernel, device, "wireguard", mtu=WIREGUARD_MTU[family])
    kernel.addresses[device] = [
        {
            "family": "inet6" if family == 6 else "inet", "local": address, "prefixlen": 128 if family == 6 else 32,
            "scope": "global",
        }
    ]  # fmt: skip
    kernel.routes.append(_own_address(device, address))
    like = _switches(
        kernel, next(name for name in kernel.links if name.startswith("cali")) if _has_pods(kernel) else UPLINK
    )
    name = next(iter(like)).split("/")[-2]
    for path, value in like.items():
        proxies = path.endswith(("proxy_arp", "proxy_ndp"))
        kernel.sysctls[path.replace(f"/{name}/", f"/{device}/")] = "0" if proxies else value
    rule = {
        "priority": 99, "not": None, "src": "all", "fwmark": WIREGUARD_MARK, "fwmask": WIREGUARD_MARK, "table": table,
    }  # fmt: skip
    (kernel.rules6 if family == 6 else kernel.rules).append(rule)
    link = {"type": "unicast", "dev": device, "scope": "link"}
    for destination, peer in leads.items():
        encrypted = peer in peers
        kernel.routes.append(
            {
                "dst": destination, "flags": [], "protocol": FELIX, "table": table,
                **(link if encrypted else {"type": "throw", "scope": "global"}),
                **({"metric": 1024, "pref": "medium"} if family == 6 else {}),
            }
        )  # fmt: skip


def _has_pods(kernel: Kernel) -> bool:
    return any(name.startswith("cali") for name in kernel.links)


def _shrink_pods(recording: Recording, mtu: int) -> None:
    """CNI gives pods the smallest MTU of all that is switched on."""
    kernels = [*recording.nodes.values(), *recording.pods.values()]
    for link in [one for kernel in kernels for one in kernel.links.values()]:
        if "link_netnsid" in link and link["mtu"] < 1500:
            link["mtu"] = min(link["mtu"], mtu)


# ---- what other programs say


def _run_bird(recording: Recording, family: int) -> None:
    """A full mesh, all of it up."""
    addresses = {
        node: str(ip_interface(_annotation(recording, node, ADDRESSES[family])).ip) for node in recording.nodes
    }

    def told(ask: NodeAsk) -> list[Fact]:
        if not ask.bird or ask.family != family:
            return []
        sessions = [
            BgpPeer(
                node=ask.node, family=family, name=f"Mesh_{one.replace('.', '_').replace(':', '_')}", kind="mesh",
                address=one, state="up", session="Established", since="16:01:02",
            )
            for node, one in addresses.items()
            if node != ask.node
        ]  # fmt: skip
        return [Bird(node=ask.node, family=family, seen=True, running=True, detail="BIRD v0.3.3 ready."), *sessions]

    recording.programs.append(told)


def _key(node: str) -> str:
    return base64.b64encode(node.encode().ljust(32, b"k")).decode()


def _keys(
    recording: Recording, family: int, leads: dict[str, dict[str, str]], members: list[str]
) -> Callable[[NodeAsk], list[Fact]]:
    """Each device has its node's key, and of its peers those that their annotations announce."""
    addresses = {
        node: str(ip_interface(_annotation(recording, node, ADDRESSES[family])).ip) for node in recording.nodes
    }

    def told(ask: NodeAsk) -> list[Fact]:
        if not ask.wireguard_keys or ask.family != family:
            return []
        device, port = WIREGUARD[family], WIREGUARD_PORT[family]
        announced = {_annotation(recording, node, f"{PUBLIC_KEY}{_suffix(family)}"): node for node in members}
        found: list[Fact] = [
            WireguardDevice(node=ask.node, device=device, found=True, public_key=_key(ask.node), port=port)
        ]
        for key in ask.wireguard_keys:
            peer = announced.get(key, "")
            if not peer:
                found.append(WireguardPeer(node=ask.node, device=device, public_key=key, found=False))
                continue
            allowed = tuple(
                dst if "/" in dst else f"{dst}/{ip_address(dst).max_prefixlen}" for dst in _of(leads, ask, peer)
            )
            found.append(
                WireguardPeer(
                    node=ask.node, device=device, public_key=key, found=True, handshake_s=40,
                    endpoint=f"{addresses[peer]}:{port}", allowed=allowed,
                )
            )  # fmt: skip
        return found

    return told


def _suffix(family: int) -> str:
    """Of WireGuard's names of a family."""
    return "V6" if family == 6 else ""


def _of(leads: dict[str, dict[str, str]], ask: NodeAsk, peer: str) -> list[str]:
    return [destination for destination, owner in leads[ask.node].items() if owner == peer]


def changed(recording: Recording, ways: Iterable[Way]) -> Recording:
    """One after the other."""
    for way in ways:
        way(recording)
    return recording


__all__: Any = ["BIRD", "FELIX", "Way", "bonded", "changed", "ebpf", "host_local", "ipip", "plain", "wireguard"]
