"""Which pairs of addresses a question comes down to; without it a dual stack pod would be judged by one family only."""

from __future__ import annotations

from engine.rule import derive, some, the
from facts import Endpoint, Flow, Question

FAMILIES = (4, 6)


def flows(question: Question, source: Endpoint, target: Endpoint, *, service: str = "", port: int = 0) -> list[Flow]:
    """One Flow for each family in which both sides have an address (and that was asked for), IPv4 first."""
    return [
        Flow(
            name=f"{source.name} to {target.name} over IPv{family}",
            source=source.name,
            target=target.name,
            family=family,
            source_address=sends_from,
            target_address=sends_to,
            # On a node's own port that is a Service's, nobody needs to listen.
            protocol="" if question.service and not service else question.protocol,
            port=port or (0 if question.service else question.port),
            service=service,
            node_port=question.port if question.service and not service else 0,
            node_port_protocol=question.protocol if question.service and not service else "",
        )
        for family in FAMILIES
        if question.family in (0, family)
        and (sends_from := address_of(source, family))
        and (sends_to := address_of(target, family))
    ]


def address_of(endpoint: Endpoint, family: int) -> str:
    return endpoint.address if family == 4 else endpoint.address6


@derive(
    question=some(Question),
    source=some(Endpoint, name=the.question.source),
    target=some(Endpoint, name=the.question.target),
)
def flow(question: Question, source: Endpoint, target: Endpoint) -> list[Flow]:
    """A Service has no address of its own to send to: its flows are those to its endpoints."""
    return [] if "service" in (source.kind, target.kind) else flows(question, source, target)
