"""Sentences about a rule that ended packets; without it each failure mode of the firewall would word them anew."""

from __future__ import annotations

from engine.opinions import SHOWN, called
from facts import Blame, Leg, RuleDrop, Stop, Text, in_turn, joined, say

TAKEN = {  # by a rule that does not drop
    "queue": "It hands them to a program of the node, and none gives them back: it is gone, or drops them.",
    "stolen": "It takes them off their way to where it says.",
}
OF_POLICIES = ("policy", "end_of_tier", "profile", "no_profile")
TOO_LONG = 240  # characters of a rule's text


def packets(drop: RuleDrop, leg: Leg | None) -> Text:
    """`tcp 5432 from shop/cart to shop/db`, the answers to such packets, or the tunnel's packets that carry either."""
    inner = _inner(drop, leg)
    return say("the tunnel's packets with {packets}", packets=inner) if drop.outer else inner


def _inner(drop: RuleDrop, leg: Leg | None) -> Text:
    number = f"{drop.protocol} {drop.port}" if drop.port else drop.protocol
    source, target = (leg.source, leg.target) if leg else (drop.source_address, drop.target_address)
    if drop.later:
        return say(
            "what {source} answers in connections that {target} has made to {packet}"
            if drop.reply
            else "what follows in connections of {packet} that {source} has made to {target}",
            packet=number,
            source=source,
            target=target,
        )
    if drop.reply:
        return say("the answers of {source} to {packet} from {target}", packet=number, source=source, target=target)
    return say("{packet} from {source} to {target}", packet=number, source=source, target=target)


def rule_of(drop: RuleDrop) -> Text:
    """Which rule it is, as its own tool lists it."""
    named = [_named(drop)]
    if drop.element:
        named.append(
            say("What decided is the element of its map {map} for {element}.", map=drop.map, element=drop.element)
        )
    if drop.device:
        named.append(
            say("It is about what goes out by {device} alone.", device=drop.device)
            if drop.hook == "egress"
            else say("It is about what comes in by {device}, before all other rules.", device=drop.device)
        )
    if drop.verdict in TAKEN:
        named.append(say(TAKEN[drop.verdict]))
    if drop.marked_by:
        text = _short(drop.marked_by)
        named.append(say("Its conditions stand in the rule that sets this mark: {text}.", text=text))
    return told(*named)


def _named(drop: RuleDrop) -> Text:
    where, text = {"chain": drop.chain, "table": drop.table, "backend": drop.backend}, _short(drop.text)
    if drop.number == 0:
        return say(
            "The kernel names the policy of chain {chain} (table {table}, {backend}): {text}.", **where, text=text
        )
    if drop.number < 0:
        return say("The kernel names a rule of chain {chain} (table {table}, {backend}) that is gone.", **where)
    return say(
        "The kernel names rule {number} of chain {chain} (table {table}, {backend}): {text}."
        if drop.how == "trace"
        else "Only rule {number} of chain {chain} (table {table}, {backend}) counted as many packets: {text}.",
        **where,
        number=drop.number,
        text=text,
    )


def _short(text: str) -> str:
    return text if len(text) <= TOO_LONG else text[:TOO_LONG] + "..."


def by_policy(blame: Blame) -> Text:
    """The part of a policy that ended them: `by rule 2 of Calico NetworkPolicy shop/db in tier default`."""
    policy = called(blame.kind, blame.namespace, blame.name)
    if blame.what == "end_of_tier":
        return say(
            "at the end of tier {tier}, where none of its policies took them ({policies})"
            if blame.tier
            else "at the end of a tier, where none of its policies took them ({policies})",
            tier=blame.tier,
            policies=joined(map(policy_named, blame.consulted)) or say("not known"),
        )
    if blame.what == "profile":
        return say("by its profile {name}", name=blame.name)
    if blame.what == "no_profile":
        return say("because no policy is about it and no profile of it lets them pass")
    if not blame.rule and not blame.rule_name:
        return say("by {policy} in tier {tier}", policy=policy, tier=blame.tier)
    return say(
        "by rule {rule} of {policy} in tier {tier}",
        rule=" ".join(filter(None, (str(blame.rule or ""), blame.rule_name and f"({blame.rule_name})"))),
        policy=policy,
        tier=blame.tier,
    )


def policy_named(consulted: str) -> str:
    """A policy of Blame.consulted or Stop.forgets, `NetworkPolicy default/web`, as a person calls it."""
    kind, _, name = consulted.rpartition(" ")
    return called(kind, "", name)


def beside(stop: Stop) -> str:
    """What a person should know beside it: where policies drop pings alone, what they let pass."""
    if stop.decisive:
        return ""
    if not stop.allowed:
        return say("Whether they let other packets pass is not known: ask again with the port.")
    more = len(stop.allowed) - SHOWN
    words = joined(stop.allowed[:SHOWN])
    if more > 0:
        words = say("{words} and {count} more", words=words, count=more)
    return say("They let {allowed} pass: ask again with such a port.", allowed=words)


def told(*sentences: str) -> Text:
    """All of them, one after the other. Raises TypeError for none."""
    text = in_turn(sentences)
    if not isinstance(text, Text):
        raise TypeError("nothing is told")
    return text
