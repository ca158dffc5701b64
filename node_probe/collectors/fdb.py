"""To which node frames for a MAC leave the tunnel device; a wrong one sends packets to a bystander without any
error."""

from __future__ import annotations

from collections.abc import Iterator

from facts import Fact, FdbEntry, NodeAsk
from node_probe.netlink import NetlinkError
from node_probe.view import View


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """FdbEntry of each MAC the kernel would send to on the tunnel device, and of each expected one."""
    macs = _macs(ask, view)
    tunnel = view.device(ask.tunnel_device) if macs else None
    for mac in macs:
        if tunnel is None:
            yield FdbEntry(node=ask.node, device=ask.tunnel_device, mac=mac, found=False)
            continue
        try:
            entry = view.netlink.fdb(tunnel.index, mac)
        except NetlinkError as error:
            if error.name != "ENOENT":
                raise
            yield FdbEntry(node=ask.node, device=ask.tunnel_device, mac=mac, found=False)
        else:
            yield FdbEntry(
                node=ask.node,
                device=ask.tunnel_device,
                mac=mac,
                found=True,
                peer=entry.address,
                port=entry.port,
                vni=entry.vni,
            )


def _macs(ask: NodeAsk, view: View) -> list[str]:
    found: dict[str, None] = {}
    for device, address in view.hops(ask):
        if device == ask.tunnel_device:
            found[view.neighbor(ask.node, device, address).mac] = None
    found |= {way.expected_mac: None for way in ask.ways}
    found.pop("", None)
    return list(found)
