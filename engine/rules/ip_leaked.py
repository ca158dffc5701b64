"""Addresses that IPAM keeps for pods that are gone fill a pool with nobody in it."""

from engine.rule import NOT_FELIX, cause, say, some, the
from facts import LeakedAddresses, PoolUsage, Text


@cause(
    title="Addresses have leaked",
    severity="warns",
    remedy="kube-controllers frees them by itself, its leakGracePeriod (15 minutes where it is not set) after it first "
    "saw them. By hand: `calico-why ipam check --watch`, whose looks are as far apart, then `calico-why ipam check "
    "--release` with those somebody has looked at; each is a request that is approved. Not with calicoctl where nodes "
    "have IPv6 tunnels: it takes their addresses for leaked. "
    "Those that are named here are proposed for release, one by one, where no node has a route to them; the rest when "
    "the pool is full again.",
    fix="release_ip",
    after=["ipam_gc_stuck"],
    at=the.leaked.node,
    heals_within_s=NOT_FELIX,
    leaked=some(LeakedAddresses),
    usage=some(PoolUsage, pool=the.leaked.pool, node=the.leaked.node, exhausted=True),
)
def ip_leaked(leaked: LeakedAddresses, usage: PoolUsage) -> Text | None:
    if not leaked.count:
        return None
    more = leaked.count - len(leaked.examples)
    listed = say("{examples} and {more} more", examples=", ".join(leaked.examples), more=more)
    return say(
        "{count} of the {examined} addresses of pool {pool} that IPAM holds for pods belong to pods that are gone: "
        "{examples}.",
        count=leaked.count,
        examined=leaked.examined,
        pool=usage.pool,
        examples=listed if more else ", ".join(leaked.examples),
    )
