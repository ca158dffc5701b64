"""What a bot asks a node's probe to capture, and what comes back; without it a file of packets from two nodes would be
put together from guesses."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from facts.ask import LocalPod

# Bounds of one capture on one node, whoever asks.
CAPTURE_SECONDS = 60.0
CAPTURE_PACKETS = 20_000
CAPTURE_BYTES = 4 << 20  # of packets' own bytes
# Link-layer header types of packets, as they stand in a pcapng file.
LINK_ETHERNET: Literal[1] = 1
LINK_IP: Literal[101] = 101
LEAD_S = 0.2  # from the ask to the first packet that counts, lest a node that is quicker begin long before the other
# How much of a packet is kept: every header with those of a tunnel fits into the one, whole packets into the other.
SNAP_HEADERS, SNAP_WHOLE = 256, 65535

Nanoseconds = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]  # since 1970
Length = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]


class CaptureAsk(msgspec.Struct, frozen=True, kw_only=True):
    """Body of POST /v1/capture: packets between two pods wherever they pass on this node.

    Answer: one JSON line for each CaptureItem, CaptureBegan first and CaptureEnd last, with some line at least every
    half second. It ends early when the asker hangs up.
    """

    node: str
    pairs: tuple[tuple[str, str], ...]  # IP addresses of both pods, one pair for each family
    protocol: str = ""  # "tcp" | "udp"; "": every packet between the two
    port: int = 0  # of the second of each pair
    pods: tuple[LocalPod, ...] = ()  # those of the two that live here: they are looked into
    tunnels: tuple[str, ...] = ()  # devices the packets should pass
    uplink_addresses: tuple[str, ...] = ()  # node addresses: the device that holds one is the uplink
    seconds: float = 10.0
    packets: int = 1000  # in all places of this node together
    payload: bool = False  # whole packets; else their headers only, cut before anything leaves the node


class CaptureItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="is", tag=str.lower):
    """One line of the answer."""


class CaptureBegan(CaptureItem, frozen=True, kw_only=True):
    """Every packet from now on is seen. Times are by this node's clock, in all lines."""

    asked_ns: Nanoseconds  # when the ask arrived
    at_ns: Nanoseconds  # when this line was written
    blind: tuple[str, ...] = ()  # places where nobody can look, and why


class CaptureStage(CaptureItem, frozen=True, kw_only=True):
    """A place that packets pass. Said before the first packet of it, and of expected places without any packet too."""

    number: int  # in this answer, from 0
    pod: str = ""  # namespace/name, inside of it; "" on the node
    device: str
    kind: str  # "pod" | "veth" | "tunnel" | "uplink" | "other"
    of_pod: str = ""  # whose veth it is
    link: Literal[1, 101] = LINK_ETHERNET


class CapturedPacket(CaptureItem, frozen=True, kw_only=True):
    """A packet as it passed a stage."""

    stage: int
    at_ns: Nanoseconds  # when the kernel met it
    length: Length  # on the wire, bytes
    out: bool  # it was leaving by that device
    data: Annotated[bytes, msgspec.Meta(max_length=SNAP_WHOLE)]  # its beginning


class CaptureProgress(CaptureItem, frozen=True, kw_only=True):
    """The probe is still at it, and has told all that it met until `at_ns`."""

    at_ns: Nanoseconds
    packets: int  # so far


class CaptureEnd(CaptureItem, frozen=True, kw_only=True):
    """Nothing follows, and all until `at_ns` was told."""

    at_ns: Nanoseconds
    packets: int
    why: str  # "seconds" | "packets" | "bytes": which bound was met
    lost: int = 0  # packets that came too fast to be kept


CaptureLine = CaptureBegan | CaptureStage | CapturedPacket | CaptureProgress | CaptureEnd
