"""The node's tunnel address was released, and a new pod of that node got it."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import Object
from lab.objects import APPLICATION_NAMESPACE, handle_object, pod_owner, running_pod
from lab.shortage import block_of

WHERE = ("source", "target")
TAKER = "taker"


def inflict(cluster: Cluster, wound: Wound) -> None:
    node, address = wound.node, cluster.tunnel_address(wound.node)
    block = block_of(cluster, node)
    handle, secondary = pod_owner(APPLICATION_NAMESPACE, TAKER, node, datetime.now(UTC))

    def take(found: Object) -> None:
        spec = found["spec"]
        ordinal = int(IPv4Address(address)) - int(IPv4Network(spec["cidr"])[0])
        spec["unallocated"].remove(ordinal)
        spec["attributes"].append({"handle_id": handle, "secondary": secondary})
        spec["allocations"][ordinal] = len(spec["attributes"]) - 1

    cluster.free_tunnel_address(node)
    cluster.change("ipamblocks", block["metadata"]["name"], take)
    cluster.create(handle_object(handle, block["spec"]["cidr"]))
    cluster.create(
        running_pod(
            APPLICATION_NAMESPACE,
            TAKER,
            node=node,
            node_address=cluster.node_address(node),
            address=address,
            time=cluster.now(),
        )
    )
