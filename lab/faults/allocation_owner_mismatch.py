"""IPAM says the pod's address belongs to a pod of a third node, as after a datastore was restored from a backup."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import Object
from lab.objects import APPLICATION_NAMESPACE, pod_owner
from lab.shortage import block_of

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    address, third = IPv4Address(cluster.pod(wound.pod).address), wound.third()

    def edit(found: Object) -> None:
        spec = found["spec"]
        index = spec["allocations"][int(address) - int(IPv4Network(spec["cidr"])[0])]
        handle, secondary = pod_owner(APPLICATION_NAMESPACE, "former", third, datetime.now(UTC))
        spec["attributes"][index] = {"handle_id": handle, "secondary": secondary}

    cluster.change("ipamblocks", block_of(cluster, wound.node)["metadata"]["name"], edit)
