"""Felix once wrote to another packet filter of this node: its chains are there, and know no pod that was made since."""

from __future__ import annotations

from lab import nftables
from lab.cluster import Cluster
from lab.faults import Wound
from lab.firewall import TABLE
from lab.nftables import Table

WHERE = ("source", "target")
FAMILIES = (4, 6)
DISPATCH = {"source": "cali-from-wl-dispatch", "target": "cali-to-wl-dispatch"}
DIRECTION = {"source": nftables.INCOMING, "target": nftables.OUTGOING}


def inflict(cluster: Cluster, wound: Wound) -> None:
    wall = cluster.firewall(wound.node, wound.family)
    # To iptables-nft, or where Felix writes there now, to nftables.
    name, layer = (TABLE, "filter-") if wall.filter == "iptables-nft" else ("filter", "")
    table = Table(wound.family, name)
    base, forward, dispatch = (layer + chain for chain in ("FORWARD", "cali-FORWARD", DISPATCH[wound.where]))
    table.chain(base, "forward")
    for chain in (forward, dispatch):
        table.chain(chain)
    pod = cluster.pod(wound.pod, wound.family).interface
    met = [nftables.meta(DIRECTION[wound.where]), nftables.compared(nftables.interface(pod))]
    table.rule(base, nftables.counted(), nftables.decide("jump", forward), comment="cali:wUHhoiAYhphO9Mso")
    table.rule(forward, *met, nftables.counted(), nftables.decide("jump", dispatch), comment="cali:jxvuJjmmRV135nVu")
    unknown = "cali:HmNZxmHPdaZP7nZL; Unknown interface"
    table.rule(dispatch, nftables.counted(), nftables.decide("drop"), comment=unknown)
    wall.write_beside(table)
