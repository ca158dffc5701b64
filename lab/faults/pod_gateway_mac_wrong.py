"""Something in the pod fixed a wrong MAC for the pod's gateway."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import UPLINK
from lab.topology import POD_GATEWAYS

WRONG_MAC = "02:de:ad:00:00:01"

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.place(wound.pod).put_neighbor(UPLINK, POD_GATEWAYS[wound.family], WRONG_MAC)
