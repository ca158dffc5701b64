"""Nothing leads what the node forwards into Calico's chains: every policy about its pods is off, silently, because all
packets pass."""

from engine.rule import HEALS_CHAIN, Text, cause, listed, say, some, the
from facts import CalicoFirewall, CalicoNode, Leg


@cause(
    title="No policy is in force on the node",
    severity="warns",
    remedy="Find what flushes the node's chains or takes Calico's jump out of FORWARD (`iptables -F`, `nft flush`, a "
    "restart of another firewall). If it stays off, look at the log of calico-node on this node, and restart it.",
    after=["calico_node_missing", "felix_stuck"],
    at=the.firewall.node,
    heals_within_s=HEALS_CHAIN,
    firewall=some(CalicoFirewall),
    leg=some(Leg, source_kind="pod", source_node=the.firewall.node, family=the.firewall.family),
    node=some(CalicoNode, name=the.firewall.node, family=the.firewall.family),
)
def policy_not_enforced(firewall: CalicoFirewall, leg: Leg, node: CalicoNode) -> Text | None:
    if firewall.entered or node.bpf or node.foreign_dataplane or not node.settings_read:
        return None
    if leg.obstacle in ("ebpf", "driver", "windows", "settings", "pool"):  # another plugin's pods may have no chains
        return None
    if firewall.backends:
        return say(
            "chain FORWARD on {node} does not lead to cali-FORWARD (IPv{family}, {backends}): Calico's rules are "
            "there, and nothing that passes the node meets them.",
            node=firewall.node,
            family=firewall.family,
            backends=listed(firewall.backends),
        )
    return say(
        "no packet filter of {node} has rules of Calico in a chain cali-FORWARD (IPv{family}): whatever policies say, "
        "everything from and to its pods passes.",
        node=firewall.node,
        family=firewall.family,
    )
