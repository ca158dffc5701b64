"""Kernel switches that stop forwarding without leaving any other trace."""

from __future__ import annotations

from facts.fact import Fact


class Sysctl(Fact, frozen=True, kw_only=True):
    """`sysctl NAME` on a node, in dotted form with the interface name as it is."""

    node: str
    name: str  # net.ipv4.ip_forward, net.ipv4.conf.cali123.forwarding
    found: bool
    value: str = ""
    device: str = ""  # cali123, vxlan.calico, all; "" for a switch of the whole node
    family: int = 4  # net.ipv4 or net.ipv6
    unlike: tuple[str, ...] = ()  # ip_forward: devices on the way whose own forwarding is another
    switch: str = ""  # of that device: forwarding (for IPv6 force_forwarding), disable_ipv6, proxy_arp, rp_filter


def typed(name: str, device: str) -> str:
    """As `sysctl` takes it, which reads a dot in a device's name (vxlan.calico) only where it is written as a slash."""
    return name.replace(f".{device}.", f".{device.replace('.', '/')}.") if device else name
