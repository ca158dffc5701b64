"""Peers send a node's tunnel packets to the address Calico has of it; one that no device holds any more is nobody's."""

from engine.rule import Text, cause, listed, say, some, the
from facts import Leg, NodeAddress

MONITOR_S = 60  # calico-node itself looks at the node's address this often, unless it was told the address


@cause(
    title="Calico's address of the node is no longer the node's",
    severity="breaks",
    remedy="Restart the calico-node pod of this node: its start finds the address anew (IP=autodetect). If IP is fixed "
    "in its environment, correct it there.",
    after=["uplink_ipv6_disabled"],
    at=the.leg.source_node,
    stage="source node",
    both_ways=True,
    heals_within_s=MONITOR_S,
    healed_by_monitor=True,
    leg=some(Leg, crosses=True),
    held=some(NodeAddress, node=the.leg.source_node, address=the.leg.source_node_address),
)
def node_address_stale(leg: Leg, held: NodeAddress) -> Text | None:
    if held.found:
        return None
    return say(
        "peers send to {address}, Calico's address of {node}, but no device of {node} holds it; it has {others}.",
        address=held.address,
        node=held.node,
        others=listed(held.others) if held.others else say("no other"),
    )
