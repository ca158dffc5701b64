"""Somebody flushed the chain of the one pod whose policy denies the packets: they pass, and all else is as it was."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.firewall import node_state, policies
from lab.objects import policy_about

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    leaves = wound.where == "source"
    rule = {"action": "Allow", "ipVersion": 10 - wound.family}
    spec = {"types": ["Egress"], "egress": [rule]} if leaves else {"types": ["Ingress"], "ingress": [rule]}
    cluster.create(policy_about(wound.pod, "strict", spec))
    wall = cluster.firewall(wound.node, wound.family)
    known = policies(cluster.listed, cluster.sketch.group)
    wall.apply(node_state(cluster.families, wound.node, wound.family, known))
    changes = wall.changes()
    changes.empty(f"filter-cali-{'fw' if leaves else 'tw'}-{cluster.pod(wound.pod).interface}")
    wall.amend(changes)
