"""The node's kubelet is silent; its kernel goes on forwarding."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import Object

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    def edit(found: Object) -> None:
        for condition in found["status"]["conditions"]:
            if condition["type"] == "Ready":
                condition.update(
                    status="Unknown",
                    reason="NodeStatusUnknown",
                    message="Kubelet stopped posting node status.",
                    lastTransitionTime=cluster.now(),
                )

    cluster.change("nodes", wound.node, edit)
