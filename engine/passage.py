"""What fresh packets of a flow met; without it a path could be called healthy that carries nothing."""

from __future__ import annotations

from collections.abc import Sequence

from facts import Blind, Leg, ProbeResult


def sent(leg: Leg, probes: Sequence[ProbeResult]) -> list[ProbeResult]:
    """Everything that went from one end of the leg to the other."""
    pod = leg.source if leg.source_kind == "pod" else ""
    return [
        one
        for one in probes
        if one.pod == pod and one.node == leg.source_node and one.target_address == leg.target_address
    ]


def wanted(leg: Leg, probes: Sequence[ProbeResult]) -> list[ProbeResult]:
    """Of these, packets of the asked protocol, or all of them where none was asked."""
    asked = sent(leg, probes)
    return [one for one in asked if one.protocol == leg.protocol] if leg.port_asked else asked


def loses(leg: Leg, probes: Sequence[ProbeResult]) -> bool:
    """Did a small fresh packet of the asked kind not come back?"""
    return any(one.answered < one.sent for one in wanted(leg, probes) if not one.size)


def all_answered(probe: ProbeResult) -> bool:
    return probe.answered == probe.sent > 0


def judged(forward: Leg, probes: Sequence[ProbeResult], blind: Sequence[Blind]) -> tuple[str, str]:
    """Verdict and summary of a flow in which no cause was found.

    `healthy` only when everything was seen and fresh packets of the asked kind came back; else `unknown`.
    """
    asked = sent(forward, probes)
    small = [one for one in wanted(forward, probes) if not one.size]
    full = [one for one in asked if one.size and one.protocol == "icmp"]
    ping = [one for one in asked if one.protocol == "icmp" and not one.size]
    met = told(asked)
    if not small:
        return "unknown", f"No fresh packet could be sent from {forward.source} to {forward.target}."
    if any(one.answered == 0 for one in small):
        hint = "" if forward.port_asked else " Policy often drops ICMP: ask again with the port, such as 5432/tcp."
        return (
            "unknown",
            f"Nothing wrong was found, and yet {forward.source} does not reach {forward.target}: {met}.{hint}",
        )
    if any(one.answered < one.sent for one in small):
        return "unknown", f"Nothing wrong was found, and yet packets are lost: {met}."
    # The target may have a smaller MTU by right (made before an MTU change). What passes then is its own full size.
    back = [one for one in probes if one.pod == forward.target and one.target_address == forward.source_address]
    fits = max((one.size for one in back if one.protocol == "icmp" and all_answered(one)), default=0)
    lost = [one for one in full if not all_answered(one)]
    if any(one.answered for one in ping) and any(not 0 < fits < one.size for one in lost):
        return "unknown", f"Small packets pass and full-size ones do not: {met}."
    if not full:
        return "unknown", f"Small packets pass ({met}); no full-size one could be sent."
    if any(not one.minor for one in blind):
        return "unknown", f"Fresh packets pass ({met}), but not everything on the way could be seen."
    if lost and any(one.answered for one in ping):
        return "healthy", f"{met}. {forward.target} takes at most {fits} bytes, and packets of that size pass."
    if lost:
        return "healthy", f"{met}. Full-size packets could not be tested: ICMP is not answered."
    return "healthy", f"{met}."


def told(probes: Sequence[ProbeResult]) -> str:
    """`tcp 5432 2 of 2 answered, icmp 2 of 2, icmp 1450 bytes 0 of 2 (silence)`."""
    parts = []
    for one in sorted(probes, key=lambda p: (p.protocol == "icmp", p.protocol, p.port, p.size)):
        name = " ".join(
            [one.protocol, *([str(one.port)] if one.port else []), *([f"{one.size} bytes"] if one.size else [])]
        )
        met = "" if one.answered == one.sent else f" ({one.outcome if not one.answered else 'some lost'})"
        parts.append(f"{name} {one.answered} of {one.sent} answered{met}")
    return ", ".join(parts)
