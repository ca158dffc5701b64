"""Where a node's kernel would send a packet; everything else about a path follows from it."""

from __future__ import annotations

from facts.fact import Fact


class RouteLookup(Fact, frozen=True, kw_only=True):
    """`ip route get DESTINATION [from SOURCE iif INCOMING] fibmatch`: the entry the kernel itself picks.

    Two are sent for each Way: the output lookup (source and incoming "") and the input lookup of the flow. Where a rule
    is about the node's own packets alone (`iif lo`), the first tells what the routes say of those that come in.
    """

    node: str
    destination: str
    source: str = ""
    incoming: str = ""
    found: bool  # False: the kernel refused; `error` says how
    error: str = ""  # errno name: ENETUNREACH no route, EINVAL blackhole (on input EINVAL or EXDEV rp_filter), EACCES
    type: str = ""  # unicast | blackhole | unreachable | prohibit | throw | local, where it can be read
    prefix: str = ""  # 10.244.218.64/26; 0.0.0.0/0 is the default route
    next_hop: str = ""  # "" for a link-scope route
    device: str = ""
    # Of an entry with several next hops (multipath) all of them, "172.30.0.1 dev eth0"; above stands the one it took.
    several: tuple[str, ...] = ()
    table: int = -1
    protocol: int = -1
    scope: int = -1
    metric: int = -1
    onlink: bool = False
    mtu: int = 0  # the route's own; 0: its device's
    next_hop_object: int = 0  # of one that refuses: the number of the blackhole (`ip nexthop`) that it leads to
    rp_filter: int = -1  # IPv4 input lookups: the filter in effect where they come in: 0 off, 1 strict, 2 loose
    ended_by: str = ""  # of the first of the two, refused: the routing rule that ends all that the node sends there
    preferred_source: str = ""  # output lookups: the address the node's own packets would carry
