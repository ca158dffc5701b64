"""Which addresses the tunnel device and the uplink really carry; without it only the annotations would be known."""

from __future__ import annotations

from collections.abc import Iterator

from facts import Fact, LinkAddresses, NodeAsk
from node_probe.view import View


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """LinkAddresses of the tunnel device and, where a device holds the node address, of the uplink."""
    tunnel, uplink = view.device(ask.tunnel_device), view.uplink(ask)
    if tunnel is None:
        yield LinkAddresses(node=ask.node, device=ask.tunnel_device, found=False)
    for device in (tunnel, uplink):
        if device is not None:
            held = tuple(f"{one.address}/{one.length}" for one in view.netlink.addresses(device.index))
            yield LinkAddresses(node=ask.node, device=device.name, found=True, addresses=held)
