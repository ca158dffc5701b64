"""Drops by rules that are not Calico's: whose they are and what they are about; without it the failure modes of other
firewalls would each judge anew."""

from __future__ import annotations

import re

from engine.attribution import INVALID
from engine.dropped import packets
from facts import Blame, Leg, RuleDrop, Stop, Text, say

# Failure modes in which somebody on the way may refuse packets in the target's name.
REFUSING = ("host_firewall_drops_forward", "host_firewall_drops_local", "nat_between_pods", "pod_firewall_drops")
# Of a rule that ends only what is more than so much: in nftables' words, in iptables', or by its chain's name (ufw).
OVER = re.compile(r"\blimit rate over\b|\bct count over\b|--(?:hashlimit|connlimit)-above\b|--hitcount\b")
OF_CALICO = re.compile(r"(?:^|-)cali-")
OF_LIMIT = re.compile(r"limit", re.IGNORECASE)
LOCAL = ("input", "output")  # hooks of what the node itself takes or sends
COMING, GOING = ("ingress", "prerouting"), ("postrouting", "egress")


def of_others(blame: Blame, drop: RuleDrop) -> bool:
    """Is it a rule of some other program or person on the node, and not about connections that nobody knows?"""
    unknown = blame.what == "kube_proxy" and not blame.why  # in chains of its own, and none that it writes
    return (blame.what == "foreign" or unknown) and not drop.pod and not invalid(blame, drop)


def invalid(blame: Blame, drop: RuleDrop) -> bool:
    """Does whoever's rule drop what belongs to no connection?"""
    told = f"{drop.text} {drop.marked_by}"
    return blame.what == "invalid" or blame.why == "invalid" or bool(blame.what == "foreign" and INVALID.search(told))


def of_node_itself(drop: RuleDrop, leg: Leg) -> bool:
    """Without a tunnel around them: packets that the node takes or sends itself, be it of a pod on its network."""
    if drop.outer:
        return False
    if drop.hook in LOCAL:
        return True
    if drop.hook in COMING:
        return drop.node == leg.target_node and leg.target_kind != "pod"
    return drop.hook in GOING and drop.node == leg.source_node and leg.source_kind != "pod"


def sends(drop: RuleDrop, leg: Leg) -> bool:
    """Does the node send what it drops?"""
    if drop.outer:
        return drop.node == leg.source_node
    if drop.hook in ("output", *GOING):
        return True
    return not drop.hook and drop.node == leg.source_node


def ended(drop: RuleDrop, leg: Leg) -> Text:
    """Who sends is told of a refusal at once, and reads of one in its own log."""
    return say(
        "{node} refuses {packets}." if drop.verdict == "reject" else "{node} drops {packets}.",
        node=drop.node,
        packets=packets(drop, leg),
    )


def severity(stop: Stop, drop: RuleDrop) -> str:
    """Instead of the rule's own, where it is not "": nothing, or less than everything, is proved to be lost."""
    if not stop.decisive:
        return "warns"
    return "degrades" if stop.large_only or limits(drop) else ""


def limits(drop: RuleDrop) -> bool:
    """Does the rule end what is more than so many, and let others pass?"""
    return bool(drop.behind_limit or OVER.search(f"{drop.text} {drop.marked_by}") or OF_LIMIT.search(drop.chain))


def up_to(drop: RuleDrop) -> Text | str:
    """Of a limit: what was sent to find the cause is more at once than most flows send."""
    if not limits(drop):
        return ""
    if drop.behind_limit:
        return say(
            "A rule above it lets so many pass and no more ({rule}): a flow that opens fewer connections at once, or "
            "sends less, may pass, and what I sent myself counts, too. Ask again after a minute.",
            rule=drop.behind_limit,
        )
    return say(
        "It is a limit: a flow that opens fewer connections at once, or sends less, may pass, and what I sent myself "
        "counts, too. Ask again after a minute."
    )


def all_but_handshakes(drop: RuleDrop) -> Text | str:
    """Of a tunnel's packets, of which most may pass."""
    if not (drop.later and drop.outer):
        return ""
    return say("Only what follows in connections ends there: the handshake passes.")


def owner_of(blame: Blame, drop: RuleDrop) -> Text | str:
    """Whose rule it is, where its chains tell."""
    if OF_CALICO.search(drop.chain):
        return say(
            "The chain is Calico's and the rule is not: Felix takes it away within minutes, while it is alive; find "
            "who writes there."
        )
    return say("By its chains it is {owner}'s.", owner=blame.owner) if blame.owner else ""


def beside(stop: Stop) -> Text | str:
    """Of a rule that may be about pings alone, or let small ones pass."""
    if stop.large_only:
        return (
            say("Only full-size packets end there, and answers of that size: small ones pass.")
            if stop.answers_too and stop.decisive
            else say("Only full-size packets end there: small ones pass.")
            if stop.decisive
            else say("Only full-size pings end there, and the rule may be about pings alone: small ones pass.")
        )
    if stop.decisive:
        return ""
    return say("Only pings were sent, and the rule may be about them alone: ask again with the port.")
