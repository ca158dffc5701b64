"""Network devices of a node; a tunnel that is down is only visible here."""

from __future__ import annotations

from facts.fact import Fact


class Link(Fact, frozen=True, kw_only=True):
    """`ip -d link show dev DEVICE` on a node."""

    node: str
    device: str
    found: bool
    up: bool = False  # the UP flag: administratively up. operstate UNKNOWN is healthy for VXLAN
    lower_up: bool = False  # the LOWER_UP flag: carrier
    operstate: str = ""
    mac: str = ""
    mtu: int = -1
    link_kind: str = ""  # "vxlan", "veth", ...
    vni: int = -1  # also -1 for a flow-based device (eBPF), whose packets bring their own
    vxlan_port: int = -1
    vxlan_local: str = ""
    parent: str = ""  # name of the device below a VXLAN device
    # Of it and the devices below it (a bond's, a VLAN's), those with a program of somebody's (XDP) that decides on what
    # comes in before the kernel and this probe see it.
    programs: tuple[str, ...] = ()
    # Who sums up TCP and UDP of what is sent: "card" (the device, by offload) or "kernel"; "" where it does not say.
    sums: str = ""
    node_address: str = ""  # the address Calico uses for the node, on the one device that holds it: the uplink


class LinkAddresses(Fact, frozen=True, kw_only=True):
    """Addresses of one family of a device, as ADDRESS/LENGTH. `found=False`: there is no such device."""

    node: str
    device: str
    family: int = 4
    found: bool
    addresses: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()  # IPv6: of those, the ones somebody else has, so that the kernel uses none
