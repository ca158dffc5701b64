"""A tunnel that takes packets its uplink cannot carry with a header around them loses or splits large ones."""

from engine.passage import with_largest
from engine.rule import NOT_FELIX, Finding, cause, say, some, the
from engine.sender import FULL, INTERFACE, ROOM, SMALL
from facts import Leg, PodInterface, ProbeResult, Room

NAMES = {"vxlan": "VXLAN", "ipip": "IPIP", "wireguard": "WireGuard"}


@cause(
    title="The tunnel's MTU is too large for the uplink",
    severity="degrades",
    remedy="Set the uplink's MTU back, or the tunnel's in the FelixConfiguration (vxlanMTU, vxlanMTUV6, ipipMTU, "
    "wireguardMTU, wireguardMTUV6) to what is right (when it is found out automatically: mtuIfacePattern must match "
    "the uplink), and recreate the pods.",
    after=["vxlan_device_missing", "ipip_device_missing", "wireguard_device_missing"],
    at=the.leg.source_node,
    stage="source tunnel",
    both_ways=True,
    heals_within_s=NOT_FELIX,
    leg=some(Leg, crosses=True, source_kind="pod"),
    room=ROOM,
    interface=INTERFACE,
    full=FULL,
    small=SMALL,
)
def tunnel_mtu_too_large(
    leg: Leg, room: Room, interface: PodInterface, full: ProbeResult, small: ProbeResult
) -> Finding | None:
    most = room.uplink_mtu - room.overhead
    if not room.overhead or room.uplink_mtu <= 0 or room.size <= most:
        return None
    too_large = say(
        "{device} on {node} has MTU {mtu}, but {uplink} below it has {uplink_mtu} and {kind} needs {overhead}: "
        "at most {most} is right",
        device=room.device,
        node=room.node,
        mtu=room.size,
        uplink=room.uplink,
        uplink_mtu=room.uplink_mtu,
        kind=NAMES[leg.encapsulation],
        overhead=room.overhead,
        most=most,
    )
    # A pod with a smaller MTU than the tunnel's lives well with it.
    if interface.pod_mtu <= most or full.alone or not full.lost_for_its_size(small):
        return Finding(say("{too_large}.", too_large=too_large), severity="warns")
    lost = say(
        "{too_large}. Packets of {size} bytes from {pod} do not pass, small ones do.",
        too_large=too_large,
        size=full.size,
        pod=leg.source,
    )
    return Finding(with_largest(lost, full))
