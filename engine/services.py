"""What a Service's own address does, beside the ways to its endpoints: kube-proxy stands between the two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from engine.deductions.flow import address_of
from engine.own_routes import astray
from engine.passage import all_answered, told
from facts import (
    Backend,
    Blind,
    Endpoint,
    Fact,
    Leg,
    PodInterface,
    PodRoute,
    ProbeResult,
    Question,
    SendProbe,
    ServicePort,
    Text,
    in_turn,
    say,
)

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
    probes += [
        SendProbe(pod=pod, target=one.address, protocol=one.protocol, port=one.port)
        for one in _only_tried(facts)
        if one.family == family
    ]
    return probes


def judged(facts: Sequence[Fact], verdict: str, summary: str) -> tuple[str, str]:
    """Verdict and summary once the Service's own address counts as well: healthy only when it answered every time, and
    every endpoint it leads to was looked at or tried."""
    well: list[Text] = []
    unsure = _hidden(facts)
    for port in _wanted(facts):
        tried = _to(facts, port)
        if tried is None:
            unsure.append(
                say(
                    "Whether {address}, the address of {service}, answers could not be tried.",
                    address=port.address,
                    service=port.service,
                )
            )
        elif all_answered(tried):
            well.append(_answers(port, tried))
        elif own := _astray(facts, port):
            unsure += [_answers(port, tried), own]
        elif verdict != "healthy":
            unsure.append(_answers(port, tried))
        else:
            unsure.append(
                say(
                    "{address} of {service}: {met}, while each endpoint that was tried answers directly: what turns "
                    "that address into an endpoint's on {node}, usually kube-proxy, is what to look at.",
                    address=port.address,
                    service=port.service,
                    met=told([tried]),
                    node=tried.node,
                )
            )
    for backend in _only_tried(facts):
        if _to(facts, backend) is None:
            unsure.append(say("Whether the endpoint {address} answers could not be tried.", address=backend.address))
    for one in lost_endpoints(facts):
        unsure.append(
            say(
                "The endpoint {address} does not always answer ({met}).",
                address=one.target_address,
                met=told([one]),
            )
        )
    return "unknown" if unsure else verdict, in_turn([*(unsure or well), summary])


def answers(facts: Sequence[Fact]) -> str:
    """What the Service's own addresses answered, for a summary beside a cause; "" when they were not tried."""
    return in_turn(_answers(port, tried) for port in _wanted(facts) if (tried := _to(facts, port)))


def _answers(port: ServicePort, tried: ProbeResult) -> Text:
    return say("{address} of {service}: {met}.", address=port.address, service=port.service, met=told([tried]))


def _astray(facts: Sequence[Fact], port: ServicePort) -> Text | None:
    """Do the client's own routes keep packets to the Service's address from its node, where kube-proxy waits?"""
    source = sender(facts)
    pod = source.name if source else ""
    routes = [one for one in _all(facts, PodRoute) if (one.pod, one.destination) == (pod, port.address)]
    entered = (pod, port.family, True)
    inside = [one for one in _all(facts, PodInterface) if (one.pod, one.family, one.entered) == entered]
    return astray(routes[0], inside[0]) if routes and inside else None


def _wanted(facts: Sequence[Fact]) -> list[ServicePort]:
    """Of the families the client has."""
    source = sender(facts)
    return [
        one for one in _all(facts, ServicePort) if one.address and (source is None or address_of(source, one.family))
    ]


def _hidden(facts: Sequence[Fact]) -> list[Text]:
    """What is missing of the Service or its endpoints: not looking is never "not there"."""
    found: list[Text] = []
    ports, source = _all(facts, ServicePort), sender(facts)
    known = {one.service for one in ports}
    meant = [one.name for one in _all(facts, Endpoint) if one.kind == "service"]
    meant += [one.service for one in _all(facts, Question) if one.service]
    for name in meant:
        if name not in known:
            found.append(say("Which port of {service} was meant could not be seen.", service=name))
    backends = _all(facts, Backend)
    for port in ports:
        behind = [one for one in backends if (one.service, one.family) == (port.service, port.family)]
        if not port.counted or sum(one.ready for one in behind) < port.ready:
            found.append(say("Not all endpoints of {service} could be seen.", service=port.service))
    reached = {leg.target_address for leg in _all(facts, Leg)}
    for backend in backends:
        own = backend.sender in (backend.pod, backend.endpoint)
        alien = source is not None and not address_of(source, backend.family)
        if backend.used and backend.endpoint and backend.address not in reached and not own and not alien:
            found.append(say("The way to the endpoint {endpoint} could not be judged.", endpoint=backend.endpoint))
    return list(dict.fromkeys(found))


def lost(facts: Sequence[Fact]) -> bool:
    """Did the Service's own address, or an endpoint that was only tried, fail to answer?"""
    tried = [one for port in _all(facts, ServicePort) if (one := _to(facts, port))]
    return bool(lost_endpoints(facts)) or any(not all_answered(one) for one in tried)


def lost_endpoints(facts: Sequence[Fact]) -> list[ProbeResult]:
    """Fresh packets to endpoints whose path is not judged, where not all came back."""
    return [one for backend in _only_tried(facts) if (one := _to(facts, backend)) and not all_answered(one)]


def _only_tried(facts: Sequence[Fact]) -> list[Backend]:
    """Endpoints that are sent a packet and not looked at: those whose address nobody has first."""
    source = sender(facts)
    alone = [
        one
        for one in _all(facts, Backend)
        if one.used and not one.endpoint and source and source.name != one.pod and address_of(source, one.family)
    ]
    return sorted(alone, key=lambda one: (not one.stale, one.address))[:MOST_TRIED]


def without_legs(facts: Sequence[Fact], blind: Sequence[Blind]) -> tuple[str, str] | None:
    """Verdict and summary where no endpoint of the Service has a path to judge; None when it is about no Service."""
    ports = _all(facts, ServicePort)
    if not ports:
        return None
    source = sender(facts)
    used = [one for one in _all(facts, Backend) if one.used]
    if used and source and all(one.sender == source.name in (one.pod, one.endpoint) for one in used):
        verdict = "unknown" if any(not one.minor for one in blind) else "healthy"
        return judged(
            facts, verdict, say("{source} is itself the only endpoint it would be sent to.", source=source.name)
        )
    return judged(facts, "unknown", in_turn(dict.fromkeys(map(_nothing_behind, ports))))


def _nothing_behind(port: ServicePort) -> Text:
    asked = {"service": port.service, "port": port.port, "protocol": port.protocol}
    if not port.found:
        others = ", ".join(port.ports) or say("none")
        return say("{service} has no port {port}/{protocol}; it has {others}.", **asked, others=others)
    if not port.counted:
        return say("What is behind {service} on {port}/{protocol} could not be read.", **asked)
    if not port.ready and not port.serving:
        return say(
            "No endpoint of {service} on {port}/{protocol} is ready. "
            "It is headless, so its name leads to no address at all."
            if port.headless
            else "No endpoint of {service} on {port}/{protocol} is ready.",
            **asked,
        )
    if port.local:
        return say(
            "{service} on {port}/{protocol} sends only to endpoints on {node}, and there is none.",
            **asked,
            node=port.node,
        )
    return say("No endpoint of {service} on {port}/{protocol} could be looked at.", **asked)


def _to(facts: Sequence[Fact], end: ServicePort | Backend) -> ProbeResult | None:
    for one in _all(facts, ProbeResult):
        if (one.target_address, one.protocol, one.port) == (end.address, end.protocol, end.port):
            return one
    return None


def _all(facts: Sequence[Fact], kind: type[F]) -> list[F]:
    return [fact for fact in facts if isinstance(fact, kind)]
