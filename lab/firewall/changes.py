"""What somebody does to Felix's chains and sets, whichever program they are written by; without it every fault would
have to be inflicted once for nftables and once for iptables.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lab import nftables
from lab.firewall.chains import DISPATCHES, TABLE
from lab.firewall.words import Rule, Word
from lab.nftables import Network, Table


@dataclass
class Changes:
    """Chains and sets are called as in nftables mode: "filter-cali-FORWARD", "cali40all-vxlan-net"."""

    inserted: list[tuple[str, Rule]] = field(default_factory=list)
    emptied: list[str] = field(default_factory=list)
    unknown: list[tuple[str, str]] = field(default_factory=list)  # (dispatch, interface)
    without: list[tuple[str, Network]] = field(default_factory=list)  # (set, network)
    cleared: list[str] = field(default_factory=list)

    def insert(self, chain: str, *matches: Word, action: Word, comment: str = "") -> None:
        """A rule before all others of a chain that is there."""
        self.inserted.append((chain, Rule(matches, action, comment)))

    def empty(self, chain: str) -> None:
        """Takes every rule out of a chain."""
        self.emptied.append(chain)

    def take_out(self, dispatch: str, interface: str) -> None:
        """Of a pod: the chain that tells pods apart knows it no more. dispatch: one of DISPATCHES."""
        self.unknown.append((dispatch, interface))

    def take_out_network(self, name: str, network: Network) -> None:
        """A member of a set of networks."""
        self.without.append((name, network))

    def clear(self, name: str) -> None:
        """Takes every member out of a set, or every pod out of one of DISPATCHES."""
        self.cleared.append(name)

    def table(self, family: int) -> Table:
        """The same for nftables, to be amended."""
        table = Table(family, TABLE)
        for name in self.cleared:
            table.clear(name)
        for chain in self.emptied:
            table.empty(chain)
        for chain, rule in self.inserted:
            table.insert(chain, *rule.expressions(table), comment=rule.comment)
        for dispatch, interface in self.unknown:
            table.take_out(dispatch, nftables.interface(interface))
        for name, network in self.without:
            table.take_out_network(name, network)
        return table


__all__ = ["DISPATCHES", "Changes"]
