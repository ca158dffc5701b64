"""Somebody deleted Calico's tables: its chains are back, and its sets and maps are empty yet."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.errors import LabError
from lab.faults import Wound
from lab.firewall import NFTABLES
from lab.firewall.chains import DISPATCHES

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    wall = cluster.firewall(wound.node, wound.family)
    if wall.filter != NFTABLES:
        raise LabError(
            f"This fault is one of nftables mode, and {wound.node} has {wall.filter}: what comes back there is whole.",
            2,
        )
    changes = wall.changes()
    for name in (*DISPATCHES, f"cali{wound.family}0all-vxlan-net"):
        changes.clear(name)
    wall.amend(changes)
