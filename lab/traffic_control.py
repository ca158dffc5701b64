"""Makes a device's traffic control (tc) drop packets; without it a loss that no firewall and no route tells of could
not be shown.

Everything acts in the network namespace of the calling thread. `clear` undoes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from ipaddress import ip_address

from node_probe.netlink_messages import attribute

# linux/rtnetlink.h, linux/pkt_sched.h, linux/pkt_cls.h, linux/bpf_common.h
NEW_DISCIPLINE, DELETE_DISCIPLINE, NEW_FILTER = 36, 37, 44
REQUEST, ACK, CREATE, NESTED = 0x1, 0x4, 0x400, 0x8000
CLSACT, HANDLE, BLOCKS = 0xFFFFFFF1, 0xFFFF0000, {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
KIND, OPTIONS, COUNT, PROGRAM, FLAGS, DIRECT = 1, 2, 4, 5, 8, 1
LOAD_WORD, EQUALS, RETURN = 0x20, 0x15, 0x06
DROP, NEXT_FILTER = 2, 0xFFFFFFFF
ETHERTYPES = {4: 0x0800, 6: 0x86DD}
SOURCE, TARGET = {4: 14 + 12, 6: 14 + 8}, {4: 14 + 16, 6: 14 + 24}  # behind the Ethernet header
PREFERENCE = 7
GONE = (errno.EINVAL, errno.ENOENT, errno.ENODEV)


def drop(device: str, direction: str, *, source: str = "", target: str = "") -> None:
    """A program takes what comes in by ("ingress") or goes out by ("egress") a device from or to an address. Raises
    OSError."""
    family = 6 if ":" in source + target else 4
    start, address = (SOURCE[family], source) if source else (TARGET[family], target)
    words = struct.unpack(f"!{len(ip_address(address).packed) // 4}I", ip_address(address).packed)
    code = b""
    for at, word in enumerate(words):
        code += _step(LOAD_WORD, start + 4 * at) + _step(EQUALS, word, otherwise=2 * (len(words) - at) - 1)
    code += _step(RETURN, DROP) + _step(RETURN, NEXT_FILTER)
    options = attribute(COUNT, struct.pack("=H", len(code) // 8)) + attribute(PROGRAM, code)
    options += attribute(FLAGS, struct.pack("=I", DIRECT))
    index = socket.if_nametoindex(device)
    with contextlib.suppress(FileExistsError):
        _ask(NEW_DISCIPLINE, CREATE, index, HANDLE, CLSACT, 0, attribute(KIND, b"clsact\0"))
    info = PREFERENCE << 16 | socket.htons(ETHERTYPES[family])
    body = attribute(KIND, b"bpf\0") + attribute(OPTIONS | NESTED, options)
    _ask(NEW_FILTER, CREATE, index, 0, BLOCKS[direction], info, body)


def clear(device: str) -> None:
    """Also when there is nothing. Raises OSError."""
    try:
        _ask(DELETE_DISCIPLINE, 0, socket.if_nametoindex(device), HANDLE, CLSACT, 0, attribute(KIND, b"clsact\0"))
    except OSError as error:
        if error.errno not in GONE:
            raise


def _step(code: int, value: int, *, otherwise: int = 0) -> bytes:
    """One instruction of a classic BPF program. otherwise: so many are skipped where it does not hold."""
    return struct.pack("=HBBI", code, 0, otherwise, value)


def _ask(kind: int, flags: int, index: int, handle: int, parent: int, info: int, attributes: bytes) -> None:
    body = struct.pack("=BxxxiIII", 0, index, handle, parent, info) + attributes
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as wire:
        wire.settimeout(2.0)
        wire.send(struct.pack("=IHHII", 16 + len(body), kind, REQUEST | ACK | flags, 1, 0) + body)
        data = wire.recv(1 << 16)
    code = -struct.unpack_from("=i", data, 16)[0]
    if code:
        raise OSError(code, os.strerror(code))
