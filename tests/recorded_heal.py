"""Every recorded wound of a running Calico, moment by moment until it healed: what rules must say at each of them.

A run lists moments; each says which lines of which node's kernel were gone and which were new, and whether pings came
back. Put onto the recorded state before the wound, that is the whole cluster at that moment.
"""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from facts import CalicoFirewall
from tests.recorded_kernel import Kernel, Object, Recording
from tests.recorded_states import ADDRESS, TUNNEL, annotate, block_of, free, move, recorded, resource
from tests.recordings import load

Line = tuple[Any, ...]
Pair = frozenset[str]  # nodes; the pods that pinged are the first of each

JUMP = re.compile(r"jump filter-cali-FORWARD|-A FORWARD .*-j cali-FORWARD")
MOMENT_S = 1.0  # pings that begin or end to be lost by more than this away from a moment make one of their own
NODES = ("node-a", "node-b", "node-c")


@dataclass(frozen=True)
class Moment:
    """at: seconds after the wound. healed: nothing of it is left."""

    at: float
    recording: Recording
    lost: frozenset[Pair]  # whose pings do not come back
    pinged: frozenset[Pair]
    healed: bool
    gone: tuple[str, ...] = ()  # lines of the wounded node's kernel, as recorded
    new: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One wound. limit_s: how long it was watched."""

    file: str
    fault: str
    family: int
    prefix: str  # of the pods' names: pod-a1, p-a1
    second_on: str  # the node of whose pods it was the second that was pinged
    moments: tuple[Moment, ...]
    limit_s: float
    felix_stopped_on: str = ""

    def __str__(self) -> str:
        return f"{self.file.removesuffix('.json')} {self.fault}"

    def pod(self, node: str) -> str:
        """Of those on a node the one that pinged or was pinged."""
        return f"default/{self.prefix}{node[-1]}{2 if node == self.second_on else 1}"


@functools.cache  # of hundreds of kernels
def runs() -> list[Run]:
    """All of them, in the order of the recordings."""
    return [*_kernel_runs(), *_datastore_runs()]


# -- wounds of a node's kernel ---------------------------------------------------------------------------------------

# (version, file): (the state it was made in, family, the node at the other end of the ping)
KERNEL_FILES = {
    ("v3.32.1", "heal/iptables-node-a-l2-l3.json"): ("v3.32.1/healthy", 4, "node-c"),
    ("v3.32.1", "heal/iptables-node-b-device-cali-iptables.json"): ("v3.32.1/healthy", 4, "node-c"),
    ("v3.32.1", "heal/iptables-node-b-more.json"): ("v3.32.1/healthy", 4, "node-c"),
    ("v3.32.1", "heal/nftables-node-a.json"): ("v3.32.1/nftables-mode/1-after-switch", 4, "node-c"),
    ("v3.32.1", "heal/nftables-node-a-more.json"): ("v3.32.1/nftables-mode/1-after-switch", 4, "node-c"),
    ("v3.31.7", "heal/node-a.json"): ("v3.31.7/healthy-always", 4, "node-c"),
    ("v3.31.7", "heal/node-b.json"): ("v3.31.7/healthy-always", 4, "node-c"),
    ("v3.32.1", "dualstack/heal/v6-node-a.json"): ("v3.32.1/dualstack/healthy", 6, "node-b"),
    ("v3.32.1", "dualstack/heal/v6-node-b.json"): ("v3.32.1/dualstack/healthy", 6, "node-c"),
    ("v3.32.1", "dualstack/heal/v6-node-c.json"): ("v3.32.1/dualstack/healthy", 6, "node-a"),
}
# A command that met a syntax error wounded nothing. Of three commands at the same time on three nodes only the wounds
# were recorded each by itself; what pings met of each of them alone tells v6-pod-gateway-probe.txt.
NOT_A_RUN = ("nft_foreign_table_drop",)
TOGETHER = "three faults ran at the same time"
ALONE = {"node-a": ("node-b", [15.0, None]), "node-b": ("node-c", [0.4, None]), "node-c": ("node-b", None)}


def _kernel_runs() -> Iterator[Run]:
    for (version, file), (state, family, other) in KERNEL_FILES.items():
        for one in load(f"{version}/loose")[file]:
            if one["fault"] in NOT_A_RUN:
                continue
            if TOGETHER in one["note"]:
                if not any(gone + new for _, gone, new in one["history"]):
                    continue  # the first try on node-a, which changed nothing
                other, window = ALONE[one["node"]]
                one = {**one, "ping_first_loss_last_loss": window}
            yield Run(
                file=f"{version}/{file}",
                fault=one["fault"],
                family=family,
                prefix="p-" if "nftables" in file else "pod-",
                second_on="node-c" if family == 4 and "nftables" not in file else "",
                moments=tuple(_moments(one, state, family, frozenset((one["node"], other)))),
                limit_s=one["limit"],
            )


def _moments(one: Object, state: str, family: int, pair: Pair) -> Iterator[Moment]:
    first, last = one["ping_first_loss_last_loss"] or (float("inf"), -1.0)
    last = one["limit"] + MOMENT_S if last is None else last
    cuts = [(at, lost, new) for at, lost, new in one["history"]]
    for edge in (first, last):  # the ping tells what the lines do not: a pod's own neighbor entry that aged
        before = [cut for cut in cuts if cut[0] < edge]
        near = any(abs(cut[0] - edge) < MOMENT_S for cut in cuts)
        if before and not near and edge < one["limit"] and not (cuts[-1][0] < edge and not cuts[-1][1] + cuts[-1][2]):
            cuts.append((edge + (0.0 if edge == first else 0.01), *before[-1][1:]))
    cuts.sort(key=lambda cut: cut[0])
    for at, gone, new in cuts:
        healed = one["healed_s"] is not None and at >= one["healed_s"]
        lost = not healed and first <= at + MOMENT_S and at <= last
        recording = recorded(state)
        kernel = recording.nodes[one["node"]]
        change(kernel, [parsed(line) for line in gone], [parsed(line) for line in new], family)
        if not healed and (also := ALSO.get(one["fault"])):
            also(recording, one, at)
        yield Moment(
            at, recording, frozenset({pair} if lost else ()), frozenset({pair}), healed, tuple(gone), tuple(new)
        )


def firewall_at(moment: Moment, node: str, family: int = 4) -> CalicoFirewall:
    """What its probe sees then of the filter that Felix on this node keeps; two pods and two other nodes were there."""
    nftables = any("==NFT" in line for line in (*moment.gone, *moment.new))
    backend = "nftables" if nftables else "iptables-nft"
    empty = [line for line in moment.gone if "chain filter-cali-FORWARD {" in line or "-A cali-FORWARD" in line]
    cut = [line for line in moment.gone if JUMP.search(line) or "chain filter-FORWARD {" in line]

    def left(what: str) -> int:
        return 0 if any(what in line for line in moment.gone) and not any(what in line for line in moment.new) else 2

    return CalicoFirewall(
        node=node,
        family=family,
        backends=() if empty else (backend,),
        entered=() if empty or cut else (backend,),
        from_pods=left("goto filter-cali-fw-") if nftables else -1,
        to_pods=left("goto filter-cali-tw-") if nftables else -1,
        vxlan_peers=left("elements = { 172.30.0.1") if nftables else -1,
    )


def parsed(line: str) -> Line:
    """`('fdb', '66:..', '172.30.0.13', 'permanent')` as it stands in a run of one node."""
    found: Line = ast.literal_eval(line)
    return found if isinstance(found, tuple) else (found,)


def change(kernel: Kernel, gone: list[Line], new: list[Line], family: int) -> None:
    """Takes lines from a kernel and gives it others, with what no kernel would leave behind."""
    device = "vxlan.calico" if family == 4 else "vxlan-v6.calico"
    appears = {(line[0], line[1]) for line in new}
    for line in sorted(gone, key=lambda one: one[0] == "link"):  # the device last: the rest goes with it
        kind, key = line[0], line[1]
        if kind == "link" and (kind, key) not in appears:
            kernel.remove_link(key)
        elif kind == "neigh":
            kernel.neighbors = [one for one in kernel.neighbors if (one["dst"], one["dev"]) != (key, device)]
        elif kind == "fdb":
            kernel.fdb = [one for one in kernel.fdb if (one["mac"], one["ifname"]) != (key, device)]
        elif kind == "route":
            kept = [one for one in kernel.routes if not _same(one, _route(line))]
            assert len(kept) < len(kernel.routes), f"{line} was not there"
            kernel.routes = kept
        elif kind == "addr":
            _, name, address, _ = line
            held = kernel.addresses.get(name, [])
            kernel.addresses[name] = [one for one in held if one["local"] != address]
            kernel.routes = [one for one in kernel.routes if not (one["type"] == "local" and one["dst"] == address)]
    for line in new:
        kind, key = line[0], line[1]
        if kind == "link":
            _link(kernel, line)
        elif kind == "neigh":
            mac = {"lladdr": line[2]} if line[2] else {}
            kernel.neighbors.append({"dst": key, "dev": device, "state": list(line[3]), **mac})
        elif kind == "fdb":
            kernel.fdb.append({"mac": key, "ifname": device, "dst": line[2], "flags": ["self"], "state": line[3]})
        elif kind == "route":
            kernel.routes.append(_route(line))
        elif kind == "addr":
            kind = "inet6" if ":" in line[2] else "inet"
            held = kernel.addresses.setdefault(key, [])
            held.append({"family": kind, "local": line[2], "prefixlen": line[3], "scope": "global"})
        elif kind == "==SYS":
            path, value = key.split()
            kernel.sysctls[path] = value
        elif kind == "fwd":
            kernel.sysctls["/proc/sys/net/ipv6/conf/all/forwarding"] = key


def _link(kernel: Kernel, line: Line) -> None:
    """A device that was changed, or made anew under its name."""
    _, name, mac, up, mtu, told = line
    data = json.loads(told)
    link = kernel.links[name]
    link.update(address=mac, mtu=mtu, flags=["BROADCAST", "MULTICAST", *(["UP", "LOWER_UP"] if up else [])])
    if data:
        link["linkinfo"]["info_data"] = data
    if not up:
        link["operstate"] = "DOWN"
        kernel.routes = [one for one in kernel.routes if one.get("dev") != name]


def _route(line: Line) -> Object:
    """IPv6 routes were written without a scope."""
    _, kind, destination, gateway, device, protocol, *scope, flags, metrics, metric = line
    told = json.loads(metrics or "null")
    return {
        "type": kind,
        "dst": destination,
        "table": "main",
        "protocol": protocol,
        "scope": scope[0] if scope else "global",
        "flags": list(flags),
        **({"gateway": gateway} if gateway else {}),
        **({"dev": device} if device else {}),
        **({"metric": metric} if metric else {}),
        **({"metrics": told} if told else {}),
        **({} if scope else {"pref": "medium"}),
    }


def _same(one: Object, other: Object) -> bool:
    keys = ("type", "dst", "table", "protocol", "gateway", "dev", "metric")
    return all(one.get(key) == other.get(key) for key in keys)


# What the command of a run did, or the reference says of it (calico_truth.md 2), that the lines of the run left out.


def _pod_neighbor(recording: Recording, one: Object, at: float) -> None:
    _, _, _, address, _, mac, _, device, *_ = one["cmd"].split()
    kernel = recording.nodes[one["node"]]
    kernel.neighbors = [each for each in kernel.neighbors if (each["dst"], each["dev"]) != (address, device)]
    kernel.neighbors.append({"dst": address, "dev": device, "lladdr": mac, "state": ["PERMANENT"]})


def _rule(recording: Recording, one: Object, at: float) -> None:
    kernel = recording.nodes[one["node"]]
    network = ip_network(one["cmd"].split()[4])
    kernel.rules.append(
        {"priority": 50, "src": str(network.network_address), "srclen": network.prefixlen, "table": "77"}
    )


def _pod_lost_carrier(recording: Recording, one: Object, at: float) -> None:
    kernel = recording.pods["default/pod-b1"]
    kernel.links["eth0"].update(flags=["BROADCAST", "MULTICAST", "UP"], operstate="LOWERLAYERDOWN")


def _pod_forgets_its_gateway(recording: Recording, one: Object, at: float) -> None:
    if at > MOMENT_S:
        _pod_asks_in_vain(recording, one, at)


def _pod_asks_in_vain(recording: Recording, one: Object, at: float) -> None:
    """The run before had given the interface another MAC and then its own again, so the pod had to ask anew."""
    for each in recording.pods["default/pod-b1"].neighbors:
        if each["dst"] == "169.254.1.1":
            each.pop("lladdr", None)
            each["state"] = ["FAILED"]


def _pod_learns_its_gateway(recording: Recording, one: Object, at: float) -> None:
    if at > MOMENT_S:
        for each in recording.pods["default/pod-b1"].neighbors:
            if each["dst"] == "169.254.1.1":
                each.update(lladdr=one["cmd"].split()[-1], state=["REACHABLE"])


def _filter_everywhere(recording: Recording, one: Object, at: float) -> None:
    for name in ("all", "default", "eth0"):
        recording.nodes[one["node"]].sysctls[f"/proc/sys/net/ipv4/conf/{name}/rp_filter"] = "1"


def _no_forwarding(recording: Recording, one: Object, at: float) -> None:
    """Of every device: the switch of the node sets all of them."""
    kernel = recording.nodes[one["node"]]
    for path in kernel.sysctls:
        if re.fullmatch(r"/proc/sys/net/ipv4/conf/.*/forwarding", path):
            kernel.sysctls[path] = "0"


def _no_forwarding6(recording: Recording, one: Object, at: float) -> None:
    kernel = recording.nodes[one["node"]]
    for path in kernel.sysctls:
        if re.fullmatch(r"/proc/sys/net/ipv6/conf/.*/forwarding", path):
            kernel.sysctls[path] = "0"


def _no_ipv6(recording: Recording, one: Object, at: float) -> None:
    recording.nodes[one["node"]].sysctls["/proc/sys/net/ipv6/conf/vxlan-v6.calico/disable_ipv6"] = "1"


GATEWAY6 = "fe80::ecee:eeff:feee:eeee"


def _no_gateway6(recording: Recording, one: Object, at: float) -> None:
    """The pod misses it only when its neighbor entry has aged."""
    device = _pod_device(one)
    kernel = recording.nodes[one["node"]]
    kernel.addresses[device] = [each for each in kernel.addresses[device] if each["local"] != GATEWAY6]
    kernel.routes = [each for each in kernel.routes if (each["dst"], each.get("dev")) != (GATEWAY6, device)]
    if at > MOMENT_S:
        inside = recording.pods["default/pod-a1"]
        inside.neighbors = [each for each in inside.neighbors if each["dst"] != GATEWAY6]
        inside.neighbors.append({"dst": GATEWAY6, "dev": "eth0", "state": ["INCOMPLETE"]})


def _no_ipv6_of_pod(recording: Recording, one: Object, at: float) -> None:
    device = _pod_device(one)
    kernel = recording.nodes[one["node"]]
    kernel.sysctls[f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6"] = "1"
    kernel.addresses[device] = [each for each in kernel.addresses[device] if each["family"] != "inet6"]
    kernel.routes = [each for each in kernel.routes if not ("pref" in each and each.get("dev") == device)]


def _no_proxy_ndp(recording: Recording, one: Object, at: float) -> None:
    recording.nodes[one["node"]].sysctls[f"/proc/sys/net/ipv6/conf/{_pod_device(one)}/proxy_ndp"] = "0"


def _pod_device(one: Object) -> str:
    found = re.search(r"cali[0-9a-f]{11}", one["cmd"])
    assert found
    return found[0]


ALSO: dict[str, Callable[[Recording, Object, float], None]] = {
    "pod_neigh_wrong_permanent": _pod_neighbor,
    "ip_rule_foreign": _rule,
    "cali_down": _pod_lost_carrier,
    "default_route_del": _pod_forgets_its_gateway,
    "cali_proxy_arp_0": _pod_asks_in_vain,
    "cali_mac_changed": _pod_learns_its_gateway,
    "rp_filter_strict_all": _filter_everywhere,
    "ip_forward_0": _no_forwarding,
    "net.ipv6.conf.all.forwarding=0": _no_forwarding6,
    "disable_ipv6=1 on vxlan-v6.calico": _no_ipv6,
    "link-local address of the pod interface removed (gateway of the pod)": _no_gateway6,
    "disable_ipv6=1 on the pod interface": _no_ipv6_of_pod,
    "proxy_ndp=0 on the pod interface": _no_proxy_ndp,
}


# -- wounds of the datastore -----------------------------------------------------------------------------------------

# These runs were made on a cluster whose healthy state was not recorded; this one has its names and IPv4 addresses.
DATASTORE_BASE = "v3.32.1/dualstack/healthy"
DATASTORE_FILES = ("heal/datastore-1.json", "heal/datastore-2.json", "heal/datastore-3-felix-stopped.json")
STOPPED = "Felix on node-a stopped, neighbour for node-b deleted"
Edit = Callable[[Recording], None]


def _datastore_runs() -> Iterator[Run]:
    left: list[Object] = []  # what earlier runs left behind: other tunnel addresses
    for file in DATASTORE_FILES:
        for one in load("v3.32.1/loose")[file]:
            if one["fault"] == STOPPED and not any(diff for _, diff in one["state_diffs"]):
                continue  # its command named an address the node no longer had; the next file has it again
            yield Run(
                file=f"v3.32.1/{file}",
                fault=one["fault"],
                family=4,
                prefix="pod-",
                second_on="",
                moments=tuple(_datastore_moments(one, left)),
                limit_s=one["wait_s"],
                felix_stopped_on="node-a" if one["fault"] == STOPPED else "",
            )
            if one["left_after_undo"]:
                left.append(one["left_after_undo"])


def _datastore_moments(one: Object, left: list[Object]) -> Iterator[Moment]:
    edit, restored_s = EDITS[one["fault"]]
    ends = [at for at, _ in one["state_diffs"][1:]] + [float("inf")]
    for (at, diff), end in zip(one["state_diffs"], ends, strict=True):
        recording = recorded(DATASTORE_BASE)
        for each in left:
            _apply(recording, each)
            _readdress(recording, each)
        _apply(recording, diff)
        healed = one["self_healed_within_wait"] and not diff and at > MOMENT_S
        if at < restored_s:
            edit(recording)
        met = [mesh for told, mesh in one["mesh_transitions"] if told <= at or told < end][-1]
        pings = {frozenset((f"node-{word[0]}", f"node-{word[2]}")): word[3] for word in met.split()}
        # Pings are older than the lines: they have not yet met that nothing is wrong with a pair any more.
        ahead = {pair for pair, sign in pings.items() if sign == "-" and diff and not pair & diff.keys()}
        lost = frozenset(pair for pair, sign in pings.items() if sign == "-") - ahead
        yield Moment(at, recording, lost, frozenset(pings) - ahead, healed)


def _apply(recording: Recording, diff: Object) -> None:
    for node, told in diff.items():
        gone, new = ([_words(line) for line in told[side]] for side in ("lost", "new"))
        change(recording.nodes[node], gone, new, 4)


def _words(line: str) -> Line:
    """`neigh 10.244.218.64 66:89:3a:22:7a:ac ('PERMANENT',)` as it stands in a run of the datastore."""
    kind, rest = line.split(" ", 1)
    if kind == "neigh":
        words = rest.split()
        return (kind, words[0], words[1] if len(words) == 3 else None, ast.literal_eval(words[-1]))
    if kind == "link":
        name, mac, up, mtu, data = rest.split(" ", 4)
        return (kind, name, mac, up == "True", int(mtu), data)
    if kind == "addr":
        name, address, length = rest.split()
        return (kind, name, address, int(length))
    if kind == "fdb":
        return (kind, *rest.split())
    found = re.fullmatch(
        r"(?P<type>\w+) (?P<to>[\d./]+)( (?P<via>[\d.]+))?( (?P<dev>[a-z]\S*))? (?P<proto>boot|80)"
        r" (?P<scope>global|link)( (?P<flags>\('onlink',\)))?( (?P<metrics>\[.*\]))?( (?P<metric>\d+))?",
        rest,
    )
    assert found, line
    flags = ast.literal_eval(found["flags"] or "()")
    metric = int(found["metric"]) if found["metric"] else None
    return (kind, found["type"], found["to"], found["via"], found["dev"], found["proto"], found["scope"], flags,
            found["metrics"], metric)  # fmt: skip


def _readdress(recording: Recording, left: Object) -> None:
    """A tunnel address that was given back and taken anew: annotation and block say the new one."""
    for node, told in left.items():
        (old,) = [line.split()[2] for line in told["lost"] if line.startswith("addr")]
        (new,) = [line.split()[2] for line in told["new"] if line.startswith("addr")]
        annotate(recording, node, TUNNEL, new)
        move(recording, old, new)


def _affinity(node: str) -> Edit:
    def edit(recording: Recording) -> None:
        spec = block_of(recording, "10.244.218.64")["spec"]
        spec.pop("affinity")
        if node:
            spec["affinity"] = f"host:{node}"

    return edit


def _without_block(recording: Recording) -> None:
    recording.objects.remove(block_of(recording, "10.244.218.64"))


def _without_affinity(recording: Recording) -> None:
    recording.objects[:] = [
        one for one in recording.objects if one["kind"] != "BlockAffinity" or one["spec"]["node"] != "node-b"
    ]


def _second_affinity(recording: Recording) -> None:
    (own,) = [
        one for one in recording.objects if one["kind"] == "BlockAffinity" and one["spec"]["cidr"] == "10.244.218.64/26"
    ]
    second = json.loads(json.dumps(own).replace("node-b", "node-c"))
    second["metadata"].pop("uid", None)
    recording.objects.append(second)


def _wrong_pod_address(recording: Recording) -> None:
    status = resource(recording, "Pod", "pod-b1")["status"]
    status["podIP"] = "10.244.218.99"
    status["podIPs"][0]["ip"] = "10.244.218.99"


def _disabled(recording: Recording) -> None:
    """The only VXLAN pool of the family; every node gives its tunnel address back."""
    _pool(disabled=True)(recording)
    _give_back(recording)


def _never(recording: Recording) -> None:
    _pool(vxlanMode="Never")(recording)
    _give_back(recording)


def _give_back(recording: Recording) -> None:
    for node in NODES:
        tunnel = resource(recording, "Node", node)["metadata"]["annotations"][TUNNEL]
        annotate(recording, node, TUNNEL, "")
        free(recording, tunnel)


def _pool(**spec: Any) -> Edit:
    def edit(recording: Recording) -> None:
        for one in recording.objects:
            if one["kind"] == "IPPool" and one["spec"]["cidr"] == "10.244.0.0/16":
                one["spec"].update(spec)

    return edit


def _locked(recording: Recording) -> None:
    resource(recording, "ClusterInformation", "default")["spec"]["datastoreReady"] = False


def _vni(recording: Recording) -> None:
    resource(recording, "FelixConfiguration", "default")["spec"]["vxlanVNI"] = 4097


def _port_of_one(recording: Recording) -> None:
    resource(recording, "FelixConfiguration", "node.node-b")["spec"]["vxlanPort"] = 8472


def _annotated(name: str, value: str) -> Edit:
    return lambda recording: annotate(recording, "node-b", name, value)


NEVER = float("inf")
# fault: (what it changed, when somebody set it right, in s)
EDITS: dict[str, tuple[Edit, float]] = {
    "node-b annotation IPv4VXLANTunnelAddr removed": (_annotated(TUNNEL, ""), NEVER),
    "node-b annotation IPv4VXLANTunnelAddr set to other free address": (_annotated(TUNNEL, "10.244.218.120"), NEVER),
    "node-b annotation IPv4VXLANTunnelAddr = node-c tunnel address (duplicate)": (
        _annotated(TUNNEL, "10.244.99.192"),
        NEVER,
    ),
    # Calico's own address monitor writes the annotation again; then one Felix follows after the other.
    "node-b annotation IPv4Address wrong (172.30.0.99/24)": (_annotated(ADDRESS, "172.30.0.99/24"), 37.0),
    "node-b annotation IPv4Address removed": (_annotated(ADDRESS, ""), 4.0),
    "node-b annotation VXLANTunnelMACAddr set 66:00:00:00:00:42": (
        _annotated("projectcalico.org/VXLANTunnelMACAddr", "66:00:00:00:00:42"),
        NEVER,
    ),
    "BlockAffinity of node-b deleted (block keeps affinity)": (_without_affinity, NEVER),
    "second BlockAffinity node-c for node-b block": (_second_affinity, NEVER),
    "IPAMBlock of node-b: affinity changed to host:node-c": (_affinity("node-c"), NEVER),
    "IPAMBlock of node-b: affinity removed": (_affinity(""), NEVER),
    "IPAMBlock of node-b deleted": (_without_block, NEVER),
    "pod-b1 status.podIP(s) wrong": (_wrong_pod_address, NEVER),
    "IPPool disabled: true": (_disabled, NEVER),
    "IPPool vxlanMode CrossSubnet (same subnet nodes)": (_pool(vxlanMode="CrossSubnet"), NEVER),
    "IPPool vxlanMode Never": (_never, NEVER),
    "ClusterInformation datastoreReady false": (_locked, NEVER),
    "FelixConfiguration vxlanVNI 4097": (_vni, NEVER),
    "FelixConfiguration node.node-b vxlanPort 8472 only on node-b": (_port_of_one, NEVER),
    STOPPED: (lambda recording: None, NEVER),
}
