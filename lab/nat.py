"""Pods' addresses mean nothing outside of the cluster; without this what they send out of it would never be answered.

As Felix has it in cali-nat-outgoing: what a pod of a pool with natOutgoing sends to an address of no pool leaves under
the address of its node.
"""

from __future__ import annotations

from lab.kernel import Kernel
from lab.nftables import Network, Table, masqueraded

TABLE = "calico-nat"
CHAIN = "cali-nat-outgoing"
SOURCE_NAT = 100  # priority


class NatOutgoing:
    """Of one node and family. Blocking; in the thread that owns its kernel."""

    def __init__(self, kernel: Kernel, family: int) -> None:
        self._kernel = kernel
        self._family = family
        self._written: object = None

    def apply(self, masked: tuple[Network, ...], pools: tuple[Network, ...]) -> None:
        """masked: those of the pools that have natOutgoing. Raises OSError."""
        if (masked, pools) == self._written:
            return
        table = Table(self._family, TABLE)
        table.chain(CHAIN, hook="postrouting", kind="nat", priority=SOURCE_NAT)
        for pool in masked:
            elsewhere = [part for one in pools for part in table.within("destination", one, inside=False)]
            table.rule(CHAIN, *table.within("source", pool), *elsewhere, masqueraded())
        with self._kernel.namespace.entered():
            table.write()
        self._written = (masked, pools)

    def forget(self) -> None:
        """Somebody flushed the firewall."""
        self._written = None
