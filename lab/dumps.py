"""Reads what one network namespace holds, as the kernel's own bytes; without it a lab that heals would spend nearly all
of its time in pyroute2, which decodes every attribute there is."""

from __future__ import annotations

import os
import socket
import struct
import sys

# linux/netlink.h, linux/rtnetlink.h, linux/if_link.h
LINKS, ADDRESSES, ROUTES, NEIGHBORS, RULES = 18, 22, 26, 30, 34
REQUEST, DUMP, INTERRUPTED = 0x1, 0x300, 0x10
ERROR, DONE = 2, 3
EXT_MASK, SKIP_STATISTICS = 29, 0x8
KIND = 0x3FFF  # of an attribute, without its flags
RECEIVE = 1 << 17  # bytes; the kernel gives no more at a time
HEAD, ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
HEADER, unpack_attribute = ATTRIBUTE.size, ATTRIBUTE.unpack_from  # looked up some 20,000 times while a lab heals
BODY = {
    LINKS: struct.Struct("=BxHiII"),  # family, type, index, flags, change
    ADDRESSES: struct.Struct("=BBBBI"),  # family, length, flags, scope, index
    ROUTES: struct.Struct("=8BI"),  # family, length, source's length, tos, table, protocol, scope, type, flags
    NEIGHBORS: struct.Struct("=BxxxiHBB"),  # family, index, state, flags, type
    RULES: struct.Struct("=8BI"),  # family, length, source's length, tos, table, -, -, action, flags
}

Fields = tuple[int, ...]
Attributes = dict[int, bytes]


class Reader:
    """Of the network namespace the calling thread is in when it is made. Blocking; to be closed."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._number = 0

    def close(self) -> None:
        self._socket.close()

    def dump(self, what: int, family: int = 0) -> list[tuple[Fields, Attributes]]:
        """All there are of LINKS, ADDRESSES, ...: the numbers of `BODY`, and the attributes. Raises OSError."""
        while (found := self._dump(what, family)) is None:
            pass
        return found

    def _dump(self, what: int, family: int) -> list[tuple[Fields, Attributes]] | None:
        """None when it changed meanwhile."""
        body = BODY[what]
        request = body.pack(family, *[0] * (len(body.unpack(bytes(body.size))) - 1))
        if what == LINKS:
            request += ATTRIBUTE.pack(8, EXT_MASK) + struct.pack("=I", SKIP_STATISTICS)
        self._number += 1
        head = HEAD.pack(HEAD.size + len(request), what, REQUEST | DUMP, self._number, 0)
        self._socket.send(head + request)
        found: list[tuple[Fields, Attributes]] = []
        whole = True
        while True:
            data = self._socket.recv(RECEIVE)
            at = 0
            while at < len(data):
                length, kind, flags, number, _ = HEAD.unpack_from(data, at)
                start, end = at + HEAD.size, at + length
                at += length + 3 & ~3
                if number != self._number:
                    continue
                whole = whole and not flags & INTERRUPTED
                if kind == DONE:
                    return found if whole else None
                if kind == ERROR:
                    code = -struct.unpack_from("=i", data, start)[0]
                    raise OSError(code, os.strerror(code))
                found.append((body.unpack_from(data, start), attributes(data[start + body.size : end])))


def attributes(data: bytes) -> Attributes:
    """By kind, the last of each."""
    found = {}
    at, size = 0, len(data)
    while at + HEADER <= size:
        length, kind = unpack_attribute(data, at)
        found[kind & KIND] = data[at + HEADER : at + length]
        at += length + 3 & ~3
    return found


def number(value: bytes | None) -> int:
    """0 where there is none."""
    return int.from_bytes(value or b"", sys.byteorder)


def text(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0").decode(errors="replace")


def address(value: bytes | None) -> str:
    """Of either family; "" where there is none."""
    return socket.inet_ntop(socket.AF_INET if len(value) == 4 else socket.AF_INET6, value) if value else ""


def mac(value: bytes | None) -> str:
    return value.hex(":") if value else ""
