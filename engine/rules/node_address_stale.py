"""Peers send a node's tunnel packets to the address Calico has of it; one that no device holds any more is nobody's."""

from engine.rule import NOT_FELIX, Finding, Text, cause, listed, say, some, the
from facts import Leg, NodeAddress

MONITOR_S = 60  # calico-node itself looks at the node's address this often, unless it was told the address


@cause(
    title="Calico's address of the node is no longer the node's",
    severity="breaks",
    remedy="Restart the calico-node pod of this node: its start finds the address anew (IP=autodetect). If IP is fixed "
    "in its environment, correct it there. An IPv6 address that somebody else has as well: find who (ndisc6, the "
    "switch's tables), take it away there, and add it to the device anew.",
    after=["uplink_ipv6_disabled"],
    at=the.leg.source_node,
    stage="source node",
    both_ways=True,
    heals_within_s=MONITOR_S,
    healed_by_monitor=True,
    leg=some(Leg, crosses=True),
    held=some(NodeAddress, node=the.leg.source_node, address=the.leg.source_node_address),
)
def node_address_stale(leg: Leg, held: NodeAddress) -> Text | Finding | None:
    if held.duplicate:
        return Finding(
            say(
                "peers send to {address}, the address of {node}, but somebody else in its network has that address as "
                "well, so that the kernel of {node} does not use it ({device}, dadfailed).",
                address=held.address,
                node=held.node,
                device=held.device,
            ),
            heals_within_s=NOT_FELIX,
        )
    if held.found:
        return None
    return say(
        "peers send to {address}, Calico's address of {node}, but no device of {node} holds it; it has {others}.",
        address=held.address,
        node=held.node,
        others=listed(held.others) if held.others else say("no other"),
    )
