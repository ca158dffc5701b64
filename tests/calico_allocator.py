"""Calico's allocator in as few words as it can be said; without it what we reckon would be held to our own reckoning.

Written after libcalico-go/lib/ipam (autoAssign, findOrClaimBlock, findUsableBlock) and not after bot/: it takes one
address after the other, block by block. Nodes take turns, so nothing here waits for another writer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

Network = IPv4Network | IPv6Network
OF_A_POD = {"handle_id": "k8s-pod-network.0", "secondary": {}}


class NoAddress(Exception):
    """Whom it is given to gets none. The words are Calico's."""


@dataclass
class Allocator:
    """Blocks by CIDR, as IPAMBlock specs, which `assign` changes. pools: CIDR and block size of those to use."""

    pools: list[tuple[str, int]]
    blocks: dict[str, dict[str, Any]] = field(default_factory=dict)
    reserved: list[str] = field(default_factory=list)
    strict_affinity: bool = False
    auto_allocate: bool = True
    block_limit: int = 20
    reclaims: bool = True  # from 3.32

    def assign(self, node: str) -> str:
        """The next address of a node. Raises NoAddress."""
        mine = [cidr for cidr, spec in self.blocks.items() if spec["affinity"] == f"host:{node}" and self._usable(cidr)]
        for cidr in mine:
            if given := self._from(cidr):
                return given
        if len(mine) >= self.block_limit:
            raise NoAddress(f"limit of {self.block_limit} blocks reached for this node")
        if not self.auto_allocate:
            raise NoAddress("failed to find or claim a block")
        if cidr := self._unclaimed():
            self.blocks[cidr] = empty_block(cidr, node)
            given = self._from(cidr)
            assert given, "a block is taken although all of it is reserved, piece by piece"
            return given
        if self.strict_affinity:
            raise NoAddress("No more free affine blocks and strict affinity enabled")
        for cidr in self._slots():
            if cidr in self.blocks and (given := self._from(cidr)):
                return given
        raise NoAddress(f"No IPs available in pools: {[cidr for cidr, _ in self.pools]}")

    def _usable(self, cidr: str) -> bool:
        return any(ip_network(cidr).network_address in ip_network(pool) for pool, _ in self.pools)

    def _slots(self) -> list[str]:
        """What the block generator yields, in order instead of at random, without what is reserved as a whole."""
        return [
            str(slot)
            for pool, size in self.pools
            for slot in ip_network(pool).subnets(new_prefix=size)
            if not any(slot.overlaps(one) and slot.prefixlen >= one.prefixlen for one in map(ip_network, self.reserved))
        ]

    def _unclaimed(self) -> str:
        slots = self._slots()
        for cidr in slots:
            if cidr not in self.blocks:
                return cidr
        for cidr in slots if self.reclaims else ():
            spec = self.blocks[cidr]
            if spec["affinity"] and not spec["attributes"] and self._free(cidr):
                return cidr
        return ""

    def _free(self, cidr: str) -> list[int]:
        network = ip_network(cidr)
        kept_back = [ip_network(one) for one in self.reserved]
        unallocated: list[int] = self.blocks[cidr]["unallocated"]
        return [ordinal for ordinal in unallocated if not any(network[ordinal] in one for one in kept_back)]

    def _from(self, cidr: str) -> str:
        free = self._free(cidr)
        if not free:
            return ""
        spec = self.blocks[cidr]
        spec["unallocated"].remove(free[0])
        spec["attributes"][:] = [OF_A_POD]
        spec["allocations"][free[0]] = 0
        return str(ip_network(cidr)[free[0]])


def empty_block(cidr: str, node: str) -> dict[str, Any]:
    """The spec of a block that was just taken; node "" for nobody's."""
    count = ip_network(cidr).num_addresses
    return {
        "cidr": cidr,
        "affinity": f"host:{node}" if node else None,
        "allocations": [None] * count,
        "unallocated": list(range(count)),
        "attributes": [],
    }
