"""A machine whose neighbor table is full learns no new MAC: now this, now that address is unreachable."""

from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import Leg, NeighborTable

NEARLY = 0.9  # the kernel makes room as soon as an entry is five seconds old, so it is seldom quite full


@cause(
    title="The node's neighbor table is full",
    severity="breaks",
    last_resort=True,
    remedy="Raise net.ipv4.neigh.default.gc_thresh3 (net.ipv6 for IPv6) with gc_thresh1 and gc_thresh2 on this node, "
    "and find out what fills it: a large flat network, or a scan.",
    at=the.leg.source_node,
    stage="source node",
    both_ways=True,
    heals_within_s=NOT_FELIX,
    leg=some(Leg, crosses=True),
    table=some(NeighborTable, node=the.leg.source_node, family=the.leg.family),
)
def neighbor_table_full(leg: Leg, table: NeighborTable) -> Text | None:
    """A table that was full once is well today; permanent entries are never too many."""
    if table.limit <= 0 or table.refused <= 0 or table.collectable < NEARLY * table.limit:
        return None
    return say(
        "the IPv{family} neighbor table of {node} holds {count} of at most {limit} entries that may change, and "
        "refused {refused} since the machine started.",
        family=table.family,
        node=table.node,
        count=table.collectable,
        limit=table.limit,
        refused=table.refused,
    )
