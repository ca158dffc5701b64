"""What a Service's own address does, beside the ways to its endpoints: kube-proxy stands between the two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from engine.deductions.flow import address_of
from engine.passage import all_answered, told
from facts import Backend, Blind, Endpoint, Fact, ProbeResult, Question, SendProbe, ServicePort

F = TypeVar("F", bound=Fact)

TRIES = 4  # of the Service's own address: each goes to an endpoint of kube-proxy's choice
MOST_TRIED = 24  # endpoints that are not looked at in full and still are sent a packet


def sender(facts: Sequence[Fact]) -> Endpoint | None:
    """Who asks the Service: a pod or a node; None for anybody else."""
    asking = {one.source for one in _all(facts, Question)}
    found = (one for one in _all(facts, Endpoint) if one.name in asking and one.node and one.kind in ("pod", "node"))
    return next(found, None)


def sends(facts: Sequence[Fact], family: int) -> list[SendProbe]:
    """To the Service's own address of that family, and to each endpoint whose path is not judged."""
    source = sender(facts)
    if source is None or not address_of(source, family):
        return []
    pod = "" if source.host_network or source.kind == "node" else source.name
    probes = [
        SendProbe(pod=pod, target=one.address, protocol=one.protocol, port=one.port, count=TRIES)
        for one in _all(facts, ServicePort)
        if one.address and one.family == family
    ]
    alone = [one for one in _all(facts, Backend) if one.used and not one.endpoint and one.family == family]
    probes += [
        SendProbe(pod=pod, target=one.address, protocol=one.protocol, port=one.port)
        for one in sorted(alone, key=lambda backend: not backend.stale)[:MOST_TRIED]
    ]
    return probes


def judged(facts: Sequence[Fact], verdict: str, summary: str) -> tuple[str, str]:
    """Verdict and summary once the Service's own address counts as well: healthy only when it answered every time."""
    unsure: list[str] = []
    well: list[str] = []
    for port in _all(facts, ServicePort):
        if not port.address:
            continue
        tried = _to(facts, port)
        if tried is None:
            unsure.append(f"Whether {port.address}, the address of {port.service}, answers could not be tried.")
        elif all_answered(tried):
            well.append(f"{port.address} of {port.service} answers ({told([tried])}).")
        else:
            unsure.append(_lost(port, tried, verdict))
    for one in lost_endpoints(facts):
        unsure.append(f"The endpoint {one.target_address} does not always answer ({told([one])}).")
    if unsure:
        return "unknown", " ".join([*unsure, *([summary] if summary else [])])
    return verdict, " ".join([*well, *([summary] if summary else [])])


def _lost(port: ServicePort, tried: ProbeResult, verdict: str) -> str:
    seen = f"{port.address} of {port.service}: {told([tried])}"
    if verdict != "healthy":
        return f"{seen}."
    return (
        f"{seen}, while each endpoint that was tried answers directly: what turns that address into an endpoint's on "
        f"{tried.node}, usually kube-proxy, is what to look at."
    )


def lost(facts: Sequence[Fact]) -> bool:
    """Did the Service's own address, or an endpoint that was only tried, fail to answer?"""
    tried = [one for port in _all(facts, ServicePort) if (one := _to(facts, port))]
    return bool(lost_endpoints(facts)) or any(not all_answered(one) for one in tried)


def lost_endpoints(facts: Sequence[Fact]) -> list[ProbeResult]:
    """Fresh packets to endpoints whose path is not judged, where not all came back."""
    alone = [one for one in _all(facts, Backend) if one.used and not one.endpoint]
    return [one for backend in alone if (one := _to(facts, backend)) and not all_answered(one)]


def without_legs(facts: Sequence[Fact], blind: Sequence[Blind]) -> tuple[str, str] | None:
    """Verdict and summary where no endpoint of the Service has a path to judge; None when it is about no Service."""
    ports = _all(facts, ServicePort)
    if not ports:
        return None
    source = sender(facts)
    used = [one for one in _all(facts, Backend) if one.used]
    if used and source and all(source.name in (one.pod, one.endpoint) for one in used):
        verdict = "unknown" if any(not one.minor for one in blind) else "healthy"
        return judged(facts, verdict, f"{source.name} is itself the only endpoint it would be sent to.")
    return judged(facts, "unknown", " ".join(dict.fromkeys(map(_nothing_behind, ports))))


def _nothing_behind(port: ServicePort) -> str:
    name = f"{port.service} on {port.port}/{port.protocol}"
    if not port.found:
        return f"{port.service} has no port {port.port}/{port.protocol}; it has {', '.join(port.ports) or 'none'}."
    if not port.counted:
        return f"What is behind {name} could not be read."
    if not port.ready and not port.serving:
        headless = " It is headless, so its name leads to no address at all." if port.headless else ""
        return f"No endpoint of {name} is ready.{headless}"
    if port.internal_policy == "Local":
        return f"{name} sends only to endpoints on the client's own node, and there is none."
    return f"No endpoint of {name} could be looked at."


def _to(facts: Sequence[Fact], end: ServicePort | Backend) -> ProbeResult | None:
    for one in _all(facts, ProbeResult):
        if (one.target_address, one.protocol, one.port) == (end.address, end.protocol, end.port):
            return one
    return None


def _all(facts: Sequence[Fact], kind: type[F]) -> list[F]:
    return [fact for fact in facts if isinstance(fact, kind)]
