"""What a node's firewall did with fresh packets; without it a rule that eats them is only suspected."""

from __future__ import annotations

from facts.fact import Fact

BACKENDS = ("nft", "iptables-nft", "iptables-legacy")


class RuleDrop(Fact, frozen=True, kw_only=True):
    """A fresh packet of ours ended at this rule. The rule is given as its own tool lists it at that moment."""

    node: str
    source_address: str  # of the leg: what the packet carries inside of any tunnel
    target_address: str
    protocol: str  # icmp | tcp | udp: of that inner packet
    port: int = 0
    reply: bool = False  # it answered a packet of the other leg: what was lost is the answer
    outer: bool = False  # it was met with the tunnel's header around it: node to node
    how: str  # "trace": the kernel named the rule; "counter": only this rule that drops counted while we sent
    packets: int = 1  # of ours
    backend: str  # one of BACKENDS
    family: int  # 4 | 6, of the packet as the rule met it
    table: str  # "filter", "raw", or the name of an nft table such as "calico"
    chain: str  # as the kernel calls it, layer and all: "filter-cali-tw-cali1b3732f617b"
    number: int = 0  # 1 for the first rule of the chain; 0: the chain's policy
    handle: int = -1
    text: str  # the rule as `nft` or `iptables-save` prints it; "policy drop" for a chain's policy
    comment: str = ""  # without Calico's hash: "End of tier default. Drop if no policies passed packet"
    verdict: str = "drop"  # "drop" | "reject"
    hook: str = ""  # prerouting | input | forward | output | postrouting
    through: tuple[str, ...] = ()  # the chains that led here, the base chain first, without this one
    title: str = ""  # comment of the chain's first rule that names a policy: "GlobalNetworkPolicy block-g1 ingress"
    tier: str = ""  # of the last "Start of tier" comment before it, in this chain or the one that jumped here
    consulted: tuple[str, ...] = ()  # at an end of tier: the policy chains this chain jumps to since its start
    consulted_titles: tuple[str, ...] = ()  # of each of these, like `title`; "" where it has none


class FirewallTrace(Fact, frozen=True, kw_only=True):
    """How far a node's firewall let fresh packets of a leg go. Seen by arming a trace for them, or by counters."""

    node: str
    source_address: str
    target_address: str
    protocol: str
    port: int = 0
    outer: bool = False
    how: str  # "trace" | "counter"
    seen: int  # packets that were followed; 0: none came by
    dropped: int = 0  # of these, by a rule or a chain's policy; each has a RuleDrop
    last_hook: str = ""  # the last hook the last packet met without being dropped; "prerouting": routing lost it
