"""A port that something listens on and that refuses all the same; without it the answer would leave a person to look
for a program that is running."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from engine.passage import wanted
from facts import Fact, Leg, Listener, ProbeResult, say


def though_listened(leg: Leg, facts: Sequence[Fact]) -> str:
    """Who may answer in the place of what listens; "" where it is not so. An accusation of nobody."""
    probes = [one for one in facts if isinstance(one, ProbeResult)]
    tried = [
        one for one in wanted(leg, probes) if not one.size and (one.protocol, one.port) == (leg.protocol, leg.port)
    ]
    if leg.target_kind != "pod" or not tried or any(one.outcome != "refused" for one in tried):
        return ""
    if not any(isinstance(one, Listener) and _takes(one, leg) for one in facts):
        return ""
    return say(
        "Something in {pod} listens on {port}/{protocol}, so that not it refuses. Rules inside either pod may hand "
        "packets on to a program that does not run, as to the proxy of a service mesh; or a rule answers in its place.",
        pod=leg.target,
        port=leg.port,
        protocol=leg.protocol,
    )


def _takes(listener: Listener, leg: Leg) -> bool:
    asked = (leg.target_node, leg.target, leg.family, leg.protocol, leg.port)
    if (listener.node, listener.pod, listener.family, listener.protocol, listener.port) != asked:
        return False
    return any(one == leg.target_address or ip_address(one).is_unspecified for one in listener.addresses)
