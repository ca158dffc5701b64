"""Somebody marks the pod's packets, and a routing rule asks for that mark: no lookup by addresses tells of it, and
`ip route get` shows the right way while the packets are swallowed."""

import re

from engine.dropped import told
from engine.passage import asked
from engine.rule import HEALS_NEVER, Finding, cause, say, some, the
from facts import FirewallTrace, Leg, RoutingRules

BY_MARK = re.compile(r"^\d+: .*\bfwmark (0x[0-9a-f]+)/(0x[0-9a-f]+) ")
HARMLESS = re.compile(r": not |\biif lo\b|\blookup (?:253|254|255)$")  # what others decide; the kernel's own tables
# Why packets may be lost where their route is chosen, and what shows it.
PLAIN = (
    "ip_forwarding_off", "foreign_route_to_pod", "pod_route_missing", "reverse_path_filter_drops", "route_blackholed",
    "route_missing", "routing_rule_diverts",
)  # fmt: skip


@cause(
    title="A routing rule swallows packets by the mark they carry",
    severity="breaks",
    remedy="Read the table that rule names (`ip route show table N`), and look for who marks the packets (`nft list "
    "ruleset`, `iptables-save -t mangle`: rules that set a mark): a VPN, a cloud's agent, another network plugin. Let "
    "it leave the pools' networks alone, or narrow the rule; Felix does neither.",
    after=PLAIN,
    at=the.trace.node,
    stage="source node",
    heals_within_s=HEALS_NEVER,
    trace=some(FirewallTrace, outer=False, dropped=0),
    leg=some(Leg, source_address=the.trace.source_address, target_address=the.trace.target_address),
    rules=some(RoutingRules, node=the.trace.node, family=the.leg.family),
)
def routing_mark_diverts(trace: FirewallTrace, leg: Leg, rules: RoutingRules) -> Finding | None:
    """They were seen to pass all rules before their route is chosen, and no other, or those of what is for the node."""
    if trace.last_hook != "prerouting" and (trace.last_hook != "input" or leg.target_kind != "pod"):
        return None
    taking = [one for one in rules.rules if _takes(one, trace.mark)]
    if not taking or not trace.seen or (trace.protocol, trace.port) != asked(leg):
        return None
    number = f"{trace.protocol} {trace.port}" if trace.port else trace.protocol
    words = {"packet": number, "source": leg.source, "target": leg.target}
    packets = (
        say("the answers of {source} to {packet} from {target}", **words)
        if leg.direction == "reverse"
        else say("{packet} from {source} to {target}", **words)
    )
    text = say(
        "{node} loses {packets} where it chooses their way: they carry the mark {mark} there, and of its routing rules "
        "these ask for it: {rules}.",
        node=trace.node,
        packets=packets,
        mark=f"{trace.mark:#x}",
        rules="; ".join(taking),
    )
    return Finding(told(text), stage="source node" if trace.node == leg.source_node else "target node")


def _takes(rule: str, mark: int) -> bool:
    match = BY_MARK.search(rule)
    if match is None or HARMLESS.search(rule):
        return False
    wanted, mask = (int(one, 16) for one in match.groups())
    return mark & mask == wanted & mask and wanted & mask != 0
