"""A pcapng file out of packets from several places; without it every reader would have to be told by hand which packet
was met where.

The format: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-03.html. Little endian, one section.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import msgspec

SECTION, INTERFACE, PACKET, STATISTICS = 0x0A0D0D0A, 1, 6, 5
MAGIC = 0x1A2B3C4D
END_OF_OPTIONS, COMMENT = 0, 1
USER_APPLICATION = 4  # of a section
NAME, DESCRIPTION, TIME_RESOLUTION = 2, 3, 9  # of an interface
FLAGS = 2  # of a packet: bits 0 and 1 tell its direction
RECEIVED, DROPPED = 4, 5  # of an interface's statistics
INBOUND, OUTBOUND = 1, 2
NANOSECONDS = 9  # a resolution of 10^-9 s


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """A place where packets were met."""

    name: str
    link: int  # LINKTYPE_*
    description: str = ""
    dropped: int = -1  # packets that were lost before they could be kept; -1: not known


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """A packet as it was met there."""

    interface: int  # place in the list of interfaces
    at_ns: int  # since 1970
    length: int  # on the wire, bytes
    out: bool
    data: bytes


def write(
    interfaces: Sequence[Interface], packets: Iterable[Packet], *, comments: Sequence[str], application: str, snap: int
) -> bytes:
    """The whole file, packets in order of time. snap: bytes kept of a packet at most."""
    parts = [_section(comments, application), *(_interface(one, snap) for one in interfaces)]
    counts = [0] * len(interfaces)
    last = 0
    for packet in sorted(packets, key=lambda one: one.at_ns):
        counts[packet.interface] += 1
        last = packet.at_ns
        parts.append(_packet(packet))
    parts += [_statistics(number, one, counts[number], last) for number, one in enumerate(interfaces)]
    return b"".join(parts)


def _section(comments: Sequence[str], application: str) -> bytes:
    options = [*(_text(COMMENT, one) for one in comments), _text(USER_APPLICATION, application)]
    # Version 1.0, of a section whose length nobody said.
    return _block(SECTION, struct.pack("<IHHq", MAGIC, 1, 0, -1) + _options(options))


def _interface(one: Interface, snap: int) -> bytes:
    options = [_text(NAME, one.name)]
    if one.description:
        options.append(_text(DESCRIPTION, one.description))
    options.append(_option(TIME_RESOLUTION, bytes([NANOSECONDS])))
    return _block(INTERFACE, struct.pack("<HHI", one.link, 0, snap) + _options(options))


def _packet(one: Packet) -> bytes:
    head = struct.pack("<IIIII", one.interface, *_time(one.at_ns), len(one.data), one.length)
    flags = _option(FLAGS, struct.pack("<I", OUTBOUND if one.out else INBOUND))
    return _block(PACKET, head + _padded(one.data) + _options([flags]))


def _statistics(number: int, one: Interface, count: int, at_ns: int) -> bytes:
    options = [_option(RECEIVED, struct.pack("<Q", count))]
    if one.dropped >= 0:
        options.append(_option(DROPPED, struct.pack("<Q", one.dropped)))
    return _block(STATISTICS, struct.pack("<III", number, *_time(at_ns)) + _options(options))


def _time(at_ns: int) -> tuple[int, int]:
    return at_ns >> 32 & 0xFFFFFFFF, at_ns & 0xFFFFFFFF


def _text(code: int, text: str) -> bytes:
    return _option(code, text.encode()[:65535])


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _options(options: Sequence[bytes]) -> bytes:
    return b"".join(options) + struct.pack("<HH", END_OF_OPTIONS, 0)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)
