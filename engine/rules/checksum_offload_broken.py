"""A card or driver that sums wrongly spoils TCP and UDP and leaves ping alone; the receiver's kernel drops them."""

from engine.between import ARRIVED
from engine.rule import NOT_FELIX, Finding, Text, cause, say, some, the
from facts import Leg, ProbeResult, Sighting


@cause(
    title="Packets arrive with a wrong checksum",
    severity="breaks",
    remedy="Turn off checksum offload on the sending node (ethtool -K vxlan.calico tx-checksum-ip-generic off, or that "
    "of the uplink: ethtool -K DEVICE tx off; undo: the same with on) and ask again. If it helps, set "
    "featureDetectOverride: ChecksumOffloadBroken=true in the FelixConfiguration and look for a newer driver; if not, "
    "or if it was off already (ethtool -k), a device between the nodes spoils them.",
    fix="disable_checksum_offload",
    at=the.leg.source_node,
    stage="underlay",
    heals_within_s=NOT_FELIX,
    leg=some(Leg, crosses=True),
    arrived=ARRIVED,
    tried=some(ProbeResult),
)
def checksum_offload_broken(leg: Leg, arrived: Sighting, tried: ProbeResult) -> Text | Finding | None:
    """A policy that drops TCP spoils nothing: without the bad sums themselves this stays unsaid."""
    ends = [(leg.source, leg.source_kind, leg.source_address), (leg.target, leg.target_kind, leg.target_address)]
    (asker, kind, _), (_, _, address) = ends if leg.direction == "forward" else reversed(ends)
    if (tried.pod, tried.target_address) != (asker if kind == "pod" else "", address) or arrived.bad_checksums <= 0:
        return None
    told = {
        "bad": str(arrived.bad_checksums),
        "seen": str(arrived.seen),
        "source": leg.source,
        "target": leg.target,
        "peer": leg.target_node,
    }
    if leg.port_asked:
        if (tried.protocol, tried.port) != (leg.protocol, leg.port) or tried.answered:
            return None
        return say(
            "{bad} of {seen} packets from {source} to {target} reached {peer} with a wrong TCP or UDP checksum: its "
            "kernel drops them without a word, while ping, which no card sums, passes.",
            **told,
        )
    if tried.protocol != "icmp" or tried.size:
        return None
    text = say(
        "{bad} of {seen} packets from {source} to {target} reached {peer} with a wrong TCP or UDP checksum, and its "
        "kernel drops them without a word. Whether all do is not known: ask again with the port.",
        **told,
    )
    return Finding(text, severity="warns")
