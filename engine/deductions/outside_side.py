"""An address outside the cluster as the end of a flow: what leads to it on the pod's own side can still be judged."""

from __future__ import annotations

from engine import ends
from engine.rule import derive, some
from facts import Endpoint, Flow, Side


@derive(flow=some(Flow), endpoint=some(Endpoint, kind="address"))
def outside_side(flow: Flow, endpoint: Endpoint) -> list[Side]:
    roles = [role for role in ends.ROLES if ends.end(flow, role)[0] == endpoint.name]
    return [side for role in roles for side in ends.outside_side(flow, role, endpoint)]
