"""Do two nodes agree on their keys? Encrypted packets of the wrong one are dropped without any error."""

from __future__ import annotations

import time
from collections.abc import Iterator

from facts import Blind, Fact, NodeAsk, WireguardDevice, WireguardPeer
from node_probe.netlink_messages import NetlinkError
from node_probe.view import View
from node_probe.wireguard import Wireguard


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """WireguardDevice of the tunnel device, and WireguardPeer of each asked key; nothing where none is asked, Blind
    where this probe may not read keys."""
    if not ask.wireguard_keys:
        return
    try:
        with Wireguard() as kernel:
            tunnel = kernel.tunnel(ask.tunnel_device)
    except NetlinkError as error:
        if error.name != "EPERM":
            raise
        reason = f"the kernel shows the keys of {ask.tunnel_device} only to a probe with NET_ADMIN"
        yield Blind(node=ask.node, look="wireguard", reason=reason, minor=True)
        return
    if tunnel is None:
        yield WireguardDevice(node=ask.node, device=ask.tunnel_device, found=False)
        return
    yield WireguardDevice(
        node=ask.node, device=ask.tunnel_device, found=True, public_key=tunnel.public_key, port=tunnel.port
    )
    for key in ask.wireguard_keys:
        peer = tunnel.peers.get(key)
        if peer is None:
            yield WireguardPeer(node=ask.node, device=ask.tunnel_device, public_key=key, found=False)
            continue
        yield WireguardPeer(
            node=ask.node,
            device=ask.tunnel_device,
            public_key=key,
            found=True,
            endpoint=peer.endpoint,
            handshake_s=max(round(time.time()) - peer.handshake, 0) if peer.handshake else -1,
            allowed=tuple(peer.allowed),
        )
