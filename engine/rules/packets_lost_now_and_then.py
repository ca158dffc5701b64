"""A bad cable, a full queue or one of two paths that is broken loses some packets and lets others pass: two packets say
nothing then, two trains of them do. Told only where nothing else explains the loss."""

from engine.rule import NOT_FELIX, Text, cause, say, some, the
from engine.trains import decides, lossy, share
from facts import Leg, Train


@cause(
    title="Some packets are lost and others pass",
    severity="degrades",
    remedy="Look for what counts errors or drops on both nodes and between them (ip -s link, ethtool -S on the "
    "uplinks, tc -s qdisc, /proc/net/softnet_stat, the switch's ports). If pings pass and connections do not, look at "
    "paths that are chosen by ports (ECMP, a bond: is one of its cables broken?) and at the server's queue of new "
    "connections (ss -lnt, nstat TcpExtListenOverflows).",
    at=the.leg.source_node,
    last_resort=True,
    heals_within_s=NOT_FELIX,
    train=some(Train),
    leg=some(Leg, direction="forward", source_node=the.train.node, target_address=the.train.target_address),
)
def packets_lost_now_and_then(train: Train, leg: Leg) -> Text | None:
    """A node may answer only so many pings in a second, and what is outside of the cluster only so many packets."""
    of_leg = train.pod == (leg.source if leg.source_kind == "pod" else "")
    limited = leg.target_kind == "outside" or (leg.target_kind == "node" and train.protocol == "icmp")
    if not of_leg or limited or not decides(train, leg) or not lossy(train):
        return None
    told = {"source": leg.source, "target": leg.target, "share": share(train)}
    if not train.same_lost_again:
        return say("packets from {source} to {target} are lost now and then ({share}).", **told)
    return say(
        "packets from {source} to {target} are lost now and then ({share}), and it is always the same ones: those "
        "that were lost are lost again when they are sent again with the same ports, and others pass. One of several "
        "paths is broken.",
        **told,
    )
