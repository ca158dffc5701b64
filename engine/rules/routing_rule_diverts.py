"""A policy routing rule sends the pod's packets elsewhere than `ip route` on its node would have it."""

from dataclasses import replace
from itertools import pairwise

from engine.between import LEFT
from engine.dropped import told
from engine.ending_rules import ending
from engine.rule import HEALS_NEVER, Finding, Text, cause, say, some, the
from engine.sender import ROUTE
from facts import Arrival, Leg, RouteLookup, RoutingRules, Sighting

STANDARD = {253, 254, 255}  # default, main, local: where every kernel's own three rules lead
RULE_SAYS_NO = {"ENETUNREACH", "EACCES"}  # an unreachable or prohibit rule; a blackhole is told by its entry
SWALLOWS = {"blackhole", "unreachable", "prohibit"}


@cause(
    title="A policy routing rule diverts packets to the target",
    severity="breaks",
    silent_while_well=True,  # a router there may know the way
    remedy="Read `ip rule` and the table it names on this node, and delete the rule or narrow it; Felix never does.",
    at=the.leg.source_node,
    stage="source node",
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, steered=True, source_kind="pod"),
    table=ROUTE,
    flow=some(
        RouteLookup,
        node=the.leg.source_node,
        destination=the.leg.target_address,
        source=the.leg.source_address,
        incoming=the.leg.source_interface,
    ),
    own=some(RouteLookup, node=the.leg.source_node, destination=the.leg.source_address, source="", incoming=""),
    arrival=some(Arrival, flow=the.leg.flow, node=the.leg.source_node),
    arriving=some(
        RouteLookup,
        node=the.leg.source_node,
        destination=the.leg.source_address,
        source=the.leg.target_address,
        incoming=the.arrival.device,
    ),
    left=LEFT,
    rules=some(RoutingRules, node=the.leg.source_node, family=the.leg.family),
)
def routing_rule_diverts(
    leg: Leg,
    table: RouteLookup,
    flow: RouteLookup,
    own: RouteLookup,
    arrival: Arrival,
    arriving: RouteLookup,
    left: Sighting,
    rules: RoutingRules,
) -> Text | Finding | None:
    """Of both: what the pod sends, and what arrives for it, by a rule about its address or about the sender's."""
    leaving = _leaving(leg, table, flow) or _ended(flow, own, rules) or _ended_for_all(table, flow, rules)
    if leaving:
        return told(leaving, _more_than_addresses(rules))
    astray = _astray(leg, flow, left, rules)
    if astray or leg.encapsulation == "local":  # what arrives from a pod of the same node is what that one sends
        return astray
    ended = _ended_for_all(own, arriving, rules)
    if ended:
        return Finding(ended, stage="target node", other_leg=True)
    found = _diverted(leg, own) or _diverted(leg, arriving) or _refused(leg, own, arriving, rules)
    return found and replace(found, text=told(found.text, _more_than_addresses(rules)))


def _diverted(leg: Leg, own: RouteLookup) -> Finding | None:
    """Does what is for the node's own pod go elsewhere?"""
    if not own.found or own.table in STANDARD or own.device == leg.source_interface:
        return None
    return Finding(
        say(
            "{node} sends packets for its own pod {pod} by {prefix} of table {table} dev {device} "
            "instead of {interface}.",
            node=own.node,
            pod=leg.source,
            prefix=own.prefix,
            table=own.table,
            device=own.device,
            interface=leg.source_interface,
        ),
        stage="target node",
        other_leg=True,
    )


def _ended(flow: RouteLookup, own: RouteLookup, rules: RoutingRules) -> Text | None:
    """A rule of type blackhole refuses as a filter by the source does, which the way back to the pod would pass."""
    if not _by_blackhole(flow, rules) or not own.found or own.device != flow.incoming:
        return None
    return say(
        "{node} sends packets from {source} to {destination} nowhere: a routing rule of type blackhole takes them.",
        node=flow.node,
        source=flow.source,
        destination=flow.destination,
    )


def _ended_for_all(routes: RouteLookup, flow: RouteLookup, rules: RoutingRules) -> Text | None:
    """A rule about the destination alone ends everybody's packets, before any table is asked."""
    rule = ending(_met(rules), routes)
    if not rule or flow.found or routes.error != flow.error:
        return None
    return say(
        "{node} sends packets from {source} to {destination} nowhere: the routing rule {rule} ends them, whatever its "
        "tables say.",
        node=flow.node,
        source=flow.source,
        destination=flow.destination,
        rule=rule,
    )


def _by_blackhole(lookup: RouteLookup, rules: RoutingRules) -> bool:
    ends = any(one.split()[-1] == "blackhole" for one in _met(rules))
    return ends and not lookup.found and lookup.error == "EINVAL" and not lookup.type


def _met(rules: RoutingRules) -> list[str]:
    """Those that packets of pods can meet: by `iif lo` come those of the node itself."""
    return [one for one in rules.rules if ("iif", "lo") not in pairwise(one.split())]


def _more_than_addresses(rules: RoutingRules) -> str:
    """Which a person would look for in vain by addresses."""
    met = _met(rules)
    if not met:
        return ""
    return say("Of its rules these ask for more than addresses, or end packets: {rules}.", rules="; ".join(met))


def _refused(leg: Leg, own: RouteLookup, arriving: RouteLookup, rules: RoutingRules) -> Finding | None:
    """Does the node take packets for its own pod, only not those of this sender?"""
    ended = arriving.rp_filter <= 0 and _by_blackhole(arriving, rules)  # a filter by the source refuses alike
    swallows = (arriving.type in SWALLOWS and arriving.table not in STANDARD) or ended
    if arriving.found or not own.found or not (swallows or arriving.error in RULE_SAYS_NO):
        return None
    return Finding(
        say(
            "{node} sends packets from {source} for its own pod {pod} nowhere: the kernel says {error}.",
            node=arriving.node,
            source=arriving.source,
            pod=leg.source,
            error=arriving.type or ("blackhole" if ended else arriving.error),
        ),
        stage="target node",
        other_leg=True,
    )


def _astray(leg: Leg, flow: RouteLookup, left: Sighting, rules: RoutingRules) -> Text | None:
    """A lookup knows no marks and no ports; packets that are seen to leave elsewhere have met a rule that does."""
    expected = _expected_device(leg)
    if leg.encapsulation == "local":
        astray = left.device if left.device != expected else ""
    else:
        astray = "" if left.seen else left.astray
    met = _met(rules)
    if not met or not astray or flow.device != expected:
        return None
    return say(
        "{node} sends packets from {source} to {destination} out by {device}, though its routes lead them into "
        "{tunnel}: a rule about more than addresses decides ({rules}).",
        node=flow.node,
        source=flow.source,
        destination=flow.destination,
        device=astray,
        tunnel=expected,
        rules="; ".join(met),
    )


def _leaving(leg: Leg, table: RouteLookup, flow: RouteLookup) -> Text | None:
    who = say(
        "{node} sends packets from {source} to {destination}",
        node=flow.node,
        source=flow.source,
        destination=flow.destination,
    )
    instead = _instead(leg, table)
    if flow.found:
        if flow.table in STANDARD or _right(leg, table, flow):
            return None
        return say(
            "{packets} by {prefix} of table {table} via {next_hop} dev {device}; {instead}."
            if flow.next_hop
            else "{packets} by {prefix} of table {table} dev {device}; {instead}.",
            packets=who,
            prefix=flow.prefix,
            table=flow.table,
            next_hop=flow.next_hop,
            device=flow.device,
            instead=instead,
        )
    if not table.found:
        return None
    if flow.type in SWALLOWS and flow.table not in STANDARD:
        return say(
            "{packets} into {type} {prefix} of table {table}; {instead}.",
            packets=who,
            type=flow.type,
            prefix=flow.prefix,
            table=flow.table,
            instead=instead,
        )
    if flow.error in RULE_SAYS_NO:
        return say(
            "{packets} nowhere: the kernel says {error}; {instead}.", packets=who, error=flow.error, instead=instead
        )
    return None


def _right(leg: Leg, table: RouteLookup, flow: RouteLookup) -> bool:
    """Does the flow get where it should, whatever table says so?"""
    expected = _expected_device(leg)
    if not leg.expected_next_hop and expected:  # the peer has no tunnel address: a tunnel it is all the same
        return flow.device == expected
    if not leg.expected_next_hop:
        return (flow.device, flow.next_hop) == (table.device, table.next_hop)
    tunnelled = leg.expected_device == leg.tunnel_device
    return (flow.next_hop or flow.destination) == leg.expected_next_hop and (
        flow.device == leg.tunnel_device
    ) == tunnelled


def _expected_device(leg: Leg) -> str:
    """ "" for the uplink."""
    return leg.target_interface if leg.encapsulation == "local" else leg.expected_device


def _instead(leg: Leg, table: RouteLookup) -> Text:
    if not table.found or table.table not in STANDARD:
        peer = leg.target if leg.encapsulation == "local" else leg.target_node
        return say("the way to {peer} is by {device}", peer=peer, device=_expected_device(leg) or say("the uplink"))
    return say(
        "without the rule it would be {prefix} via {next_hop} dev {device}"
        if table.next_hop
        else "without the rule it would be {prefix} dev {device}",
        prefix=table.prefix,
        next_hop=table.next_hop,
        device=table.device,
    )
