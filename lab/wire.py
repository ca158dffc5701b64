"""What a network between nodes does to packets when it is broken: swallow some, spoil others; without it every wound
would be inside a node.

Everything acts in the network namespace of the calling thread. `Kernel.flush_firewall` undoes the filters.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from collections.abc import Sequence
from ipaddress import ip_address

# linux/netfilter.h, linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h
NETLINK_NETFILTER, NFTABLES = 12, 10
BATCH_BEGIN, BATCH_END, NEW_TABLE, NEW_CHAIN, NEW_RULE = 16, 17, 0, 3, 6
REQUEST, ACK, CREATE, APPEND, NESTED, ERROR = 0x1, 0x4, 0x400, 0x800, 0x8000, 2
NETDEV, INGRESS = 5, 0
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
VERDICT, REGISTER = 0, 1
DROP = 0
META_PROTOCOL, META_L4PROTO = 1, 16
TABLE = "wire"
VXLAN_HEADERS = 8 + 8 + 14  # from the outer UDP header to the inner IP header
IPV4_HEADER = 20
TCP, UDP = 6, 17
TCP_CHECKSUM = 16
# linux/ethtool.h, linux/sockios.h
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17
HEAD = struct.Struct("=IHHIIBBH")  # nlmsghdr, nfgenmsg


def drop_udp(device: str, port: int, family: int = 4) -> None:
    """What comes in by `device` for this UDP port is swallowed. Raises OSError."""
    _rule(device, [*_is_family(family), *_is_udp_to(port), _drop()])


def drop_protocol(device: str, protocol: int) -> None:
    """What comes in by `device` in this protocol on IPv4 (4: IPIP) is swallowed. Raises OSError."""
    _rule(device, [*_is_family(4), *_is_protocol(protocol), _drop()])


def drop_to(device: str, address: str) -> None:
    """What comes in by `device` for this IP address is swallowed, ARP is not. Raises OSError."""
    packed = ip_address(address).packed
    offset = 24 if ":" in address else 16
    expressions = [*_is_family(6 if ":" in address else 4), _load(NETWORK_HEADER, offset, len(packed)), _equal(packed)]
    _rule(device, [*expressions, _drop()])


def spoil_tcp_in_vxlan(device: str, port: int) -> None:
    """TCP inside of VXLAN that comes in by `device` gets a wrong checksum; IPv4 only. Raises OSError."""
    inner = VXLAN_HEADERS
    spoilt = [
        _load(TRANSPORT_HEADER, inner + 9, 1),
        _equal(bytes([TCP])),
        _expression("immediate", _u32(1, REGISTER), _nested(2, _attribute(1, b"\xde\xad"))),
        _expression(
            "payload",
            _u32(5, REGISTER),
            _u32(2, TRANSPORT_HEADER),
            _u32(3, inner + IPV4_HEADER + TCP_CHECKSUM),
            _u32(4, 2),
        ),
    ]
    _rule(device, [*_is_family(4), *_is_udp_to(port), *spoilt])


def set_checksum_offload(device: str, on: bool) -> None:
    """`ethtool -K DEVICE tx on|off`: off, and packets carry their checksums from here on. Raises OSError."""
    value = ctypes.create_string_buffer(struct.pack("=II", ETHTOOL_STXCSUM, int(on)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, SIOCETHTOOL, struct.pack("16sP", device.encode(), ctypes.addressof(value)))


def _drop() -> bytes:
    return _expression("immediate", _u32(1, VERDICT), _nested(2, _nested(2, _u32(1, DROP))))


def _is_family(family: int) -> list[bytes]:
    ethertype = {4: b"\x08\x00", 6: b"\x86\xdd"}[family]
    return [_expression("meta", _u32(1, REGISTER), _u32(2, META_PROTOCOL)), _equal(ethertype)]


def _is_protocol(protocol: int) -> list[bytes]:
    return [_expression("meta", _u32(1, REGISTER), _u32(2, META_L4PROTO)), _equal(bytes([protocol]))]


def _is_udp_to(port: int) -> list[bytes]:
    return [*_is_protocol(UDP), _load(TRANSPORT_HEADER, 2, 2), _equal(port.to_bytes(2, "big"))]


def _load(base: int, offset: int, length: int) -> bytes:
    return _expression("payload", _u32(1, REGISTER), _u32(2, base), _u32(3, offset), _u32(4, length))


def _equal(value: bytes) -> bytes:
    return _expression("cmp", _u32(1, REGISTER), _u32(2, 0), _nested(3, _attribute(1, value)))


def _expression(name: str, *attributes: bytes) -> bytes:
    return _nested(1, _text(1, name), _nested(2, *attributes))


def _rule(device: str, expressions: Sequence[bytes]) -> None:
    """One rule on all that comes in by a device, in a chain of its own."""
    hook = _nested(4, _u32(1, INGRESS), _u32(2, 0), _text(3, device))
    chain = f"in-{device}"
    messages = [
        (NEW_TABLE, CREATE, _text(1, TABLE)),
        (NEW_CHAIN, CREATE, _text(1, TABLE) + _text(3, chain) + hook + _text(7, "filter")),
        (NEW_RULE, CREATE | APPEND, _text(1, TABLE) + _text(2, chain) + _nested(4, *expressions)),
    ]
    batch = _message(BATCH_BEGIN, 0, 0, b"", NFTABLES)
    for number, (kind, flags, body) in enumerate(messages, 1):
        batch += _message(NFTABLES << 8 | kind, flags | ACK, number, body, family=NETDEV)
    batch += _message(BATCH_END, 0, len(messages) + 1, b"", NFTABLES)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as wire:
        wire.settimeout(1.0)
        wire.send(batch)
        answered = 0
        while answered < len(messages):
            data = wire.recv(1 << 16)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind == ERROR:
                    (code,) = struct.unpack_from("=i", data, 16)
                    if code:
                        raise OSError(-code, f"nftables refused a rule on {device}")
                    answered += 1
                data = data[length + 3 & ~3 :]


def _message(kind: int, flags: int, number: int, body: bytes, resource: int = 0, family: int = 0) -> bytes:
    length = HEAD.size + len(body)
    return HEAD.pack(length, kind, REQUEST | flags, number, 0, family, 0, socket.htons(resource)) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _nested(kind: int, *attributes: bytes) -> bytes:
    return _attribute(kind | NESTED, b"".join(attributes))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _u32(kind: int, value: int) -> bytes:
    return _attribute(kind, value.to_bytes(4, "big"))
