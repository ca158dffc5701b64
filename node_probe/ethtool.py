"""What a device's driver says of itself; without it a card that sums wrongly could not be told from a bad cable."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

# linux/ethtool.h, linux/sockios.h
SIOCETHTOOL = 0x8946
ETHTOOL_GTXCSUM, ETHTOOL_GSTRINGS, ETHTOOL_GSSET_INFO, ETHTOOL_GFEATURES = 0x16, 0x1B, 0x37, 0x3A
ETH_SS_FEATURES, ETH_GSTRING_LEN = 4, 32
VALUE = struct.Struct("=II")
SET = struct.Struct("=IIQI")  # struct ethtool_sset_info with one length
STRINGS = struct.Struct("=III")
FEATURES = struct.Struct("=IIII")  # of 32 features each: available, requested, active, never_changed
REQUEST = struct.Struct("16sP")  # struct ifreq


def sums(device: str) -> str:
    """`ethtool -k DEVICE`, tx-checksumming: "card" when it is on, "kernel" when not, "" where the driver does not say.

    In the network namespace of the calling thread. It reads, and changes nothing.
    """
    try:
        on = VALUE.unpack(_asked(device, VALUE.pack(ETHTOOL_GTXCSUM, 0)))[1]
    except OSError:
        return ""
    return "card" if on else "kernel"


def features(device: str) -> str:
    """`ethtool -k DEVICE`, a line each, by the kernel's own names; as `sums`. Raises OSError."""
    count = SET.unpack(_asked(device, SET.pack(ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0)))[3]
    names = _asked(device, STRINGS.pack(ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count) + bytes(ETH_GSTRING_LEN * count))
    words = (count + 31) // 32
    bits = _asked(device, VALUE.pack(ETHTOOL_GFEATURES, words) + bytes(FEATURES.size * words))
    lines = []
    for number in range(count):
        begin = STRINGS.size + ETH_GSTRING_LEN * number
        name = names[begin : begin + ETH_GSTRING_LEN].partition(b"\0")[0].decode()
        word = FEATURES.unpack_from(bits, VALUE.size + FEATURES.size * (number // 32))
        available, requested, active, never_changed = (bool(one >> number % 32 & 1) for one in word)
        more = " [fixed]" if never_changed or not available else ""
        if not more and requested != active:
            more = f" [requested {'on' if requested else 'off'}]"
        if name:  # a bit that no feature has any more
            lines.append(f"{name}: {'on' if active else 'off'}{more}\n")
    return "".join(lines)


def _asked(device: str, command: bytes) -> bytes:
    """The kernel's answer to one command, written over it. Raises OSError."""
    value = ctypes.create_string_buffer(command, len(command))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, SIOCETHTOOL, REQUEST.pack(device.encode(), ctypes.addressof(value)))
    return value.raw
