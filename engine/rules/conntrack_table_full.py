"""A node that can track no further connection drops the first packet of every new one, while old ones live on."""

from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import ConnectionTable, Leg

FULL = 0.98  # of the limit: entries come and go while one looks


@cause(
    title="The node's table of connections is full",
    severity="breaks",
    remedy="Raise net.netfilter.nf_conntrack_max (kube-proxy sets it by conntrack.maxPerCore) and find who opens so "
    "many connections: `conntrack -L`, DNS over UDP, a scanner, timeouts that are too long.",
    at=the.table.node,
    stage="source node",
    both_ways=True,
    last_resort=True,
    heals_within_s=NOT_FELIX,
    table=some(ConnectionTable),
    leg=some(Leg, source_node=the.table.node),
)
def conntrack_table_full(table: ConnectionTable, leg: Leg) -> Text | None:
    if table.limit <= 0 or table.count < table.limit * FULL:
        return None
    return say(
        "{node} tracks {count} connections of {limit} it has room for, and has dropped {refused} packets for want of "
        "room: new connections are lost.",
        node=table.node,
        count=table.count,
        limit=table.limit,
        refused=table.refused,
    )
