"""Felix and BIRD are each told who writes a pool's routes; where both do they fight, where neither does nobody does."""

from engine.rule import HEALS_NEVER, cause, say, some
from facts import CalicoSettings, Leg, Text


@cause(
    title="Felix and BIRD do not agree who writes routes",
    severity="breaks",
    last_resort=True,
    remedy="Set programClusterRoutes of FelixConfiguration and of BGPConfiguration so that each sort of pool has one "
    "owner: EnabledIPIPOnly with EnabledNoEncapOnly, Enabled with Disabled, or Disabled with Enabled. With the "
    "operator: clusterRoutingMode of the Installation.",
    stage="source node",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg),
    settings=some(CalicoSettings),
)
def route_owner_conflict(leg: Leg, settings: CalicoSettings) -> Text | None:
    """Of the whole cluster, so without a node."""
    if leg.route_owner == "nobody":
        return say("neither Felix nor BIRD writes routes of such a pool: {said}.", said=settings.routes_said)
    if leg.route_owner == "both":
        return say(
            "both Felix and BIRD write routes of such a pool, each over the other's: {said}.", said=settings.routes_said
        )
    return None
