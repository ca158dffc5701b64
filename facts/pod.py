"""Both ends of a pod's veth and what listens in it; the last metre of every path."""

from __future__ import annotations

from facts.fact import Fact


class PodInterface(Fact, frozen=True, kw_only=True):
    """The veth of a pod, seen from its node and, where its namespace could be entered, from inside."""

    node: str
    pod: str  # namespace/name
    family: int = 4  # of the addresses, the default route and the gateway below
    interface: str  # host side
    found: bool  # the host side exists
    up: bool = False
    lower_up: bool = False  # False while the other end is down
    mac: str = ""
    mtu: int = -1
    program: bool = False  # somebody's program (XDP) decides on what the pod sends before the kernel sees it
    entered: bool = False  # the fields below were read inside the pod
    pod_device: str = ""  # "eth0"
    pod_up: bool = False
    pod_mac: str = ""
    pod_mtu: int = -1
    pod_ipv6: bool = True  # False: the pod's device carries no IPv6 (disable_ipv6, or an MTU below 1280)
    pod_addresses: tuple[str, ...] = ()  # ADDRESS/LENGTH, link-local ones too
    pod_duplicates: tuple[str, ...] = ()  # IPv6: of those, the ones somebody else has, so that the kernel uses none
    pod_holder: str = ""  # which other device inside has the pod's address, where this one has not
    pod_default_next_hop: str = ""  # "" without a default route; 0.0.0.0 or :: where it names a device alone
    pod_gateway_mac: str = ""  # of the neighbor entry for the gateway; "" when there is none yet
    pod_gateway_state: str = ""  # of that entry, as in Neighbor; "" when there is none
    pod_asking: tuple[str, ...] = ()  # addresses whose MAC the pod's kernel was asking for when it was looked at


class PodRoute(Fact, frozen=True, kw_only=True):
    """`ip route get DESTINATION fibmatch` inside a pod: where the pod itself would send a packet."""

    node: str
    pod: str
    destination: str
    found: bool  # False: the pod's kernel refused; `error` says how
    error: str = ""  # errno name: ENETUNREACH no route, EINVAL blackhole, EHOSTUNREACH, EACCES
    prefix: str = ""  # 0.0.0.0/0 is the default route
    next_hop: str = ""
    device: str = ""
    source: str = ""  # the address such packets would carry, where the kernel says it


class Listener(Fact, frozen=True, kw_only=True):
    """Does anything take packets of this family on this port? `found=False`: no socket does."""

    node: str
    pod: str  # namespace/name; for the node's own network the name it was asked under
    family: int = 4
    protocol: str
    port: int
    found: bool
    addresses: tuple[str, ...] = ()  # bound addresses, "0.0.0.0" and "::" for all
    # Of TCP, where the kernel says it: connections that its program has not taken yet, and how many may wait.
    waiting: int = -1
    backlog: int = -1
    other_family: tuple[str, ...] = ()  # bound addresses that take packets of the other family only
    other_ports: tuple[int, ...] = ()  # not found: where else in the pod something takes packets of this family
