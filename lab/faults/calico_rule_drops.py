"""Felix holds the pod's endpoint for disabled: instead of its policies, one rule of its chains drops all."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.firewall import words

WHERE = ("source", "target")
FAMILIES = (4, 6)
COMMENT = "cali:Oq4Jr6XTaKVPeRpe; Endpoint admin disabled"


def inflict(cluster: Cluster, wound: Wound) -> None:
    wall = cluster.firewall(wound.node, wound.family)
    changes = wall.changes()
    interface = cluster.pod(wound.pod, wound.family).interface
    for way in ("tw", "fw"):
        chain = f"filter-cali-{way}-{interface}"
        changes.insert(chain, action=words.decide("drop"), comment=COMMENT)
    wall.amend(changes)
