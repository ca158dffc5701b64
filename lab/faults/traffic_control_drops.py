"""A program at the traffic control (tc) of the pod's device on its node, left over from something else, drops what the
source pod sends, or what comes to the target pod."""

from __future__ import annotations

from lab import traffic_control
from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    pod, other = (cluster.pod(name, wound.family) for name in (wound.pod, wound.other))
    with cluster.kernel(wound.node).namespace.entered():
        if wound.where == "source":
            traffic_control.drop(pod.interface, "ingress", target=other.address)
        else:
            traffic_control.drop(pod.interface, "egress", source=other.address)
