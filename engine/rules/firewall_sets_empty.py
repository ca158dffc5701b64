"""After somebody deleted Calico's tables Felix first writes its chains, and its sets and maps when it next looks: until
then every pod's interface is unknown to them, and whatever comes from a pod or is for one is dropped."""

from engine.rule import HEALS_ENTRY, Text, cause, say, some, the
from facts import CalicoFirewall, Leg

NFTABLES = "nftables"


@cause(
    title="Calico's chains are there, and the maps they ask are empty",
    severity="breaks",
    remedy="Find who deletes Calico's tables (`nft flush ruleset` in a script, a restart of firewalld or of "
    "nftables.service). Restarting calico-node on this node fills the maps at once.",
    at=the.firewall.node,
    stage="source veth",
    both_ways=True,
    silent_while_well=True,
    heals_within_s=HEALS_ENTRY,
    firewall=some(CalicoFirewall),
    leg=some(Leg, source_kind="pod", source_node=the.firewall.node, family=the.firewall.family),
)
def firewall_sets_empty(firewall: CalicoFirewall, leg: Leg) -> Text | None:
    if NFTABLES not in firewall.entered or 0 not in (firewall.from_pods, firewall.to_pods):
        return None
    return say(
        "the maps of Calico's nftables table on {node} that tell pods by their interfaces are empty (IPv{family}: "
        "{from_pods} for what comes from pods, {to_pods} for what is for them), though {pod} lives there.",
        node=firewall.node,
        family=firewall.family,
        from_pods=firewall.from_pods,
        to_pods=firewall.to_pods,
        pod=leg.source,
    )
