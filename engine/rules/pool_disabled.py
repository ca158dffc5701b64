"""When its only VXLAN pool is disabled, a node gives up its tunnel address and loses every path to other nodes."""

from engine.rule import HEALS_NEVER, Text, cause, listed, say, some, the
from facts import Allocation, CalicoNode, Leg, Pool


@cause(
    title="The only VXLAN pool is disabled",
    severity="breaks",
    remedy="Enable the pool again (or add another VXLAN pool for these nodes): tunnel addresses and routes are back "
    "within seconds. Disabling a pool does not only stop new addresses.",
    fix="enable_pool",
    stage="target tunnel",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, encapsulation="vxlan", target_kind="pod"),
    allocation=some(Allocation, address=the.leg.target_address),
    pool=some(Pool, name=the.allocation.pool),
    target=some(CalicoNode, name=the.leg.target_node, family=the.leg.family),
    source=some(CalicoNode, name=the.leg.source_node, family=the.leg.family),
)
def pool_disabled(leg: Leg, allocation: Allocation, pool: Pool, target: CalicoNode, source: CalicoNode) -> Text | None:
    """Cluster-wide, so without a node: both legs find the same."""
    bare = sorted({node.name for node in (source, target) if not node.tunnel_address and not node.vxlan_expected})
    if not pool.disabled or not bare:
        return None
    nodes = listed(bare)
    return say(
        "{pool} and no other VXLAN pool selects {nodes}, which therefore has no tunnel address any more: "
        "other nodes withdrew their routes, although the devices look fine."
        if len(bare) == 1
        else "{pool} and no other VXLAN pool selects {nodes}, which therefore have no tunnel address any more: "
        "other nodes withdrew their routes, although the devices look fine.",
        pool=say(
            "pool {name} ({cidr}) is being deleted" if pool.deleting else "pool {name} ({cidr}) is disabled",
            name=pool.name,
            cidr=pool.cidr,
        ),
        nodes=nodes,
    )
