"""Felix's chains and sets written to iptables; without it the lab would show nothing of the mode most clusters are in.

As Felix: rules by `iptables-restore --noflush`, sets by `ipset restore`, the new ones swapped for the old.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from lab import iptables
from lab.firewall.chains import DISPATCHES
from lab.firewall.changes import Changes
from lab.firewall.words import Chain, Networks, Rule, Ruleset, Served, ipset, iptables_chain
from lab.nftables import Network

OWN = "cali-"
MARKED = '--comment "cali:'  # every rule of Felix is
PREFIXES = {4: "cali4", 6: "cali6"}
ASIDE = {4: "cali4t0", 6: "cali6t0"}  # a set until it is swapped
FAMILIES = {4: "inet", 6: "inet6"}
PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
Lines = dict[str, list[str]]  # by table


class InIptables:
    """Of one node and family. In the network namespace of the calling thread."""

    def __init__(self, backend: str, family: int) -> None:
        """Raises NamespacesForbidden where the machine does not have it."""
        self.backend = backend
        self.family = family
        self.filter = f"iptables-{backend}"
        self._tools = iptables.Tools(backend, family)
        self._tools.demand()

    def write(self, ruleset: Ruleset, before: Ruleset | None) -> None:
        """What differs from before, or, for None, everything, whatever is there. Raises OSError."""
        sets = {one.name: one for one in before.sets} if before else {}
        changed = [one for one in ruleset.sets if isinstance(one, Networks | Served) and sets.get(one.name) != one]
        self._tools.sets(line for one in changed for line in self._filled(one))
        self._tools.restore(self._amended(ruleset, before) if before else self._anew(ruleset))
        wanted = {ipset(one.name) for one in ruleset.sets}
        if not before or sets.keys() - {one.name for one in ruleset.sets}:
            mine = [name for name in self._tools.names_of_sets() if name.startswith(PREFIXES[self.family])]
            self._tools.sets(f"destroy {name}" for name in mine if name not in wanted)

    def flush(self) -> None:
        """Nothing of anybody is left. Raises OSError."""
        self._tools.empty()

    def amend(self, changes: Changes, written: Ruleset) -> None:
        """Behind Felix's back. written: what it believes to be there. Raises OSError."""
        lines: Lines = defaultdict(list)
        for chain in changes.emptied:
            table, name = iptables_chain(chain)
            lines[table].append(f"-F {name}")
        for chain, rule in changes.inserted:
            table, name = iptables_chain(chain)
            lines[table].append(f"-I {name} {rule.saved}")
        for table, line in self._forgotten(changes, written):
            lines[table].append(line)
        if lines:
            self._tools.restore(lines)
        emptied = [f"flush {ipset(name)}" for name in changes.cleared if name not in DISPATCHES]
        self._tools.sets([*emptied, *(f"del {ipset(name)} {_network(one)}" for name, one in changes.without)])

    def _forgotten(self, changes: Changes, written: Ruleset) -> Iterator[tuple[str, str]]:
        gone = set(changes.unknown)
        for chain in written.chains:
            dispatch = next((name for name in DISPATCHES if chain.name.startswith(name)), "")
            if not dispatch:
                continue
            table, name = iptables_chain(chain.name)
            for rule in chain.rules:
                interface = rule.action.text.removeprefix(f"goto {DISPATCHES[dispatch]}")
                known = interface != rule.action.text
                if known and (dispatch in changes.cleared or (dispatch, interface) in gone):
                    yield table, f"-D {name} {rule.saved}"

    # ---- chains

    def _anew(self, ruleset: Ruleset) -> Lines:
        found = self._tools.listed()
        lines: Lines = {table: [] for table in iptables.HOOKS}
        wanted = {iptables_chain(chain.name) for chain in ruleset.chains}
        for table, chains in found.items():
            for name, rules in chains.items():
                if not name.startswith(OWN):
                    lines[table] += [f"-D {name} {rule}" for rule in rules if MARKED in rule]
        self._put(lines, list(ruleset.chains))
        for table, chains in found.items():
            leftover = [name for name in chains if name.startswith(OWN) and (table, name) not in wanted]
            lines[table] += [f"-F {name}" for name in leftover] + [f"-X {name}" for name in leftover]
        return lines

    def _amended(self, ruleset: Ruleset, before: Ruleset) -> Lines:
        lines: Lines = defaultdict(list)
        known = {one.name: one for one in before.chains}
        self._put(lines, [one for one in ruleset.chains if known.get(one.name) != one])
        gone = [iptables_chain(name) for name in known.keys() - {one.name for one in ruleset.chains}]
        for option in ("-F", "-X"):
            for table, name in gone:
                lines[table].append(f"{option} {name}")
        return lines

    def _put(self, lines: Lines, chains: list[Chain]) -> None:
        """Base chains are others' as well: Felix's jump comes first there, and what is behind it last."""
        for chain in chains:
            table, name = iptables_chain(chain.name)
            if name.startswith(OWN):
                lines[table].append(f":{name} - [0:0]")
        for chain in chains:
            table, name = iptables_chain(chain.name)
            for number, rule in enumerate(chain.rules):
                lines[table].append(_line(name, rule, first=number == 0))

    # ---- sets

    def _filled(self, one: Networks | Served) -> Iterator[str]:
        kind = "hash:ip,port" if isinstance(one, Served) else "hash:ip" if one.single else "hash:net"
        name, aside = ipset(one.name), ASIDE[self.family]
        for made in (name, aside):
            yield f"create {made} {kind} family {FAMILIES[self.family]} maxelem 1048576"
        yield f"flush {aside}"
        for member in members(one):
            yield f"add {aside} {member}"
        yield f"swap {name} {aside}"
        yield f"destroy {aside}"


def _line(chain: str, rule: Rule, *, first: bool) -> str:
    into = f"-I {chain} 1" if first and not chain.startswith(OWN) else f"-A {chain}"
    return f"{into} {rule.saved}"


def members(one: Networks | Served) -> Iterator[str]:
    """As `ipset save` prints them."""
    if isinstance(one, Served):
        for address, protocol, port in one.members:
            yield f"{address},{PROTOCOLS[protocol]}:{port}"
    else:
        for network in one.members:
            yield from map(_network, network.subnets(new_prefix=1) if network.prefixlen == 0 else [network])


def _network(network: Network) -> str:
    """hash:net takes no /0; Felix puts both halves there."""
    return str(network.network_address if network.prefixlen == network.max_prefixlen else network)
