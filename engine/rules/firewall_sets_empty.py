"""After somebody deleted Calico's tables Felix first writes its chains, and its maps and sets when it next looks: until
then they know no pod's interface and no other node, and drop what comes from either or is for a pod."""

from engine.rule import HEALS_ENTRY, Text, cause, say, some, the
from facts import CalicoFirewall, Leg

NFTABLES = "nftables"


@cause(
    title="Calico's chains are there, and what they ask is empty",
    severity="breaks",
    remedy="Find who deletes Calico's tables (`nft flush ruleset` in a script, a restart of firewalld or of "
    "nftables.service). Restarting calico-node on this node fills its maps and sets at once.",
    fix="restart_calico_node",
    at=the.firewall.node,
    stage="source veth",
    both_ways=True,
    silent_while_well=True,
    heals_within_s=HEALS_ENTRY,
    firewall=some(CalicoFirewall),
    leg=some(Leg, source_node=the.firewall.node, family=the.firewall.family),
)
def firewall_sets_empty(firewall: CalicoFirewall, leg: Leg) -> Text | None:
    if NFTABLES not in firewall.entered:
        return None
    if leg.source_kind == "pod" and 0 in (firewall.from_pods, firewall.to_pods):
        return say(
            "the maps of Calico's nftables table on {node} that tell pods by their interfaces are empty (IPv{family}: "
            "{from_pods} for what comes from pods, {to_pods} for what is for them), though {pod} lives there.",
            node=firewall.node,
            family=firewall.family,
            from_pods=firewall.from_pods,
            to_pods=firewall.to_pods,
            pod=leg.source,
        )
    # A node without a tunnel address is in nobody's set, and may have none itself.
    addressed = leg.source_tunnel_address and leg.target_tunnel_address
    if leg.encapsulation == "vxlan" and addressed and firewall.vxlan_peers == 0:
        return say(
            "the set of nodes whose VXLAN packets are taken is empty in Calico's nftables table on {node} "
            "(IPv{family}): what {peer} sends is dropped there.",
            node=firewall.node,
            family=firewall.family,
            peer=leg.target_node,
        )
    return None
