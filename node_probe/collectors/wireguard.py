"""Do two nodes agree on their keys? Encrypted packets of the wrong one are dropped without any error."""

from __future__ import annotations

import time
from collections.abc import Iterator

from facts import Fact, NodeAsk, WireguardDevice, WireguardPeer
from node_probe.view import View
from node_probe.wireguard import Wireguard


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """WireguardDevice of the tunnel device, and WireguardPeer of each asked key; nothing where none is asked."""
    if not ask.wireguard_keys:
        return
    with Wireguard() as kernel:
        tunnel = kernel.tunnel(ask.tunnel_device)
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
