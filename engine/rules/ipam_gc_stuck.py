"""Leaked addresses come back by themselves, unless who frees them does not run, or waits for something else."""

from engine.rule import NOT_FELIX, cause, say, some, the
from facts import CalicoSettings, GarbageCollector, LeakedAddresses, Text
from facts.version import since

SCAN_S = 450  # kube-controllers looks every half of its grace; then an address may still wait for the next look
WAITS_SINCE = (3, 32)  # observed: its start waits until every calico-node pod is available (calico_truth.md 1.10)


@cause(
    title="Nobody frees leaked addresses",
    severity="warns",
    remedy="Look at calico-kube-controllers: its pod, its log (`Waiting for all calico-node pods to be available`) and "
    "leakGracePeriod of the KubeControllersConfiguration. Where it waits, mend the calico-node pod that is not "
    "available.",
    at=the.leaked.node,
    heals_within_s=NOT_FELIX,
    leaked=some(LeakedAddresses),
    collector=some(GarbageCollector),
    settings=some(CalicoSettings),
)
def ipam_gc_stuck(leaked: LeakedAddresses, collector: GarbageCollector, settings: CalicoSettings) -> Text | None:
    """Younger leaks are everyday life."""
    if not leaked.count or (0 <= leaked.oldest_s <= collector.grace_s + SCAN_S):
        return None
    if not collector.name:
        return say(
            "{leaks}, and there is no pod of calico-kube-controllers that would free them.", leaks=_leaks(leaked)
        )
    if not collector.running:
        return say(
            "{leaks}, and {name}, which frees them, does not run: {reason}.",
            leaks=_leaks(leaked),
            name=collector.name,
            reason=collector.reason.rstrip("."),
        )
    if not collector.grace_s:
        return say("{leaks}, and leakGracePeriod is 0: {name} frees none.", leaks=_leaks(leaked), name=collector.name)
    if collector.unavailable > 0 and since(settings.version, WAITS_SINCE, unknown=False):
        return say(
            "{leaks}, and {name} may be waiting: in Calico {version} it frees none until every calico-node pod was "
            "available once, and {unavailable} are not.",
            leaks=_leaks(leaked),
            name=collector.name,
            version=settings.version,
            unavailable=collector.unavailable,
        )
    return None


def _leaks(leaked: LeakedAddresses) -> Text:
    return say(
        "{count} addresses of pool {pool} are held for pods that are gone ({examples})",
        count=leaked.count,
        pool=leaked.pool,
        examples=", ".join(leaked.examples) + (" …" if leaked.count > len(leaked.examples) else ""),
    )
