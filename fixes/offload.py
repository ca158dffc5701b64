"""Who sums up what a device sends, switched as `ethtool -K` does; without it a card that sums wrongly could not be
worked around."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct

# linux/ethtool.h, linux/sockios.h
SIOCETHTOOL = 0x8946
ETHTOOL_GSTRINGS, ETHTOOL_GSSET_INFO, ETHTOOL_GFEATURES, ETHTOOL_SFEATURES = 0x1B, 0x37, 0x3A, 0x3B
ETH_SS_FEATURES, ETH_GSTRING_LEN = 4, 32
REQUEST = struct.Struct("16sP")  # struct ifreq

SUMS = "tx-checksum-ip-generic"


def active(device: str, feature: str = SUMS) -> bool | None:
    """`ethtool -k DEVICE`: is this feature on? None where the kernel does not know it.

    Like `switch_off` in the network namespace of the calling thread. Raises OSError: ENODEV no such device.
    """
    names = _names(device)
    if feature not in names:
        return None
    bit = names.index(feature)
    blocks = _blocks(names)
    answer = _ask(device, struct.pack("=II", ETHTOOL_GFEATURES, blocks) + bytes(16 * blocks))
    (word,) = struct.unpack_from("=I", answer, 8 + 16 * (bit // 32) + 8)  # available, requested, active, never_changed
    return bool(word >> bit % 32 & 1)


def switch_off(device: str, feature: str = SUMS) -> None:
    """`ethtool -K DEVICE FEATURE off`. Raises OSError: EOPNOTSUPP no such feature, EPERM not allowed."""
    names = _names(device)
    if feature not in names:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), feature)
    bit = names.index(feature)
    valid = [1 << bit % 32 if block == bit // 32 else 0 for block in range(_blocks(names))]
    wanted = b"".join(struct.pack("=II", word, 0) for word in valid)  # which are meant, and what they shall be
    _ask(device, struct.pack("=II", ETHTOOL_SFEATURES, len(valid)) + wanted)


def _names(device: str) -> list[str]:
    """All features this kernel knows, in the order of their bits."""
    answer = _ask(device, struct.pack("=IIQI", ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0))
    (count,) = struct.unpack_from("=I", answer, 16)
    question = struct.pack("=III", ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count)
    texts = _ask(device, question + bytes(ETH_GSTRING_LEN * count))[len(question) :]
    starts = range(0, ETH_GSTRING_LEN * count, ETH_GSTRING_LEN)
    return [texts[at : at + ETH_GSTRING_LEN].partition(b"\0")[0].decode() for at in starts]


def _blocks(names: list[str]) -> int:
    return (len(names) + 31) // 32


def _ask(device: str, question: bytes) -> bytes:
    value = ctypes.create_string_buffer(question, len(question))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, SIOCETHTOOL, REQUEST.pack(device.encode(), ctypes.addressof(value)))
    return value.raw
