"""To which node frames for a MAC leave the tunnel device; a wrong one sends packets to a bystander without any
error."""

from __future__ import annotations

from collections.abc import Iterator

from facts import Blind, Fact, FdbEntry, NodeAsk, say
from node_probe.netlink_messages import NetlinkError
from node_probe.view import View

DEFAULT = "00:00:00:00:00:00"


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
            if _has_default(view, tunnel.index):
                reason = say(
                    "{device} sends frames for {mac} by its all-zero entry, which may lead to several nodes",
                    device=ask.tunnel_device,
                    mac=mac,
                )
                yield Blind(node=ask.node, look="fdb", reason=reason)
                continue
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
                via=view.netlink.link(index=entry.via).name if entry.via not in (-1, 0, tunnel.link) else "",
            )


def _has_default(view: View, tunnel: int) -> bool:
    """A VXLAN device without an entry for a MAC takes the one for 00:00:00:00:00:00, where it has that."""
    try:
        view.netlink.fdb(tunnel, DEFAULT)
    except NetlinkError as error:
        if error.name != "ENOENT":
            raise
        return False
    return True


def _macs(ask: NodeAsk, view: View) -> list[str]:
    found: dict[str, None] = {}
    for device, address in view.hops(ask):
        if device == ask.tunnel_device:
            found[view.neighbor(ask.node, device, address).mac] = None
    found |= {way.expected_mac: None for way in ask.ways}
    found.pop("", None)
    return list(found)
