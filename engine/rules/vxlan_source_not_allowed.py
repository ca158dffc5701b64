"""Calico takes a tunnel's packets from addresses of nodes it knows, and drops those of all others: Felix on the
target's node does not have the source's node in its set."""

from engine.dropped import rule_of, told
from engine.rule import HEALS_ENTRY, Finding, cause, say, some, the
from facts import Blame, Leg, RuleDrop, Stop


@cause(
    title="Calico does not take the other node's tunnel packets",
    severity="breaks",
    remedy="Look at the log of calico-node on this node: whether it hears of the other one, and whether it can write "
    "its sets (`nft list set ip calico cali40all-vxlan-net`, `ipset list cali40all-vxlan-net`). Restarting it makes it "
    "read everything anew. If the other node has several addresses, see which one it sends from.",
    after=["firewall_backends_mixed", "firewall_sets_empty"],
    # A node that sends from another address is not known by it.
    after_peer=["node_address_missing", "node_address_stale", "node_address_wrong", "vxlan_local_address_wrong"],
    at=the.stop.node,
    stage="target tunnel",
    heals_within_s=HEALS_ENTRY,
    stop=some(Stop),
    leg=some(Leg, flow=the.stop.flow, direction=the.stop.leg),
    drop=some(RuleDrop, id=the.stop.drop),
    blame=some(Blame, drop=the.stop.drop),
)
def vxlan_source_not_allowed(stop: Stop, leg: Leg, drop: RuleDrop, blame: Blame) -> Finding | None:
    if blame.what != "vxlan_source":
        return None
    if not leg.source_tunnel_address:  # such a node is rightly in nobody's set: that is what is wrong with it
        return None
    said = say(
        "{node} drops the VXLAN packets that come from {peer}: Calico there does not know the address they come "
        "from as a node's ({peer} is {address}).",
        node=drop.node,
        peer=leg.source_node,
        address=leg.source_node_address,
    )
    return Finding(told(said, rule_of(drop)), stage=stop.stage)
