"""What the probe says of a machine's other addresses, tunnels and tables: each on a real kernel, there or not."""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeVar

from facts import Fact, ForeignVxlan, ForeignVxlans, MacSharers, NeighborTable, NodeAddress, RoutingRules
from node_probe.answer import Prober
from node_probe.collectors import machine
from node_probe.netlink import Netlink
from tests.namespaces import in_namespaces
from tests.two_nodes import BLOCK, MAC, MAC6, NODE, NODE6, PERMANENT, TUNNEL, TUNNEL6, TwoNodes, ask

F = TypeVar("F", bound=Fact)


def seen(kind: type[F], **changes: Any) -> F:
    async def answer() -> list[Fact]:
        prober = Prober("node-a", {"machine": machine.collect})
        try:
            return await prober.answer(ask(**changes), time.monotonic() + 5)
        finally:
            await prober.close()

    found = [fact for fact in asyncio.run(answer()) if isinstance(fact, kind)]
    assert len(found) == 1, found
    return found[0]


@in_namespaces
def test_the_node_address_is_found_on_its_device() -> None:
    TwoNodes(dual=True)
    held = seen(NodeAddress)
    assert (held.address, held.found, held.device, held.others) == (NODE["a"], True, "eth0", ())
    held = seen(NodeAddress, family=6, uplink_address=NODE6["a"])
    assert (held.address, held.found, held.device, held.others) == (NODE6["a"], True, "eth0", ())


@in_namespaces
def test_an_address_nobody_holds_is_told_with_those_the_node_has() -> None:
    TwoNodes()
    held = seen(NodeAddress, uplink_address="172.30.0.99", tunnel_device="")
    assert (held.found, held.device, held.others) == (False, "eth0", (f"eth0 {NODE['a']}",))


@in_namespaces
def test_where_an_address_that_is_gone_belongs_is_told_by_what_is_left() -> None:
    """The device below the tunnel, one with another address of the family, the one with the other family's address."""
    nodes = TwoNodes(dual=True)
    nodes.sysctl("a", "net/ipv6/conf/eth0/disable_ipv6", "1")
    gone: dict[str, Any] = {"family": 6, "uplink_address": NODE6["a"]}
    held = seen(NodeAddress, **gone, tunnel_device=TUNNEL6)
    assert (held.found, held.device) == (False, "eth0")
    without = {**gone, "tunnel_device": ""}
    assert seen(NodeAddress, **without).device == ""
    assert seen(NodeAddress, **without, twin_address=NODE["a"]).device == "eth0"

    def add(ip: Any) -> None:
        ip.link("add", ifname="br1", kind="bridge", state="up")
        ip.addr("add", index=ip.link_lookup(ifname="br1")[0], address="fd00:9::1", prefixlen=64)

    nodes.at("a", add)
    held = seen(NodeAddress, **without, twin_address=NODE["a"])
    assert (held.device, held.others) == ("br1", ("br1 fd00:9::1",)), "an uplink of its own for IPv6"


@in_namespaces
def test_other_vxlan_devices_are_told_and_calicos_own_are_not() -> None:
    nodes = TwoNodes(dual=True)
    assert seen(ForeignVxlans).devices == ()

    def add(ip: Any) -> None:
        ip.link("add", ifname="flannel.1", kind="vxlan", vxlan_id=1, vxlan_port=8472)
        ip.link("add", ifname="flow0", kind="vxlan", vxlan_port=4789, vxlan_collect_metadata=True)
        ip.link("add", ifname="bridge0", kind="bridge")

    nodes.at("a", add)
    assert seen(ForeignVxlans).devices == (
        ForeignVxlan(device="flannel.1", vni=1, port=8472, up=False),
        ForeignVxlan(device="flow0", vni=-1, port=4789, up=False),
    )


@in_namespaces
def test_rules_that_no_route_lookup_follows_are_told() -> None:
    nodes = TwoNodes(dual=True)
    assert seen(RoutingRules).rules == seen(RoutingRules, family=6, uplink_address=NODE6["a"]).rules == ()

    def add(ip: Any) -> None:
        ip.rule("add", priority=99, table=1, fwmark=0x100000, fwmask=0x100000, flags=2)
        ip.rule("add", priority=100, table=200, ip_proto=6, dport_range="5432:5433")
        ip.rule("add", priority=101, table=201, src=NODE["a"], src_len=32)  # a lookup follows this one

    nodes.at("a", add)
    assert seen(RoutingRules).rules == (
        "99: not fwmark 0x100000/0x100000 lookup 1",
        "100: ipproto tcp dport 5432-5433 lookup 200",
    )


@in_namespaces
def test_peers_that_share_a_mac_are_told_together() -> None:
    nodes = TwoNodes(dual=True)
    assert seen(MacSharers).addresses == (BLOCK["b"],)
    index = nodes.index("a", TUNNEL)
    nodes.at("a", lambda ip: ip.neigh("add", dst="10.244.3.0", lladdr=MAC["b"], ifindex=index, state=PERMANENT))
    sharers = seen(MacSharers)
    assert (sharers.device, sharers.mac, sharers.addresses) == (TUNNEL, MAC["b"], (BLOCK["b"], "10.244.3.0"))


@in_namespaces
def test_the_neighbor_table_is_counted_without_what_stays_for_ever() -> None:
    """A node with a thousand peers has a thousand permanent entries, and no limit counts them."""
    nodes = TwoNodes()
    before = seen(NeighborTable)
    assert (before.family, before.refused >= 0) == (4, True)
    assert before.limit > 0
    index = nodes.index("a", TUNNEL)

    def add(ip: Any) -> None:
        for last in range(1, 201):
            ip.neigh("add", dst=f"10.99.0.{last}", lladdr=MAC6["b"], ifindex=index, state=PERMANENT)

    with Netlink() as kernel:
        entries = kernel.neighbor_table(2)
        nodes.at("a", add)
        more = kernel.neighbor_table(2)
    assert entries is not None and more is not None
    assert more.entries >= entries.entries + 150  # all namespaces of this machine are counted, and others come and go
    assert seen(NeighborTable).collectable < before.collectable + 150
