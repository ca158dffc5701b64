"""Names Calico computes instead of storing; without them a block or an interface could only be found by listing."""

from __future__ import annotations

import hashlib
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
LONGEST_NAME = 253  # of an object


def veth_name(namespace: str, pod: str, prefix: str = "cali") -> str:
    """Host side of a pod's veth: prefix + 11 hex digits of SHA1("namespace.pod")."""
    return prefix + hashlib.sha1(f"{namespace}.{pod}".encode(), usedforsecurity=False).hexdigest()[:11]


def tunnel_mac(node: str, family: int = 4) -> str:
    """MAC of the node's VXLAN device: 66 and five bytes of SHA1(node name), for IPv6 of the name and "-v6"."""
    name = node if family == 4 else f"{node}-v6"
    return "66:" + hashlib.sha1(name.encode(), usedforsecurity=False).digest()[:5].hex(":")


def block_name(cidr: Network) -> str:
    """Object name of the IPAMBlock of this CIDR: 10.244.0.64/26 is 10-244-0-64-26."""
    return re.sub(r"[.:/]", "-", str(cidr))


def affinity_name(node: str, cidr: Network) -> str:
    """Object name of the BlockAffinity by which a node claims a block; a long one is cut and told apart by a hash."""
    name = f"{node}-{block_name(cidr)}"
    if len(name) < LONGEST_NAME:
        return name
    digest = hashlib.sha256(f"{node}+{block_name(cidr)}".encode()).hexdigest()[:11]
    return f"{node[: LONGEST_NAME - 1 - len(block_name(cidr)) - 13]}-{block_name(cidr)}-{digest}"


def block_of(address: Address, size: int) -> Network:
    """The block of that prefix length that contains the address."""
    return ip_network((int(address), size) if address.version == 4 else (address.packed, size), strict=False)


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|us|µs|ns|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def seconds(duration: str, default: int) -> int:
    """A Go duration such as 90s or 1m30s in whole seconds, the default when it is none."""
    parts = _DURATION.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        return default
    return round(sum(float(number) * _SECONDS[unit] for number, unit in parts))


def is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def family(word: str) -> int:
    """4 or 6 for an address, 0 for a name."""
    return ip_address(word).version if is_address(word) else 0
