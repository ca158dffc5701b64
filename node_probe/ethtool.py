"""What a device's driver says of itself; without it a card that sums wrongly could not be told from a bad cable."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

# linux/ethtool.h, linux/sockios.h
SIOCETHTOOL, ETHTOOL_GTXCSUM = 0x8946, 0x16
VALUE = struct.Struct("=II")
REQUEST = struct.Struct("16sP")  # struct ifreq


def sums(device: str) -> str:
    """`ethtool -k DEVICE`, tx-checksumming: "card" when it is on, "kernel" when not, "" where the driver does not say.

    In the network namespace of the calling thread. It reads, and changes nothing.
    """
    value = ctypes.create_string_buffer(VALUE.pack(ETHTOOL_GTXCSUM, 0))
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            fcntl.ioctl(one, SIOCETHTOOL, REQUEST.pack(device.encode(), ctypes.addressof(value)))
    except OSError:
        return ""
    return "card" if VALUE.unpack_from(value.raw)[1] else "kernel"
