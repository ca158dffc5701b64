"""The flows a Service comes down to: its address is nobody's, so what can be judged are the ways to its endpoints."""

from __future__ import annotations

import msgspec

from engine.deductions.flow import flows
from engine.rule import derive, some, the
from facts import Backend, Endpoint, Flow, Question


def service_flows(question: Question, source: Endpoint, backend: Backend, target: Endpoint) -> list[Flow]:
    """The flow to one endpoint, in the family its slice is of; none from a pod to itself, which no path leads to."""
    if source.name == target.name or question.family not in (0, backend.family):
        return []
    of_family = msgspec.structs.replace(question, family=backend.family)
    return flows(of_family, source, target, service=backend.service, port=backend.port)


@derive(
    question=some(Question),
    backend=some(Backend, used=True),
    source=some(Endpoint, name=the.backend.sender),
    target=some(Endpoint, name=the.backend.endpoint),
)
def service_flow(question: Question, backend: Backend, source: Endpoint, target: Endpoint) -> list[Flow]:
    return service_flows(question, source, backend, target)
