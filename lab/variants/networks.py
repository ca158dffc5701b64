"""How packets get from node to node: families, encapsulation, subnets, routers."""

from __future__ import annotations

from dataclasses import replace

from lab.drawing import Drawing
from lab.intent import ANNOTATION_IPIP, ANNOTATION_TUNNEL, V6_METRIC
from lab.kernel import BIRD, Route
from lab.objects import calico
from lab.sketch import Sketch
from lab.topology import BRIDGE, Topology
from lab.variants.variant import Variant, drawn, sketched

MANAGEMENT = "172.31.0."


@sketched(kind="family")
def dualstack(sketch: Sketch) -> Sketch:
    """Every node and pod has an IPv4 and an IPv6 address."""
    return replace(sketch, families=(4, 6))


@sketched(kind="family")
def ipv6(sketch: Sketch) -> Sketch:
    """No node and no pod has an IPv4 address."""
    return replace(sketch, families=(6,))


@drawn(
    conflicts="ipv6 crosssubnet bgp bgp-router bgp-default-route two-subnets borrowed-tunnel-address "
    "tunnel-from-another-pool disabled-pool node-outside-selector blocks-of-one-address tunnel-mac-by-hand two-pools"
)
def ipv6_without_tunnel(drawing: Drawing) -> None:
    """Of a dual stack cluster IPv4 goes through the tunnel and IPv6 as BIRD's routes say."""
    if 6 in drawing.sketch.families:
        drawing.pool(6)["spec"]["vxlanMode"] = "Never"
        for node in drawing.nodes:
            drawing.free(drawing.tunnel_address(node, 6))
            del drawing.one("Node", node)["metadata"]["annotations"][ANNOTATION_TUNNEL[6]]


@sketched(kind="encapsulation")
def crosssubnet(sketch: Sketch) -> Sketch:
    """Packets between nodes of one subnet need no tunnel."""
    return replace(sketch, vxlan_mode="CrossSubnet")


@sketched(kind="encapsulation", conflicts="two-subnets")
def bgp(sketch: Sketch) -> Sketch:
    """No tunnel at all: BIRD writes a route to each block."""
    return replace(sketch, vxlan_mode="Never")


def _into_ipip(drawing: Drawing) -> None:
    if 4 in drawing.sketch.families:
        drawing.pool(4)["spec"].update(vxlanMode="Never", ipipMode="Always")
        for node in drawing.nodes:
            annotations = drawing.one("Node", node)["metadata"]["annotations"]
            if ANNOTATION_TUNNEL[4] in annotations:
                drawing.free(annotations.pop(ANNOTATION_TUNNEL[4]))
            owner = {"node": node, "type": "ipipTunnelAddress"}
            annotations[ANNOTATION_IPIP] = drawing.take(drawing.block(node, 4), f"ipip-tunnel-addr-{node}", owner)


ipip = Variant(
    "ipip",
    "IPv4 packets between nodes are wrapped into IPIP (by a TUN device, for want of the kernel's own).",
    kind="encapsulation",
    conflicts=frozenset(
        {"ipv6", "ipv6-without-tunnel", "borrowed-tunnel-address", "tunnel-from-another-pool", "disabled-pool",
         "node-outside-selector", "blocks-of-one-address", "tunnel-mac-by-hand", "two-pools"}
    ),
    objects=_into_ipip,
)  # fmt: skip


@sketched(conflicts="wide-subnet")
def two_subnets(sketch: Sketch) -> Sketch:
    """The last node is in a subnet of its own."""
    return replace(sketch, two_subnets=True)


@sketched()
def wide_subnet(sketch: Sketch) -> Sketch:
    """The nodes' addresses have the prefix length 16, as kind's."""
    return replace(sketch, wide_subnet=True)


def _reached_elsewhere(drawing: Drawing) -> None:
    for number, node in enumerate(drawing.nodes):
        addresses = drawing.one("Node", node)["status"]["addresses"]
        addresses[:] = [one for one in addresses if one["type"] != "InternalIP"]
        addresses.insert(0, {"address": f"{MANAGEMENT}{11 + number}", "type": "InternalIP"})


def _add_management_network(topology: Topology) -> None:
    topology.underlay.add_address(BRIDGE, f"{MANAGEMENT}1/24")
    for number, node in enumerate(topology.nodes.values()):
        node.kernel.add_address(node.uplink, f"{MANAGEMENT}{11 + number}/24")


management_network = Variant(
    "management-network",
    "Kubernetes knows the nodes by addresses of another network than the one Calico uses.",
    conflicts=frozenset({"ipv6"}),
    objects=_reached_elsewhere,
    machines=_add_management_network,
)


def _without_tunnels(sketch: Sketch) -> Sketch:
    return replace(sketch, vxlan_mode="Never")


def _peer_with_the_router(drawing: Drawing) -> None:
    drawing.one("BGPConfiguration", "default")["spec"]["nodeToNodeMeshEnabled"] = False
    drawing.entries.append(calico("BGPPeer", "router", {"peerIP": "172.30.0.1", "asNumber": 64512}))
    for pod in drawing.all("Pod"):
        if pod["metadata"].get("labels", {}).get("k8s-app") == "calico-node":  # the kubelet hears of BIRD by this alone
            command = ["/bin/calico-node", "-felix-ready", "-bird-ready"]
            pod["spec"]["containers"][0]["readinessProbe"] = {"exec": {"command": command}, "periodSeconds": 10}


def _teach_the_router(topology: Topology) -> None:
    """The router has learned where each pod is."""
    for pod in topology.pods.values():
        for family, address in pod.addresses.items():
            via = str(pod.node.interfaces[family].ip)
            length, metric = (32, 0) if family == 4 else (128, V6_METRIC)
            topology.underlay.put_route(Route(f"{address}/{length}", gateway=via, device=BRIDGE, metric=metric))


def _forget_the_pools(topology: Topology) -> None:
    for node in topology.nodes.values():
        for family in node.interfaces:
            for route in node.kernel.routes(family):
                if route.protocol == BIRD and route.gateway:
                    node.kernel.delete_route(route)


def _behind_the_router(topology: Topology) -> None:
    _teach_the_router(topology)
    _forget_the_pools(topology)


bgp_router = Variant(
    "bgp-router",
    "No tunnel: the nodes peer with the router of their subnet only, which tells them of the whole pool and no block.",
    kind="encapsulation",
    sketch=_without_tunnels,
    objects=_peer_with_the_router,
    machines=_teach_the_router,
)

bgp_default_route = Variant(
    "bgp-default-route",
    "No tunnel and no route to any pool: each node's default route leads to a router that knows all blocks.",
    kind="encapsulation",
    sketch=_without_tunnels,
    objects=_peer_with_the_router,
    machines=_behind_the_router,
)
