"""Which routing rule ends packets before any table is asked; without it a route that is there would be missed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from engine.prefix import holds
from facts import Fact, Leg, RouteLookup, RoutingRules, in_turn, say

ENDS = {"blackhole": "EINVAL", "unreachable": "ENETUNREACH", "prohibit": "EACCES"}  # types of rules
MAIN_IS_ASKED = 32766  # priority of every kernel's own rule
OWN = ["iif", "lo"]  # of what the node itself sends


def ending(rules: Iterable[str], lookup: RouteLookup, *, own: bool = False) -> str:
    """The rule about the destination alone that refused the lookup; "" for none. own: also one about what the node
    itself sends."""
    return next((one for one in rules if not lookup.found and _ends(one, lookup, own=own)), "")


def _ends(rule: str, lookup: RouteLookup, *, own: bool) -> bool:
    number, *words, action = rule.split()
    if ENDS.get(action) != lookup.error or int(number.rstrip(":")) >= MAIN_IS_ASKED:
        return False
    if own and words[-2:] == OWN:
        words = words[:-2]
    return not words or (words[0] == "to" and len(words) == 2 and holds(words[1], lookup.destination))


def marked(facts: Sequence[Fact]) -> list[Fact]:
    """The facts, with the rule that refused what a node itself would send."""
    rules = {(one.node, one.family): one.rules for one in facts if isinstance(one, RoutingRules) and one.rules}
    if not rules:
        return list(facts)
    found: list[Fact] = []
    for fact in facts:
        if isinstance(fact, RouteLookup) and not (fact.found or fact.source or fact.type):
            family = 6 if ":" in fact.destination else 4
            rule = ending(rules.get((fact.node, family), ()), fact, own=True)
            fact = msgspec.structs.replace(fact, ended_by=rule)
        found.append(fact)
    return found


def told(leg: Leg, facts: Sequence[Fact]) -> str:
    """Of what a node itself sends; "" where no rule ends it."""
    if leg.source_kind != "node":
        return ""
    return in_turn(
        say(
            "The routing rule {rule} ends what {node} itself sends to {address}, whatever its tables say.",
            rule=one.ended_by,
            node=one.node,
            address=one.destination,
        )
        for one in facts
        if isinstance(one, RouteLookup)
        and one.ended_by
        and (one.node, one.destination) == (leg.source_node, leg.target_address)
    )
