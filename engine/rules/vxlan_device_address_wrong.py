"""The tunnel device must carry the node's tunnel address: the kernel hangs its routes on it."""

from engine.rule import HEALS_DEVICE, HEALS_ENTRY, Finding, Text, cause, say, some, the
from facts import Leg, LinkAddresses


@cause(
    title="The VXLAN device does not carry the node's tunnel address",
    severity="degrades",
    remedy="Restart the calico-node pod of this node; it sets the address and all routes again.",
    after=[
        "ipv6_disabled",
        "vxlan_device_missing",
        "vxlan_device_down",
        "tunnel_address_missing",
        "tunnel_address_not_owned",
        "vxlan_vni_wrong",
        "vxlan_port_wrong",
        "vxlan_local_address_wrong",
    ],
    at=the.leg.source_node,
    stage="source tunnel",
    both_ways=True,
    heals_within_s=HEALS_DEVICE,
    leg=some(Leg, encapsulation="vxlan"),
    device=some(
        LinkAddresses, node=the.leg.source_node, family=the.leg.family, device=the.leg.tunnel_device, found=True
    ),
)
def vxlan_device_address_wrong(leg: Leg, device: LinkAddresses) -> Text | Finding | None:
    bare = [address.split("/")[0] for address in device.addresses]
    if not leg.source_tunnel_address or leg.source_tunnel_address in bare:
        return None
    if not bare and leg.family == 4:  # IPv6 routes stay; a device without any address of it is another failure mode
        return Finding(
            say(
                "{device} on {node} has no address; it should be {expected}. "
                "Removing the last address also removed the device's routes and neighbors.",
                device=device.device,
                node=device.node,
                expected=leg.source_tunnel_address,
            ),
            severity="breaks",
            heals_within_s=HEALS_ENTRY,  # the address is back within seconds, routes and neighbors are not
        )
    text = say(
        "{device} on {node} has {addresses}; it should be {expected}.",
        device=device.device,
        node=device.node,
        addresses=", ".join(bare) or say("no address"),
        expected=leg.source_tunnel_address,
    )
    # Pods have addresses of their own; the node itself sends under this one, and nobody knows a way back to it.
    return Finding(text, severity="breaks" if leg.source_kind == "node" else "degrades")
