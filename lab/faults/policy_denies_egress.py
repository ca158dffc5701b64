"""A policy of the source's namespace denies it to send anything of the asked address family to the target."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.objects import policy_about, selector_of

WHERE = ("source",)
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    target = {"selector": selector_of(wound.other)}
    deny = {"action": "Deny", "ipVersion": wound.family, "destination": target}
    spec = {"types": ["Egress"], "egress": [deny, {"action": "Allow"}]}
    cluster.create(policy_about(wound.pod, "stay", spec))
