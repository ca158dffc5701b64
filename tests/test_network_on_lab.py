"""Wounds of the catalogue in other shapes, on a real kernel: a rule that knows one shape only is half a rule."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from facts import Diagnosis
from lab.client import Lab
from tests import exhaustive
from tests.asking import ask
from tests.lab_python import python

CART, DB = "10.244.174.129", "10.244.218.65"
BLOCK_B, TUNNEL_B = "10.244.218.64/26", "10.244.218.64"
HEAD = """
from pyroute2 import IPRoute
def at(name): return ip.link_lookup(ifname=name)[0]
ip = IPRoute()
"""
# where, what is done there by hand, and what must be named: failure mode and leg
SHAPES = {
    "a rule for what arrives": (
        "node-b",
        f"ip.route('add', dst='0.0.0.0/0', gateway='172.30.0.1', oif=at('eth0'), table=100)\n"
        f"ip.rule('add', priority=100, table=100, dst='{DB}', dst_len=32)",
        ("routing_rule_diverts", "node-b", "forward"),
    ),
    "a rule for what arrives from one sender": (
        "node-b",
        f"ip.route('add', dst='0.0.0.0/0', gateway='172.30.0.1', oif=at('eth0'), table=100)\n"
        f"ip.rule('add', priority=100, table=100, src='{CART}', src_len=32)",
        ("routing_rule_diverts", "node-b", "forward"),
    ),
    "a rule that refuses what arrives from one sender": (
        "node-b",
        f"ip.rule('add', priority=100, action='prohibit', src='{CART}', src_len=32)",
        ("routing_rule_diverts", "node-b", "forward"),
    ),
    "a rule about a port": (
        "node-a",
        f"ip.route('add', dst='0.0.0.0/0', gateway='172.30.0.1', oif=at('eth0'), table=100)\n"
        f"ip.rule('add', priority=100, table=100, src='{CART}', src_len=32, ip_proto=1)\n"
        f"ip.rule('add', priority=101, table=100, src='{CART}', src_len=32, ip_proto=6)",
        ("routing_rule_diverts", "node-a", "forward"),
    ),
    "a rule about the asked port alone": (
        "node-a",
        "ip.route('add', dst='0.0.0.0/0', gateway='172.30.0.1', oif=at('eth0'), table=100)\n"
        "ip.rule('add', priority=100, table=100, ip_proto=6, dport_range='5432:5432')",
        ("routing_rule_diverts", "node-a", "forward"),
    ),
    "a rule about the port that answers": (
        "node-b",
        "ip.route('add', dst='0.0.0.0/0', gateway='172.30.0.1', oif=at('eth0'), table=100)\n"
        "ip.rule('add', priority=100, table=100, ip_proto=6, sport_range='5432:5432')",
        ("routing_rule_diverts", "node-b", "reverse"),
    ),
    "a rule that ends what arrives for the asked port": (
        "node-b",
        "ip.rule('add', priority=100, action='blackhole', ip_proto=6, dport_range='5432:5432')",
        ("routing_rule_diverts", "node-b", "forward"),
    ),
    "a rule that ends what is sent to the asked port": (
        "node-a",
        "ip.rule('add', priority=100, action='blackhole', ip_proto=6, dport_range='5432:5432')",
        ("routing_rule_diverts", "node-a", "forward"),
    ),
    "a rule into a blackhole": (
        "node-a",
        f"ip.route('add', dst='10.0.0.0/8', type='blackhole', table=100)\n"
        f"ip.rule('add', priority=100, table=100, src='{CART}', src_len=32)",
        ("routing_rule_diverts", "node-a", "forward"),
    ),
    "a rule for all pods, the node's own packets too": (
        "node-a",
        "ip.route('add', dst='0.0.0.0/0', gateway='172.30.0.1', oif=at('eth0'), table=100)\n"
        f"ip.rule('add', priority=100, table=100, dst='{TUNNEL_B}', dst_len=26)",
        ("routing_rule_diverts", "node-a", "forward"),
    ),
    "a rule that says no": (
        "node-a",
        f"ip.rule('add', priority=100, action='prohibit', src='{CART}', src_len=32)",
        ("routing_rule_diverts", "node-a", "forward"),
    ),
    "part of a block": (
        "node-a",
        "ip.route('add', dst='10.244.218.64/28', gateway='172.30.0.1', oif=at('eth0'), proto=4)",
        ("foreign_route_to_pod", "node-a", "forward"),
    ),
    "the pod's address on the other node": (
        "node-a",
        f"ip.addr('add', index=at('eth0'), address='{DB}', prefixlen=32)",
        ("route_shadowed", "node-a", "forward"),
    ),
    "the pod's route to the uplink": (
        "node-b",
        f"ip.route('add', dst='{DB}/32', oif=at('eth0'), scope=253)",
        ("pod_route_wrong_device", "node-b", "forward"),
    ),
    "a device made anew by hand": (
        "node-a",
        "ip.link('del', index=at('vxlan.calico'))\n"
        "ip.link('add', ifname='vxlan.calico', kind='vxlan', vxlan_id=4097, vxlan_port=4789, vxlan_learning=0,\n"
        "        vxlan_local='172.30.0.11', vxlan_link=at('eth0'), address='66:07:02:c1:cc:60', state='up')",
        ("vxlan_vni_wrong", "node-a", "both"),
    ),
}


NET1 = """
ip.link('add', ifname='net1', kind='bridge', state='up')
ip.addr('add', index=at('net1'), address='192.168.9.2', prefixlen=24)
"""
IN_THE_POD = {
    "a second network that has all the pods' addresses for its own": (
        NET1 + "ip.route('add', dst='10.0.0.0/8', gateway='192.168.9.1', oif=at('net1'))"
    ),
    "a rule": "ip.rule('add', priority=10, action='unreachable', dst='10.244.0.0', dst_len=16)",
    "a rule about the asked port alone": (
        "ip.rule('add', priority=10, action='unreachable', ip_proto=6, dport_range='5432:5432')"
    ),
    "a rule that sends what carries the pod's address by a second network": (
        NET1 + "ip.route('add', dst='0.0.0.0/0', gateway='192.168.9.1', oif=at('net1'), table=50)\n"
        f"ip.rule('add', priority=10, table=50, src='{CART}', src_len=32)"
    ),
    "a source address that is not the pod's": (
        "ip.addr('add', index=at('eth0'), address='10.9.9.9', prefixlen=32)\n"
        "ip.route('replace', dst='0.0.0.0/0', gateway='169.254.1.1', oif=at('eth0'), prefsrc='10.9.9.9')"
    ),
}


UNDONE = "for one in ip.link_lookup(ifname='net1'): ip.link('del', index=one)\nip.flush_rules(priority=10)"


async def test_a_rule_about_another_port_is_nobody_s_fault(lab: Lab) -> None:
    rule = "ip.rule('add', priority=100, action='blackhole', ip_proto=6, dport_range='5433:5433')"
    by_hand(lab, "node-a", rule)
    by_hand(lab, "shop/cart", rule)
    try:
        diagnosis = await answered(lab)
    finally:
        by_hand(lab, "shop/cart", "ip.flush_rules(priority=100)")
    assert (diagnosis.verdict, diagnosis.causes) == ("healthy", ()), diagnosis


@pytest.mark.parametrize("what", IN_THE_POD)
async def test_a_pod_s_own_routes_lead_astray(lab: Lab, what: str) -> None:
    try:
        by_hand(lab, "shop/cart", IN_THE_POD[what])
        diagnosis = await answered(lab)
    finally:
        by_hand(lab, "shop/cart", UNDONE)
    assert [(cause.rule, cause.node) for cause in diagnosis.causes] == [("pod_routes_astray", "node-a")], diagnosis


VIA_GATEWAY = "ip.route('add', dst='0.0.0.0/0', gateway='172.30.0.1', oif=at('eth0'), table=100)\n"
WEB = "10.244.174.130"
WITHIN_NODE = {
    "a rule about the sender": (VIA_GATEWAY + f"ip.rule('add', priority=100, table=100, src='{CART}', src_len=32)"),
    "a rule about the target": (VIA_GATEWAY + f"ip.rule('add', priority=100, table=100, dst='{WEB}', dst_len=32)"),
    "a rule about ports": (
        VIA_GATEWAY + f"ip.rule('add', priority=100, table=100, src='{CART}', src_len=32, ip_proto=1)\n"
        f"ip.rule('add', priority=101, table=100, src='{CART}', src_len=32, ip_proto=6)"
    ),
    "a rule into a blackhole shorter than that of the node's own block": (
        "ip.route('add', dst='10.0.0.0/8', type='blackhole', table=100)\n"
        f"ip.rule('add', priority=100, table=100, src='{CART}', src_len=32)"
    ),
    "a rule that says no": f"ip.rule('add', priority=100, action='prohibit', src='{CART}', src_len=32)",
}


@pytest.mark.parametrize("rule", WITHIN_NODE)
async def test_a_rule_diverts_packets_between_pods_of_one_node(lab: Lab, rule: str) -> None:
    by_hand(lab, "node-a", WITHIN_NODE[rule])
    diagnosis = await answered(lab, "shop/cart shop/web 8080/tcp")
    assert [(cause.rule, cause.node, cause.leg) for cause in diagnosis.causes] == [
        ("routing_rule_diverts", "node-a", "forward")
    ], diagnosis


async def test_a_pod_that_gives_no_mac_is_sent_nothing(lab: Lab) -> None:
    """By ARP its node asks who has its address; a hardening of the pod, or a filter, lets it be silent."""
    interface = next(pod["interface"] for pod in lab.status()["pods"] if pod["name"] == "shop/db")
    switch = "open('/proc/sys/net/ipv4/conf/eth0/arp_ignore', 'w').write"
    by_hand(lab, "shop/db", f"{switch}('8')")
    try:
        by_hand(lab, "node-b", f"ip.neigh('del', dst='{DB}', ifindex=at('{interface}'))")
        diagnosis = await answered(lab)
    finally:
        by_hand(lab, "shop/db", f"{switch}('0')")
    assert [(cause.rule, cause.node, cause.leg) for cause in diagnosis.causes] == [
        ("pod_neighbor_wrong", "node-b", "forward")
    ], diagnosis


async def test_a_pod_whose_default_route_names_its_device_alone_is_healthy(lab: Lab) -> None:
    """It asks for each target itself, and its node answers for all."""
    by_hand(lab, "shop/cart", "ip.route('replace', dst='0.0.0.0/0', oif=at('eth0'), scope=253)")
    try:
        diagnosis = await answered(lab)
    finally:
        by_hand(lab, "shop/cart", "ip.route('replace', dst='0.0.0.0/0', gateway='169.254.1.1', oif=at('eth0'))")
    assert (diagnosis.verdict, diagnosis.blind) == ("healthy", ()), diagnosis


async def answered(lab: Lab, words: str = "shop/cart shop/db 5432/tcp") -> Diagnosis:
    return (await ask(lab.environment(), words)).diagnosis


def by_hand(lab: Lab, place: str, script: str) -> None:
    done = python(lab, place, HEAD + script)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_wound_in_another_shape_has_the_same_name(lab: Lab, shape: str) -> None:
    place, script, expected = SHAPES[shape]
    by_hand(lab, place, script)
    diagnosis = await answered(lab)
    assert [(cause.rule, cause.node, cause.leg) for cause in diagnosis.causes] == [expected], diagnosis


WELL = {
    "another table with the right way": (
        f"ip.route('add', dst='{BLOCK_B}', gateway='{TUNNEL_B}', oif=at('vxlan.calico'), flags=4, table=100)\n"
        f"ip.rule('add', priority=100, table=100, src='{CART}', src_len=32)"
    ),
    "a rule for others": (
        "ip.route('add', dst='0.0.0.0/0', gateway='172.30.0.1', oif=at('eth0'), table=100)\n"
        "ip.rule('add', priority=100, table=100, src='192.0.2.0', src_len=24)"
    ),
    "an old failure of the peer's address": "ip.neigh('replace', dst='172.30.0.12', ifindex=at('eth0'), state=32)",
    "a static entry that is right": (
        "ip.neigh('replace', dst='172.30.0.12', lladdr='02:00:ac:1e:00:0c', ifindex=at('eth0'), state=128)"
    ),
    "strict filters everywhere": "open('/proc/sys/net/ipv4/conf/all/rp_filter', 'w').write('1')",
    "loose filters everywhere": "open('/proc/sys/net/ipv4/conf/all/rp_filter', 'w').write('2')",
}


@pytest.mark.parametrize("oddity", WELL)
async def test_what_is_well_in_odd_ways_is_healthy(lab: Lab, oddity: str) -> None:
    by_hand(lab, "node-a", WELL[oddity])
    diagnosis = await answered(lab)
    found = (diagnosis.verdict, diagnosis.causes, diagnosis.warnings)
    assert found == ("healthy", (), ()), diagnosis


# ---- where nodes of one subnet need no tunnel


@pytest.fixture(scope="module")
def two_subnets() -> Iterator[Lab]:
    """node-a and node-b in one subnet; the pool tunnels between subnets only."""
    with Lab.up(variant="crosssubnet+two-subnets") as lab:
        yield lab


WITHOUT_TUNNEL = (
    "foreign_route_to_pod",
    "route_shadowed",
    "routing_rule_diverts",
    "pod_route_wrong_device",
    "pod_neighbor_wrong",
)


@pytest.mark.parametrize(("mode", "where"), exhaustive.matrix(2, WITHOUT_TUNNEL, ("source", "target")))
async def test_wounds_of_a_path_without_tunnel(two_subnets: Lab, mode: str, where: str) -> None:
    two_subnets.heal()
    told = two_subnets.inflict(mode, where=where)
    diagnosis = await answered(two_subnets)
    assert [(cause.rule, cause.node) for cause in diagnosis.causes] == [(mode, told["node"])], diagnosis


@pytest.mark.parametrize("mode", ["vxlan_vni_wrong", "vxlan_port_wrong", "vxlan_local_address_wrong"])
async def test_the_tunnel_s_wounds_are_no_cause_where_it_is_not_used(two_subnets: Lab, mode: str) -> None:
    two_subnets.heal()
    two_subnets.inflict(mode)
    diagnosis = await answered(two_subnets)
    assert (diagnosis.verdict, diagnosis.causes) == ("healthy", ()), diagnosis


async def test_a_tunnel_where_none_is_needed_is_the_wrong_device(two_subnets: Lab) -> None:
    two_subnets.heal()
    script = f"ip.route('replace', dst='{BLOCK_B}', gateway='{TUNNEL_B}', oif=at('vxlan.calico'), flags=4)"
    by_hand(two_subnets, "node-a", script)
    diagnosis = await answered(two_subnets)
    assert [(cause.rule, cause.node) for cause in diagnosis.causes] == [("route_wrong_device", "node-a")], diagnosis


async def test_a_node_whose_default_route_leads_to_a_router_that_nobody_is(two_subnets: Lab) -> None:
    two_subnets.heal()
    by_hand(two_subnets, "node-c", "ip.route('replace', dst='0.0.0.0/0', gateway='172.30.1.9', oif=at('eth0'))")
    far = await answered(two_subnets, "shop/cart shop/mail 8080/tcp")
    assert [(cause.rule, cause.node, cause.leg) for cause in far.causes] == [
        ("underlay_gateway_silent", "node-c", "reverse")
    ], far
    assert (await answered(two_subnets)).verdict == "healthy"


async def test_an_uplink_that_does_not_forward_stops_what_comes_in_without_a_tunnel(two_subnets: Lab) -> None:
    two_subnets.heal()
    by_hand(two_subnets, "node-b", "open('/proc/sys/net/ipv4/conf/eth0/forwarding', 'w').write('0')")
    diagnosis = await answered(two_subnets)
    assert [(cause.rule, cause.node) for cause in diagnosis.causes] == [("ip_forwarding_off", "node-b")], diagnosis
    through_the_tunnel = await answered(two_subnets, "shop/mail shop/db 5432/tcp")
    assert through_the_tunnel.verdict == "healthy", through_the_tunnel


# ---- where BIRD's routes are as right as any other


@pytest.fixture(scope="module")
def no_tunnel() -> Iterator[Lab]:
    with Lab.up(variant="bgp") as lab:
        yield lab


DIRECT_DB = "10.244.218.64"
DIRECT_SHAPES = {
    "to a router that does not know the pod": "ip.route('add', dst='10.244.218.64/28', gateway='172.30.0.1', proto=4)",
    "to the link itself": f"ip.route('add', dst='{DIRECT_DB}/32', oif=at('eth0'), scope=253, proto=3)",
    "to a next hop nobody has": f"ip.route('add', dst='{DIRECT_DB}/32', gateway='172.30.0.222', proto=3)",
    "of a bridge with part of the block": (
        "ip.link('add', ifname='docker0', kind='bridge', state='up')\n"
        "ip.addr('add', index=at('docker0'), address='10.244.218.78', prefixlen=28)"
    ),
}
DIRECT_WELL = {
    "by another node, which forwards": f"ip.route('add', dst='{DIRECT_DB}/32', gateway='172.30.0.13', proto=3)",
    "to the right node": f"ip.route('add', dst='{DIRECT_DB}/32', gateway='172.30.0.12', proto=3)",
}


@pytest.mark.parametrize(
    ("mode", "where"),
    exhaustive.matrix(2, ("foreign_route_to_pod", "route_shadowed", "route_blackholed"), ("source", "target")),
)
async def test_a_foreign_route_without_a_tunnel(no_tunnel: Lab, mode: str, where: str) -> None:
    no_tunnel.heal()
    told = no_tunnel.inflict(mode, where=where)
    diagnosis = await answered(no_tunnel)
    assert [(cause.rule, cause.node) for cause in diagnosis.causes] == [(mode, told["node"])], diagnosis


@pytest.mark.parametrize("shape", DIRECT_SHAPES)
async def test_a_foreign_route_without_a_tunnel_in_another_shape(no_tunnel: Lab, shape: str) -> None:
    no_tunnel.heal()
    by_hand(no_tunnel, "node-a", DIRECT_SHAPES[shape])
    diagnosis = await answered(no_tunnel)
    assert [(cause.rule, cause.node, cause.leg) for cause in diagnosis.causes] == [
        ("foreign_route_to_pod", "node-a", "forward")
    ], diagnosis


@pytest.mark.parametrize("route", DIRECT_WELL)
async def test_without_a_tunnel_a_route_that_carries_packets_is_nobody_s_fault(no_tunnel: Lab, route: str) -> None:
    no_tunnel.heal()
    by_hand(no_tunnel, "node-a", DIRECT_WELL[route])
    diagnosis = await answered(no_tunnel)
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ()), diagnosis


async def test_a_daemon_s_route_that_loses_packets_is_not_called_a_stranger_s(no_tunnel: Lab) -> None:
    no_tunnel.heal()
    by_hand(no_tunnel, "node-a", f"ip.route('add', dst='{DIRECT_DB}/32', gateway='172.30.0.1', proto=186)")
    diagnosis = await answered(no_tunnel)
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ()), diagnosis
