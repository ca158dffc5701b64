"""A pod that is not running answers nobody, whatever the network does."""

from engine.rule import NOT_FELIX, Finding, cause, some, the
from facts import Endpoint


@cause(
    title="The pod is not running",
    severity="breaks",
    remedy="Look at the pod itself: kubectl describe pod, kubectl logs --previous.",
    after=["pool_exhausted", "strict_affinity_without_block", "block_limit_reached", "pod_without_ip"],
    after_peer=["datastore_not_ready"],  # of the whole cluster, so of no node
    at=the.endpoint.node,
    heals_within_s=NOT_FELIX,
    endpoint=some(Endpoint, kind="pod"),
)
def pod_not_running(endpoint: Endpoint) -> str | Finding | None:
    why = f": {endpoint.reason.rstrip('.')}" if endpoint.reason else ""
    if endpoint.starting:
        return None
    if endpoint.phase != "Running":
        return f"{endpoint.name} is {endpoint.phase or 'in an unknown phase'}{why}."
    if not endpoint.ready and "CrashLoopBackOff" in endpoint.reason:
        return Finding(f"a container of {endpoint.name} keeps crashing{why}.", severity="warns")
    return None
