"""A locked datastore stops CNI from setting up any new pod, while every path that exists lives on."""

from engine.rule import NOT_FELIX, Finding, Text, cause, say, some
from facts import CalicoSettings, Endpoint


@cause(
    title="Calico's datastore is locked",
    severity="warns",
    remedy="If no migration or upgrade is going on, unlock it: `calicoctl datastore migrate unlock`.",
    heals_within_s=NOT_FELIX,
    endpoint=some(Endpoint, kind="pod"),
    settings=some(CalicoSettings),
)
def datastore_not_ready(endpoint: Endpoint, settings: CalicoSettings) -> Text | Finding | None:
    """Of the whole cluster, so without a node; it breaks what a pod without an address waits for."""
    if settings.datastore_ready:
        return None
    text = say("ClusterInformation says datastoreReady: false, so CNI sets up no new pod; paths that exist live on.")
    waits = endpoint.phase == "Pending" and endpoint.node and not endpoint.addresses and not endpoint.host_network
    return Finding(text, severity="breaks") if waits else text
