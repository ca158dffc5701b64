"""What the kernel says about a WireGuard device; without it a wrong key is seen nowhere, packets only vanish."""

from __future__ import annotations

import base64
import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from node_probe.netlink_messages import ATTRIBUTE, NetlinkError, NetlinkSocket, attribute, attributes

# linux/genetlink.h, linux/wireguard.h
NETLINK_GENERIC, GENL_ID_CTRL, CTRL_CMD_GETFAMILY = 16, 16, 3
CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME = 1, 2
WG_CMD_GET_DEVICE, VERSION = 0, 1
WGDEVICE_A_IFNAME, WGDEVICE_A_PUBLIC_KEY, WGDEVICE_A_LISTEN_PORT, WGDEVICE_A_PEERS = 2, 4, 6, 8
WGPEER_A_PUBLIC_KEY, WGPEER_A_ENDPOINT, WGPEER_A_LAST_HANDSHAKE_TIME, WGPEER_A_ALLOWEDIPS = 1, 4, 6, 9
WGALLOWEDIP_A_IPADDR, WGALLOWEDIP_A_CIDR_MASK = 2, 3
COMMAND = struct.Struct("=BBxx")
U16, PORT, TIMESPEC = struct.Struct("=H"), struct.Struct("!H"), struct.Struct("=qq")
# Not there, no such device, another kind of device, a kernel without WireGuard.
ABSENT = (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP)


@dataclass
class Peer:
    """One peer. endpoint "" where none is known; handshake: seconds of the clock, 0 for never."""

    public_key: str
    endpoint: str = ""
    handshake: int = 0
    allowed: list[str] = field(default_factory=list)


@dataclass
class Tunnel:
    """`wg show DEVICE`"""

    public_key: str = ""
    port: int = -1
    peers: dict[str, Peer] = field(default_factory=dict)  # by public key


class Wireguard(NetlinkSocket):
    """WireGuard devices of the network namespace the calling thread is in now."""

    def __init__(self) -> None:
        super().__init__(NETLINK_GENERIC)

    def tunnel(self, device: str) -> Tunnel | None:
        """None when there is no such WireGuard device. Raises NetlinkError: EPERM without NET_ADMIN."""
        try:
            family = self.get(
                GENL_ID_CTRL,
                COMMAND.pack(CTRL_CMD_GETFAMILY, 1) + attribute(CTRL_ATTR_FAMILY_NAME, b"wireguard\0"),
            )
            number = U16.unpack(attributes(family, COMMAND.size)[CTRL_ATTR_FAMILY_ID])[0]
            name = attribute(WGDEVICE_A_IFNAME, device.encode() + b"\0")
            return merged(self.dump(number, COMMAND.pack(WG_CMD_GET_DEVICE, VERSION) + name, bytes))
        except NetlinkError as error:
            if error.errno in ABSENT:
                return None
            raise


def merged(messages: list[bytes]) -> Tunnel:
    """A device out of the payloads that describe it: a peer with many prefixes goes on in the next one."""
    found = Tunnel()
    for message in messages:
        has = attributes(message, COMMAND.size)
        if WGDEVICE_A_PUBLIC_KEY in has:
            found.public_key = _key(has[WGDEVICE_A_PUBLIC_KEY])
        if WGDEVICE_A_LISTEN_PORT in has:
            found.port = int(U16.unpack(has[WGDEVICE_A_LISTEN_PORT])[0])
        for one in _each(has.get(WGDEVICE_A_PEERS, b"")):
            about = attributes(one)
            key = _key(about[WGPEER_A_PUBLIC_KEY])
            peer = found.peers.setdefault(key, Peer(key))
            if WGPEER_A_ENDPOINT in about:
                peer.endpoint = _endpoint(about[WGPEER_A_ENDPOINT])
            if WGPEER_A_LAST_HANDSHAKE_TIME in about:
                peer.handshake = int(TIMESPEC.unpack(about[WGPEER_A_LAST_HANDSHAKE_TIME])[0])
            for allowed in _each(about.get(WGPEER_A_ALLOWEDIPS, b"")):
                parts = attributes(allowed)
                packed = parts[WGALLOWEDIP_A_IPADDR]
                family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
                peer.allowed.append(f"{socket.inet_ntop(family, packed)}/{parts[WGALLOWEDIP_A_CIDR_MASK][0]}")
    return found


def _each(data: bytes) -> Iterator[bytes]:
    """The elements of a list: attributes that all have the same number."""
    offset = 0
    while offset + ATTRIBUTE.size <= len(data):
        length, _ = ATTRIBUTE.unpack_from(data, offset)
        if length < ATTRIBUTE.size:
            return
        yield data[offset + ATTRIBUTE.size : offset + length]
        offset += length + 3 & ~3


def _key(packed: bytes) -> str:
    """All zero is the kernel's word for none."""
    return base64.b64encode(packed).decode() if any(packed) else ""


def _endpoint(packed: bytes) -> str:
    """A sockaddr_in or sockaddr_in6."""
    family, port = U16.unpack_from(packed)[0], PORT.unpack_from(packed, 2)[0]
    if family == socket.AF_INET:
        return f"{socket.inet_ntop(family, packed[4:8])}:{port}"
    return f"[{socket.inet_ntop(socket.AF_INET6, packed[8:24])}]:{port}"
