"""Somebody's agent marks what the pod sends, and its routing rule leads what has that mark into a table that swallows
it."""

from __future__ import annotations

from ipaddress import ip_network

from lab import nftables
from lab.cluster import Cluster
from lab.faults import Wound
from lab.kernel import Route
from lab.nftables import Table

WHERE = ("source", "target")
FAMILIES = (4, 6)
MARK, TABLE, PRIORITY = 0x40, 100, 90
BEFORE_NAT = -150
EVERYTHING = {4: "0.0.0.0/0", 6: "::/0"}


def inflict(cluster: Cluster, wound: Wound) -> None:
    agent = Table(wound.family, "agent")
    agent.chain("marks", "prerouting", priority=BEFORE_NAT)
    from_pod = agent.within("source", ip_network(cluster.cidr(wound.pod, wound.family)))
    agent.rule("marks", *from_pod, *nftables.set_mark(MARK, on=True))
    kernel = cluster.kernel(wound.node)
    kernel.put_route(Route(EVERYTHING[wound.family], kind="blackhole", table=TABLE))
    kernel.put_marked_rule(PRIORITY, TABLE, MARK, wound.family)
    cluster.firewall(wound.node, wound.family).write_beside(agent)
