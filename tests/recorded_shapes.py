"""Recorded clusters as other people run theirs: settings, machines and neighbors that no lab's Calico has, and that are
well. A shape changes a Recording in place, as the ways of tests.recorded_ways do.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

from facts import BgpPeer, Bird, Fact, NodeAsk
from tests.recorded_kernel import Kernel, Object, Recording
from tests.recorded_states import ADDRESS, TUNNEL, annotate, resource
from tests.recorded_ways import UPLINK, VXLAN, WIREGUARD, Way, bonded, plain, wireguard

BGP_ROUTE = {"protocol": "12", "scope": "global", "flags": [], "table": "main", "type": "unicast"}
ROUTER = "172.30.0.1"


def agent(node: str, environment: Mapping[str, str], *, name: str = "", label: str = "calico-node") -> Object:
    """A calico-node pod that runs."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name or f"calico-node-{node}",
            "namespace": "kube-system",
            "uid": f"of-{node}-{name}",
            "labels": {"k8s-app": label},
        },
        "spec": {
            "nodeName": node,
            "hostNetwork": True,
            "containers": [
                {"name": "calico-node", "env": [{"name": key, "value": value} for key, value in environment.items()]}
            ],
        },
        "status": {
            "phase": "Running",
            "containerStatuses": [{"name": "calico-node", "restartCount": 0, "state": {"running": {}}}],
        },
    }


def told(**environment: str) -> Way:
    """calico-node runs as pods, with these settings in their environment."""

    def change(recording: Recording) -> None:
        recording.objects += [agent(node, environment) for node in recording.nodes]

    return change


def felix(**spec: object) -> Way:
    """FelixConfiguration says so."""

    def change(recording: Recording) -> None:
        resource(recording, "FelixConfiguration", "default")["spec"].update(spec)

    return change


def of_version(version: str) -> Way:
    def change(recording: Recording) -> None:
        resource(recording, "ClusterInformation", "default")["spec"]["calicoVersion"] = version

    return change


def tunnel(**data: int) -> Way:
    """Every VXLAN device is made so (`id`: its VNI, `port`)."""

    def change(recording: Recording) -> None:
        for kernel in recording.nodes.values():
            kernel.links[VXLAN[4]]["linkinfo"]["info_data"].update(data)

    return change


# ---- who gives out addresses, and which


def another_plugin(recording: Recording) -> None:
    """Calico does policies alone (IP is none): no pools, no blocks, and nothing of Calico's on the nodes."""
    ours = ("IPPool", "IPAMBlock", "IPAMHandle", "BlockAffinity", "IPAMConfig")
    recording.objects[:] = [one for one in recording.objects if one["kind"] not in ours]
    for node, kernel in recording.nodes.items():
        annotations = resource(recording, "Node", node)["metadata"]["annotations"]
        for name in [one for one in annotations if one.startswith("projectcalico.org/")]:
            del annotations[name]
        kernel.remove_link(VXLAN[4])
        kernel.routes = [one for one in kernel.routes if one["type"] != "blackhole"]


def bridged(called: str = "") -> Way:
    """The other plugin leads to its pods by a bridge, which is their gateway; called: what it calls interfaces instead
    of what Calico would."""

    def change(recording: Recording) -> None:
        another_plugin(recording)
        told(CALICO_NETWORKING_BACKEND="none")(recording)
        for kernel in recording.nodes.values():
            ours = [one for one in kernel.routes if one.get("dev", "").startswith("cali") and ":" not in one["dst"]]
            kernel.routes = [one for one in kernel.routes if one not in ours]
            network = ip_network(f"{ours[0]['dst']}/26", strict=False)
            _add(kernel, "cni0", 600, {"info_kind": "bridge"}, (str(network[62]),))
            link = {**BGP_ROUTE, "protocol": "kernel", "scope": "link", "dev": "cni0"}
            kernel.routes.append({**link, "dst": str(network), "prefsrc": str(network[62])})
            for name in [one for one in kernel.links if one.startswith("cali")]:
                port = called + name[4:] if called else name
                kernel.links[port] = {**kernel.links.pop(name), "ifname": port, "master": "cni0"}
            kernel.sysctls.update({path: "0" for path in kernel.sysctls if path.endswith("proxy_arp")})
        for kernel in recording.pods.values():
            own = next(one["local"] for one in kernel.addresses["eth0"] if one["family"] == "inet")
            gateway = str(ip_network(f"{own}/26", strict=False)[62])
            kernel.routes = [{**BGP_ROUTE, "protocol": "boot", "dst": "default", "gateway": gateway, "dev": "eth0"}]
            kernel.neighbors = [{"dst": gateway, "dev": "eth0", "lladdr": "02:00:00:00:01:58", "state": ["REACHABLE"]}]

    return change


def two_families_one_calico(recording: Recording) -> None:
    """Machines and Kubernetes have both families, Calico only IPv4."""
    recording.objects[:] = [one for one in recording.objects if ":" not in str((one.get("spec") or {}).get("cidr", ""))]
    for node, kernel in recording.nodes.items():
        found = resource(recording, "Node", node)
        annotations, addresses = found["metadata"]["annotations"], found["status"]["addresses"]
        own = annotations["projectcalico.org/IPv6Address"].split("/")[0]
        if own not in [one["address"] for one in addresses]:
            addresses.append({"type": "InternalIP", "address": own})
        for name in [one for one in annotations if "IPv6" in one]:
            del annotations[name]
        kernel.remove_link(VXLAN[6])
    for pod in _pods(recording):
        pod["status"]["podIPs"] = [one for one in pod["status"].get("podIPs", ()) if ":" not in one["ip"]]
        annotations = pod["metadata"].get("annotations", {})
        for name in [one for one in annotations if one.endswith("podIPs")]:
            annotations[name] = annotations[name].split(",")[0]


def ipv6_first(recording: Recording) -> None:
    """The first of a pod's two addresses, by which the API finds it, is of IPv6."""
    for pod in _pods(recording):
        status = pod["status"]
        if len(status.get("podIPs", ())) > 1:
            status["podIPs"].reverse()
            status["podIP"] = status["podIPs"][0]["ip"]


def without_handles(recording: Recording) -> None:
    """Addresses given out so long ago that nobody wrote handles."""
    for attribute in _attributes(recording):
        attribute["handle_id"] = None


def reserved_by_windows(recording: Recording) -> None:
    """IPAM keeps addresses of each block for Windows."""
    for spec in _blocks(recording):
        spec["attributes"].append({"handle_id": "windows-reserved-ipam-handle", "secondary": {"note": "reserved"}})
        for ordinal in spec["unallocated"][-3:]:
            spec["allocations"][ordinal] = len(spec["attributes"]) - 1
            spec["unallocated"].remove(ordinal)


def addresses_used_again(recording: Recording) -> None:
    """Pods that ended, leave or were evicted still show the addresses that others have by now."""
    for pod in _pods(recording):
        for number, (phase, leaving) in enumerate((("Succeeded", False), ("Running", True), ("Failed", False))):
            former = copy.deepcopy(pod)
            former["metadata"].update(name=f"{pod['metadata']['name']}-{number}", uid=f"former-{number}")
            former["status"]["phase"] = phase
            if leaving:
                former["metadata"]["deletionTimestamp"] = "2026-11-22T20:30:00Z"
            recording.objects.append(former)


def selective_pools(recording: Recording) -> None:
    """Pools choose nodes and namespaces, and one is for load balancers alone."""
    pools = [one for one in recording.objects if one["kind"] == "IPPool"]
    balancers = copy.deepcopy(pools[0])
    for pool in pools:
        pool["spec"].update(
            nodeSelector="kubernetes.io/os == 'linux' && !has(node-role.kubernetes.io/edge)",
            namespaceSelector="projectcalico.org/name in {'default', 'shop'}",
            allowedUses=["Workload", "Tunnel"],
        )
    balancers["metadata"]["name"] = "balancers"
    balancers["spec"].update(cidr="203.0.113.0/24", allowedUses=["LoadBalancer"])
    recording.objects.append(balancers)


def two_encapsulations(recording: Recording) -> None:
    """node-c's pods are of a pool without a tunnel, whose routes BIRD writes; tunnels have addresses of the other."""
    spec = next(one for one in _blocks(recording) if one["affinity"] == "host:node-c")
    pool = copy.deepcopy(next(one for one in recording.objects if one["kind"] == "IPPool"))
    pool["metadata"] = {"name": "plain"}
    pool["spec"].update(cidr=spec["cidr"], vxlanMode="Never", ipipMode="Never")
    block = copy.deepcopy(next(one for one in recording.objects if one.get("spec") is spec))
    handle = "vxlan-tunnel-addr-node-c"
    block["metadata"]["name"] = "10-244-5-0-26"
    block["spec"].update(
        cidr="10.244.5.0/26",
        attributes=[one for one in spec["attributes"] if one["handle_id"] == handle],
        allocations=[0, *[None] * 63],
        unallocated=list(range(1, 64)),
    )
    recording.objects += [pool, block]
    node = resource(recording, "Node", "node-c")["metadata"]["annotations"]
    former, peer = node[TUNNEL], node[ADDRESS].split("/")[0]
    node[TUNNEL] = "10.244.5.0"
    for kernel in recording.nodes.values():
        for held in kernel.addresses[VXLAN[4]]:
            held["local"] = held["local"].replace(former, "10.244.5.0")
        for neighbor in kernel.neighbors:
            neighbor["dst"] = "10.244.5.0" if neighbor["dst"] == former else neighbor["dst"]
        for route in list(kernel.routes):
            if route["dst"] == former:
                route.update(dst="10.244.5.0", prefsrc="10.244.5.0")
            if route["dst"] == spec["cidr"] and route.get("dev") == VXLAN[4]:
                kernel.routes.append({**copy.deepcopy(route), "dst": "10.244.5.0/26", "gateway": "10.244.5.0"})
                route.pop("metrics", None)
                route.update(BGP_ROUTE, gateway=peer, dev=UPLINK)


# ---- BGP without a mesh


def peered_with(*addresses: str) -> Way:
    """No tunnel and no mesh: the nodes' only sessions are with these."""

    def change(recording: Recording) -> None:
        plain()(recording)
        recording.programs.clear()

        def said(ask: NodeAsk) -> list[Fact]:
            names = {one: "Node_" + one.replace(".", "_") for one in addresses}
            bird = Bird(node=ask.node, family=ask.family, seen=True, running=True, detail="BIRD v0.3.3 ready.")
            peers = [
                BgpPeer(node=ask.node, family=4, name=name, kind="node", address=one, state="up", session="Established")
                for one, name in names.items()
            ]
            return [bird, *peers] if ask.bird else []

        recording.programs.append(said)
        resource(recording, "BGPConfiguration", "default")["spec"]["nodeToNodeMeshEnabled"] = False
        for number, address in enumerate(addresses):
            recording.objects.append(
                {
                    "apiVersion": "crd.projectcalico.org/v1",
                    "kind": "BGPPeer",
                    "metadata": {"name": f"peer-{number}"},
                    "spec": {"peerIP": address, "asNumber": 64512, "nodeSelector": "all()"},
                }
            )

    return change


def written_by_others(protocol: str) -> Way:
    """No tunnel, and Calico does not route: FRR, Cilium or an administrator wrote the routes to the blocks."""

    def change(recording: Recording) -> None:
        plain()(recording)
        recording.programs.clear()
        told(CALICO_NETWORKING_BACKEND="none")(recording)
        for kernel in recording.nodes.values():
            for route in kernel.routes:
                if (route["protocol"], route["type"]) == ("12", "unicast"):
                    route["protocol"] = protocol

    return change


def known_to_the_router(aggregate: str = "") -> Way:
    """The nodes peer with a router, which tells them of all pods at once, or of none: they have a default route."""

    def change(recording: Recording) -> None:
        peered_with(ROUTER)(recording)
        for kernel in recording.nodes.values():
            kernel.routes = [one for one in kernel.routes if (one["protocol"], one["type"]) != ("12", "unicast")]
            if aggregate:
                kernel.routes.append({**BGP_ROUTE, "dst": aggregate, "gateway": ROUTER, "dev": UPLINK})

    return change


# ---- machines


def of_windows(recording: Recording) -> None:
    """node-c runs Windows, with another DaemonSet's pod of Calico."""
    resource(recording, "Node", "node-c")["metadata"]["labels"]["kubernetes.io/os"] = "windows"
    recording.objects += [agent(node, {}) for node in ("node-a", "node-b")]
    recording.objects.append(agent("node-c", {}, label="calico-node-windows"))


def without_a_machine(recording: Recording) -> None:
    """node-c is none: Fargate shows each of its pods as a node of its own, on which no DaemonSet runs."""
    resource(recording, "Node", "node-c")["metadata"]["labels"]["eks.amazonaws.com/compute-type"] = "fargate"
    recording.objects += [agent(node, {}) for node in ("node-a", "node-b")]


def with_typha(recording: Recording) -> None:
    """Typha's Service is in a namespace of its own; one of its two pods is ready."""
    recording.objects.insert(0, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "typha-system"}})
    told(FELIX_TYPHAK8SSERVICENAME="typha", FELIX_TYPHAK8SNAMESPACE="typha-system")(recording)
    labels = {"kubernetes.io/service-name": "typha"}
    ends = [{"addresses": [f"172.30.0.{end}"], "conditions": {"ready": end == 11}} for end in (11, 12)]
    recording.objects.append(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "addressType": "IPv4",
            "metadata": {"name": "typha-1", "namespace": "typha-system", "labels": labels},
            "endpoints": ends,
            "ports": [{"name": "typha", "port": 5473, "protocol": "TCP"}],
        }
    )


def being_updated(recording: Recording) -> None:
    """An update has a second calico-node pod on each node, which does not run yet."""
    for node in recording.nodes:
        fresh = agent(node, {}, name=f"calico-node-new-{node}")
        fresh["status"] = {"phase": "Pending"}
        recording.objects += [agent(node, {}), fresh]


def cordoned(recording: Recording) -> None:
    for node in recording.nodes:
        taints = [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]
        resource(recording, "Node", node)["spec"].update(unschedulable=True, taints=taints)


def alone_in_their_subnets(recording: Recording) -> None:
    """As a cloud gives machines their addresses: /32."""
    for node in recording.nodes:
        address = resource(recording, "Node", node)["metadata"]["annotations"][ADDRESS].split("/")[0]
        annotate(recording, node, ADDRESS, f"{address}/32")


def of_mtu(uplink: int) -> Way:
    """The network takes packets of so many bytes, and tunnels and pods are made for it."""

    def change(recording: Recording) -> None:
        kernels = [*recording.nodes.values(), *recording.pods.values()]
        links = [link for kernel in kernels for link in kernel.links.values()]
        for link in links:
            if link["mtu"] == 1500:
                link["mtu"] = uplink
            elif link["mtu"] == 1450:
                link["mtu"] = uplink - 50
        for route in [route for kernel in recording.nodes.values() for route in kernel.routes]:
            for metric in route.get("metrics", ()):
                metric["mtu"] = uplink - 50

    return change


def addresses_on_the_loopback(recording: Recording) -> None:
    """Nodes are known by an address of `lo` that routers above them know, each in a network of its own."""
    own = {
        node: resource(recording, "Node", node)["metadata"]["annotations"][ADDRESS].split("/")[0]
        for node in recording.nodes
    }
    for node, kernel in recording.nodes.items():
        held = next(one for one in kernel.addresses[UPLINK] if one["family"] == "inet")
        kernel.addresses.setdefault("lo", []).append({**held, "prefixlen": 32, "label": "lo"})
        held["local"] = "10.99.0." + own[node].rpartition(".")[2]
        annotate(recording, node, ADDRESS, f"{own[node]}/32")
        kernel.links[VXLAN[4]]["linkinfo"]["info_data"]["link"] = "lo"
        for route in kernel.routes:
            if route["dst"] == "172.30.0.0/24":
                route.update(prefsrc=held["local"], dst="10.99.0.0/24")
            if route["dst"] == own[node]:
                route["dev"] = "lo"
        peers = [address for peer, address in own.items() if peer != node]
        kernel.routes += [{**BGP_ROUTE, "dst": one, "gateway": "10.99.0.254", "dev": UPLINK} for one in peers]


def by_the_gateway_alone(recording: Recording) -> None:
    """As a cloud has it: the subnet is a single address, and every packet goes to the gateway, which is all that a
    node knows a MAC of."""
    alone_in_their_subnets(recording)
    for kernel in recording.nodes.values():
        for held in kernel.addresses[UPLINK]:
            if held["family"] == "inet":
                held["prefixlen"] = 32
        kernel.routes = [one for one in kernel.routes if one["dst"] not in ("default", "172.30.0.255")]
        for route in kernel.routes:
            if route["dst"] == "172.30.0.0/24":
                route["dst"] = ROUTER
        kernel.routes.append({**BGP_ROUTE, "protocol": "16", "dst": "default", "gateway": ROUTER, "dev": UPLINK})
        kernel.neighbors = [one for one in kernel.neighbors if one["dev"] != UPLINK]
        kernel.neighbors.append(
            {"dst": ROUTER, "dev": UPLINK, "lladdr": "42:01:0a:80:00:01", "state": ["REACHABLE"]},
        )


def over_a_vpn(recording: Recording) -> None:
    """The nodes know each other through WireGuard (Tailscale, Netmaker): a device without MACs and without ARP."""
    of_mtu(1420)(recording)
    for kernel in recording.nodes.values():
        flags = ["POINTOPOINT", "NOARP", "UP", "LOWER_UP"]
        kernel.links[UPLINK].update(flags=flags, address="", operstate="UNKNOWN", linkinfo={"info_kind": "wireguard"})
        kernel.neighbors = [one for one in kernel.neighbors if one["dev"] != UPLINK]


def floating_address(recording: Recording) -> None:
    """Each uplink has beside its own address one that moves from node to node, and it is the first."""
    for kernel in recording.nodes.values():
        own = next(one for one in kernel.addresses[UPLINK] if one["family"] == "inet")
        kernel.addresses[UPLINK].insert(0, {**own, "local": "172.30.0.100", "prefixlen": 32})
        kernel.routes.append(
            {
                "type": "local", "dst": "172.30.0.100", "dev": UPLINK, "protocol": "kernel", "scope": "host",
                "flags": [], "table": "local", "prefsrc": "172.30.0.100",
            }
        )  # fmt: skip


def tables_by_source(recording: Recording) -> None:
    """What a node sends under its own address has a table of its own, as on machines with several uplinks."""
    for node, kernel in recording.nodes.items():
        own = resource(recording, "Node", node)["metadata"]["annotations"][ADDRESS].split("/")[0]
        kernel.rules.append({"priority": 1536, "src": own, "table": "100", "protocol": "static"})
        static = {**BGP_ROUTE, "protocol": "static", "dev": UPLINK, "table": "100"}
        kernel.routes.append({**static, "dst": "default", "gateway": ROUTER})
        kernel.routes.append({**static, "dst": "172.30.0.0/24", "scope": "link"})


def one_family_on_a_node(recording: Recording) -> None:
    """node-c and its pods have no IPv6, in a cluster that has both."""
    node = resource(recording, "Node", "node-c")
    annotations, status = node["metadata"]["annotations"], node["status"]
    for name in [one for one in annotations if "IPv6" in one or one.endswith("V6")]:
        del annotations[name]
    status["addresses"] = [one for one in status["addresses"] if ":" not in one["address"]]
    here = [pod for pod in _pods(recording) if pod["spec"].get("nodeName") == "node-c"]
    for pod in here:
        pod["status"]["podIPs"] = [one for one in pod["status"].get("podIPs", ()) if ":" not in one["ip"]]
        written = pod["metadata"].get("annotations", {})
        for name in [one for one in written if one.endswith("podIPs")]:
            written[name] = written[name].split(",")[0]
    names = [f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in here]
    recording.nodes["node-c"].remove_link(VXLAN[6])
    for kernel in (recording.nodes["node-c"], *(recording.pods[one] for one in names if one in recording.pods)):
        kernel.routes = [one for one in kernel.routes if ":" not in one["dst"] and "pref" not in one]
        for device, held in kernel.addresses.items():
            kernel.addresses[device] = [one for one in held if one["family"] == "inet"]

    def of_the_node(one: Object) -> bool:
        spec = one.get("spec") or {}
        return "node-c" in (spec.get("node"), str(spec.get("affinity")).partition(":")[2]) and ":" in spec["cidr"]

    kinds = ("IPAMBlock", "BlockAffinity")
    recording.objects[:] = [one for one in recording.objects if one["kind"] not in kinds or not of_the_node(one)]


def vlan_on_a_bond(recording: Recording) -> None:
    bonded(recording)
    name, below = "bond0.100", "bond0"
    for kernel in recording.nodes.values():
        bond = kernel.links[below]
        data = {"info_kind": "vlan", "info_data": {"id": 100}}
        kernel.links[name] = {**copy.deepcopy(bond), "ifname": name, "ifindex": 300, "link": below, "linkinfo": data}
        kernel.addresses[name] = [{**one, "label": name} for one in kernel.addresses.pop(below)]
        for listed, key in ((kernel.routes, "dev"), (kernel.neighbors, "dev"), (kernel.fdb, "ifname")):
            for one in listed:
                one[key] = name if one.get(key) == below else one.get(key)
                if one[key] is None:
                    del one[key]
        kernel.links[VXLAN[4]]["linkinfo"]["info_data"]["link"] = name
        switches = {path: one for path, one in kernel.sysctls.items() if f"/{below}/" in path}
        kernel.sysctls.update({path.replace(f"/{below}/", f"/{name}/"): one for path, one in switches.items()})


def crowded(recording: Recording) -> None:
    """Every node has devices, addresses and routes of others, some of them in the pools' own range."""
    devices = (
        ("nodelocaldns", "dummy", ("169.254.20.10", "10.96.0.10")),
        ("kube-ipvs0", "dummy", ("10.96.0.1", "10.96.0.10")),
        ("docker0", "bridge", ("10.244.0.1",)),
        ("cilium_host", "veth", ("10.244.255.9",)),
        ("cilium_vxlan", "vxlan", ()),
        ("wg0", "wireguard", ("10.8.0.2",)),
        ("kube-vip", "dummy", ("172.30.0.100",)),
    )
    for kernel in recording.nodes.values():
        for number, (name, kind, addresses) in enumerate(devices):
            data = {"info_data": {"external": True, "port": 8472}} if kind == "vxlan" else {}
            _add(kernel, name, 400 + number, {"info_kind": kind, **data}, addresses)
        kernel.routes.append(
            {
                "type": "unicast", "dst": "10.244.0.0/16", "dev": "docker0", "protocol": "kernel", "scope": "link",
                "flags": ["linkdown"], "table": "main", "prefsrc": "10.244.0.1",
            }
        )  # fmt: skip


def wireguard_called(name: str) -> Way:
    """The devices that encrypt have a name of somebody's choice."""

    def change(recording: Recording) -> None:
        wireguard()(recording)
        recording.programs.clear()  # whose keys they are
        felix(wireguardInterfaceName=name)(recording)
        for kernel in recording.nodes.values():
            kernel.links[name] = {**kernel.links.pop(WIREGUARD[4]), "ifname": name}
            kernel.addresses[name] = kernel.addresses.pop(WIREGUARD[4])
            for route in kernel.routes:
                if route.get("dev") == WIREGUARD[4]:
                    route["dev"] = name
            kernel.sysctls = {path.replace(WIREGUARD[4], name): one for path, one in kernel.sysctls.items()}

    return change


# ---- pods


def second_networks(*, default: bool) -> Way:
    """Every pod has a second network; default: which its default route leads into."""

    def change(recording: Recording) -> None:
        for kernel in recording.pods.values():
            _add(kernel, "net1", 50, {"info_kind": "macvlan"}, ("10.55.0.7",))
            if not default:
                continue
            for route in kernel.routes:
                if route["dst"] == "default":
                    route["dst"] = "10.244.0.0/16"
            kernel.routes.append({**BGP_ROUTE, "protocol": "boot", "dst": "default", "gateway": "10.55.0.1",
                                  "dev": "net1"})  # fmt: skip

    return change


def proxies_for_all(recording: Recording) -> None:
    """Nodes answer ARP for others on every device, so that no pod's interface needs to be told."""
    for kernel in recording.nodes.values():
        for path in [one for one in kernel.sysctls if one.endswith("/proxy_arp")]:
            kernel.sysctls[path] = "1" if "/all/" in path else "0"


def without_a_default_route(recording: Recording) -> None:
    """CNI was told which routes pods are to have."""
    for kernel in recording.pods.values():
        (default,) = [one for one in kernel.routes if one["dst"] == "default" and ":" not in one["gateway"]]
        kernel.routes.remove(default)
        kernel.routes += [{**default, "dst": one} for one in ("10.244.0.0/16", "10.96.0.0/12", "172.30.0.0/24")]


def in_a_wide_network(recording: Recording) -> None:
    """Pods take all of 10.0.0.0/8 and the nodes' subnet for their own network, where their node answers for all."""
    for kernel in recording.pods.values():
        own = next(one for one in kernel.addresses["eth0"] if one["family"] == "inet")
        own["prefixlen"] = 8
        link = {**BGP_ROUTE, "protocol": "kernel", "scope": "link", "dev": "eth0", "prefsrc": own["local"]}
        kernel.routes = [{**link, "dst": one} for one in ("10.0.0.0/8", "172.30.0.0/24")]


def sandboxes(recording: Recording) -> None:
    """node-b's pods run under gVisor, which takes address and routes out of their namespaces."""
    for name in _of_node_b(recording):
        kernel = recording.pods[name]
        kernel.addresses["eth0"], kernel.routes = [], []
        resource(recording, "Pod", name.partition("/")[2])["spec"]["runtimeClassName"] = "gvisor"


def virtual_machines(recording: Recording) -> None:
    """node-b's pods are KubeVirt's, bridged: the guest has the address, and for Kubernetes a dummy device."""
    for name in _of_node_b(recording):
        kernel, short = recording.pods[name], name.partition("/")[2]
        kernel.links["eth0-nic"] = {**kernel.links.pop("eth0"), "ifname": "eth0-nic", "master": "k6t-eth0"}
        held = [one["local"] for one in kernel.addresses.pop("eth0") if one["family"] == "inet"]
        kernel.routes = []
        _add(kernel, "k6t-eth0", 91, {"info_kind": "bridge"}, ("169.254.75.10",))
        _add(kernel, "eth0", 92, {"info_kind": "dummy"}, held)
        owner = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": short, "uid": "1"}
        resource(recording, "Pod", short)["metadata"]["ownerReferences"] = [owner]


# ---- parts


def _of_node_b(recording: Recording) -> list[str]:
    return [name for name in recording.pods if name.startswith("default/pod-b")]


def _pods(recording: Recording) -> list[Object]:
    return [one for one in recording.objects if one["kind"] == "Pod"]


def _blocks(recording: Recording) -> list[Object]:
    specs = [one["spec"] for one in recording.objects if one["kind"] == "IPAMBlock"]
    return [one for one in specs if ip_network(one["cidr"]).version == 4]


def _attributes(recording: Recording) -> list[Object]:
    return [attribute for spec in _blocks(recording) for attribute in spec["attributes"]]


def _add(kernel: Kernel, name: str, index: int, info: Object, addresses: Any) -> None:
    """A device that is up, with what the kernel writes for its addresses."""
    kernel.links[name] = {
        "ifname": name, "ifindex": index, "flags": ["UP", "LOWER_UP"], "operstate": "UNKNOWN", "mtu": 1500,
        "address": f"02:00:00:00:01:{index % 256:02x}", "linkinfo": info,
    }  # fmt: skip
    kernel.addresses[name] = [{"family": "inet", "local": one, "prefixlen": 32, "scope": "global"} for one in addresses]
    kernel.routes += [
        {
            "type": "local", "dst": one, "dev": name, "protocol": "kernel", "scope": "host", "flags": [],
            "table": "local", "prefsrc": one,
        }
        for one in addresses
    ]  # fmt: skip
