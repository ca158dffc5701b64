"""Two VXLAN devices cannot share a port and a VNI: while another network's has them, Calico's cannot live."""

from engine.rule import HEALS_NEVER, Text, cause, say, some, the
from facts import ForeignVxlan, ForeignVxlans, Leg, Link


@cause(
    title="Another VXLAN device is in the way of Calico's",
    severity="breaks",
    remedy="Delete the other device if its network is gone (flannel's flannel.1, an earlier CNI's), then restart the "
    "calico-node pod of this node; else give Calico another vxlanVNI or vxlanPort in the FelixConfiguration.",
    at=the.leg.source_node,
    stage="source tunnel",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, encapsulation="vxlan"),
    device=some(Link, node=the.leg.source_node, device=the.leg.tunnel_device),
    others=some(ForeignVxlans, node=the.leg.source_node),
)
def vxlan_device_conflict(leg: Leg, device: Link, others: ForeignVxlans) -> Text | None:
    """Where Calico's device is there and up, the kernel found no conflict."""
    other = next((one for one in others.devices if _conflicts(leg, one)), None)
    if other is None or (device.found and device.up):
        return None
    missing = say("cannot be made") if not device.found else say("cannot be set up")
    return say(
        "{node} has the device {other} with UDP port {port} and {vni}, which Calico's {device} needs: it {missing}.",
        node=leg.source_node,
        other=other.device,
        port=other.port,
        vni=say("VNI {vni}", vni=other.vni) if other.vni >= 0 else say("any VNI"),
        device=leg.tunnel_device,
        missing=missing,
    )


def _conflicts(leg: Leg, other: ForeignVxlan) -> bool:
    """A flow-based device takes every VNI of its port, once it is up."""
    return other.port == leg.vxlan_port and (other.vni == leg.vni or (other.vni < 0 and other.up))
