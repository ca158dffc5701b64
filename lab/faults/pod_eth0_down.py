"""The pod's own end of its veth is down, and its routes went with it; the node's end has no carrier."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import UPLINK

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.place(wound.pod).set_link(UPLINK, up=False)
