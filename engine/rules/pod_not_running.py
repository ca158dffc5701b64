"""A pod that is not running answers nobody, whatever the network does."""

from engine.rule import NOT_FELIX, Finding, Text, cause, say, some, the
from facts import Endpoint, Question


@cause(
    title="The pod is not running",
    severity="breaks",
    remedy="Look at the pod itself: kubectl describe pod, kubectl logs --previous.",
    after=["pool_exhausted", "strict_affinity_without_block", "block_limit_reached", "pod_without_ip"],
    after_peer=["datastore_not_ready"],  # of the whole cluster, so of no node
    at=the.endpoint.node,
    heals_within_s=NOT_FELIX,
    endpoint=some(Endpoint, kind="pod"),
    question=some(Question),
)
def pod_not_running(endpoint: Endpoint, question: Question) -> Text | Finding | None:
    """What one of its first containers dies of may be the very thing that is asked about, and it sends all the same."""
    why = endpoint.reason.rstrip(".")
    if endpoint.starting:
        return None
    if endpoint.phase != "Running":
        phase = endpoint.phase or say("in an unknown phase")
        said = say(
            "{pod} is {phase}: {why}." if endpoint.reason else "{pod} is {phase}.",
            pod=endpoint.name,
            phase=phase,
            why=why,
        )
        sends = endpoint.phase == "Pending" and endpoint.addresses and endpoint.name == question.source
        return Finding(said, severity="warns") if sends else said
    if not endpoint.ready and "CrashLoopBackOff" in endpoint.reason:
        return Finding(say("a container of {pod} keeps crashing: {why}.", pod=endpoint.name, why=why), severity="warns")
    return None
