"""A node without a tunnel address has no peers: they withdraw their routes to it and drop what it sends."""

from engine.rule import HEALS_NEVER, Text, cause, say, some, the
from facts import CalicoNode, Leg


@cause(
    title="The node has no tunnel address",
    severity="breaks",
    remedy="Restart the calico-node pod of this node: its start allocates a tunnel address, as does any change of an "
    "IPPool, and nothing else does. If it crash-loops, no address was to be had: look at the pool. Where no pool "
    "selects the node, let the nodeSelector of one do so again.",
    fix="restart_calico_node",
    after_peer=["pool_disabled"],  # of the whole cluster, so of no node
    at=the.leg.target_node,
    stage="target tunnel",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, encapsulation="vxlan"),
    node=some(CalicoNode, name=the.leg.target_node, family=the.leg.family),
)
def tunnel_address_missing(leg: Leg, node: CalicoNode) -> Text | None:
    if node.tunnel_address:
        return None
    if not node.vxlan_expected:
        return say(
            "no enabled VXLAN pool selects {node} (nodeSelector), so Calico gave it no tunnel address or took it back, "
            "although pods there have addresses of such a pool; {peer} has nothing to route to.",
            node=node.name,
            peer=leg.source_node,
        )
    return say(
        "{node} has no annotation {annotation} although a VXLAN pool selects it; {peer} has nothing to route to.",
        node=node.name,
        annotation=f"projectcalico.org/IPv{leg.family}VXLANTunnelAddr",
        peer=leg.source_node,
    )
