"""A card or driver that sums wrongly spoils TCP and UDP and leaves ping alone; the receiver's kernel drops them."""

from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import Leg, ProbeResult, Sighting


@cause(
    title="Packets arrive with a wrong checksum",
    severity="breaks",
    remedy="Turn off checksum offload on the sending node (ethtool -K vxlan.calico tx-checksum-ip-generic off, or that "
    "of the uplink) and ask again. If it helps, set featureDetectOverride: ChecksumOffloadBroken=true in the "
    "FelixConfiguration and look for a newer driver; if not, a device between the nodes spoils them.",
    at=the.leg.source_node,
    stage="underlay",
    heals_within_s=NOT_FELIX,
    leg=some(Leg, crosses=True, port_asked=True, source_kind="pod", target_kind="pod"),
    arrived=some(
        Sighting,
        node=the.leg.target_node,
        way="in",
        source_address=the.leg.source_address,
        target_address=the.leg.target_address,
    ),
    tried=some(ProbeResult, protocol=the.leg.protocol, port=the.leg.port),
)
def checksum_offload_broken(leg: Leg, arrived: Sighting, tried: ProbeResult) -> Text | None:
    """A policy that drops TCP spoils nothing: without the bad sums themselves this stays unsaid."""
    forward = (leg.source, leg.target_address)
    asked = forward if leg.direction == "forward" else (leg.target, leg.source_address)
    if (tried.pod, tried.target_address) != asked or tried.answered or arrived.bad_checksums <= 0:
        return None
    return say(
        "{bad} of {seen} packets from {source} to {target} reached {peer} with a wrong TCP or UDP checksum: its kernel "
        "drops them without a word, while ping, which no card sums, passes.",
        bad=arrived.bad_checksums,
        seen=arrived.seen,
        source=leg.source,
        target=leg.target,
        peer=leg.target_node,
    )
