"""A firewall of the node's own drops what the node itself takes or sends: packets of a node or of a pod on its network,
and those of IPIP and WireGuard between the nodes."""

from engine.dropped import rule_of, told
from engine.foreign import (
    all_but_handshakes,
    beside,
    ended,
    of_node_itself,
    of_others,
    owner_of,
    sends,
    severity,
    up_to,
)
from engine.rule import NOT_FELIX, Finding, Text, cause, say, some, the
from facts import Blame, Leg, RuleDrop, Stop

NAMES = {"ipip": "IPIP", "wireguard": "WireGuard"}


@cause(
    title="The node's own firewall drops what the node itself takes or sends",
    severity="breaks",
    remedy="Let the packets pass in whatever program wrote the rule (firewalld, ufw, a hardening script), for good: it "
    "writes its rules again. IPIP is protocol 4 between the nodes, WireGuard UDP 51820 (51821 for IPv6).",
    at=the.stop.node,
    heals_within_s=NOT_FELIX,
    stop=some(Stop),
    leg=some(Leg, flow=the.stop.flow, direction=the.stop.leg),
    drop=some(RuleDrop, id=the.stop.drop),
    blame=some(Blame, drop=the.stop.drop),
)
def host_firewall_drops_local(stop: Stop, leg: Leg, drop: RuleDrop, blame: Blame) -> Finding | None:
    around = drop.outer and leg.encapsulation in NAMES
    if not of_others(blame, drop) or not (around or of_node_itself(drop, leg)):
        return None
    said = _around(drop, leg) if around else ended(drop, leg)
    text = told(said, rule_of(drop), owner_of(blame, drop), beside(stop), all_but_handshakes(drop), up_to(drop))
    return Finding(text, stage=stop.stage, severity=severity(stop, drop))


def _around(drop: RuleDrop, leg: Leg) -> Text:
    return say(
        "{node} drops the {tunnel} packets that it sends to {peer}, those of {source} to {target} among them."
        if sends(drop, leg)
        else "{node} drops the {tunnel} packets that come from {peer}, those of {source} to {target} among them.",
        node=drop.node,
        tunnel=NAMES[leg.encapsulation],
        peer=leg.target_node if drop.node == leg.source_node else leg.source_node,
        source=leg.source,
        target=leg.target,
    )
