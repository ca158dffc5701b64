"""IPIP, WireGuard and BGP without encapsulation: judged to the end, and never accused when they are well."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.diagnosis import diagnose
from engine.plan import plan
from facts import (
    BgpPeer,
    Bird,
    Blind,
    CalicoNode,
    CalicoSettings,
    Diagnosis,
    Fact,
    Link,
    Neighbor,
    ProbeResult,
    RouteLookup,
    Sighting,
    WireguardDevice,
    WireguardPeer,
    from_builtins,
)
from tests import hand_written
from tests.other_ways import BY_BIRD, BY_BOTH_KINDS, KEYS, ipip, leg_of, plain, wireguard
from tests.record import CASES
from tests.scene import CART, DB, change, healthy, without

A_TO_B: dict[str, Any] = {"node": "node-a", "destination": DB[2], "source": "", "incoming": ""}
B_TO_A: dict[str, Any] = {"node": "node-b", "destination": CART[2], "source": "", "incoming": ""}
DEFAULT = {"prefix": "0.0.0.0/0", "next_hop": "172.30.0.1", "device": "eth0", "protocol": 3, "table": 254}
LOST = {"answered": 0, "outcome": "silence", "rtt_us": -1}
WAYS = {
    "IPIP by BIRD": ipip(),
    "IPIP by Felix": ipip(BY_BOTH_KINDS),
    "IPIP between subnets": ipip(mode="CrossSubnet"),
    "IPIP of a version nobody knows": ipip({"version": "", "ipip_routes_by": "", "plain_routes_by": ""}),
    "BGP": plain(),
    "BGP from 3.33": plain(BY_BOTH_KINDS),
    "WireGuard": wireguard(),
    "WireGuard between subnets": wireguard("CrossSubnet"),
    "WireGuard over BGP": wireguard("Never"),
}


def lost(facts: list[Fact]) -> list[Fact]:
    return change(facts, ProbeResult, {"pod": CART[0]}, **LOST)


def named(diagnosis: Diagnosis) -> list[tuple[str, str, str]]:
    return [(cause.rule, cause.node, cause.leg) for cause in diagnosis.causes]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_well_is_called_healthy_and_nothing_is_left_unseen(way: str) -> None:
    diagnosis = diagnose(WAYS[way])
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings, diagnosis.blind) == ("healthy", (), (), ())
    assert all(hop.state == "ok" for path in diagnosis.path for hop in path.hops)


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("IPIP by BIRD", ("ipip", "bgp", "", "tunl0")),
        ("IPIP by Felix", ("ipip", "felix", "172.30.0.12", "tunl0")),
        ("IPIP between subnets", ("direct", "bgp", "", "")),
        ("BGP", ("direct", "bgp", "", "")),
        ("WireGuard", ("wireguard", "", "", "wireguard.cali")),
        ("WireGuard over BGP", ("wireguard", "", "", "wireguard.cali")),
    ],
)
def test_how_packets_should_travel(way: str, expected: tuple[str, ...]) -> None:
    leg = leg_of(WAYS[way])
    assert (leg.encapsulation, leg.route_by, leg.expected_next_hop, leg.expected_device) == expected


def test_only_what_a_leg_needs_is_asked_of_a_node() -> None:
    asked = {way: plan(facts)[0] for way, facts in WAYS.items()}
    assert asked["WireGuard"].wireguard_keys == (KEYS["node-b"],)
    assert (asked["WireGuard"].bird, asked["WireGuard"].tunnel_device) == (False, "wireguard.cali")
    assert (asked["BGP"].bird, asked["IPIP by BIRD"].bird, asked["IPIP by Felix"].bird) == (True, True, False)
    assert (plan(healthy())[0].bird, plan(healthy())[0].wireguard_keys) == (False, ())


def test_a_node_without_a_key_is_sent_to_in_the_clear() -> None:
    """Its kernel cannot encrypt: Calico falls back, by design."""
    facts = change(healthy(), CalicoNode, {}, wireguard=True)
    facts = change(facts, CalicoNode, {"name": "node-a"}, wireguard_key=KEYS["node-a"])
    assert leg_of(facts).encapsulation == "vxlan"
    assert diagnose(facts).verdict == "healthy"


@pytest.mark.parametrize(
    ("fields", "mode"),
    [
        (DEFAULT, "route_missing"),
        ({"device": "eth0"}, "route_wrong_device"),
        ({"next_hop": "172.30.0.13"}, "route_wrong_next_hop"),
        ({"found": False, "error": "EINVAL", "type": "blackhole", "device": "", "next_hop": ""}, "route_blackholed"),
    ],
)
def test_felix_s_ipip_route_is_expected_block_by_block(fields: dict[str, Any], mode: str) -> None:
    diagnosis = diagnose(lost(change(ipip(BY_BOTH_KINDS), RouteLookup, A_TO_B, **fields)))
    assert named(diagnosis) == [(mode, "node-a", "forward")]
    assert "tunnel address" not in diagnosis.causes[0].text


@pytest.mark.parametrize("fields", [DEFAULT, {"prefix": "10.0.0.0/8", "next_hop": "172.30.0.254"}])
@pytest.mark.parametrize("facts", [plain(), ipip()], ids=["BGP", "IPIP"])
def test_bgp_may_leave_the_way_to_a_router(facts: list[Fact], fields: dict[str, Any]) -> None:
    """A reflector's, a router's aggregate, a default route: packets that pass are all there is to judge by."""
    diagnosis = diagnose(change(facts, RouteLookup, A_TO_B, **fields))
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ())


TO_DB: dict[str, Any] = {"node": "node-a", "way": "out", "target_address": DB[2]}
AT_DB: dict[str, Any] = {"node": "node-b", "way": "in", "target_address": DB[2]}
NOTHING = {"seen": 0, "device": "", "outer_target": ""}
BY_GATEWAY: dict[str, Any] = {"prefix": f"{DB[2]}/32", "next_hop": "172.30.0.1", "device": "eth0", "protocol": 3}
GATEWAY = Neighbor(
    node="node-a", device="eth0", address="172.30.0.1", found=True, mac="02:00:00:00:00:99", state="STALE"
)


def by(facts: list[Fact], route: dict[str, Any], arrived: dict[str, Any]) -> Diagnosis:
    """All packets to the pod are lost; they leave by this route."""
    facts = change([*facts, GATEWAY], RouteLookup, A_TO_B, **route)
    return diagnose(lost(change(facts, Sighting, AT_DB, **arrived)))


@pytest.mark.parametrize(
    "route",
    [
        BY_GATEWAY,
        BY_GATEWAY | {"prefix": "10.244.218.64/28", "protocol": 4},
        BY_GATEWAY | {"next_hop": "", "device": "dummy0"},
        BY_GATEWAY | {"next_hop": "", "device": "docker0", "prefix": "10.244.218.64/28", "protocol": 2},
    ],
)
def test_without_a_tunnel_a_route_by_hand_is_accused_where_its_packets_are_seen_to_get_lost(
    route: dict[str, Any],
) -> None:
    diagnosis = by(plain(), route, NOTHING)
    assert named(diagnosis) == [("foreign_route_to_pod", "node-a", "forward")]
    (cause,) = diagnosis.causes
    assert cause.heals_within_s == 0
    assert "of 8 packets that left for shop/db none reached node-b" in cause.text


UNRESOLVED = {"mac": "", "state": "INCOMPLETE"}


def test_without_a_tunnel_a_route_by_hand_is_accused_where_nobody_answers_for_its_next_hop() -> None:
    facts = change([*plain(), GATEWAY], RouteLookup, A_TO_B, **BY_GATEWAY)
    facts = change(facts, Neighbor, {"address": "172.30.0.1"}, **UNRESOLVED)
    facts = change(facts, Sighting, AT_DB, **NOTHING)
    left = diagnose(lost(facts))
    assert "of 8 packets that left" in left.causes[0].text, "they went somewhere"
    diagnosis = diagnose(lost(change(facts, Sighting, TO_DB, **NOTHING)))
    assert named(diagnosis) == [("foreign_route_to_pod", "node-a", "forward")]
    assert "nobody answers there for 172.30.0.1 (INCOMPLETE)" in diagnosis.causes[0].text
    answers = change(facts, Neighbor, {"address": "172.30.0.1"}, mac="02:00:00:00:00:99", state="REACHABLE")
    diagnosis = diagnose(lost(change(answers, Sighting, TO_DB, **NOTHING)))
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ()), "the node itself did not let them out"


NOT_PROVEN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "they arrive: whatever loses them is behind the network": (BY_GATEWAY, {}),
    "the target's node did not look on all the time": (BY_GATEWAY, NOTHING | {"enclosed": False}),
    "nobody may look": (BY_GATEWAY, {"seen": -1, "heard": False, "enclosed": False}),
    "a routing daemon's may be as right as BIRD's": (BY_GATEWAY | {"protocol": 186}, NOTHING),
    "it leads to the whole block: cloud and operator write such": (
        BY_GATEWAY | {"prefix": "10.244.218.64/26"},
        NOTHING,
    ),
}


@pytest.mark.parametrize("what", NOT_PROVEN)
def test_without_a_tunnel_any_route_may_be_right(what: str) -> None:
    diagnosis = by(plain(), *NOT_PROVEN[what])
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("unknown", (), ())


def test_a_route_by_hand_to_the_right_node_is_not_what_loses_packets() -> None:
    diagnosis = by(plain(), BY_GATEWAY | {"next_hop": "172.30.0.12"}, NOTHING)
    assert [cause.rule for cause in diagnosis.causes] == ["underlay_drops_unencapsulated"]


def test_a_route_by_hand_that_carries_packets_is_healthy() -> None:
    diagnosis = diagnose(change([*plain(), GATEWAY], RouteLookup, A_TO_B, **BY_GATEWAY))
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ())


@pytest.mark.parametrize("settings", [BY_BIRD, BY_BOTH_KINDS], ids=["BIRD", "Felix"])
def test_a_foreign_route_past_tunl0(settings: dict[str, str]) -> None:
    """Whoever writes the pool's routes, each of its packets to another node has to take the tunnel."""
    diagnosis = diagnose(lost(change(ipip(settings), RouteLookup, A_TO_B, **BY_GATEWAY)))
    assert named(diagnosis) == [("foreign_route_to_pod", "node-a", "forward")]
    assert "before Calico's route for 10.244.218.64/26 by tunl0" in diagnosis.causes[0].text


@pytest.mark.parametrize(
    ("route", "mode", "heals"),
    [
        (BY_GATEWAY, "foreign_route_to_pod", 0),
        (BY_GATEWAY | {"protocol": 186}, "foreign_route_to_pod", 0),
        (BY_GATEWAY | {"next_hop": "", "device": "docker0", "protocol": 2}, "foreign_route_to_pod", 0),
        (BY_GATEWAY | {"protocol": 80}, "route_wrong_next_hop", 95),
        (BY_GATEWAY | {"prefix": "10.244.218.64/26"}, "route_wrong_next_hop", 95),
        ({"prefix": f"{DB[2]}/32", "next_hop": "", "device": "cali5", "protocol": 3}, "route_shadowed", 95),
    ],
)
def test_where_felix_writes_routes_without_a_tunnel_each_wrong_entry_has_one_name(
    route: dict[str, Any], mode: str, heals: int
) -> None:
    facts = ipip(BY_BOTH_KINDS, "CrossSubnet")
    diagnosis = diagnose(lost(change(facts, RouteLookup, A_TO_B, **route)))
    assert named(diagnosis) == [(mode, "node-a", "forward")]
    assert diagnosis.causes[0].heals_within_s == heals
    right = diagnose(change(facts, RouteLookup, A_TO_B, **route | {"next_hop": "172.30.0.12", "device": "eth0"}))
    assert (right.verdict, right.causes, right.warnings) == ("healthy", (), ())


@pytest.mark.parametrize(
    "route",
    [
        {"prefix": f"{DB[2]}/32", "next_hop": "", "device": "cali5", "protocol": 3},
        {"prefix": f"{DB[2]}/32", "next_hop": "", "device": "lo", "type": "local", "table": 255},
    ],
)
def test_a_route_that_keeps_packets_on_the_sender_s_node_is_wrong_whoever_writes_routes(route: dict[str, Any]) -> None:
    diagnosis = diagnose(lost(change(plain(), RouteLookup, A_TO_B, **route)))
    assert named(diagnosis) == [("route_shadowed", "node-a", "forward")]


@pytest.mark.parametrize("facts", [plain(), ipip()], ids=["BGP", "IPIP"])
def test_a_session_that_is_down_matters_where_its_route_is_missing(facts: list[Fact]) -> None:
    down = change(
        facts, BgpPeer, {"node": "node-a"}, state="start", session="Active", info="Socket: Connection refused"
    )
    assert diagnose(down).verdict == "healthy"  # the route it once brought is still there
    missing = change(down, RouteLookup, A_TO_B, **DEFAULT)
    passes = diagnose(missing)  # by a router: one of two sessions with it may well be down
    assert (passes.verdict, passes.warnings) == ("healthy", ())
    unsent = diagnose([fact for fact in missing if not isinstance(fact, ProbeResult)])
    assert (unsent.verdict, [cause.rule for cause in unsent.warnings]) == ("unknown", ["bgp_peer_down"])
    diagnosis = diagnose(lost(missing))
    assert named(diagnosis) == [("bgp_peer_down", "node-a", "forward")]
    assert "172.30.0.12 is Active Socket: Connection refused" in diagnosis.causes[0].text


def test_another_node_s_session_is_none_of_this_pair_s_business() -> None:
    other = BgpPeer(node="node-a", name="Mesh_172_30_0_13", kind="mesh", address="172.30.0.13", state="start")
    assert diagnose(lost(change([*plain(), other], RouteLookup, A_TO_B, **DEFAULT))).causes == ()
    reflector = BgpPeer(node="node-a", name="Global_172_30_0_1", kind="global", address="172.30.0.1", state="start")
    diagnosis = diagnose(lost(change([*plain(), reflector], RouteLookup, A_TO_B, **DEFAULT)))
    assert named(diagnosis) == [("bgp_peer_down", "node-a", "forward")]


def test_bird_that_does_not_run_explains_the_session_of_its_peer() -> None:
    facts = change(plain(), Bird, {"node": "node-b"}, running=False, detail="")
    facts = change(facts, BgpPeer, {"node": "node-a"}, state="start", session="Connect")
    facts = [fact for fact in facts if not (isinstance(fact, BgpPeer) and fact.node == "node-b")]
    assert diagnose(facts).verdict == "healthy"  # what it had announced lives on
    diagnosis = diagnose(lost(change(facts, RouteLookup, A_TO_B, **DEFAULT)))
    assert named(diagnosis) == [("bgp_not_running", "node-b", "forward")]
    assert "nobody announces 10.244.218.64/26" in diagnosis.causes[0].text
    without_bgp = [fact for fact in facts if not isinstance(fact, BgpPeer)]
    without_bgp = change(change(without_bgp, Bird, {}, running=False), CalicoNode, {}, backend="none")
    assert (
        diagnose(lost(change(without_bgp, RouteLookup, A_TO_B, **DEFAULT))).causes == ()
    )  # a cloud's routes carry the packets, by design


def test_a_pool_without_encapsulation_where_calico_does_vxlan_only_has_nobody_to_write_its_routes() -> None:
    """Its vxlanMode was set to Never; whether BIRD runs need not be seen."""
    facts = [fact for fact in plain() if not isinstance(fact, BgpPeer)]
    facts = change(change(facts, Bird, {}, seen=False, running=False), CalicoNode, {}, backend="vxlan")
    assert diagnose(facts).verdict == "healthy"
    facts = change(facts, RouteLookup, A_TO_B, **DEFAULT)
    assert diagnose(facts).verdict == "healthy"  # a router knows the way
    diagnosis = diagnose(lost(facts))
    assert named(diagnosis) == [("bgp_not_running", "node-a", "forward")]
    assert "node-a has no route for 10.244.218.64/26 of node-b" in diagnosis.causes[0].text


def test_bird_off_is_no_fault_where_felix_writes_the_routes_and_a_router_is_between() -> None:
    off = change(plain(), Bird, {}, running=False, detail="")
    apart = change(off, CalicoNode, {}, subnet="192.0.2.0/24")
    apart = lost(change(apart, RouteLookup, A_TO_B, **DEFAULT))
    assert named(diagnose(apart)) != []
    assert diagnose(change(apart, CalicoSettings, {}, plain_routes_by="felix")).causes == ()


def test_bird_off_is_healthy_where_felix_writes_the_routes() -> None:
    off = [Bird(node=node, seen=True, running=False) for node in ("node-a", "node-b")]
    for facts in (healthy(), ipip(BY_BOTH_KINDS), wireguard()):
        assert diagnose([*facts, *off]).verdict == "healthy"


def test_a_probe_that_sees_no_processes_accuses_nobody_of_not_running() -> None:
    blind = change(plain(), Bird, {"node": "node-b"}, seen=False, running=False)
    diagnosis = diagnose(lost(change(blind, RouteLookup, A_TO_B, **DEFAULT)))
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())


@pytest.mark.parametrize("owner", ["nobody", "both"])
def test_routes_without_one_owner_are_the_cause_only_where_packets_are_lost(owner: str) -> None:
    said = "programClusterRoutes is Disabled in FelixConfiguration and Disabled in BGPConfiguration"
    facts = plain({**BY_BIRD, "plain_routes_by": owner, "routes_said": said})
    diagnosis = diagnose(facts)
    assert (diagnosis.verdict, [one.rule for one in diagnosis.warnings]) == ("healthy", ["route_owner_conflict"])
    assert named(diagnose(lost(facts))) == [("route_owner_conflict", "", "both")]
    other_pool = ipip({**BY_BIRD, "plain_routes_by": owner, "routes_said": said})
    assert diagnose(other_pool).warnings == ()


@pytest.mark.parametrize(
    ("facts", "device", "fields", "mode"),
    [
        (ipip(), "tunl0", {"found": False}, "ipip_device_missing"),
        (ipip(BY_BOTH_KINDS), "tunl0", {"up": False}, "ipip_device_down"),
        (wireguard(), "wireguard.cali", {"found": False}, "wireguard_device_missing"),
        (wireguard(), "wireguard.cali", {"up": False}, "wireguard_device_missing"),
    ],
)
@pytest.mark.parametrize("node", ["node-a", "node-b"])
def test_a_tunnel_device_that_is_gone_explains_the_routes_that_went_with_it(
    facts: list[Fact], device: str, fields: dict[str, Any], mode: str, node: str
) -> None:
    way = A_TO_B if node == "node-a" else B_TO_A
    facts = change(facts, Link, {"node": node, "device": device}, **fields)
    diagnosis = diagnose(lost(change(facts, RouteLookup, way, **DEFAULT)))
    assert named(diagnosis)[:1] == [(mode, node, "both")]
    assert len(diagnosis.causes) == 1


def test_a_peer_s_key_that_a_node_does_not_know_breaks_the_way_there() -> None:
    facts = change(wireguard(), WireguardPeer, {"node": "node-a"}, found=False, endpoint="", allowed=())
    assert named(diagnose(lost(facts))) == [("wireguard_key_mismatch", "node-a", "forward")]
    narrow = change(wireguard(), WireguardPeer, {"node": "node-a"}, allowed=("10.244.99.192/26",))
    assert named(diagnose(lost(narrow))) == [("wireguard_key_mismatch", "node-a", "forward")]


@pytest.mark.parametrize("settings", [BY_BIRD, BY_BOTH_KINDS], ids=["BIRD", "Felix"])
@pytest.mark.parametrize(("apart", "direction"), [("node-a", "forward"), ("node-b", "reverse")])
def test_nodes_that_disagree_on_their_subnet(settings: dict[str, str], apart: str, direction: str) -> None:
    """One sends by tunl0, the other without; what comes out of tunl0 is dropped by a strict filter only."""
    facts = ipip(settings, "CrossSubnet", apart)
    assert {leg_of(facts, way).encapsulation for way in ("forward", "reverse")} == {"ipip", "direct"}
    loose = diagnose(facts)
    assert (loose.verdict, loose.causes) == ("healthy", ())
    assert [(one.rule, one.node) for one in loose.warnings] == [("cross_subnet_asymmetric", apart)]
    leg = leg_of(facts, direction)
    arrival = {"node": leg.target_node, "destination": leg.target_address, "source": leg.source_address}
    refused = {"found": False, "error": "EXDEV", "type": "", "prefix": "", "device": "", "table": -1, "rp_filter": 1}
    strict = diagnose(lost(change(facts, RouteLookup, {**arrival, "incoming": "tunl0"}, **refused)))
    assert named(strict) == [("cross_subnet_asymmetric", apart, direction)]
    assert f"{leg.target_node} drops what comes in by tunl0" in strict.causes[0].text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"bpf": True}, "eBPF"),
        ({"system": "windows"}, "Windows node"),
        ({"foreign_dataplane": True}, "useInternalDataplaneDriver"),
    ],
)
def test_what_is_not_supported_is_said_in_one_sentence(fields: dict[str, Any], said: str) -> None:
    diagnosis = diagnose(change(healthy(), CalicoNode, {"name": "node-b"}, **fields))
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())
    told = [blind.reason for blind in diagnosis.blind if blind.look == "encapsulation"]
    assert len(told) == 2 and all(said in one and "judged" in one for one in told)


def test_the_device_may_have_another_name() -> None:
    facts = change(wireguard(), CalicoNode, {}, wireguard_device="wg.cluster")
    assert (leg_of(facts).tunnel_device, plan(facts)[0].tunnel_device) == ("wg.cluster", "wg.cluster")


def test_keys_that_may_not_be_read_cast_no_doubt_on_packets_that_come_back() -> None:
    """The kernel shows them to NET_ADMIN only."""
    facts = without(wireguard(), WireguardDevice, WireguardPeer)
    diagnosis = diagnose([*facts, Blind(node="node-a", look="wireguard", reason="NET_ADMIN", minor=True)])
    assert (diagnosis.verdict, [one.look for one in diagnosis.blind]) == ("healthy", ["wireguard"])
    diagnosis = diagnose(lost(facts))
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())


def test_a_route_that_may_be_right_is_told_where_packets_are_lost() -> None:
    """BIRD runs and its sessions are up: nobody can be accused, and a person wants to know where packets went."""
    well = hand_written.without_routes(plain(), "node-a")
    assert "no route of its own" not in diagnose(well).summary
    diagnosis = diagnose(lost(well))
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())
    assert "node-a has no route of its own for 10.244.218.64/26" in diagnosis.summary
    assert "0.0.0.0/0 via 172.30.0.1 dev eth0" in diagnosis.summary
    silent = Neighbor(node="node-a", device="eth0", address="172.30.0.1", found=True, state="INCOMPLETE")
    assert "Nobody answers for 172.30.0.1" in diagnose([*lost(well), silent]).summary


@pytest.mark.parametrize("mode", hand_written.MODES)
def test_a_case_no_lab_can_record_is_what_its_generator_writes(mode: str) -> None:
    """Edited by hand it would drift from the healthy flow it wounds."""
    written = json.loads((CASES / f"{mode}.json").read_text())
    for kept, made in zip(written["recordings"], hand_written.case(mode)["recordings"], strict=True):
        facts = [[from_builtins(fact) for fact in one.pop("facts")] for one in (kept, made)]
        assert kept == made and facts[0] == facts[1], f"write it anew: python -m tests.hand_written ({mode})"
