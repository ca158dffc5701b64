"""A table of somebody else's drops the tunnel's packets: what the source's node sends, or what the target's takes."""

from __future__ import annotations

from lab import nftables
from lab.cluster import Cluster
from lab.faults import Wound
from lab.nftables import Table

WHERE = ("source", "target")
FAMILIES = (4, 6)
UDP, VXLAN_PORT = 17, 4789


def inflict(cluster: Cluster, wound: Wound) -> None:
    device = cluster.felix(wound.node, wound.family).applied.device
    port = device.port if device else VXLAN_PORT
    table = Table(wound.family, "hardening")
    table.chain("wall", "output" if wound.where == "source" else "input")
    of_tunnel = [nftables.loaded(nftables.TRANSPORT_HEADER, 2, 2), nftables.compared(port.to_bytes(2, "big"))]
    table.rule("wall", *nftables.protocol(UDP), *of_tunnel, nftables.counted(), nftables.decide("drop"))
    cluster.firewall(wound.node, wound.family).write_beside(table)
