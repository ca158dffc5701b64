"""A TCP packet as large as is wanted that opens no connection; without it nobody could tell that large packets are lost
where pings are not answered, and a train of connections would fill a server's queue and lose what it is to count.

It is the first packet of a connection (SYN), with or without data in it. A server that does not speak TCP Fast Open
answers as to any first packet and leaves the data alone (RFC 9293 3.4, RFC 7413 3); one that asks for a cookie does so
too, for there is none. The sender's kernel knows of no such connection and ends it with a reset when the answer comes:
the server's program hears nothing of it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import NamedTuple

from node_probe.checksum import checksum
from node_probe.filters import AND, BEHIND, HALF, INSTRUCTION, JEQ, RETURN, Condition, attach, either, packed, program

HEADER = struct.Struct("!HHIIBBHHH")
OPTIONS = bytes([2, 4])  # maximum segment size, as every SYN has it; two bytes more say how large
LENGTH = HEADER.size + len(OPTIONS) + 2
MSS, WINDOW = 1220, 64240
SYN, RST, ACK = 0x02, 0x04, 0x10
LOWEST_PORT, PORTS = 0xF000, 0x1000  # the kernel gives out none of these by itself
WHOLE_FROM, WHOLE = 0xEF00, 0x100  # nor these: of whole connections, for of the others a server may still know a half
IPV6_CHECKSUM, CHECKSUM_AT = 7, 16
ENOUGH = 128  # bytes of an answer


class Reset(Exception):
    """The target refuses the connection."""


def open_socket(family: socket.AddressFamily) -> socket.socket:
    """A raw socket that is given nothing yet. Raises OSError."""
    one = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
    try:
        attach(one, either(()))
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, IPV6_CHECKSUM, CHECKSUM_AT)
    except OSError:
        one.close()
        raise
    return one


def port_of(identity: bytes) -> int:
    """The port such a packet is sent from."""
    return LOWEST_PORT + int.from_bytes(identity, "big") % PORTS


async def knock(
    one: socket.socket,
    target: str,
    port: int,
    data: bytes,
    identity: bytes,
    *,
    own_port: int = 0,
    mss: int = MSS,
    begins: bytes = b"",
) -> Segment:
    """Returns what answered a packet with this data. Raises Reset, OSError.

    identity: four bytes, its sequence number. own_port: it is sent from; 0: that comes of the identity, too. mss: that
    it announces. begins: with this the data of an answer begins; else any counts that has no data, as a server's.
    """
    sequence = int.from_bytes(identity, "big")
    first = Segment(own_port or port_of(identity), port, sequence, 0, SYN, mss, data)
    attach(one, _only_to(first.source, six=one.family == socket.AF_INET6))
    one.connect((target, 0))  # what comes from others is not for this socket
    one.send(written(one, target, first))
    while True:
        answer = read(one, await asyncio.get_running_loop().sock_recv(one, ENOUGH))
        if answer.source == port and answer.about in ((sequence + 1) % 2**32, (sequence + 1 + len(data)) % 2**32):
            if answer.refuses:
                raise Reset
            ours = answer.data.startswith(begins) if begins else not answer.data
            if answer.flags & (SYN | ACK) == SYN | ACK and ours:
                return answer


def listen(one: socket.socket, target: str) -> None:
    """From now on the socket is given what the target answers to any such packet. Raises OSError."""
    attach(one, _only_to(LOWEST_PORT, PORTS - 1, six=one.family == socket.AF_INET6))
    one.connect((target, 0))


class Segment(NamedTuple):
    """What came back."""

    source: int  # ports
    target: int
    number: int
    about: int  # the next byte that its sender expects
    flags: int
    mss: int  # that it announces; 0: none
    data: bytes

    @property
    def refuses(self) -> bool:
        return bool(self.flags & RST)


def read(one: socket.socket, answer: bytes) -> Segment:
    """one: the socket it came by."""
    start = 0 if one.family == socket.AF_INET6 else (answer[0] & 0xF) * 4  # IPv6's header stays with the kernel
    return parsed(answer[start:])


def parsed(segment: bytes) -> Segment:
    """From its own header on. Raises struct.error for what is none."""
    source, target, number, about, words, flags, _, _, _ = HEADER.unpack_from(segment)
    behind = (words >> 4) * 4
    mss = _announced(segment[HEADER.size : behind])
    return Segment(source, target, number, about, flags, mss, segment[behind:])


def _announced(options: bytes) -> int:
    while options and options[0]:  # 0: the end of them
        if options[0] == 1:  # nothing
            options = options[1:]
        elif len(options) < 2 or options[1] < 2:
            break
        elif options[0] == OPTIONS[0]:
            return int.from_bytes(options[2:4], "big")
        else:
            options = options[options[1] :]
    return 0


def packet(one: socket.socket, target: str, port: int, data: bytes, identity: bytes) -> bytes:
    """What `one`, a connected socket, is to send."""
    return written(one, target, Segment(port_of(identity), port, int.from_bytes(identity, "big"), 0, SYN, MSS, data))


def written(one: socket.socket, target: str, segment: Segment) -> bytes:
    """The segment as `one` is to send it, a socket that has an address."""

    if one.family == socket.AF_INET6:
        return _whole(segment, 0)  # the kernel sums up itself
    return summed(one.getsockname()[0], target, segment)


def summed(source: str, target: str, segment: Segment) -> bytes:
    """The segment between these addresses."""
    blank = _whole(segment, 0)
    ends = packed(source) + packed(target)
    return _whole(segment, checksum(ends + struct.pack("!II", len(blank), socket.IPPROTO_TCP) + blank))


def _whole(segment: Segment, total: int) -> bytes:
    head = (segment.source, segment.target, segment.number, segment.about, LENGTH // 4 << 4, segment.flags)
    return HEADER.pack(*head, WINDOW, total, 0) + OPTIONS + struct.pack("!H", segment.mss) + segment.data


def _only_to(port: int, rest: int = 0, *, six: bool) -> bytes:
    """Answers to this port, and to those that differ in the bits of `rest`: a raw socket would be given all of TCP."""
    mask = 0xFFFF ^ rest
    if not six:
        return program(False, [Condition(HALF + BEHIND, 2, port, mask)])
    code = [(HALF, 0, 0, 2), (AND, 0, 0, mask), (JEQ, 0, 1, port), (RETURN, 0, 0, ENOUGH), (RETURN, 0, 0, 0)]
    return b"".join(INSTRUCTION.pack(*one) for one in code)  # IPv6's header stays with the kernel
