"""Felix's firewall on every node of the lab; without it policy and firewall faults could not be inflicted and traced.

chains.py has the chains of any node, policies.py those of policies, words.py what a rule can say. They are written to
nftables here, or to iptables (in_iptables.py) where Calico's settings say which of its two backends Felix is to use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from facts.flow import TUNNEL_DEVICES
from lab import iptables, nftables
from lab.firewall.chains import ARP_TABLE, TABLE, EndpointChains, Node, rendered, rendered_arp
from lab.firewall.changes import Changes
from lab.firewall.in_iptables import InIptables
from lab.firewall.policies import Policies, Programmed, programmed
from lab.firewall.reading import READS, policies
from lab.firewall.words import Ruleset
from lab.intent import Objects, PodRecord
from lab.kernel import Kernel
from lab.nftables import Table

__all__ = ["ARP_TABLE", "NFTABLES", "READS", "TABLE", "Firewall", "Policies", "backend", "node_state", "policies"]

NFTABLES = "nftables"
BACKENDS = {"Legacy": iptables.LEGACY, "NFT": iptables.NFT}


def backend(objects: Objects, name: str) -> str:
    """Of iptables, "legacy" or "nft"; "" where a node's Felix is to write to nftables, as it also does in a lab where
    it is to find out by itself."""
    if objects.setting(name, "nftablesMode", "Auto") == "Enabled":
        return ""
    return BACKENDS.get(str(objects.setting(name, "iptablesBackend", "Auto")), "")


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
        denies=_denies(objects, name),
        iptables=bool(backend(objects, name)),
        pods=tuple(_pod(pod, made, first.get(pod.full_name, "")) for pod in pods.values()),
        hosts=tuple(made.hosts),
        policies=tuple(made.chains),
        sets=tuple(made.sets),
    )


def _of_policies(known: Policies, name: str, objects: Objects) -> Programmed:
    if known == Policies():
        return Programmed()
    in_iptables = bool(backend(objects, name))
    return programmed(known, name, objects.family, objects.version, _denies(objects, name), iptables=in_iptables)


def _denies(objects: Objects, name: str) -> str:
    of = "iptables" if backend(objects, name) else "nftables"
    return str(objects.setting(name, f"{of}FilterDenyAction", "Drop")).capitalize()


def _pod(pod: PodRecord, made: Programmed, address: str) -> EndpointChains:
    profiles = (f"kns.{pod.namespace}", f"ksa.{pod.namespace}.{pod.service_account}")
    chains = made.pods.get(pod.full_name, EndpointChains(pod.interface))
    return replace(chains, interface=pod.interface, profiles=profiles, address=address)


class Firewall:
    """Of one node and family. Blocking; in the thread that owns its kernel."""

    def __init__(self, kernel: Kernel, family: int, backend: str = "") -> None:
        """backend: of iptables, "" for nftables. Raises NamespacesForbidden where the machine does not have it."""
        self._kernel = kernel
        self._family = family
        self._iptables: InIptables | None = None
        if backend:
            with kernel.namespace.entered():
                self._iptables = InIptables(backend, family)
        # A lab that heals goes to and fro between two: how it came up, and what somebody made of it.
        self._rendered = lru_cache(maxsize=2)(self._rendered_anew)
        self._whole = lru_cache(maxsize=2)(self._whole_anew)
        self._wanted: Node | None = None
        self._written: list[Ruleset] = []  # [] when nobody knows what is there

    @property
    def filter(self) -> str:
        """nftables | iptables-nft | iptables-legacy: where Felix writes."""
        return self._iptables.filter if self._iptables else NFTABLES

    def apply(self, node: Node) -> None:
        """Writes what has changed since the last time, and nothing else. Raises OSError."""
        if node == self._wanted and self._written:
            return
        rulesets = self._rendered(node)
        before = self._written[1:] if self._iptables else self._written
        with self._kernel.namespace.entered():
            if not _amended(self._of_nftables(rulesets), before):
                nftables.write(*self._whole(node))
            if self._iptables:
                self._iptables.write(rulesets[0], self._written[0] if self._written else None)
        self._wanted, self._written = node, rulesets

    def _rendered_anew(self, node: Node) -> list[Ruleset]:
        """Against ARP Felix writes to nftables in every mode."""
        arp = [rendered_arp(node)] if self._family == 4 and node.version >= (3, 32) else []
        return [rendered(node), *arp]

    def _whole_anew(self, node: Node) -> list[Table]:
        """What is in nftables where nothing of it was there before."""
        return [one.table() for one in self._of_nftables(self._rendered(node))]

    def _of_nftables(self, rulesets: list[Ruleset]) -> list[Ruleset]:
        return rulesets[1:] if self._iptables else rulesets

    def refresh(self) -> None:
        """Felix's resync: whatever somebody did to the table, it is as wanted again. Raises OSError."""
        self.forget()
        if self._wanted is not None:
            self.apply(self._wanted)

    def forget(self) -> None:
        """Nobody knows any more what is there."""
        self._written = []

    def flushed(self) -> None:
        """Somebody flushed nftables: with it goes what iptables-legacy has of anybody. Raises OSError."""
        self.forget()
        if self._iptables:
            with self._kernel.namespace.entered():
                self._iptables.flush()

    # ---- for faults

    def changes(self) -> Changes:
        """To gather what is to be inserted, emptied or taken out of Felix's chains and sets; `amend` does it."""
        return Changes()

    def amend(self, changes: Changes) -> None:
        """Behind Felix's back: it finds out when it looks again. Raises OSError."""
        with self._kernel.namespace.entered():
            if self._iptables:
                self._iptables.amend(changes, self._written[0])
            else:
                changes.table(self._family).amend()

    def write_beside(self, foreign: Table) -> None:
        """A table of somebody else, which Felix never touches. Raises OSError."""
        with self._kernel.namespace.entered():
            foreign.write()


def _amended(rulesets: list[Ruleset], written: list[Ruleset]) -> bool:
    """False when the tables are not as they were left: Felix then writes all of them."""
    if len(written) != len(rulesets):
        return False
    try:
        nftables.amend(*(one.table(before) for one, before in zip(rulesets, written, strict=True)))
    except OSError:
        return False
    return True
