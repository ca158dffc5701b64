"""Felix hears of changes through Typha; without one it goes on with what it knew, and new pods have no network."""

from engine.rule import NOT_FELIX, cause, say, some
from facts import Text, Typha


@cause(
    title="No Typha is ready",
    severity="warns",
    remedy="Look at the pods of the Deployment calico-typha: do they run, and do they reach the API server?",
    heals_within_s=NOT_FELIX,
    typha=some(Typha),
)
def typha_unreachable(typha: Typha) -> Text | None:
    """Of the whole cluster, so without a node."""
    if typha.ready:
        return None
    return say(
        "service {service} has no address that is ready, of {addresses} in all: no Felix hears of changes, paths that "
        "exist live on.",
        service=typha.service,
        addresses=typha.addresses,
    )
