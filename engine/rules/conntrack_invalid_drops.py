"""Packets that belong to no connection the node knows of are dropped as invalid: what came before them took another
way, or was not tracked."""

from engine.dropped import packets, rule_of, told
from engine.foreign import invalid
from engine.rule import NOT_FELIX, Finding, cause, say, some, the
from facts import Blame, Leg, RuleDrop, Stop

ROUTES = (
    "route_wrong_next_hop", "route_wrong_device", "route_shadowed", "foreign_route_to_pod", "routing_rule_diverts",
    "cross_subnet_asymmetric", "route_owner_conflict",
)  # fmt: skip
# What never gets through leaves its answers, and what is sent again, without a connection.
DROPS = (
    "calico_rule_drops", "endpoint_unknown_to_felix", "firewall_backends_mixed", "host_endpoint_denies",
    "host_firewall_drops_forward", "host_firewall_drops_local", "host_firewall_drops_vxlan", "pod_to_own_node_denied",
    "policy_denies_egress", "policy_denies_ingress", "policy_forgets_address_family", "policy_not_programmed",
    "vxlan_source_not_allowed",
)  # fmt: skip


@cause(
    title="Connection tracking does not know what the packets belong to",
    severity="breaks",
    remedy="Make both ways of the flow pass the same node and devices, and look for rules that exempt one way from "
    "tracking (NOTRACK, `notrack` in raw tables). disableConntrackInvalidCheck in the FelixConfiguration lets such "
    "packets pass, and hides why they are invalid.",
    after=(*ROUTES, *DROPS),
    after_peer=(*ROUTES, *DROPS),
    at=the.stop.node,
    heals_within_s=NOT_FELIX,
    stop=some(Stop),
    leg=some(Leg, flow=the.stop.flow, direction=the.stop.leg),
    drop=some(RuleDrop, id=the.stop.drop),
    blame=some(Blame, drop=the.stop.drop),
)
def conntrack_invalid_drops(stop: Stop, leg: Leg, drop: RuleDrop, blame: Blame) -> Finding | None:
    if not invalid(blame, drop) or drop.pod:
        return None
    said = say(
        "{node} drops {packets} as invalid: it has not seen the packets that these answer."
        if drop.reply
        else "{node} drops {packets} as invalid: they fit no connection that it has seen begin.",
        node=drop.node,
        packets=packets(drop, leg),
    )
    return Finding(told(said, rule_of(drop)), stage=stop.stage, severity="" if stop.decisive else "warns")
