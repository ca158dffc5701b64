"""The checksum of IP's protocols; without it nobody could ping, or tell that a packet was spoilt on its way."""

from __future__ import annotations

import struct

IPV4_HEADER, IPV6_HEADER = 20, 40
TCP, UDP = 6, 17
CHECKSUM_AT = {TCP: 16, UDP: 6}


def checksum(data: bytes) -> int:
    """RFC 1071. Over data that carries its own right checksum it is 0."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def header_length(packet: bytes) -> int:
    """Of the IP header a packet begins with."""
    return IPV6_HEADER if packet[0] >> 4 == 6 else (packet[0] & 0xF) * 4


def spoilt(packet: bytes) -> bool:
    """Is the TCP or UDP checksum of this IP packet wrong? False where it cannot be told: another protocol, a fragment,
    no checksum, or not all of the packet is here. Raises IndexError and struct.error for what is no IP packet.
    """
    if packet[0] >> 4 == 6:
        length = IPV6_HEADER + int.from_bytes(packet[4:6], "big")
        protocol, addresses = packet[6], packet[8:40]
    else:
        length, _, fragment = struct.unpack_from("!HHH", packet, 2)
        protocol, addresses = packet[9], packet[12:20]
        if fragment & 0x3FFF:
            return False
    if protocol not in CHECKSUM_AT or length > len(packet):
        return False
    inside = packet[header_length(packet) : length]
    if protocol == UDP and not any(inside[6:8]):
        return False
    return checksum(addresses + struct.pack("!IHH", len(inside), 0, protocol) + inside) != 0
