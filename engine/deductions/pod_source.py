"""Where the pod lives that the flow comes from: pod, node and IPAM block in one, so that rules need not join them."""

from __future__ import annotations

from engine import ends
from engine.rule import derive, some, the
from facts import Allocation, CalicoNode, Endpoint, Flow, Side


@derive(
    flow=some(Flow),
    endpoint=some(Endpoint, name=the.flow.source),
    node=some(CalicoNode, name=the.endpoint.node, family=the.flow.family),
    allocation=some(Allocation, address=the.flow.source_address),
)
def pod_source(flow: Flow, endpoint: Endpoint, node: CalicoNode, allocation: Allocation) -> list[Side]:
    return ends.pod_side(flow, "source", endpoint, node, allocation)
