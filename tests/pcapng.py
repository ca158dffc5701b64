"""Reads pcapng as the specification has it and takes nothing else; without it the writer would be judged by readers
that forgive."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

SECTION, INTERFACE, PACKET, STATISTICS = 0x0A0D0D0A, 1, 6, 5
END_OF_OPTIONS, COMMENT = 0, 1


@dataclass
class Interface:
    name: str
    description: str
    link: int
    snap: int
    resolution: int
    received: int = -1


@dataclass
class Packet:
    interface: Interface
    at_ns: int
    length: int
    out: bool
    data: bytes


@dataclass
class File:
    comments: list[str] = field(default_factory=list)
    application: str = ""
    interfaces: list[Interface] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)

    def of(self, place: str) -> list[Packet]:
        """Packets of one place. Raises AssertionError when the file has no such place."""
        assert place in [one.name for one in self.interfaces], self.interfaces
        return [one for one in self.packets if one.interface.name == place]


def read(content: bytes) -> File:
    """Raises AssertionError, struct.error or KeyError for what the specification does not allow."""
    found = File()
    at = 0
    while at < len(content):
        kind, length = struct.unpack_from("<II", content, at)
        assert length % 4 == 0 and length >= 12 and at + length <= len(content), (kind, length)
        assert struct.unpack_from("<I", content, at + length - 4) == (length,), "both lengths of a block agree"
        assert (kind == SECTION) == (at == 0), "one section, which comes first"
        body = content[at + 8 : at + length - 4]
        {SECTION: _section, INTERFACE: _interface, PACKET: _packet, STATISTICS: _statistics}[kind](found, body)
        at += length
    return found


def _section(found: File, body: bytes) -> None:
    magic, major, minor, length = struct.unpack_from("<IHHq", body)
    assert (magic, major, minor, length) == (0x1A2B3C4D, 1, 0, -1)
    options = _options(body[16:])
    found.comments = [value.decode() for code, value in options if code == COMMENT]
    found.application = next(value.decode() for code, value in options if code == 4)


def _interface(found: File, body: bytes) -> None:
    assert not found.packets, "every place is named before the first packet"
    link, reserved, snap = struct.unpack_from("<HHI", body)
    assert reserved == 0
    options = dict(_options(body[8:]))
    (resolution,) = options[9]
    found.interfaces.append(Interface(options[2].decode(), options.get(3, b"").decode(), link, snap, resolution))


def _packet(found: File, body: bytes) -> None:
    number, high, low, captured, length = struct.unpack_from("<IIIII", body)
    interface = found.interfaces[number]
    assert captured <= length and captured <= interface.snap
    end = 20 + captured
    assert not any(body[end : end + -captured % 4]), "padded with zeros"
    options = dict(_options(body[end + -captured % 4 :]))
    (flags,) = struct.unpack("<I", options[2])
    assert flags in (1, 2)
    at_ns = high << 32 | low
    assert not found.packets or found.packets[-1].at_ns <= at_ns, "in order of time"
    found.packets.append(Packet(interface, at_ns, length, flags == 2, body[20:end]))


def _statistics(found: File, body: bytes) -> None:
    number, _, _ = struct.unpack_from("<III", body)
    (found.interfaces[number].received,) = struct.unpack("<Q", dict(_options(body[12:]))[4])


def _options(data: bytes) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    at = 0
    while True:
        code, length = struct.unpack_from("<HH", data, at)
        if code == END_OF_OPTIONS:
            assert length == 0 and at + 4 == len(data), "nothing stands behind the last option"
            return found
        found.append((code, data[at + 4 : at + 4 + length]))
        at += 4 + length + -length % 4
