"""No address is left for a new pod: its node's pool is a single block, and every address of it is taken.

Every node gets a pool of its own, as large as its block; the pods that are there keep their addresses and go on
working. shop/late, scheduled on the wounded node, waits for one.
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
    blocks = {block["spec"]["affinity"].removeprefix("host:"): block for block in cluster.listed("ipamblocks")}
    _one_pool_a_node(cluster, {node: block["spec"]["cidr"] for node, block in blocks.items()})
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": BATCH}})
    _fill(cluster, wound.node, blocks[wound.node])
    _wait_in_vain(cluster, wound.node, blocks[wound.node]["spec"]["cidr"])
    late = f"{APPLICATION_NAMESPACE}/{LATE}"
    if wound.where == "source":
        return {"source": late, "target": wound.target}
    return {"source": wound.source, "target": late}


def _one_pool_a_node(cluster: Cluster, cidrs: dict[str, str]) -> None:
    """Instead of the pools there were; the new ones come first, so that no address is ever outside of all of them."""
    old = cluster.listed("ippools")
    for node, cidr in cidrs.items():
        selector = f'kubernetes.io/hostname == "{node}"'
        spec = {**old[0]["spec"], "cidr": cidr, "nodeSelector": selector}
        cluster.create(calico("IPPool", f"{node}-ipv4-ippool", spec))
    for pool in old:
        cluster.delete("ippools", pool["metadata"]["name"])


def _fill(cluster: Cluster, node: str, block: Object) -> None:
    """Gives every free address of a block to a running pod of the block's own node."""
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


def _wait_in_vain(cluster: Cluster, node: str, pool: str) -> None:
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
        f"addresses: Assigned 0 out of 1 requested IPv4 addresses; No IPs available in pools: [{pool}]"
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
