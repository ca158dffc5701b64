"""A policy of the target's namespace lets nothing of the asked address family into the target."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.objects import policy_about

WHERE = ("target",)
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    rule = {"action": "Allow", "ipVersion": 10 - wound.family}
    spec = {"types": ["Ingress"], "ingress": [rule]}
    cluster.create(policy_about(wound.pod, "strict", spec))
