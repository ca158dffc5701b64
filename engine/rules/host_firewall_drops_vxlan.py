"""A firewall of the node's own, beside Calico's, drops the tunnel's packets: those that come in, or those it sends."""

from engine.dropped import rule_of, told
from engine.foreign import all_but_handshakes, beside, of_others, owner_of, sends, severity, up_to
from engine.rule import NOT_FELIX, Finding, cause, say, some, the
from facts import Blame, Leg, RuleDrop, Stop


@cause(
    title="The node's own firewall drops VXLAN packets",
    severity="breaks",
    remedy="Let the tunnel's UDP port pass between the nodes in whatever program wrote the rule (firewalld, ufw, a "
    "hardening script), on every node and both ways, and for good: it writes its rules again. Felix moves its own "
    "rules before those of iptables when it next looks, and never before those of other tables.",
    at=the.stop.node,
    heals_within_s=NOT_FELIX,
    stop=some(Stop),
    leg=some(Leg, flow=the.stop.flow, direction=the.stop.leg),
    drop=some(RuleDrop, id=the.stop.drop),
    blame=some(Blame, drop=the.stop.drop),
)
def host_firewall_drops_vxlan(stop: Stop, leg: Leg, drop: RuleDrop, blame: Blame) -> Finding | None:
    if not of_others(blame, drop) or not drop.outer or leg.encapsulation != "vxlan":
        return None
    said = say(
        "{node} drops the VXLAN packets (UDP {port}) that it sends to {peer}, those of {source} to {target} among them."
        if sends(drop, leg)
        else "{node} drops the VXLAN packets (UDP {port}) that come from {peer}, those of {source} to {target} among "
        "them.",
        node=drop.node,
        port=leg.vxlan_port,
        peer=leg.target_node if drop.node == leg.source_node else leg.source_node,
        source=leg.source,
        target=leg.target,
    )
    text = told(said, rule_of(drop), owner_of(blame, drop), beside(stop), all_but_handshakes(drop), up_to(drop))
    return Finding(text, stage=stop.stage, severity=severity(stop, drop))
