"""A policy lets every address of one family into the target, and nobody thought of the other."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("target",)
FAMILIES = (6, 4)
VARIANT = "dualstack"
BESIDE = "policy_denies_ingress"
EVERYBODY = {4: "0.0.0.0/0", 6: "::/0"}


def inflict(cluster: Cluster, wound: Wound) -> None:
    namespace, _, _ = wound.pod.partition("/")
    of_the_other = {"from": [{"ipBlock": {"cidr": EVERYBODY[10 - wound.family]}}]}
    cluster.create(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "by-address", "namespace": namespace},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [of_the_other]},
        }
    )
