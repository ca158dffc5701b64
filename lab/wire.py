"""What a network between nodes does to packets when it is broken: swallow some, spoil others; without it every wound
would be inside a node.

Everything acts in the network namespace of the calling thread. `Kernel.flush_firewall` undoes the filters.
"""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import socket
import struct
import sys

from lab.nftables import (
    TRANSPORT_HEADER,
    Table,
    above,
    compared,
    counted_off,
    decide,
    loaded,
    masked,
    of_family,
    overwritten,
    protocol,
)

VXLAN_HEADERS = 8 + 8 + 14  # from the outer UDP header to the inner IP header
PROTOCOL_AT, IPV4_HEADER, IPV6_HEADER = 9, 20, 40
ICMP, TCP, UDP = 1, 6, 17
TCP_FLAGS, TCP_CHECKSUM = 13, 16
SYN, ECHO_REQUEST = 0x02, 8
# linux/ethtool.h, linux/sockios.h
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17

_numbers = itertools.count(1)


def drop_udp(device: str, port: int, family: int = 4) -> None:
    """What comes in by `device` for this UDP port is swallowed. Raises OSError."""
    _put(_table(device, family), *_is_udp_to(port), decide("drop"))


def drop_protocol(device: str, number: int) -> None:
    """What comes in by `device` in this protocol on IPv4 (4: IPIP) is swallowed. Raises OSError."""
    _put(_table(device), *protocol(number), decide("drop"))


def drop_to(device: str, address: str) -> None:
    """What comes in by `device` for this IP address is swallowed, ARP is not. Raises OSError."""
    table = _table(device, 6 if ":" in address else 4)
    _put(table, *table.is_address("destination", address), decide("drop"))


def drop_some_udp(device: str, port: int, every: int, family: int = 4) -> None:
    """Of what comes in by `device` for this UDP port one packet of so many is swallowed. Raises OSError."""
    _put(_table(device, family), *_is_udp_to(port), counted_off(every), compared(bytes(4)), decide("drop"))


def drop_some_requests_in_vxlan(device: str, port: int, every: int) -> None:
    """Of the pings and of the TCP packets that open a connection inside of VXLAN which come in by `device`, one in so
    many of each is swallowed; IPv4 only. Raises OSError.
    """
    inside = VXLAN_HEADERS + IPV4_HEADER
    table = _table(device)
    table.chain("in", "ingress")
    for number, offset, value in ((ICMP, inside, ECHO_REQUEST), (TCP, inside + TCP_FLAGS, SYN)):
        kind = [loaded(TRANSPORT_HEADER, VXLAN_HEADERS + PROTOCOL_AT, 1), compared(bytes([number]))]
        request = [loaded(TRANSPORT_HEADER, offset, 1), compared(bytes([value]))]
        some = [counted_off(every), compared(bytes(4)), decide("drop")]
        table.rule("in", *of_family(4), *_is_udp_to(port), *kind, *request, *some)
    table.write()


def drop_large_in_vxlan(device: str, port: int, number: int, most: int, family: int = 4) -> None:
    """What comes in by `device` in this protocol inside of VXLAN, with more bytes than `most` in its own IP packet, is
    swallowed. Raises OSError."""
    at, length = (PROTOCOL_AT, 2) if family == 4 else (6, 4)
    kind = [loaded(TRANSPORT_HEADER, VXLAN_HEADERS + at, 1), compared(bytes([number]))]
    # IPv6 counts without its own header.
    size = (most - (0 if family == 4 else IPV6_HEADER)).to_bytes(2, "big")
    large = [loaded(TRANSPORT_HEADER, VXLAN_HEADERS + length, 2), above(size)]
    _put(_table(device, family), *_is_udp_to(port), *kind, *large, decide("drop"))


def drop_by_port(device: str, number: int) -> None:
    """What comes in by `device` in this protocol from half of all ports is swallowed, as by one of two cables; IPv4
    only. Raises OSError.
    """
    half = b"\0\2\0\0"  # the kernel gives out even ports first, so that the last bit would not do
    port = [loaded(TRANSPORT_HEADER, 0, 4), masked(int.from_bytes(half, sys.byteorder))]
    _put(_table(device), *protocol(number), *port, compared(half), decide("drop"))


def spoil_tcp_in_vxlan(device: str, port: int) -> None:
    """TCP inside of VXLAN that comes in by `device` gets a wrong checksum; IPv4 only. Raises OSError."""
    is_tcp = [loaded(TRANSPORT_HEADER, VXLAN_HEADERS + PROTOCOL_AT, 1), compared(bytes([TCP]))]
    spoilt = overwritten(TRANSPORT_HEADER, VXLAN_HEADERS + IPV4_HEADER + TCP_CHECKSUM, b"\xde\xad")
    _put(_table(device), *_is_udp_to(port), *is_tcp, *spoilt)


def set_checksum_offload(device: str, on: bool) -> None:
    """`ethtool -K DEVICE tx on|off`: off, and packets carry their checksums from here on. Raises OSError."""
    value = ctypes.create_string_buffer(struct.pack("=II", ETHTOOL_STXCSUM, int(on)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, SIOCETHTOOL, struct.pack("16sP", device.encode(), ctypes.addressof(value)))


def _is_udp_to(port: int) -> list[bytes]:
    return [*protocol(UDP), loaded(TRANSPORT_HEADER, 2, 2), compared(port.to_bytes(2, "big"))]


def _table(device: str, family: int = 4) -> Table:
    """One for each wound, so that a second one does not take the place of the first."""
    return Table(family, f"wire{next(_numbers)}", device)


def _put(table: Table, *expressions: bytes) -> None:
    table.chain("in", "ingress")
    table.rule("in", *of_family(table.family), *expressions)
    table.write()
