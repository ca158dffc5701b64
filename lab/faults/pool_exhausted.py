"""No address is left for a new pod: every pool is exactly as large as its block, and every block is full.

The pods that are there keep theirs and go on working; shop/late, scheduled on the wounded node, waits for one.
"""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Network

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import Object
from lab.objects import (
    APPLICATION_NAMESPACE,
    calico,
    container_id,
    handle_object,
    pod_owner,
    running_pod,
    scheduled_pod,
)

WHERE = ("source", "target")
BATCH = "batch"
LATE = "late"


def inflict(cluster: Cluster, wound: Wound) -> dict[str, str]:
    blocks = [block for block in cluster.listed("ipamblocks") if block["spec"]["affinity"]]
    pools = _shrink_pools(cluster, [block["spec"]["cidr"] for block in blocks])
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": BATCH}})
    for block in blocks:
        _fill(cluster, block)
    _wait_in_vain(cluster, wound.node, pools)
    late = f"{APPLICATION_NAMESPACE}/{LATE}"
    return (
        {"source": late, "target": wound.target}
        if wound.where == "source"
        else {"source": wound.source, "target": late}
    )


def _shrink_pools(cluster: Cluster, cidrs: list[str]) -> list[str]:
    """One pool a block. Returns their CIDRs as the CNI plugin lists them."""
    first, *further = cluster.listed("ippools")
    template = first["spec"]

    def shrink(pool: Object) -> None:
        pool["spec"]["cidr"] = cidrs[0]

    # The further pools come first, so that at no time an address is outside of all of them.
    for number, cidr in enumerate(cidrs[1:], 2):
        cluster.create(calico("IPPool", f"rack-{number}-ipv4-ippool", {**template, "cidr": cidr}))
    cluster.change("ippools", first["metadata"]["name"], shrink)
    return [*cidrs, *(pool["spec"]["cidr"] for pool in further)]


def _fill(cluster: Cluster, block: Object) -> None:
    """Gives every free address of a block to a running pod of the block's own node."""
    node = block["spec"]["affinity"].removeprefix("host:")
    network, now = IPv4Network(block["spec"]["cidr"]), datetime.now(UTC)
    handles = []

    def take(found: Object) -> None:
        spec = found["spec"]
        for ordinal in spec["unallocated"]:
            name = f"job-{node}-{ordinal}"
            handle, secondary = pod_owner(BATCH, name, node, now)
            spec["attributes"].append({"handle_id": handle, "secondary": secondary})
            spec["allocations"][ordinal] = len(spec["attributes"]) - 1
            spec["sequenceNumberForAllocation"][str(ordinal)] = spec["sequenceNumber"]
            spec["sequenceNumber"] += 1
            handles.append(handle)
            cluster.create(
                running_pod(
                    BATCH,
                    name,
                    node=node,
                    node_address=cluster.node_address(node),
                    address=str(network[ordinal]),
                    time=cluster.now(),
                )
            )
        spec["unallocated"] = []

    cluster.change("ipamblocks", block["metadata"]["name"], take)
    for handle in handles:
        cluster.create(handle_object(handle, str(network)))


def _wait_in_vain(cluster: Cluster, node: str, pools: list[str]) -> None:
    now = cluster.now()
    pod = scheduled_pod(APPLICATION_NAMESPACE, LATE, node=node, time=now)
    pod["status"] = {
        "phase": "Pending",
        "conditions": [
            {"lastProbeTime": None, "lastTransitionTime": now, "status": status, "type": kind, **why}
            for kind, status, why in (
                ("PodScheduled", "True", {}),
                ("Initialized", "True", {}),
                ("ContainersReady", "False", {"reason": "ContainersNotReady"}),
                ("Ready", "False", {"reason": "ContainersNotReady"}),
            )
        ],
        "containerStatuses": [
            {
                "image": "registry.example/app:1",
                "imageID": "",
                "lastState": {},
                "name": "app",
                "ready": False,
                "restartCount": 0,
                "started": False,
                "state": {"waiting": {"reason": "ContainerCreating"}},
            }
        ],
        "hostIP": cluster.node_address(node),
        "hostIPs": [{"ip": cluster.node_address(node)}],
        "qosClass": "BestEffort",
        "startTime": now,
    }
    created = cluster.create(pod)
    said = (
        f"Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox "
        f'"{container_id(APPLICATION_NAMESPACE, LATE)}": plugin type="calico" failed (add): failed to request IPv4 '
        f"addresses: Assigned 0 out of 1 requested IPv4 addresses; No IPs available in pools: [{' '.join(pools)}]"
    )
    cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{LATE}.sandbox", "namespace": APPLICATION_NAMESPACE},
            "type": "Warning",
            "reason": "FailedCreatePodSandBox",
            "message": said,
            "count": 3,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": LATE,
                "namespace": APPLICATION_NAMESPACE,
                "uid": created["metadata"]["uid"],
            },
            "source": {"component": "kubelet", "host": node},
            "reportingComponent": "kubelet",
            "reportingInstance": node,
        }
    )
