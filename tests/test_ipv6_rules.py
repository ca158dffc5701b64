"""A dual stack pod that is cut off in one family only: the wound is named on that family's leg, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from bot.reply.evidence import rows
from engine.diagnosis import diagnose
from engine.plan import plan
from facts import (
    Allocation,
    CalicoNode,
    Diagnosis,
    Fact,
    FdbEntry,
    Link,
    LinkAddresses,
    Listener,
    Neighbor,
    NodeAddress,
    PodInterface,
    PodRoute,
    ProbeResult,
    RouteLookup,
    Sysctl,
)
from tests.scene import ADDRESS6, CART, DB, NODES6, change, healthy

CART6, DB6 = ADDRESS6["shop/cart"], ADDRESS6["shop/db"]
TUNNEL6 = "vxlan-v6.calico"
SILENT = {"answered": 0, "outcome": "silence", "rtt_us": -1}
OUT = {"node": "node-a", "destination": DB6, "source": "", "incoming": ""}
AT_B = {"node": "node-b", "destination": DB6, "source": "", "incoming": ""}
GONE = {"found": False, "type": "", "prefix": "", "device": "", "next_hop": "", "table": -1, "onlink": False}
BY_DEFAULT = {"prefix": "::/0", "next_hop": "fd00:172:30::1", "device": "eth0", "onlink": False}
NOTHING = {"found": False, "mac": "", "state": ""}
FULL6 = {"target_address": DB6, "size": 1430}

Changes = list[tuple[type[Fact], dict[str, Any], dict[str, Any]]]


def after(changes: Changes, *, lost: bool = True, families: tuple[int, ...] = (4, 6)) -> Diagnosis:
    """The verdict on the healthy dual stack scene so changed; lost: no IPv6 packet between the pods comes back."""
    facts = healthy(families=families)
    for kind, where, fields in changes:
        facts = change(facts, kind, where, **fields)
    for address in (CART6, DB6) if lost else ():
        facts = change(facts, ProbeResult, {"target_address": address}, **SILENT)
    return diagnose(facts)


def named(diagnosis: Diagnosis) -> list[tuple[str, str, str]]:
    return [(cause.rule, cause.node, cause.leg) for cause in diagnosis.causes]


def switch(node: str, device: str, name: str = "disable_ipv6") -> dict[str, Any]:
    return {"node": node, "device": device, "switch": name, "family": 6}


@pytest.mark.parametrize("families", [(6,), (4, 6)])
def test_a_healthy_flow_is_healthy_in_each_family(families: tuple[int, ...]) -> None:
    diagnosis = diagnose(healthy(families=families))
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings, diagnosis.blind) == ("healthy", (), (), ())
    assert all(f"IPv{family}" in diagnosis.summary for family in families if len(families) > 1)


def test_each_family_is_asked_about_by_its_own_devices_and_addresses() -> None:
    asks = {(one.node, one.family): one for one in plan(healthy(families=(4, 6)))}
    assert set(asks) == {(node, family) for node in ("node-a", "node-b") for family in (4, 6)}
    six = asks["node-a", 6]
    assert (six.tunnel_device, six.uplink_address) == (TUNNEL6, NODES6["node-a"][0])
    assert {probe.target for probe in six.send} >= {DB6} and all(":" in probe.target for probe in six.send)
    assert all(":" in way.destination for way in six.ways)
    assert not any(":" in probe.target for probe in asks["node-a", 4].send)


WOUNDS: list[tuple[str, str, str, int, Changes]] = [
    ("neighbor_missing", "node-a", "forward", 95, [(Neighbor, {"node": "node-a", "device": TUNNEL6}, NOTHING)]),
    (
        "neighbor_wrong_mac", "node-b", "reverse", 95,
        [(Neighbor, {"node": "node-b", "device": TUNNEL6}, {"mac": "66:00:00:00:00:99"})],
    ),
    (
        "fdb_entry_missing", "node-a", "forward", 95,
        [(FdbEntry, {"node": "node-a", "device": TUNNEL6}, {"found": False})],
    ),
    (
        "fdb_entry_wrong_node", "node-b", "reverse", 95,
        [(FdbEntry, {"node": "node-b", "device": TUNNEL6}, {"peer": "fd00:172:30::99"})],
    ),
    ("route_missing", "node-a", "forward", 95, [(RouteLookup, OUT, BY_DEFAULT)]),
    ("route_missing", "node-a", "forward", 95, [(RouteLookup, OUT, GONE | {"error": "ENETUNREACH"})]),
    (
        "route_blackholed", "node-a", "forward", 0,
        [(RouteLookup, OUT, GONE | {"error": "EINVAL", "type": "blackhole", "prefix": f"{DB6}/128"})],
    ),
    (
        "route_blackholed", "node-a", "forward", 0,
        [(RouteLookup, OUT, GONE | {"error": "EHOSTUNREACH", "type": "unreachable", "prefix": f"{DB6}/128"})],
    ),
    ("route_wrong_next_hop", "node-a", "forward", 95, [(RouteLookup, OUT, {"next_hop": "fd00:10:244::99"})]),
    ("route_wrong_device", "node-a", "forward", 95, [(RouteLookup, OUT, {"device": "eth0"})]),
    (
        "foreign_route_to_pod", "node-a", "forward", 0,
        [(RouteLookup, OUT, BY_DEFAULT | {"prefix": f"{DB6}/128"})],
    ),
    (
        "route_shadowed", "node-a", "forward", 95,
        [(RouteLookup, OUT, {"prefix": f"{DB6}/128", "next_hop": "", "device": "cali5"})],
    ),
    (
        "pod_route_missing", "node-b", "forward", 95,
        [(RouteLookup, AT_B, GONE | {"error": "EINVAL", "type": "blackhole", "prefix": NODES6["node-b"][3]})],
    ),
    ("pod_route_wrong_device", "node-b", "forward", 95, [(RouteLookup, AT_B, {"device": "cali5"})]),
    ("vxlan_device_down", "node-b", "both", 10, [(Link, {"node": "node-b", "device": TUNNEL6}, {"up": False})]),
    (
        "vxlan_device_mac_wrong", "node-a", "both", 10,
        [(Link, {"node": "node-a", "device": TUNNEL6}, {"mac": "66:00:00:00:00:99"})],
    ),
    ("vxlan_vni_wrong", "node-a", "both", 10, [(Link, {"node": "node-a", "device": TUNNEL6}, {"vni": 4097})]),
    (
        "vxlan_local_address_wrong", "node-a", "forward", 10,
        [(Link, {"node": "node-a", "device": TUNNEL6}, {"vxlan_local": "fd00:172:30::99"})],
    ),
    (
        "tunnel_address_missing", "node-b", "both", 0,
        [(CalicoNode, {"name": "node-b", "family": 6}, {"tunnel_address": ""})],
    ),
    (
        "tunnel_address_not_owned", "node-a", "both", 0,
        [(Allocation, {"address": NODES6["node-a"][1]}, {"handle": "vxlan-v6-tunnel-addr-node-c", "owner": "node-c"})],
    ),
    (
        "ip_forwarding_off", "node-a", "both", 0,
        [(Sysctl, {"node": "node-a", "name": "net.ipv6.conf.all.forwarding"}, {"value": "0"})],
    ),
    ("pod_interface_down", "node-a", "both", 0, [(PodInterface, {"pod": CART[0], "family": 6}, {"up": False})]),
    (
        "pod_gateway_mac_wrong", "node-a", "both", 0,
        [
            (
                PodInterface, {"pod": CART[0], "family": 6},
                {"pod_gateway_mac": "02:de:ad:00:00:01", "pod_gateway_state": "PERMANENT"},
            ),
        ],
    ),
    (
        "pod_gateway_missing", "node-b", "both", 0,
        [(LinkAddresses, {"node": "node-b", "device": DB[3]}, {"addresses": ()})],
    ),
    (
        "pod_default_route_missing", "node-a", "both", 0,
        [
            (PodRoute, {"pod": CART[0], "destination": DB6}, {"found": False, "error": "ENETUNREACH", "next_hop": ""}),
            (PodInterface, {"pod": CART[0], "family": 6}, {"pod_default_next_hop": ""}),
        ],
    ),
    (
        "pod_address_disagrees", "node-b", "both", 0,
        [(PodInterface, {"pod": DB[0], "family": 6}, {"pod_addresses": ("fd00:10:244::99/128", "fe80::1/64")})],
    ),
    ("ipv6_disabled", "node-a", "both", 0, [(Sysctl, switch("node-a", TUNNEL6), {"value": "1"})]),
    ("ipv6_disabled", "node-b", "both", 0, [(Sysctl, switch("node-b", DB[3]), {"value": "1"})]),
    (
        "ipv6_disabled", "node-a", "both", 0,
        [(Sysctl, switch("node-a", TUNNEL6), {"found": False, "value": ""})],  # an MTU below 1280
    ),
    (
        "node_address_stale", "node-b", "both", -1,  # held, and yet not used: somebody else has it
        [(NodeAddress, {"node": "node-b", "address": NODES6["node-b"][0]}, {"duplicate": True})],
    ),
    (
        "uplink_ipv6_disabled", "node-a", "both", 0,
        [
            (Sysctl, switch("node-a", "eth0"), {"value": "1"}),
            (NodeAddress, {"node": "node-a", "address": NODES6["node-a"][0]}, {"found": False}),
        ],
    ),
    (
        "underlay_route_missing", "node-a", "forward", -1,
        [
            (
                ProbeResult, {"node": "node-a", "pod": "", "target_address": NODES6["node-b"][0]},
                {"sent": 0, "answered": 0, "outcome": "unreachable", "detail": "the sender's own kernel says: no"},
            ),
        ],
    ),
    (
        "pod_ipv6_disabled", "node-b", "both", 0,
        [
            (
                PodInterface, {"pod": DB[0], "family": 6},
                {"pod_ipv6": False, "pod_addresses": (), "pod_default_next_hop": ""},
            ),
            (PodRoute, {"pod": DB[0], "destination": CART6}, {"found": False, "error": "ENETUNREACH"}),
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "node", "leg", "heals", "changes"), WOUNDS)
@pytest.mark.parametrize("families", [(6,), (4, 6)], ids=["only", "dual"])
def test_a_wound_of_ipv6_has_its_name(
    rule: str, node: str, leg: str, heals: int, changes: Changes, families: tuple[int, ...]
) -> None:
    diagnosis = after(changes, families=families)
    assert named(diagnosis) == [(rule, node, leg)]
    (cause,) = diagnosis.causes
    assert (cause.flow, cause.heals_within_s) == ("shop/cart to shop/db over IPv6", heals)
    assert diagnosis.verdict == "cause" and not diagnosis.warnings
    assert "10.244" not in cause.text and "IPv4" not in cause.text and "/32" not in cause.text


def test_a_target_that_listens_for_the_other_family_only() -> None:
    facts = change(
        healthy(families=(6,)), Listener, {"family": 6}, found=False, addresses=(), other_family=("0.0.0.0",)
    )
    tcp = {"target_address": DB6, "protocol": "tcp"}
    diagnosis = diagnose(change(facts, ProbeResult, tcp, answered=0, outcome="refused", rtt_us=-1))
    assert named(diagnosis) == [("target_not_listening", "node-b", "forward")]
    assert "takes IPv4 only (0.0.0.0)" in diagnosis.causes[0].text


def test_full_size_packets_have_room_for_ipv6s_larger_header() -> None:
    """An uplink of 1490 carries 1430 in a tunnel of IPv4, and not in one of IPv6."""
    narrow = [(Link, {"node": "node-a", "node_address": NODES6["node-a"][0]}, {"mtu": 1490})]
    told = after(narrow, lost=False, families=(6,))
    assert [cause.rule for cause in told.warnings] == ["tunnel_mtu_too_large"] and "at most 1420" in told.warnings[
        0
    ].text
    lost = after([*narrow, (ProbeResult, FULL6, SILENT)], lost=False, families=(6,))
    assert named(lost) == [("tunnel_mtu_too_large", "node-a", "both")]


def test_a_path_too_narrow_between_the_nodes() -> None:
    lost = after([(ProbeResult, FULL6, SILENT)], lost=False, families=(6,))
    assert named(lost) == [("path_mtu_too_small", "node-a", "both")]


def test_a_forced_device_forwards_whatever_the_nodes_switch_says() -> None:
    off = [(Sysctl, {"node": "node-a", "name": "net.ipv6.conf.all.forwarding"}, {"value": "0"})]
    forced = [(Sysctl, switch("node-a", device, "forwarding"), {"value": "1"}) for device in (TUNNEL6, CART[3])]
    diagnosis = after([*off, *forced], lost=False)
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ())


def test_a_pod_that_still_remembers_its_gateway_is_warned_about() -> None:
    remembers = {"pod_gateway_mac": "ee:ee:ee:ee:ee:ee", "pod_gateway_state": "REACHABLE"}
    diagnosis = after(
        [
            (LinkAddresses, {"node": "node-a", "device": CART[3]}, {"addresses": ()}),
            (PodInterface, {"pod": CART[0], "family": 6}, remembers),
        ],
        lost=False,
    )
    assert (diagnosis.verdict, [cause.rule for cause in diagnosis.warnings]) == ("healthy", ["pod_gateway_missing"])


def test_a_node_that_cannot_ask_for_a_pod_s_mac_blames_no_answer_on_the_pod() -> None:
    """Neighbor solicitations go out from a link-local address: without it the node's own memory ages as the pod's."""
    lacking = [
        (LinkAddresses, {"node": "node-a", "device": CART[3]}, {"addresses": ()}),
        (PodInterface, {"pod": CART[0], "family": 6}, {"pod_gateway_mac": "", "pod_gateway_state": "FAILED"}),
    ]
    entry = {"node": "node-a", "device": CART[3], "address": CART6}
    aged = (Neighbor, entry, {"mac": "", "state": "INCOMPLETE", "asked": True})
    assert [cause.rule for cause in after([aged]).causes] == ["pod_neighbor_wrong"]
    diagnosis = after([*lacking, aged])
    assert ([cause.rule for cause in diagnosis.causes], diagnosis.warnings) == (["pod_gateway_missing"], ())


def test_a_second_default_route_to_nobody_cuts_no_pod_off_that_reaches_its_target() -> None:
    """A kernel with two default routes leaves out the one whose router gives no answer."""
    other = {"pod_default_next_hop": "fe80::1234", "pod_gateway_mac": "", "pod_gateway_state": "FAILED"}
    diagnosis = after([(PodInterface, {"pod": DB[0], "family": 6}, other)], lost=False)
    assert (diagnosis.verdict, [cause.rule for cause in diagnosis.warnings]) == ("healthy", ["pod_gateway_missing"])


def test_a_tunnel_without_its_address_still_carries_ipv6() -> None:
    """Unlike IPv4's: routes and neighbors stay, so pods go on, and the address is back within seconds."""
    gone = [(LinkAddresses, {"node": "node-a", "device": TUNNEL6}, {"addresses": ()})]
    (cause,) = after(gone, lost=False).causes
    assert (cause.rule, cause.severity, cause.heals_within_s) == ("vxlan_device_address_wrong", "degrades", 10)


def test_what_is_well_in_odd_ways() -> None:
    """No switch of IPv4's stops IPv6, a node needs no default route for it, nor an address of its tunnel's own link."""
    for changes in (
        [(Sysctl, {"node": "node-a", "name": f"net.ipv4.conf.{CART[3]}.proxy_arp"}, {"value": "0"})],
        [(RouteLookup, {"node": "node-a", "destination": "169.254.1.1"}, GONE | {"error": "ENETUNREACH"})],
    ):
        facts = healthy(families=(4, 6))
        for kind, where, fields in changes:
            facts = change(facts, kind, where, **fields)
        assert {cause.flow for cause in diagnose(facts).causes} == {"shop/cart to shop/db over IPv4"}
    beside = (f"{NODES6['node-a'][1]}/128", "fe80::64d4:d5ff:fe51:3d42/64")
    diagnosis = after([(LinkAddresses, {"node": "node-a", "device": TUNNEL6}, {"addresses": beside})], lost=False)
    assert (diagnosis.verdict, diagnosis.warnings) == ("healthy", ())


def test_the_evidence_of_a_healthy_flow_agrees_with_what_is_expected() -> None:
    beside = (f"{NODES6['node-a'][1]}/128", "fe80::64d4:d5ff:fe51:3d42/64")
    tunnel = {"node": "node-a", "device": TUNNEL6}
    for facts in (healthy(families=(4, 6)), change(healthy(families=(6,)), LinkAddresses, tunnel, addresses=beside)):
        assert [row for row in rows(diagnose(facts)) if row.wrong] == []


def test_a_node_that_reaches_its_peer_by_its_own_address_only_is_not_accused() -> None:
    refused = {"sent": 0, "answered": 0, "outcome": "unreachable"}
    ping = {"node": "node-a", "pod": "", "target_address": NODES6["node-b"][0]}
    diagnosis = after([(ProbeResult, ping, refused)], lost=False)
    assert (diagnosis.verdict, [cause.rule for cause in diagnosis.warnings]) == ("healthy", ["underlay_route_missing"])
