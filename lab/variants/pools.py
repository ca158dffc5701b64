"""Pools, blocks and allocations in the odd states that IPAM brings them into, all of them well."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from lab.drawing import POOLS, Drawing
from lab.intent import ANNOTATION_IPIP
from lab.objects import APPLICATION_NAMESPACE, calico, pod_owner
from lab.sketch import Sketch
from lab.variants.variant import Variant, drawn, sketched

SECOND_POOLS = {4: "10.245.0.0/16", 6: "fd00:10:245::/48"}
RANGE_OF_A_NODE = {4: 24, 6: 64}  # as kube-controller-manager cuts a cluster's range into its nodes'


@drawn(kind="blocks")
def several_blocks(drawing: Drawing) -> None:
    """Every node has two blocks, and pods in both."""
    _second_pods_elsewhere(drawing, POOLS)


@drawn(kind="blocks")
def two_pools(drawing: Drawing) -> None:
    """A second pool with another block size; every node has pods in both."""
    for family in drawing.sketch.families:
        size = drawing.pool(family)["spec"]["blockSize"] + 2
        drawing.add_pool(family, f"second-{family}", SECOND_POOLS[family], blockSize=size)
    _second_pods_elsewhere(drawing, SECOND_POOLS, smaller=2)


def _second_pods_elsewhere(drawing: Drawing, pools: dict[int, str], smaller: int = 0) -> None:
    for node in drawing.nodes:
        blocks = []
        for family in drawing.sketch.families:
            network = ip_network(drawing.free_block(node, family, pools[family]))
            first = next(network.subnets(new_prefix=network.prefixlen + smaller))
            blocks.append(drawing.claim(str(first), node))
        for pod in drawing.pods(node)[1:]:
            drawing.give_address(pod, blocks)


@sketched(conflicts="blocks-of-one-address host-local")
def large_blocks(sketch: Sketch) -> Sketch:
    """The pool's blocks are as large as they can be: 4096 addresses each."""
    return replace(sketch, block_size=((4, 20), (6, 116)))


@drawn(kind="blocks")
def blocks_of_one_address(drawing: Drawing) -> None:
    """The pool's blocks are of one address each: /32."""
    for node in drawing.nodes:
        former = [drawing.block(node, family) for family in drawing.sketch.families]

        def fresh(node: str = node) -> list[dict[str, object]]:
            return [drawing.claim(_single(drawing, node, family), node) for family in drawing.sketch.families]

        if drawing.sketch.vxlan_mode != "Never":
            for block in fresh():
                drawing.give_tunnel_address(node, block)
        for pod in drawing.pods(node):
            drawing.give_address(pod, fresh())
        for block in former:
            drawing.remove_block(block)
    for family in drawing.sketch.families:
        drawing.pool(family)["spec"]["blockSize"] = 32 if family == 4 else 128


def _single(drawing: Drawing, node: str, family: int) -> str:
    network = ip_network(drawing.free_block(node, family))
    return f"{network[0]}/{network.max_prefixlen}"


@drawn(conflicts="blocks-of-one-address bgp-router bgp-default-route")  # the lab's router is told of blocks only
def borrowed_pod_address(drawing: Drawing) -> None:
    """A pod of the last node has an address of the first node's block."""
    lender, borrower = drawing.nodes[0], drawing.nodes[-1]
    pod = drawing.pods(borrower)[-1]
    drawing.give_address(pod, [drawing.block(lender, family) for family in drawing.sketch.families])


@drawn(conflicts="blocks-of-one-address bgp-router bgp-default-route host-local borrowed-pod-address")
def all_nodes_borrow(drawing: Drawing) -> None:
    """The first pod of each node has an address of the next node's block."""
    lenders = [[drawing.block(node, family) for family in drawing.sketch.families] for node in drawing.nodes]
    for node, blocks in zip(drawing.nodes, [*lenders[1:], lenders[0]], strict=True):
        for pod in drawing.pods(node)[:1]:
            drawing.give_address(pod, blocks)


@drawn(conflicts="calico-3.26 calico-3.29 blocks-of-one-address disabled-pool node-outside-selector")
def borrowed_tunnel_address(drawing: Drawing) -> None:
    """The last node's tunnel address is from the first node's block, by a Calico that can do with that."""
    if drawing.sketch.vxlan_mode != "Never":
        for family in drawing.sketch.families:
            drawing.give_tunnel_address(drawing.nodes[-1], drawing.block(drawing.nodes[0], family))


@drawn(kind="tunnel pool", conflicts="blocks-of-one-address two-pools bgp bgp-router bgp-default-route")
def tunnel_from_another_pool(drawing: Drawing) -> None:
    """Tunnel addresses are from a pool no pod is in."""
    _tunnels_elsewhere(drawing, drawing.nodes, allowedUses=["Tunnel"])
    for family in drawing.sketch.families:
        drawing.pool(family)["spec"]["allowedUses"] = ["Workload"]


@drawn(kind="tunnel pool", conflicts="blocks-of-one-address two-pools bgp bgp-router bgp-default-route")
def disabled_pool(drawing: Drawing) -> None:
    """The pool of all pods is disabled; a new one has the tunnel addresses."""
    _tunnels_elsewhere(drawing, drawing.nodes)
    for family in drawing.sketch.families:
        drawing.pool(family)["spec"]["disabled"] = True


@drawn(kind="tunnel pool", conflicts="blocks-of-one-address two-pools bgp bgp-router bgp-default-route")
def node_outside_selector(drawing: Drawing) -> None:
    """The last node has left its pool's selector; its pods stay, and its tunnel address is from another pool."""
    for node in drawing.nodes[:-1]:
        drawing.one("Node", node)["metadata"]["labels"]["rack"] = "1"
    _tunnels_elsewhere(drawing, drawing.nodes[-1:], nodeSelector="!has(rack)")
    for family in drawing.sketch.families:
        drawing.pool(family)["spec"]["nodeSelector"] = "has(rack)"


def _tunnels_elsewhere(drawing: Drawing, nodes: list[str], **different: object) -> None:
    for family in drawing.sketch.families:
        drawing.add_pool(family, f"second-{family}", SECOND_POOLS[family], **different)
        for node in nodes:
            block = drawing.claim(drawing.free_block(node, family, SECOND_POOLS[family]), node)
            drawing.give_tunnel_address(node, block)


@drawn()
def empty_block(drawing: Drawing) -> None:
    """The first node keeps a block without any address in use."""
    for family in drawing.sketch.families:
        drawing.claim(drawing.free_block("kept", family), drawing.nodes[0])


@drawn()
def pending_affinity(drawing: Drawing) -> None:
    """A block is being claimed at this moment: its affinity is pending."""
    for family in drawing.sketch.families:
        block = drawing.claim(drawing.free_block("pending", family), drawing.nodes[-1])
        for affinity in drawing.all("BlockAffinity"):
            if affinity["spec"]["cidr"] == block["spec"]["cidr"]:
                affinity["spec"]["state"] = "pending"


@drawn()
def load_balancer_block(drawing: Drawing) -> None:
    """A block belongs to no node but to the controller of load balancers."""
    for family in drawing.sketch.families:
        block = drawing.empty_block(drawing.free_block("load-balancer", family), "virtual:load-balancer")
        drawing.take(block, "lb-service", {"type": "loadbalancer", "namespace": APPLICATION_NAMESPACE, "service": "x"})


@drawn(conflicts="blocks-of-one-address bgp bgp-router bgp-default-route")
def block_without_affinity(drawing: Drawing) -> None:
    """The last node's first block has lost its affinity; its pods have routes of their own."""
    for family in drawing.sketch.families:
        block = drawing.block(drawing.nodes[-1], family)
        block["spec"]["affinity"] = None
        for affinity in drawing.all("BlockAffinity"):
            if affinity["spec"]["cidr"] == block["spec"]["cidr"]:
                drawing.entries.remove(affinity)


@drawn()
def young_leak(drawing: Drawing) -> None:
    """A pod has gone a moment ago, and its address is not given back yet."""
    node = drawing.nodes[0]
    if any(block["spec"]["unallocated"] for block in drawing.all("IPAMBlock")):
        handle, secondary = pod_owner(APPLICATION_NAMESPACE, "gone", node, drawing.moment)
        for family in drawing.sketch.families:
            if drawing.block(node, family)["spec"]["unallocated"]:
                drawing.take(drawing.block(node, family), handle, secondary)


@drawn()
def handle_that_counts_too_many(drawing: Drawing) -> None:
    """The handle of a pod's address counts two where there is one, and a handle has no address."""
    handle = next(one for one in drawing.all("IPAMHandle") if one["spec"]["handleID"].startswith("k8s-pod-network."))
    for cidr in handle["spec"]["block"]:
        handle["spec"]["block"][cidr] = 2
    block = drawing.all("IPAMBlock")[0]["spec"]["cidr"]
    drawing.entries.append(
        calico(
            "IPAMHandle",
            "k8s-pod-network.orphan",
            {"block": {block: 1}, "deleted": False, "handleID": "k8s-pod-network.orphan"},
        )
    )


@drawn(conflicts="blocks-of-one-address no-ipam-configuration")
def address_in_cooldown(drawing: Drawing) -> None:
    """An address of the first node's block was released a moment ago and is not to be given out yet (Calico 3.33)."""
    drawing.one("IPAMConfig", "default")["spec"]["ipCooldownSeconds"] = 60
    for family in drawing.sketch.families:
        spec = drawing.block(drawing.nodes[0], family)["spec"]
        ordinal = spec["unallocated"].pop(0)
        spec["attributes"].append({"releasedAt": drawing.time})
        spec["allocations"][ordinal] = len(spec["attributes"]) - 1


@drawn()
def reserved_addresses(drawing: Drawing) -> None:
    """Some addresses of the pool are reserved for others."""
    cidrs = [
        str(next(ip_network(POOLS[family]).subnets(new_prefix=124 if family == 6 else 28)))
        for family in drawing.sketch.families
    ]
    drawing.entries.append(calico("IPReservation", "others", {"reservedCIDRs": cidrs}))


def _without_tunnels(sketch: Sketch) -> Sketch:
    """Nobody gives VXLAN tunnels an address there (calico.md 1.7)."""
    return replace(sketch, vxlan_mode="Never")


def _from_ranges_of_nodes(drawing: Drawing) -> None:
    """The first address of a range is the tunnel's: calico-node reckons it and writes it down."""
    _give_ranges(drawing)
    for node in drawing.nodes:
        found = drawing.one("Node", node)
        ranges = [ip_network(cidr) for cidr in found["spec"]["podCIDRs"]]
        for place, pod in enumerate(drawing.pods(node)):
            drawing.readdress(pod, [str(one[2 + place]) for one in ranges])
        if ANNOTATION_IPIP in found["metadata"]["annotations"]:
            found["metadata"]["annotations"][ANNOTATION_IPIP] = str(ranges[0][1])
    for pod in drawing.all("Pod"):
        if pod["metadata"].get("labels", {}).get("k8s-app") == "calico-node":
            pod["spec"]["containers"][0].setdefault("env", []).append({"name": "USE_POD_CIDR", "value": "true"})
    of_ipam = ("IPAMBlock", "IPAMHandle", "BlockAffinity", "IPAMConfig")
    drawing.entries[:] = [entry for entry in drawing.entries if entry["kind"] not in of_ipam]


def _give_ranges(drawing: Drawing) -> None:
    for number, node in enumerate(drawing.nodes):
        cidrs = [_range_of(number, family) for family in drawing.sketch.families]
        drawing.one("Node", node)["spec"].update(podCIDR=cidrs[0], podCIDRs=cidrs)


def _range_of(number: int, family: int) -> str:
    pool, length = ip_network(POOLS[family]), RANGE_OF_A_NODE[family]
    return str(ip_network((int(pool[0]) + (number << (pool.max_prefixlen - length)), length)))


host_local = Variant(
    "host-local",
    "The plugin host-local gives pods addresses of their node's own range (podCIDR), and Calico has no blocks.",
    kind="blocks",
    conflicts=frozenset(
        {"crosssubnet", "two-subnets", "ipv6-without-tunnel", "strict-affinity", "no-ipam-configuration",
         "borrowed-pod-address", "borrowed-tunnel-address", "tunnel-from-another-pool", "disabled-pool",
         "node-outside-selector", "empty-block", "pending-affinity", "load-balancer-block", "block-without-affinity",
         "young-leak", "handle-that-counts-too-many", "address-in-cooldown"}
    ),
    sketch=_without_tunnels,
    objects=_from_ranges_of_nodes,
)  # fmt: skip


@drawn(conflicts="host-local")
def ranges_nobody_uses(drawing: Drawing) -> None:
    """Nodes have ranges for their pods (podCIDR), as kubeadm's have, and Calico's IPAM does not look at them."""
    _give_ranges(drawing)
