"""What a probe tells of a node as a whole, on a kernel that really holds such routes, in whatever table they are."""

from __future__ import annotations

import os
import time
from importlib.metadata import version

from facts import AskedRoute, Bird, Link, Neighbor, NodeAsk, NodeMachine, RouteTable, Way
from tests.namespaces import in_namespaces
from tests.test_collectors import look, of, only
from tests.two_nodes import AF_INET6, BLOCK, BLOCK6, CART, FELIX, NODE, NODE6, TUNNEL, TUNNEL6, TwoNodes

WIDE, THROWN, ENCRYPTED = "10.250.0.0/16", "10.251.0.0/26", "10.252.0.0/26"


def asked(*routes: AskedRoute, **changes: object) -> NodeAsk:
    about = {"node": "node-a", "uplink_address": NODE["a"], "status": True, "bird": True}
    return NodeAsk(**{**about, "routes": routes, **changes})  # type: ignore[arg-type]


@in_namespaces
def test_the_routes_a_node_should_have_are_found_missing_astray_or_a_pod_s_own() -> None:
    nodes = TwoNodes()
    eth0 = nodes.index("a", "eth0")
    nodes.at("a", lambda ip: ip.route("add", dst=WIDE, gateway=NODE["b"], oif=eth0, proto=12))
    nodes.at("a", lambda ip: ip.route("add", dst=THROWN, type="blackhole", proto=12))
    tunnel = nodes.index("a", TUNNEL)
    nodes.at("a", lambda ip: ip.route("add", dst=ENCRYPTED, oif=tunnel, table=77, proto=FELIX, scope=253))
    block = f"{BLOCK['b']}/26"
    facts = look(
        asked(
            AskedRoute(block, BLOCK["b"], TUNNEL),
            AskedRoute(ENCRYPTED, "", TUNNEL),  # in a table of its own
            AskedRoute("10.244.99.0/26", BLOCK["b"], TUNNEL),
            AskedRoute(f"{CART}/32", BLOCK["b"], TUNNEL),
            AskedRoute("10.250.7.0/26"),
            AskedRoute("10.253.0.0/26"),
            AskedRoute(THROWN),
        )
    )
    table = only(facts, RouteTable)
    assert (table.asked, table.met, table.covered, table.unled, table.local) == (7, 2, 1, 1, 1)
    assert (table.missing, table.lacking) == (("10.244.99.0/26",), 1)
    assert (table.astray, table.strayed) == ((f"blackhole {THROWN}",), 1)
    counted = {(one.device, one.protocol, one.type): one.count for one in table.groups}
    assert counted[TUNNEL, FELIX, "unicast"] == 2
    assert counted["eth0", 12, "unicast"] == 1
    assert counted["", FELIX, "blackhole"] == 1  # its own block
    by_uplink = only(look(asked(AskedRoute(block, NODE["b"]))), RouteTable)
    assert by_uplink.astray == (f"{block} via {BLOCK['b']} dev {TUNNEL}",)


@in_namespaces
def test_both_families_have_tables_of_their_own_and_all_tunnels_are_shown() -> None:
    nodes = TwoNodes(dual=True)
    route = AskedRoute(f"{BLOCK6['b']}/122", BLOCK6["b"], TUNNEL6)
    facts = look(asked(route, family=6, uplink_address=NODE6["a"], tunnel_device="wg-v6.cali"))
    table = only(facts, RouteTable)
    assert (table.family, table.asked, table.met) == (6, 1, 1)
    assert not only(facts, Link, device="wg-v6.cali").found
    assert only(facts, Link, device=TUNNEL6).up
    nodes.at("a", lambda ip: ip.route("del", family=AF_INET6, dst=f"{BLOCK6['b']}/122", oif=nodes.index("a", TUNNEL6)))
    assert only(look(asked(route, family=6, uplink_address=NODE6["a"])), RouteTable).missing == (route.prefix,)


@in_namespaces
def test_a_node_as_a_whole_is_told_and_no_path() -> None:
    TwoNodes()
    facts = look(asked(ways=(Way(destination="10.244.2.2"),)))
    machine = only(facts, NodeMachine)
    assert (machine.kernel, machine.probe) == (os.uname().release, version("calico-why"))
    assert abs(machine.uptime_s - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60
    assert not only(facts, Bird).running
    assert of(facts, Neighbor) == []
    of_a_path = look()
    assert (of(of_a_path, RouteTable), of(of_a_path, NodeMachine)) == ([], []), "nobody asked"
