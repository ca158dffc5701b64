"""A HostEndpoint of every interface of the node, with a policy that lets no TCP to the target's address pass it."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.objects import calico

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    host = calico(
        "HostEndpoint",
        "guarded",
        {"node": wound.node, "interfaceName": "*", "profiles": ["projectcalico-default-allow"]},
    )
    host["metadata"]["labels"] = {"guarded": "yes"}
    cluster.create(host)
    to_the_target = {"nets": [cluster.cidr(wound.target, wound.family)]}
    spec = {
        "selector": "guarded == 'yes'",
        "applyOnForward": True,
        "types": ["Ingress"],
        "ingress": [{"action": "Deny", "protocol": "TCP", "destination": to_the_target}, {"action": "Allow"}],
    }
    cluster.create(calico("GlobalNetworkPolicy", "default.guard", spec))
