"""A rule inside the pod's own network drops what comes to it by TCP: what others ask it, and what it is answered."""

from __future__ import annotations

from lab import nftables
from lab.cluster import Cluster
from lab.faults import Wound
from lab.nftables import Table

WHERE = ("source", "target")
FAMILIES = (4, 6)
TCP = 6


def inflict(cluster: Cluster, wound: Wound) -> None:
    table = Table(wound.family, "sidecar")
    table.chain("in", "input")
    table.rule("in", *nftables.protocol(TCP), nftables.counted(), nftables.decide("drop"))
    with cluster.place(wound.pod).namespace.entered():
        table.write()
