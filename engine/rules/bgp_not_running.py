"""Without BIRD a node neither announces its blocks nor learns those of others."""

from engine.prefix import covers_more
from engine.rule import NOT_FELIX, Finding, cause, say, some, the
from engine.sender import ROUTE
from facts import Bird, CalicoNode, Leg, RouteLookup, Text


@cause(
    title="BIRD does not run",
    severity="breaks",
    last_resort=True,
    silent_while_well=True,
    remedy="Read the log of this node's calico-node pod, and see what CALICO_NETWORKING_BACKEND says there: pools "
    "without VXLAN need `bird`, unless Felix is to write their routes (programClusterRoutes). Where a pool lost its "
    "vxlanMode, give it back.",
    after=["calico_node_missing"],
    at=the.bird.node,
    stage="source node",
    heals_within_s=NOT_FELIX,
    bird=some(Bird),
    leg=some(Leg, source_node=the.bird.node, family=the.bird.family, route_by="bgp"),
    there=ROUTE,
    back=some(RouteLookup, node=the.leg.target_node, destination=the.leg.source_address, source="", incoming=""),
    node=some(CalicoNode, name=the.leg.source_node, family=the.leg.family),
)
def bgp_not_running(
    bird: Bird, leg: Leg, there: RouteLookup, back: RouteLookup, node: CalicoNode
) -> Text | Finding | None:
    """Routes it has written outlive it; only missing ones tell that it should run. Where calico-node is told to leave
    networking alone somebody else carries the packets: a cloud, another network plugin. Told to do VXLAN it does the
    networking, and for a pool without it nobody writes routes."""
    if bird.running or leg.route_owner == "felix":
        return None
    if node.backend == "vxlan" and _lacking(there, leg.target_block):
        return say(
            "calico-node on {node} is told to do VXLAN only, without BIRD (CALICO_NETWORKING_BACKEND), and the pool of "
            "{target} is without VXLAN: {node} has no route for {block} of {peer}.",
            node=bird.node,
            target=leg.target,
            block=leg.target_block or leg.target_address,
            peer=leg.target_node,
        )
    if not bird.seen or node.backend not in ("", "bird"):
        return None
    if _lacking(there, leg.target_block):
        return say(
            "BIRD does not run on {node}, which has no route for {block} of {target}.",
            node=bird.node,
            block=leg.target_block or leg.target_address,
            target=leg.target_node,
        )
    if _lacking(back, leg.source_block):
        text = say(
            "BIRD does not run on {node}, so nobody announces {block}, and {target} has no route for it.",
            node=bird.node,
            block=leg.source_block or leg.source_address,
            target=leg.target_node,
        )
        return Finding(text, other_leg=True)
    return None


def _lacking(route: RouteLookup, block: str) -> bool:
    return route.error == "ENETUNREACH" if not route.found else covers_more(route.prefix, block)
