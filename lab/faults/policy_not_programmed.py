"""A policy that denies everything was deleted while Felix on this node slept: its rules are still there."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.firewall import node_state, policies

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    namespace, _, _ = wound.pod.partition("/")
    name = "long-gone"
    cluster.create(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
        }
    )
    cluster.put_felix_to_sleep(wound.node)
    known = policies(cluster.listed, cluster.sketch.group)
    state = node_state(cluster.families, wound.node, wound.family, known)
    cluster.firewall(wound.node, wound.family).apply(state)
    cluster.delete("networkpolicies", name, namespace)
