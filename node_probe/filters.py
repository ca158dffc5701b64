"""Packet sockets, and which packets they are given, decided by the kernel (classic BPF); without them all of a busy
node's packets would be copied to the probe to find a few."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import struct
import time
from collections.abc import Sequence
from typing import NamedTuple

SNAP = 256  # bytes of a packet that are looked at: headers, and all of a probe's own small packets
# linux/if_packet.h, linux/if_ether.h, linux/filter.h, asm-generic/socket.h
ETH_P_ALL = 3
SOL_PACKET, PACKET_STATISTICS, PACKET_AUXDATA, SO_ATTACH_FILTER, SO_TIMESTAMPNS = 263, 6, 8, 26, 35
PACKET_HOST, PACKET_OTHERHOST, PACKET_OUTGOING = 0, 3, 4
AD_PROTOCOL, AD_PKTTYPE, AD_HATYPE = 0xFFFFF000, 0xFFFFF004, 0xFFFFF01C
WORD, HALF, BYTE = 0x20, 0x28, 0x30
BEHIND = 0x20  # added to a load: its offset counts from the end of the first IP header
AND, JEQ, JSET, RETURN, LOAD_X, LOAD_X_FROM_IPV4 = 0x54, 0x15, 0x45, 0x06, 0x01, 0xB1
INSTRUCTION = struct.Struct("=HBBI")
IPV4, IPV6 = 0x0800, 0x86DD
IPV6_HEADER = 40
SIZES = {4: WORD, 2: HALF, 1: BYTE}

_libc = ctypes.CDLL(None, use_errno=True)


class Condition(NamedTuple):
    """What a load of bytes must give, where the mask has a bit; mask 0: all of it."""

    load: int
    offset: int
    value: int
    mask: int = 0


def program(
    six: bool,
    conditions: Sequence[Condition],
    going: int = -1,
    *,
    snap: int = SNAP,
    kind: int = -1,
    link: int = 0,
    fragments: bool = False,
) -> bytes:
    """Accepts packets of one family that meet all conditions. going: PACKET_HOST, ...; -1: any.

    snap: bytes of a packet that the socket is given. kind: ARPHRD_* of the device; -1: any. link: bytes before the IP
    header, on a socket that is given those too. fragments: later ones of IPv4 too, whose conditions are then met by
    what happens to stand behind their IP header.

    Raises ValueError for more conditions than a jump can leave.
    """
    code: list[tuple[int, int]] = [(HALF, AD_PROTOCOL), (JEQ, IPV6 if six else IPV4)]
    if going >= 0:
        code += [(WORD, AD_PKTTYPE), (JEQ, going)]
    if kind >= 0:
        code += [(WORD, AD_HATYPE), (JEQ, kind)]
    if not (six or fragments):
        code += [(HALF, link + 6), (JSET, 0x1FFF)]  # a later fragment has no further headers
    code += [(LOAD_X, IPV6_HEADER)] if six else [(LOAD_X_FROM_IPV4, link)]
    for load, offset, value, mask in conditions:
        code += [(load, link + offset), *([(AND, mask)] if mask else []), (JEQ, value)]
    code += [(RETURN, snap), (RETURN, 0)]
    if len(code) > 255:
        raise ValueError(f"{len(conditions)} conditions are too many for one filter")
    made = b""
    for place, (operation, value) in enumerate(code):
        refuse = len(code) - 1 - place - 1
        holds, fails = {JEQ: (0, refuse), JSET: (refuse, 0)}.get(operation, (0, 0))
        made += INSTRUCTION.pack(operation, holds, fails, value)
    return made


def either(programs: Sequence[bytes]) -> bytes:
    """Accepts what one of them accepts, and nothing where there is none: where one refuses, the next one begins."""
    return b"".join(one[: -INSTRUCTION.size] for one in programs) + INSTRUCTION.pack(RETURN, 0, 0, 0)


def bytes_at(offset: int, value: bytes, mask: bytes = b"", behind: int = 0) -> list[Condition]:
    """The packet has these bytes there. behind: BEHIND, or 0 for the first IP header's own."""
    found = []
    start = 0
    while start < len(value):
        size = next(size for size in SIZES if size <= len(value) - start)
        here = slice(start, start + size)
        masked = int.from_bytes(mask[here], "big")
        found.append(Condition(SIZES[size] + behind, offset + start, int.from_bytes(value[here], "big"), masked))
        start += size
    return found


def protocol(six: bool, number: int) -> Condition:
    return Condition(BYTE, 6 if six else 9, number)


def address(text: str, offset: int, behind: int = 0) -> list[Condition]:
    """Raises ValueError for what is no IP address."""
    return bytes_at(offset, packed(text), behind=behind)


def places(text: str) -> tuple[int, int]:
    """Where source and target stand in an IP header of this address's family."""
    return (8, 24) if ":" in text else (12, 16)


def packed(text: str) -> bytes:
    """Raises ValueError for what is no IP address."""
    try:
        return socket.inet_pton(family(text), text)
    except OSError:
        raise ValueError(f"{text!r} is not an IP address") from None


def family(text: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in text else socket.AF_INET


def written(packet: bytes, offset: int, six: bool) -> str:
    """The address that stands there; "" where the packet was cut short."""
    raw = packet[offset : offset + (16 if six else 4)]
    if len(raw) < (16 if six else 4):
        return ""
    return socket.inet_ntop(socket.AF_INET6 if six else socket.AF_INET, raw)


def opened(accepts: bytes, *, kind: socket.SocketKind = socket.SOCK_DGRAM, timed: bool = False) -> socket.socket:
    """A socket that is given those packets of every device of the network namespace the calling thread is in, from
    their IP header on, or with SOCK_RAW from their link's header on. timed: for `met_ns`.

    Raises OSError (EPERM: NET_RAW is missing).
    """
    one = socket.socket(socket.AF_PACKET, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    try:
        attach(one, accepts)
        one.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        if timed:
            one.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        _bind(one)  # only now: the filter is there before the first packet
    except BaseException:
        one.close()
        raise
    return one


def close(one: socket.socket) -> None:
    """From now on nobody is told of its packets. It is closed in a thread: the kernel waits some ten milliseconds for
    each, until no processor looks into it any more, and for many at one time."""
    loop = asyncio.get_running_loop()
    loop.remove_reader(one)
    loop.run_in_executor(None, one.close)


def attach(one: socket.socket, accepts: bytes) -> None:
    """From now on the socket is given what this program accepts. Raises OSError."""
    buffer = ctypes.create_string_buffer(accepts)
    count = len(accepts) // INSTRUCTION.size
    one.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", count, ctypes.addressof(buffer)))


def missed(one: socket.socket) -> int:
    """Packets the kernel had no room for since this was asked last."""
    _, dropped = struct.unpack("=II", one.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    return int(dropped)


def met_ns(told: Sequence[tuple[int, int, bytes]]) -> int:
    """When the kernel met a packet, ns since 1970, by what `recvmsg` tells beside it."""
    for level, kind, value in told:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, rest = struct.unpack_from("@ll", value)
            return int(seconds) * 1_000_000_000 + int(rest)
    return time.time_ns()


def _bind(one: socket.socket) -> None:
    """To every device and every protocol, which Python's own bind cannot say. Raises OSError."""
    where = struct.pack("=HHiHBB8x", socket.AF_PACKET, socket.htons(ETH_P_ALL), 0, 0, 0, 0)
    if _libc.bind(one.fileno(), where, len(where)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
