"""Felix's firewall on every node of the lab; without it policy and firewall faults could not be inflicted and traced.

chains.py has the chains of any node, policies.py those of policies, words.py what a rule can say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from facts.flow import TUNNEL_DEVICES
from lab import nftables
from lab.firewall.chains import ARP_TABLE, TABLE, EndpointChains, Node, rendered, rendered_arp
from lab.firewall.policies import Policies, Programmed, programmed
from lab.firewall.reading import READS, policies
from lab.firewall.words import Ruleset
from lab.intent import Objects, PodRecord
from lab.kernel import Kernel
from lab.nftables import Table

__all__ = ["ARP_TABLE", "READS", "TABLE", "Firewall", "Policies", "node_state", "policies"]


def node_state(families: Mapping[int, Objects], name: str, family: int, known: Policies) -> Node:
    """What the table of one node and family depends on."""
    objects = families[family]
    me = objects.nodes[name]
    ipip = family == 4 and any(pool.ipip_mode != "Never" for pool in objects.pools)
    tunnels = [
        TUNNEL_DEVICES[kind, family]
        for kind, address in (("ipip", ipip and me.ipip), ("vxlan", objects.tunnels and me.address and me.tunnel))
        if address
    ]
    peers = [one for one in objects.nodes.values() if one.name != name and one.address and one.tunnel]
    made = _of_policies(known, name, objects)
    pods = {pod.full_name: pod for seen in families.values() for pod in seen.pods if pod.node == name}
    first = {pod.full_name: pod.address for pod in families[4].pods}
    return Node(
        family=family,
        version=objects.version,
        own=tuple(one for one in (me.address, me.tunnel) if one),
        peers=tuple(sorted(peer.address for peer in peers)) if objects.tunnels else (),
        tunnels=tuple(tunnels),
        vxlan=objects.tunnels,
        ipip=ipip,
        nodes=tuple(sorted(one.address for one in objects.nodes.values() if one.address)) if ipip else (),
        vxlan_port=int(objects.setting(name, "vxlanPort", 4789)),
        pools=tuple(str(pool.network) for pool in objects.pools),
        masked=tuple(str(pool.network) for pool in objects.pools if pool.nat_outgoing),
        prefixes=tuple(str(objects.setting(name, "interfacePrefix", "cali")).split(",")),
        to_host=str(objects.setting(name, "defaultEndpointToHostAction", "Accept")).upper(),
        denies=str(objects.setting(name, "nftablesFilterDenyAction", "Drop")).capitalize(),
        pods=tuple(_pod(pod, made, first.get(pod.full_name, "")) for pod in pods.values()),
        hosts=tuple(made.hosts),
        policies=tuple(made.chains),
        sets=tuple(made.sets),
    )


def _of_policies(known: Policies, name: str, objects: Objects) -> Programmed:
    if known == Policies():
        return Programmed()
    denies = str(objects.setting(name, "nftablesFilterDenyAction", "Drop")).capitalize()
    return programmed(known, name, objects.family, objects.version, denies)


def _pod(pod: PodRecord, made: Programmed, address: str) -> EndpointChains:
    profiles = (f"kns.{pod.namespace}", f"ksa.{pod.namespace}.{pod.service_account}")
    chains = made.pods.get(pod.full_name, EndpointChains(pod.interface))
    return replace(chains, interface=pod.interface, profiles=profiles, address=address)


class Firewall:
    """Of one node and family. Blocking; in the thread that owns its kernel."""

    def __init__(self, kernel: Kernel, family: int) -> None:
        self._kernel = kernel
        self._family = family
        self._wanted: Node | None = None
        self._written: list[Ruleset] = []  # [] when nobody knows what is there

    def apply(self, node: Node) -> None:
        """Writes what has changed since the last time, and nothing else. Raises OSError."""
        if node == self._wanted and self._written:
            return
        rulesets = [rendered(node)]
        if self._family == 4 and node.version >= (3, 32):
            rulesets.append(rendered_arp(node))
        with self._kernel.namespace.entered():
            if not self._amended(rulesets):
                nftables.write(*(one.table() for one in rulesets))
        self._wanted, self._written = node, rulesets

    def _amended(self, rulesets: list[Ruleset]) -> bool:
        """False when the table is not as it was left: Felix then writes all of it."""
        if len(self._written) != len(rulesets):
            return False
        try:
            nftables.amend(*(one.table(before) for one, before in zip(rulesets, self._written, strict=True)))
        except OSError:
            return False
        return True

    def refresh(self) -> None:
        """Felix's resync: whatever somebody did to the table, it is as wanted again. Raises OSError."""
        self.forget()
        if self._wanted is not None:
            self.apply(self._wanted)

    def forget(self) -> None:
        """Somebody flushed the firewall."""
        self._written = []

    # ---- for faults

    def changes(self) -> Table:
        """Felix's table, to gather what is to be inserted, emptied or taken out; `amend` does it."""
        return Table(self._family, TABLE)

    def amend(self, changes: Table) -> None:
        """Behind Felix's back: it finds out when it looks again. Raises OSError."""
        with self._kernel.namespace.entered():
            changes.amend()

    def write_beside(self, foreign: Table) -> None:
        """A table of somebody else, which Felix never touches. Raises OSError."""
        with self._kernel.namespace.entered():
            foreign.write()
