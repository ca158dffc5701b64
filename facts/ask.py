"""What a bot asks a node's probe in its one round trip; without it the two would disagree on what is looked at."""

from __future__ import annotations

import msgspec


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How would this node send packets of this flow? Answered with what the kernel does and what was expected."""

    destination: str  # IP address
    source: str = ""  # IP address the packets carry; "" for the node's own
    incoming: str = ""  # interface they come in by (cali*), "" when the node itself sends them
    by_uplink: bool = False  # they come in by the uplink, whose name only the node knows
    protocol: str = ""  # "icmp" | "tcp" | "udp", with the ports that are known: a routing rule may ask for them
    source_port: int = 0
    target_port: int = 0
    expected_next_hop: str = ""  # tunnel address of the peer
    expected_mac: str = ""  # MAC the peer's tunnel device should have
    expected_peer: str = ""  # node address of the peer


class LocalPod(msgspec.Struct, frozen=True, kw_only=True):
    """A pod that should live on this node."""

    name: str  # namespace/name
    address: str
    interface: str  # host side of its veth: cali + 11 hex digits
    protocol: str = ""  # "tcp" or "udp", with port: does the pod listen there?
    port: int = 0


class OwnPort(msgspec.Struct, frozen=True, kw_only=True):
    """Does anything listen on this port in the node's own network?"""

    name: str  # the Listener's `pod`: the node, or namespace/name of a pod with hostNetwork
    protocol: str  # "tcp" or "udp"
    port: int


class SendProbe(msgspec.Struct, frozen=True, kw_only=True):
    """A fresh packet (or a few) from inside a local pod, or from the node itself when pod is ""."""

    pod: str  # namespace/name of a LocalPod of the same ask; "" sends from the node
    target: str  # IP address
    protocol: str  # "icmp", "tcp" or "udp"
    port: int = 0
    size: int = 0  # of the whole IP packet, never in fragments (DF); 0: a small one; -1: as large as the pod's MTU
    count: int = 2
    every_ms: int = 0  # else a train: `count` packets this far apart, then as many new ones, with those lost once more
    once: bool = False  # of a train: the first one alone
    # Of TCP or UDP, of `size` or as large as a connection of these two would use, and what a server ignores: "there"
    # they are sent, "back" small ones are, and the target's probe (Answering) answers them in that size.
    large: str = ""
    later: bool = False  # of TCP: connections from ports of which no kernel gives out any by itself, to be told by them


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """A leg whose packets cross the network between two nodes: do they leave this one, or arrive here?"""

    way: str  # "out": this node sends them; "in": they should arrive here
    encapsulation: str  # "vxlan" | "ipip" | "wireguard" | "direct"
    source: str  # IP addresses the packets carry inside of any tunnel
    target: str
    peer: str  # node address of the other end; "" outside of the cluster, where nobody looks on
    port: int = 0  # UDP port of the tunnel


class Answering(msgspec.Struct, frozen=True, kw_only=True):
    """Where packets of this question's that were sent to see whether large ones pass (SendProbe.large) are answered by
    the probe itself, beside the server, which ignores them."""

    pod: str  # namespace/name of a LocalPod of the same ask; "" the node itself
    address: str  # they are sent to
    protocol: str  # "tcp" or "udp"


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Packets of one leg to be followed through this node's firewall while the probes are sent."""

    source: str  # IP addresses the packets carry inside of any tunnel
    target: str
    protocol: str  # "icmp", "tcp" or "udp"
    port: int = 0  # the target's, on packets of a forward leg
    reply: bool = False  # these are the answers to packets of the other leg: the port is the one they come from
    encapsulation: str = ""  # with it, the tunnel's own packets between the nodes are followed too
    peer: str = ""  # node address of the other end
    tunnel_port: int = 0  # UDP port of the tunnel
    translated: str = (
        ""  # natOutgoing: the address that packets may carry here in place of the pod's outside of a tunnel
    )
    count: int = 0  # of a forward leg's packets that are sent meanwhile, by this node or the other; 0: not known
    unaltered: bool = False  # between two pods: nobody is to give them other addresses, and whoever does is told
    train: bool = False  # of TCP only what belongs to a train; else every first packet of a connection, and its answer
    large: str = ""  # only what belongs to such packets, as SendProbe.large
    later: bool = False  # of TCP, of SendProbe.later: not the handshake, but what ends a connection, and its answers


class AskedRoute(msgspec.Struct, frozen=True, array_like=True):
    """A route the node should have; there are as many as blocks in the cluster, so its fields go without names."""

    prefix: str
    next_hop: str = ""  # "": any will do, and a wider route as well
    device: str = ""  # a tunnel's; "": any other


class NodeAsk(msgspec.Struct, frozen=True, kw_only=True):
    """Body of POST /v1/facts: everything wanted from one node. Answer: a JSON list of facts."""

    node: str
    family: int = 4  # of every address in it
    felix: bool = True  # ask Felix how it is, too
    tunnel_device: str = "vxlan.calico"  # "" where no tunnel is to be looked at
    uplink_address: str = ""  # the node address Calico uses; the uplink is the device that holds it
    twin_address: str = ""  # that of the other family: where nothing holds the one, it tells the uplink
    felix_health_port: int = 9099
    felix_again: bool = False  # when Felix answers badly ask it again, 3 s later: the answer may be that much late
    ways: tuple[Way, ...] = ()
    local_pods: tuple[LocalPod, ...] = ()
    own_ports: tuple[OwnPort, ...] = ()
    send: tuple[SendProbe, ...] = ()
    watch: tuple[Watch, ...] = ()
    bird: bool = False  # ask BIRD for its sessions: a leg needs routes that only BGP brings
    wireguard_keys: tuple[str, ...] = ()  # public keys of the peers this node should know
    felix_metrics_port: int = 0  # 0: Felix is not asked how far it is
    read: bool = True  # read what the kernel holds, too; without it packets are sent and looked at, nothing else
    trace: tuple[Trace, ...] = ()
    answering: tuple[Answering, ...] = ()
    inside: tuple[str, ...] = ()  # LocalPods of the ask in whose own networks the packets are followed as well
    status: bool = False  # of what it reads only what tells how the node as a whole is
    routes: tuple[AskedRoute, ...] = ()  # with `status`: are they there?
    patience_ms: int = 1000  # for the answer to a packet; a second at most
    deadline_ms: int = 2500  # the probe answers with what it has by then; the rest is Blind
    mark: str = (
        ""  # 16 hex digits, of all asks of one look: by them a node knows its peer's marks from other questions'
    )
