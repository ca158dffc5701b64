"""The kernel's netlink of netfilter, as messages and attributes; without it each question about a firewall would need a
program of nftables on the node.

Formats: linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence

from node_probe.netlink_messages import attribute

ANSWER_S = 2.0
# linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
NETLINK_NETFILTER, NFTABLES = 12, 10
BATCH_BEGIN, BATCH_END, ERROR, DONE = 16, 17, 2, 3
NEW_RULE, GET_RULE = 6, 7
REQUEST, ACK, DUMP, NESTED = 0x1, 0x4, 0x300, 0x8000
FAMILIES = {4: 2, 6: 10}  # NFPROTO_*
INET, NETDEV = 1, 5
MESSAGE = struct.Struct("=IHHIIBBH")  # nlmsghdr, nfgenmsg


def netfilter() -> socket.socket:
    """A socket that talks to nf_tables of this network namespace. Raises OSError."""
    wire = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    wire.bind((0, 0))
    wire.settimeout(ANSWER_S)
    return wire


def commit(wire: socket.socket, *parts: tuple[int, Sequence[tuple[int, int, bytes]]]) -> None:
    """All of it or nothing: of each family the kind, flags and body of its messages. Raises OSError."""
    messages = [(family, *one) for family, some in parts for one in some]
    batch = message(BATCH_BEGIN, 0, 0, b"", resource=NFTABLES)
    for number, (family, kind, flags, body) in enumerate(messages, 1):
        batch += message(NFTABLES << 8 | kind, flags | ACK, number, body, family)
    batch += message(BATCH_END, 0, len(messages) + 1, b"", resource=NFTABLES)
    wire.send(batch)
    refused = 0
    for _ in range(len(messages)):
        code = acknowledged(wire)
        refused = refused or code
        if code in (errno.EPERM, errno.EACCES):  # said once, of the whole batch
            break
    if refused:
        raise OSError(refused, os.strerror(refused))


def acknowledged(wire: socket.socket) -> int:
    """The errno of the next answer to a request that was to be acknowledged; 0: done. Raises OSError, TimeoutError."""
    while True:
        data = wire.recv(1 << 16)
        _, kind = struct.unpack_from("=IH", data)
        if kind == ERROR:
            return -int(struct.unpack_from("=i", data, 16)[0])


def dumped(wire: socket.socket, kind: int) -> Iterator[tuple[int, bytes]]:
    """Family and body of every message of that kind, until the dump is done. Raises OSError, TimeoutError."""
    while True:
        for answer, family, body in messages(wire.recv(1 << 16)):
            if answer == DONE:
                return
            if answer == ERROR:
                code = -int(struct.unpack_from("=i", body)[0])
                raise OSError(code, os.strerror(code))
            if answer == kind:
                yield family, body


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, nfgenmsg's family and body (behind nfgenmsg, but of an error or an end: all) of what one read gave."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        plain = kind in (ERROR, DONE) or length < MESSAGE.size
        yield kind, 0 if plain else data[offset + 16], data[offset + (16 if plain else MESSAGE.size) : offset + length]
        offset += max(length + 3 & ~3, 16)


def message(kind: int, flags: int, number: int, body: bytes, family: int = 0, resource: int = 0) -> bytes:
    """A request. family: one of FAMILIES, 0 for all. resource: the subsystem that a batch is for."""
    length = MESSAGE.size + len(body)
    return MESSAGE.pack(length, kind, REQUEST | flags, number, 0, family, 0, socket.htons(resource)) + body


def nested(kind: int, *inside: bytes) -> bytes:
    """An attribute that holds others."""
    return attribute(kind | NESTED, b"".join(inside))


def text(kind: int, value: str) -> bytes:
    """An attribute of text, with the zero byte at its end."""
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    """An attribute of a number, in the order of the network: nf_tables has none of the host's."""
    return attribute(kind, value.to_bytes(4, "big"))


def u64(kind: int, value: int) -> bytes:
    """As `u32`."""
    return attribute(kind, value.to_bytes(8, "big"))
