"""A policy routing rule sends the pod's packets elsewhere than `ip route` on its node would have it."""

from engine.rule import HEALS_NEVER, Finding, cause, some, the
from facts import Leg, RouteLookup

STANDARD = {253, 254, 255}  # default, main, local: where every kernel's own three rules lead
RULE_SAYS_NO = {"ENETUNREACH", "EACCES"}  # an unreachable or prohibit rule; a blackhole is told by its entry
SWALLOWS = {"blackhole", "unreachable", "prohibit"}


@cause(
    title="A policy routing rule diverts packets to the target",
    severity="breaks",
    remedy="Read `ip rule` and the table it names on this node, and delete the rule or narrow it; Felix never does.",
    at=the.leg.source_node,
    stage="source node",
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, routed=True, source_kind="pod"),
    table=some(RouteLookup, node=the.leg.source_node, destination=the.leg.target_address, source="", incoming=""),
    flow=some(
        RouteLookup,
        node=the.leg.source_node,
        destination=the.leg.target_address,
        source=the.leg.source_address,
        incoming=the.leg.source_interface,
    ),
    own=some(RouteLookup, node=the.leg.source_node, destination=the.leg.source_address, source="", incoming=""),
)
def routing_rule_diverts(leg: Leg, table: RouteLookup, flow: RouteLookup, own: RouteLookup) -> str | Finding | None:
    """Of both: what the pod sends, and what arrives for it (where the rule looks at nothing but the destination)."""
    leaving = _leaving(leg, table, flow)
    if leaving or not own.found or own.table in STANDARD or own.device == leg.source_interface:
        return leaving
    return Finding(
        f"{own.node} sends packets for its own pod {leg.source} by {own.prefix} of table {own.table} "
        f"dev {own.device} instead of {leg.source_interface}.",
        stage="target node",
        other_leg=True,
    )


def _leaving(leg: Leg, table: RouteLookup, flow: RouteLookup) -> str | None:
    who = f"{flow.node} sends packets from {flow.source} to {flow.destination}"
    if flow.found:
        if flow.table in STANDARD or _right(leg, table, flow):
            return None
        via = f" via {flow.next_hop}" if flow.next_hop else ""
        return f"{who} by {flow.prefix} of table {flow.table}{via} dev {flow.device}; {_instead(leg, table)}."
    if not table.found:
        return None
    if flow.type in SWALLOWS and flow.table not in STANDARD:
        return f"{who} into {flow.type} {flow.prefix} of table {flow.table}; {_instead(leg, table)}."
    if flow.error in RULE_SAYS_NO:
        return f"{who} nowhere: the kernel says {flow.error}; {_instead(leg, table)}."
    return None


def _right(leg: Leg, table: RouteLookup, flow: RouteLookup) -> bool:
    """Does the flow get where it should, whatever table says so?"""
    if not leg.expected_next_hop:
        return (flow.device, flow.next_hop) == (table.device, table.next_hop)
    tunnelled = leg.expected_device == leg.tunnel_device
    return flow.next_hop == leg.expected_next_hop and (flow.device == leg.tunnel_device) == tunnelled


def _instead(leg: Leg, table: RouteLookup) -> str:
    if not table.found or table.table not in STANDARD:
        return f"the way to {leg.target_node} is by {leg.expected_device or 'the uplink'}"
    via = f" via {table.next_hop}" if table.next_hop else ""
    return f"without the rule it would be {table.prefix}{via} dev {table.device}"
