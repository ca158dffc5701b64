"""Felix once wrote to iptables on this node: its chains are still there, and know no pod that was made since."""

from __future__ import annotations

from lab import nftables
from lab.cluster import Cluster
from lab.faults import Wound
from lab.nftables import Table

WHERE = ("source", "target")
FAMILIES = (4, 6)
DISPATCH = {"source": "cali-from-wl-dispatch", "target": "cali-to-wl-dispatch"}
DIRECTION = {"source": nftables.INCOMING, "target": nftables.OUTGOING}


def inflict(cluster: Cluster, wound: Wound) -> None:
    table = Table(wound.family, "filter")
    table.chain("FORWARD", "forward")
    dispatch = DISPATCH[wound.where]
    for chain in ("cali-FORWARD", dispatch):
        table.chain(chain)
    pod = cluster.pod(wound.pod, wound.family).interface
    met = [nftables.meta(DIRECTION[wound.where]), nftables.compared(nftables.interface(pod))]
    table.rule("FORWARD", nftables.counted(), nftables.decide("jump", "cali-FORWARD"), comment="cali:wUHhoiAYhphO9Mso")
    table.rule(
        "cali-FORWARD", *met, nftables.counted(), nftables.decide("jump", dispatch), comment="cali:jxvuJjmmRV135nVu"
    )
    unknown = "cali:HmNZxmHPdaZP7nZL; Unknown interface"
    table.rule(dispatch, nftables.counted(), nftables.decide("drop"), comment=unknown)
    cluster.firewall(wound.node, wound.family).write_beside(table)
