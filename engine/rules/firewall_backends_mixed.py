"""Two packet filters of the node hold Calico's chains. Felix keeps one of them; the other still has what was true when
it was left, and drops what it does not know."""

from engine.dropped import packets, rule_of, told
from engine.rule import NOT_FELIX, Finding, cause, listed, say, some, the
from facts import Blame, CalicoSettings, Leg, RuleDrop, Stop

BY_POLICY = ("policy", "end_of_tier", "profile", "no_profile")
OF_PODS_AND_NODES = ("unknown_interface_from", "unknown_interface_to", "vxlan_source", "ipip_source")
NFTABLES = "nftables"


@cause(
    title="Calico's rules of another packet filter still drop packets",
    severity="breaks",
    remedy="See which filter Felix is to use (FelixConfiguration nftablesMode and iptablesBackend, its log at start), "
    "and remove Calico's chains from the other one, or reboot the node: `iptables-legacy-save` and `iptables-nft-save` "
    "show what each has. Then give all programs of the node one backend.",
    at=the.stop.node,
    heals_within_s=NOT_FELIX,
    stop=some(Stop),
    leg=some(Leg, flow=the.stop.flow, direction=the.stop.leg),
    drop=some(RuleDrop, id=the.stop.drop),
    blame=some(Blame, drop=the.stop.drop),
    settings=some(CalicoSettings),
)
def firewall_backends_mixed(
    stop: Stop, leg: Leg, drop: RuleDrop, blame: Blame, settings: CalicoSettings
) -> Finding | None:
    met = _filter(drop)
    if len(stop.filters) < 2 or met not in stop.filters:
        return None
    if settings.dataplane == NFTABLES == met:
        return None  # Felix's own
    # Of the two that iptables can be nobody says here which Felix keeps. What its policies let pass is dropped by rules
    # that are not kept.
    left = settings.dataplane in (NFTABLES, "iptables") and (settings.dataplane == NFTABLES) != (met == NFTABLES)
    if blame.what in BY_POLICY and stop.opinion != "allow" and not (left and stop.opinion != "deny"):
        return None
    if blame.what not in (*BY_POLICY, *OF_PODS_AND_NODES):
        return None
    stale = left or (blame.what in BY_POLICY and stop.opinion == "allow")
    said = say(
        "{node} drops {packets} by rules of Calico in {filter}, and has others in {others}: Felix keeps one of them, "
        "and what the rules of {filter} say is not what policies and nodes are now."
        if stale
        else "{node} drops {packets} by rules of Calico in {filter}, and has others in {others}: Felix keeps one of "
        "them. If that is {others}, the rules of {filter} are left behind; if it is {filter}, Felix there does not "
        "know where these packets come from or go to: its log says why.",
        node=drop.node,
        packets=packets(drop, leg),
        filter=met,
        others=listed([one for one in stop.filters if one != met]),
    )
    return Finding(told(said, rule_of(drop)), stage=stop.stage, severity="" if stop.decisive else "warns")


def _filter(drop: RuleDrop) -> str:
    if drop.backend == "nft":
        return NFTABLES if drop.table == "calico" else "iptables-nft"
    return drop.backend
