"""The addresses that nodes need for themselves, and by what Calico knows them; without it a report and a forecast would
each know other tunnels."""

from __future__ import annotations

from typing import NamedTuple

PREFIX = "projectcalico.org/"  # of Calico's annotations


class Tunnel(NamedTuple):
    """One kind of address a node may need for itself, and where Calico writes down which it has."""

    name: str
    family: int
    said: str  # how its annotation ends
    modes: tuple[str, ...] = ()  # fields of a pool that ask for it, one of them on; () for all pools
    key: str = ""  # annotation without which it is not needed

    @property
    def annotation(self) -> str:
        """Of a node: projectcalico.org/IPv6VXLANTunnelAddr"""
        return f"{PREFIX}IPv{self.family}{self.said}"

    @property
    def kind(self) -> str:
        """The type that its allocation has: vxlanV6TunnelAddress"""
        return f"{self.name}{'V6' if self.family == 6 else ''}TunnelAddress"

    @property
    def handle(self) -> str:
        """How the handle of its allocation begins, before the node's name: vxlan-v6-tunnel-addr-"""
        return f"{self.name}{'-v6' if self.family == 6 else ''}-tunnel-addr-"


TUNNELS = (
    Tunnel("vxlan", 4, "VXLANTunnelAddr", ("vxlan_mode",)),
    Tunnel("vxlan", 6, "VXLANTunnelAddr", ("vxlan_mode",)),
    Tunnel("ipip", 4, "IPIPTunnelAddr", ("ipip_mode",)),
    Tunnel("wireguard", 4, "WireguardInterfaceAddr", key=f"{PREFIX}WireguardPublicKey"),
    Tunnel("wireguard", 6, "WireguardInterfaceAddr", key=f"{PREFIX}WireguardPublicKeyV6"),
)
