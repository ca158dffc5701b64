"""Peers send to the MAC Calico announces for this node; a device with another one drops their frames."""

from engine.rule import HEALS_DEVICE, HEALS_NEVER, Finding, Text, cause, say, some, the
from facts import Leg, Link
from facts.version import since

HEALS_SINCE = (3, 30)  # before, Felix did not look at the MAC of a device that was there (calico.md 1.9)


@cause(
    title="The VXLAN device has the wrong MAC",
    severity="breaks",
    remedy="Restart the calico-node pod of this node: it sets the MAC back, and the device's neighbors, which the "
    "kernel forgot with it and `ip link set` does not bring back. Look for udev MACAddressPolicy.",
    fix="set_link_mac",
    after=["vxlan_device_missing"],
    at=the.leg.source_node,
    stage="source tunnel",
    both_ways=True,
    heals_within_s=HEALS_DEVICE,
    leg=some(Leg, encapsulation="vxlan"),
    device=some(Link, node=the.leg.source_node, device=the.leg.tunnel_device, found=True),
)
def vxlan_device_mac_wrong(leg: Leg, device: Link) -> Text | Finding | None:
    if not device.mac or not leg.source_tunnel_mac or device.mac == leg.source_tunnel_mac:
        return None
    text = say(
        "{device} on {node} is {mac}; its peers send to {expected}.",
        device=device.device,
        node=device.node,
        mac=device.mac,
        expected=leg.source_tunnel_mac,
    )
    heals = since(leg.calico_version, HEALS_SINCE, unknown=True)
    return text if heals else Finding(text, heals_within_s=HEALS_NEVER)
