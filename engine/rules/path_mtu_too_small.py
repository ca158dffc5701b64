"""Where every device of both nodes is right and only large packets are lost, the network between them is too narrow."""

from engine.dropped import told
from engine.passage import with_largest
from engine.rule import NOT_FELIX, Finding, Text, cause, say, some, the
from engine.sender import INTERFACE, SMALL
from facts import Leg, PodInterface, ProbeResult, Room


@cause(
    title="The network between the nodes loses full-size packets",
    severity="degrades",
    remedy="Find the narrow place between the nodes (ping -M do -s SIZE from node to node), or lower Calico's MTU "
    "(vxlanMTU, ipipMTU, ... of the FelixConfiguration) to what passes and recreate the pods.",
    after=["tunnel_mtu_too_large", "pod_mtu_too_large"],
    after_peer=["tunnel_mtu_too_large"],
    at=the.leg.source_node,
    stage="underlay",
    both_ways=True,
    heals_within_s=NOT_FELIX,
    leg=some(Leg, crosses=True, direction="forward", source_kind="pod", target_kind="pod"),
    here=INTERFACE,
    there=some(
        PodInterface,
        node=the.leg.target_node,
        pod=the.leg.target,
        family=the.leg.family,
        interface=the.leg.target_interface,
        found=True,
        entered=True,
    ),
    way=some(Room, flow=the.leg.flow, direction="forward", node=the.leg.source_node),
    back=some(Room, flow=the.leg.flow, direction="reverse", node=the.leg.target_node),
    full=some(
        ProbeResult,
        pod=the.leg.source,
        target_address=the.leg.target_address,
        size=the.here.pod_mtu,
        beside=False,
    ),
    small=SMALL,
)
def path_mtu_too_small(
    leg: Leg,
    here: PodInterface,
    there: PodInterface,
    way: Room,
    back: Room,
    full: ProbeResult,
    small: ProbeResult,
) -> Text | Finding | None:
    if full.by_rule or full.alone or not full.lost_for_its_size(small):
        return None
    # The target's own side may be narrower by right: it was made before an MTU change, or its node has another uplink.
    # Where pings say nothing of it, what is too large for the uplink that it comes in by is lost all the same.
    comes, leaves = (way, back) if full.answers else (back, way)
    uplink_alone = full.port > 0 and _takes(comes) < full.size <= comes.size
    takes = _takes(leaves) if uplink_alone else min(_takes(way), _takes(back))
    if full.size > min(here.mtu, there.mtu, there.pod_mtu, takes):
        return None
    ends = (leg.source_node_address, leg.target_node_address, leg.source_tunnel_address, leg.target_tunnel_address)
    if full.answered_by and full.answered_by in ends:
        return None  # a node itself says that they are too large: not what lies between
    if uplink_alone:
        narrow = say(
            "small packets from {source} to {target} pass, and so do large ones; answers of {size} bytes do not "
            "({met}): {uplink} of {node} has MTU {mtu}, and with the tunnel's {overhead} bytes around them they are "
            "larger."
            if full.answers
            else "small packets from {source} to {target} pass and those of {size} bytes do not ({met}): {uplink} of "
            "{node} has MTU {mtu}, and with the tunnel's {overhead} bytes around them they are larger.",
            source=leg.source,
            target=leg.target,
            size=full.size,
            met=full.detail or say("silence"),
            uplink=comes.uplink,
            node=comes.node,
            mtu=comes.uplink_mtu,
            overhead=comes.overhead,
        )
        return with_largest(narrow, full)
    lost = say(
        "small packets from {source} to {target} pass, and so do large ones; answers of {size} bytes do not ({met}); "
        "pods, tunnels and uplinks of {node} and {peer} all take them, so it is somewhere between the nodes."
        if full.answers
        else "small packets from {source} to {target} pass and those of {size} bytes do not ({met}); "
        "pods, tunnels and uplinks of {node} and {peer} all take them, so it is somewhere between the nodes.",
        source=leg.source,
        target=leg.target,
        size=full.size,
        met=full.detail or say("silence"),
        node=leg.source_node,
        peer=leg.target_node,
    )
    if 0 < full.connections < min(here.pod_mtu, there.pod_mtu):
        well = say(
            "Connections send no larger packets than of {size} bytes here, by what the ends announce (MSS) or are told "
            "on the way, and those pass both ways.",
            size=full.connections,
        )
        return Finding(told(with_largest(lost, full), well), severity="warns")
    return with_largest(lost, full)


def _takes(room: Room) -> int:
    return min(room.size, room.uplink_mtu - room.overhead)
