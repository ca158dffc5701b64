"""Blocks without a free address and pods that wait for one; without it each such wound would tell its own story."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network

from lab.cluster import Cluster
from lab.errors import LabError
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

BATCH = "batch"
LATE = "late"


def block_of(cluster: Cluster, node: str) -> Object:
    """The first block affine to a node. Raises LabError where Calico's IPAM has none."""
    for block in cluster.listed("ipamblocks"):
        if block["spec"]["affinity"] == f"host:{node}":
            return block
    raise LabError(f"This fault needs a block of Calico's IPAM, and {node} of this lab has none.", 2)


def one_pool_a_block(cluster: Cluster, selector: str) -> None:
    """Pools as large as a node's block instead of those there were; `{}` in the selector is the block's node.

    The new ones come first, so that no address is ever outside of all of them.
    """
    old = cluster.listed("ippools")
    for block in cluster.listed("ipamblocks"):
        node = block["spec"]["affinity"].removeprefix("host:")
        spec = {**old[0]["spec"], "cidr": block["spec"]["cidr"], "nodeSelector": selector.format(node)}
        cluster.create(calico("IPPool", f"{node}-ipv4-ippool", spec))
    for pool in old:
        cluster.delete("ippools", pool["metadata"]["name"])


def fill(cluster: Cluster, node: str) -> None:
    """Gives every free address of the node's block to a running pod of that node."""
    block = block_of(cluster, node)
    network, now = IPv4Network(block["spec"]["cidr"]), datetime.now(UTC)
    handles = []
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": BATCH}})

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


def forget_pods(cluster: Cluster, node: str, age: timedelta) -> None:
    """Gives every free address of the node's block to a pod that is gone since: nobody told IPAM."""
    block = block_of(cluster, node)
    network, then = IPv4Network(block["spec"]["cidr"]), datetime.now(UTC) - age
    handles = []

    def take(found: Object) -> None:
        spec = found["spec"]
        for ordinal in spec["unallocated"]:
            handle, secondary = pod_owner(BATCH, f"gone-{node}-{ordinal}", node, then)
            spec["attributes"].append({"handle_id": handle, "secondary": secondary})
            spec["allocations"][ordinal] = len(spec["attributes"]) - 1
            spec["sequenceNumberForAllocation"][str(ordinal)] = spec["sequenceNumber"]
            spec["sequenceNumber"] += 1
            handles.append(handle)
        spec["unallocated"] = []

    cluster.change("ipamblocks", block["metadata"]["name"], take)
    for handle in handles:
        cluster.create(handle_object(handle, str(network)))


def wait_in_vain(cluster: Cluster, wound: Wound, said: str) -> dict[str, str]:
    """shop/late on the wounded node, whose network CNI could not set up; `said` is why. Returns the pair to ask for."""
    node, now = wound.node, cluster.now()
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
    message = (
        f"Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox "
        f'"{container_id(APPLICATION_NAMESPACE, LATE)}": plugin type="calico" failed (add): {said}'
    )
    cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{LATE}.sandbox", "namespace": APPLICATION_NAMESPACE},
            "type": "Warning",
            "reason": "FailedCreatePodSandBox",
            "message": message,
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
    late = f"{APPLICATION_NAMESPACE}/{LATE}"
    if wound.where == "source":
        return {"source": late, "target": wound.target}
    return {"source": wound.source, "target": late}
