"""An old Calico, and the node's tunnel address is from another node's block because no block was left for it."""

from __future__ import annotations

from ipaddress import IPv4Network

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import ANNOTATION_TUNNEL, Object
from lab.objects import handle_object
from lab.shortage import block_of

WHERE = ("source", "target")
VERSION = "v3.29.7"


def inflict(cluster: Cluster, wound: Wound) -> None:
    node, lender = wound.node, block_of(cluster, wound.third())
    handle = f"vxlan-tunnel-addr-{node}"

    def age(found: Object) -> None:
        found["spec"]["calicoVersion"] = VERSION

    def borrow(found: Object) -> None:
        spec = found["spec"]
        ordinal = spec["unallocated"].pop()
        spec["attributes"].append({"handle_id": handle, "secondary": {"node": node, "type": "vxlanTunnelAddress"}})
        spec["allocations"][ordinal] = len(spec["attributes"]) - 1

    def annotate(found: Object) -> None:
        found["metadata"]["annotations"][ANNOTATION_TUNNEL[4]] = str(IPv4Network(lender["spec"]["cidr"])[-1])

    cluster.change("clusterinformations", "default", age)
    cluster.free_tunnel_address(node)
    cluster.change("ipamblocks", lender["metadata"]["name"], borrow)
    cluster.create(handle_object(handle, lender["spec"]["cidr"]))
    cluster.change("nodes", node, annotate)
