"""Two living pods with one address: which of them answers depends on the node that asks."""

from engine.rule import HEALS_NEVER, Text, cause, say, some, the
from facts import AddressHolders, Leg


@cause(
    title="Two pods have the same address",
    severity="degrades",
    remedy="Delete the pod whose address IPAM does not name as its own; it is created again with another one. "
    "Then look with `calicoctl ipam check` for how it came to be (a restored datastore, a release by hand).",
    at=the.leg.target_node,
    stage="target pod",
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, target_kind="pod"),
    holders=some(AddressHolders, address=the.leg.target_address),
)
def pod_ip_duplicate(leg: Leg, holders: AddressHolders) -> Text | None:
    """While a virtual machine migrates, its two pods rightly have one address."""
    others = [name for name in holders.pods if name != leg.target]
    if not others or holders.machine or leg.target not in holders.pods:
        return None
    return say(
        "{pod} has {address}, and so has {others}."
        if len(others) == 1
        else "{pod} has {address}, and so have {others}.",
        pod=leg.target,
        address=holders.address,
        others=", ".join(others),
    )
