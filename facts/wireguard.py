"""Keys of encrypted tunnels; two nodes that disagree on one drop each other's packets without a word."""

from __future__ import annotations

from facts.fact import Fact


class WireguardDevice(Fact, frozen=True, kw_only=True):
    """`wg show DEVICE` on a node. `found=False`: there is no such WireGuard device."""

    node: str
    device: str  # wireguard.cali, wg-v6.cali
    found: bool
    public_key: str = ""  # base64, as in the node's annotation
    port: int = -1


class WireguardPeer(Fact, frozen=True, kw_only=True):
    """One asked peer of that device. `found=False`: the device has no peer with this key."""

    node: str
    device: str
    public_key: str
    found: bool
    endpoint: str = ""  # ADDRESS:PORT it sends to
    handshake_s: int = -1  # since the last handshake; -1: never
    allowed: tuple[str, ...] = ()  # prefixes
