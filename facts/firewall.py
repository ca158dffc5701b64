"""What a node's firewall did with fresh packets; without it a rule that eats them is only suspected."""

from __future__ import annotations

from facts.fact import Fact

BACKENDS = ("nft", "iptables-nft", "iptables-legacy")
BLAMED = (
    "policy",  # rule `rule` of the policy
    "end_of_tier",  # none of the policies consulted took it
    "no_profile",  # no policy is about the endpoint, and no profile takes it
    "profile",  # a profile denies it
    "unknown_interface_from",  # Felix knows no pod behind the interface it came by
    "unknown_interface_to",
    "endpoint_down",  # Felix holds the endpoint for disabled
    "reverse_path",  # its source is not reached by the interface it came by
    "vxlan_source",  # a tunnel's packet from an address Felix does not know as a node's
    "ipip_source",
    "encapsulation",  # a pod sends VXLAN or IPIP itself
    "own_host",  # from a pod to its own node
    "service_loop",  # to an address of a Service that no kube-proxy took
    "invalid",  # connection tracking knows nothing it belongs to
    "limit",  # more packets or connections than the pod may have
    "calico",  # another rule of Calico
    "kube_proxy",  # `why` says which
    "foreign",  # somebody else's rule, `owner`'s where that is known
    "unknown",  # the rule could not be listed any more
)


class RuleDrop(Fact, frozen=True, kw_only=True):
    """A fresh packet of ours ended at this rule. The rule is given as its own tool lists it at that moment."""

    node: str
    source_address: str  # of the leg: what the packet carries inside of any tunnel
    target_address: str
    protocol: str  # icmp | tcp | udp: of that inner packet
    port: int = 0
    reply: bool = False  # it answered a packet of the other leg: what was lost is the answer
    outer: bool = False  # it was met with the tunnel's header around it: node to node
    pod: str = ""  # namespace/name of the pod in whose own network the rule stands; "": in the node's
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
    map: str = ""  # of the last verdict map on its way whose element for the packet has a comment, and...
    element: str = ""  # ...that comment: "default/web:http", a Service's of kube-proxy
    # "drop" | "reject" | "queue": for a program, which did not give it back | "stolen": taken for elsewhere (fwd)
    verdict: str = "drop"
    hook: str = ""  # prerouting | input | forward | output | postrouting | ingress | egress
    device: str = ""  # of ingress and egress: whose packets the rule is about
    through: tuple[str, ...] = ()  # the chains that led here, the base chain first, without this one
    title: str = ""  # comment of the chain's first rule that names a policy: "GlobalNetworkPolicy block-g1 ingress"
    tier: str = ""  # of the last "Start of tier" comment before it, in this chain or the one that jumped here
    consulted: tuple[str, ...] = ()  # at an end of tier: the policy chains this chain jumps to since its start
    consulted_titles: tuple[str, ...] = ()  # of each of these, like `title`; "" where it has none
    marked_by: str = ""  # where it only looks for a mark: the rule above it that sets it, and has the real conditions
    behind_limit: str = ""  # the rule above it, in its own chain, that lets only so many such packets pass
    partly: bool = False  # others of the same kind passed: it ended some packets of a train
    nth: int = 0  # of the rules of its chain that drop or reject, it is this one (from 1)...
    drops: int = 0  # ...of so many
    later: bool = False  # what follows in connections that were made, as Trace.later


class RuleRewrite(Fact, frozen=True, kw_only=True):
    """A fresh packet between two pods was given other addresses or another port on its way through a node."""

    node: str
    source_address: str  # of the leg: what the packet carried before
    target_address: str
    protocol: str  # icmp | tcp | udp
    port: int = 0
    source: str  # what it carried afterwards
    target: str
    target_port: int = 0
    backend: str = ""  # one of BACKENDS; "" where no rule was seen to do it: connections are known with it already, say
    family: int  # 4 | 6
    table: str = ""
    chain: str = ""
    number: int = 0  # 1 for the first rule of the chain
    text: str = ""  # the rule as `nft` or `iptables-save` prints it
    hook: str = ""  # prerouting | output | postrouting
    through: tuple[str, ...] = ()  # the chains of that hook that were met before it, of its table


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
    # Of "prerouting" and "input": what the last packet was marked with (nfmark), which routing rules may ask for.
    mark: int = 0


class Blame(Fact, frozen=True, kw_only=True):
    """Whose intention a RuleDrop was."""

    drop: str  # id of the RuleDrop
    node: str
    source_address: str
    target_address: str
    reply: bool = False
    outer: bool = False
    what: str  # one of BLAMED
    kind: str = ""  # of the policy: one of POLICY_KINDS, "Profile", or "" where its chain alone did not tell
    namespace: str = ""
    name: str = ""  # of the policy or profile; as its chain is called where nothing else is known
    tier: str = ""
    direction: str = ""  # "ingress" | "egress", of the endpoint
    rule: int = 0  # of the policy in that direction, from 1; 0: not told by the rules
    rule_name: str = ""  # where its policy gave it one
    endpoint: str = ""  # "pod" | "host": whose policies were asked; "" where that is not known
    interface: str = ""  # of it: "cali1b3732f617b", "eth0", "*" for every interface of the host
    forward: bool = False  # of a host endpoint: what passes through, not what is for the host or from it
    consulted: tuple[str, ...] = ()  # "NetworkPolicy default/web", at an end of tier
    owner: str = ""  # program behind a rule that is not Calico's: "kube-proxy", "docker", "firewalld"...
    why: str = ""  # kube-proxy: no_endpoints | no_local_endpoints | unallocated | wrong_port | source_range | invalid
    service: str = ""  # kube-proxy: "namespace/name:port"


class Stop(Fact, frozen=True, kw_only=True):
    """A RuleDrop and its Blame brought together with the leg whose packets of the asked kind end there."""

    drop: str  # id of the RuleDrop
    node: str
    flow: str
    leg: str  # "forward" | "reverse": of answers
    stage: str  # of facts.flow.STAGES
    decisive: bool  # packets of the asked kind end there, or, where no port was asked, packets of every kind
    opinion: str = ""  # what the policies in the API say of them at that endpoint, as PolicyOpinion; "" not looked up
    allowed: tuple[str, ...] = ()  # what policies let pass on the leg, as PolicyAllows
    forgets: tuple[str, ...] = ()  # policies that were consulted and allow the same over the other address family
    filters: tuple[str, ...] = ()  # the node's packet filters with Calico's rules, as CalicoFirewall.backends
    empty: bool = False  # of nftables: its maps know no pod at all
    large_only: bool = False  # full-size packets ended there, and small ones pass
    answers_too: bool = False  # of these the same rule ended answers as well


class CalicoFirewall(Fact, frozen=True, kw_only=True):
    """Which of a node's packet filters hold Calico's rules for what it forwards, in one address family.

    A filter is "nftables" (the table `calico`), "iptables-nft" or "iptables-legacy"; Felix writes to one of them.
    """

    node: str
    family: int = 4
    backends: tuple[str, ...] = ()  # that have a chain cali-FORWARD with rules in it
    entered: tuple[str, ...] = ()  # of these, whose own chain FORWARD leads there: elsewhere no policy is asked
    from_pods: int = -1  # of nftables: interfaces of pods that its map knows, for what comes from them; -1: no map
    to_pods: int = -1
    vxlan_peers: int = -1  # of nftables: entries of the set of nodes whose VXLAN packets are taken; -1: no set


class ConnectionTable(Fact, frozen=True, kw_only=True):
    """How many connections a node's kernel tracks. A packet of a new one that finds no room is dropped."""

    node: str
    count: int
    limit: int  # net.netfilter.nf_conntrack_max; 0: none
    refused: int  # packets dropped for want of room since the node started
