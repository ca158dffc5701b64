"""A node as one end of the flow, or both: the paths of what has no network of its own are judged too."""

from __future__ import annotations

from engine import ends
from engine.rule import derive, some, the
from facts import CalicoNode, Endpoint, Flow, Side


@derive(
    flow=some(Flow),
    endpoint=some(Endpoint),
    node=some(CalicoNode, name=the.endpoint.node, family=the.flow.family),
)
def node_side(flow: Flow, endpoint: Endpoint, node: CalicoNode) -> list[Side]:
    roles = [role for role in ends.ROLES if ends.end(flow, role)[0] == endpoint.name]
    return [side for role in roles for side in ends.node_side(flow, role, endpoint, node)]
