"""What the policies deny and the kernel lets pass; without it a rule that is gone would be missed, for nothing is lost.

Only between two pods: a node reaches its own pods whatever policies say, what is sent to a node's port or to an address
outside may get another target before policies are asked, and what a node sends may get another source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from engine.opinions import opinions
from engine.passage import all_answered, asked, wanted
from engine.plan import expected_legs
from facts import Fact, Leg, PoliciesRead, PolicyBypass, PolicyOpinion, ProbeResult, StageSighting

F = TypeVar("F", bound=Fact)

STOOD_S = 5  # Felix follows a change of policies within a second or two


def may_be_told(leg: Leg) -> bool:
    """Do Calico's policies of both its ends, and no others, decide on its packets as they are sent?"""
    return (
        leg.direction == "forward"
        and (leg.source_kind, leg.target_kind) == ("pod", "pod")
        and leg.source != leg.target
        and not leg.obstacle
        and bool(leg.source_block and leg.target_block)  # else another plugin may have made them, by a name of its own
    )


def doubted(facts: Sequence[Fact]) -> list[Leg]:
    """Legs whose fresh packets of the asked kind were all answered, though the policies deny them. It proves nothing:
    a proxy inside of the source pod may answer, and policies that were written just now are still to be programmed.

    facts: what the API said, policies included, and what the probes did.
    """
    probes, said = _all(facts, ProbeResult), _all(opinions(facts), PolicyOpinion)
    found: list[Leg] = []
    for leg in expected_legs(facts):
        small = [one for one in wanted(leg, probes) if not one.size]
        if may_be_told(leg) and small and all(map(all_answered, small)) and _denying(leg, said):
            found.append(leg)
    return found


def bypasses(facts: Sequence[Fact]) -> list[Fact]:
    """A PolicyBypass for each end whose policies, the same for a while, deny a packet that arrived in the target.

    facts: with the opinions.
    """
    read = next(iter(_all(facts, PoliciesRead)), None)
    if read is None or read.stood_s < STOOD_S:
        return []
    said, seen = _all(facts, PolicyOpinion), _all(facts, StageSighting)
    return [
        PolicyBypass(
            opinion=one.id,
            sighting=met.id,
            node=one.node,
            flow=leg.flow,
            leg=leg.direction,
            stage="source veth" if one.direction == "egress" else "target veth",
        )
        for leg in expected_legs(facts)
        if may_be_told(leg)
        for met in [one for one in seen if _arrived(leg, one)][:1]
        for one in _denying(leg, said)
    ]


def _denying(leg: Leg, said: Sequence[PolicyOpinion]) -> list[PolicyOpinion]:
    """Opinions of the pods' own policies on the packets that were sent. Which policies of a host a packet meets depends
    on devices, which only its node knows."""
    return [
        one
        for one in said
        if (one.flow, one.leg, one.endpoint_kind, one.verdict) == (leg.flow, leg.direction, "pod", "deny")
        and (one.protocol, one.port) == asked(leg)
    ]


def _arrived(leg: Leg, one: StageSighting) -> bool:
    """In the target's own network: behind the policies of both ends, and with the addresses that they saw."""
    here = (one.pod, one.source_address, one.target_address) == (leg.target, leg.source_address, leg.target_address)
    return here and not one.reply and one.going == "in" and not one.encapsulation and one.seen > 0


def _all(facts: Sequence[Fact], kind: type[F]) -> list[F]:
    return [fact for fact in facts if isinstance(fact, kind)]
