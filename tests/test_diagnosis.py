"""The verdict a person reads: right cause first, echoes silent, and never "healthy" about what was not seen."""

from __future__ import annotations

import random

import pytest

from engine.diagnosis import diagnose
from facts import (
    Allocation,
    Blind,
    CalicoNode,
    Diagnosis,
    Endpoint,
    Fact,
    FdbEntry,
    FelixHealth,
    Link,
    LinkAddresses,
    Listener,
    Neighbor,
    PodInterface,
    PodRoute,
    ProbeResult,
    RouteLookup,
    Sysctl,
)
from tests.exhaustive import Cells
from tests.scene import CART, DB, DEVICE, GATEWAY, NODES, WEB, change, healthy, without

SILENT = {"answered": 0, "outcome": "silence", "rtt_us": -1}


def named(diagnosis: Diagnosis) -> list[tuple[str, str, str]]:
    return [(cause.rule, cause.node, cause.leg) for cause in diagnosis.causes]


@pytest.mark.parametrize("pair", [(CART, DB), (DB, CART), (CART, WEB), (CART, CART)])
@pytest.mark.parametrize("port", [0, 5432])
def test_a_healthy_flow_is_called_healthy(pair: tuple[tuple[str, str, str, str], ...], port: int) -> None:
    diagnosis = diagnose(healthy(*pair, port=port))
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings, diagnosis.blind) == ("healthy", (), (), ())
    assert all(hop.state == "ok" for path in diagnosis.path for hop in path.hops)
    assert len(diagnosis.path) == 2


def route_out(node: str, to: str) -> dict[str, str]:
    return {"node": node, "destination": to, "source": "", "incoming": ""}


A_TO_B = route_out("node-a", DB[2])
AT_B = route_out("node-b", DB[2])
BY_DEFAULT_ROUTE = {"prefix": "0.0.0.0/0", "device": "eth0", "next_hop": "172.30.0.1"}
BLACKHOLE = {"found": False, "error": "EINVAL", "type": "blackhole", "device": ""}
NO_ROUTE = {"found": False, "error": "ENETUNREACH", "device": ""}
FIXED_WRONG_MAC = {"pod_gateway_mac": "02:de:ad:00:00:01", "pod_gateway_state": "PERMANENT"}
FOREIGN_OWNER = {"handle": "vxlan-tunnel-addr-node-c", "owner": "node-c"}

# failure mode: (the fact to change, which of them, how, and what must be named: node and leg)
WOUNDS = {
    "vxlan_device_missing": (
        Link,
        {"node": "node-b", "device": DEVICE},
        {"found": False, "up": False},
        "node-b",
        "both",
    ),
    "vxlan_device_down": (Link, {"node": "node-a", "device": DEVICE}, {"up": False}, "node-a", "both"),
    "vxlan_device_mac_wrong": (
        Link,
        {"node": "node-b", "device": DEVICE},
        {"mac": "66:00:00:00:00:77"},
        "node-b",
        "both",
    ),
    "vxlan_device_address_wrong": (
        LinkAddresses,
        {"node": "node-b"},
        {"addresses": ("10.9.9.9/32",)},
        "node-b",
        "both",
    ),
    "tunnel_address_missing": (CalicoNode, {"name": "node-b"}, {"tunnel_address": ""}, "node-b", "both"),
    "tunnel_address_not_owned": (Allocation, {"address": "10.244.218.64"}, FOREIGN_OWNER, "node-b", "both"),
    "route_missing": (RouteLookup, A_TO_B, BY_DEFAULT_ROUTE, "node-a", "forward"),
    "route_wrong_next_hop": (RouteLookup, A_TO_B, {"next_hop": "10.244.99.192"}, "node-a", "forward"),
    "route_blackholed": (RouteLookup, A_TO_B, BLACKHOLE, "node-a", "forward"),
    "pod_route_missing": (RouteLookup, AT_B, BLACKHOLE | {"prefix": NODES["node-b"][3]}, "node-b", "forward"),
    "neighbor_missing": (Neighbor, {"node": "node-a"}, {"found": False, "mac": ""}, "node-a", "forward"),
    "neighbor_wrong_mac": (Neighbor, {"node": "node-b"}, {"mac": "66:00:00:00:00:99"}, "node-b", "reverse"),
    "fdb_entry_missing": (FdbEntry, {"node": "node-a"}, {"found": False, "peer": ""}, "node-a", "forward"),
    "fdb_entry_wrong_node": (FdbEntry, {"node": "node-b"}, {"peer": "172.30.0.13"}, "node-b", "reverse"),
    "pod_interface_down": (PodInterface, {"pod": DB[0]}, {"up": False}, "node-b", "both"),
    "ip_forwarding_off": (Sysctl, {"node": "node-a", "switch": "forwarding"}, {"value": "0"}, "node-a", "both"),
    "pod_interface_missing": (PodInterface, {"pod": DB[0]}, {"found": False, "up": False}, "node-b", "both"),
    "pod_eth0_down": (PodInterface, {"pod": CART[0]}, {"pod_up": False, "lower_up": False}, "node-a", "both"),
    "pod_gateway_mac_wrong": (PodInterface, {"pod": CART[0]}, FIXED_WRONG_MAC, "node-a", "both"),
    "proxy_arp_off": (Sysctl, {"node": "node-b", "switch": "proxy_arp"}, {"value": "0"}, "node-b", "both"),
    "node_without_default_route": (
        RouteLookup,
        {"node": "node-a", "destination": GATEWAY},
        NO_ROUTE,
        "node-a",
        "both",
    ),
    "pod_not_running": (Endpoint, {"name": DB[0]}, {"phase": "Failed", "reason": "Evicted"}, "node-b", ""),
}


@pytest.mark.parametrize("mode", WOUNDS)
def test_one_wound_is_named_in_any_order_of_facts(mode: str) -> None:
    kind, where, fields, node, leg = WOUNDS[mode]
    wounded = change(healthy(), kind, where, **fields)
    for seed in range(3):
        random.Random(seed).shuffle(wounded)
        diagnosis = diagnose(wounded)
        assert named(diagnosis) == [(mode, node, leg)]
    assert diagnosis.causes[0].text and diagnosis.causes[0].evidence
    ids = {fact.id for fact in diagnosis.facts}
    assert set(diagnosis.causes[0].evidence) <= ids


def test_a_refused_port_without_listener_is_the_application() -> None:
    facts = change(healthy(), ProbeResult, {"protocol": "tcp"}, answered=0, outcome="refused")
    unclear = diagnose(facts)
    assert unclear.verdict == "unknown"  # something listens and refuses all the same: not ours to blame
    assert "Something in shop/db listens on 5432/tcp, so that not it refuses." in unclear.summary
    silent = diagnose(change(facts, ProbeResult, {"protocol": "tcp"}, outcome="silence"))
    assert "so that not it refuses" not in silent.summary
    facts = change(facts, Listener, {}, found=False, addresses=())
    assert named(diagnose(facts)) == [("target_not_listening", "node-b", "forward")]


def test_a_pod_whose_first_container_dies_sends_all_the_same() -> None:
    """It may die of what is asked about: that its target does not answer."""
    waiting = {"phase": "Pending", "ready": False, "reason": "container wait-for-db: CrashLoopBackOff"}
    asking = diagnose(change(healthy(), Endpoint, {"name": CART[0]}, **waiting))
    assert (asking.verdict, [one.rule for one in asking.warnings]) == ("healthy", ["pod_not_running"])
    asked = diagnose(change(healthy(), Endpoint, {"name": DB[0]}, **waiting))
    assert (asked.verdict, [one.rule for one in asked.causes]) == ("cause", ["pod_not_running"])


def test_what_a_machine_of_its_own_listens_on_is_no_socket_of_the_namespace() -> None:
    facts = change(healthy(), ProbeResult, {"protocol": "tcp"}, answered=0, outcome="silence")
    facts = change(facts, Listener, {}, found=False, addresses=())
    assert [one.rule for one in diagnose(facts).warnings] == ["target_not_listening"]
    assert diagnose(change(facts, Endpoint, {"name": DB[0]}, own_kernel=True)).warnings == ()
    bound = change(facts, Listener, {}, found=True, addresses=("127.0.0.1",))
    assert [one.rule for one in diagnose(bound).warnings] == ["target_listens_on_loopback"]
    assert diagnose(change(bound, Endpoint, {"name": DB[0]}, own_kernel=True)).warnings == ()


def test_echoes_of_a_device_that_is_down_stay_silent() -> None:
    """The kernel flushes routes and neighbors of a device that goes down; the person needs to hear of the device."""
    facts = change(healthy(), Link, {"node": "node-a", "device": DEVICE}, up=False)
    facts = change(facts, RouteLookup, A_TO_B, **BY_DEFAULT_ROUTE)
    facts = change(facts, Neighbor, {"node": "node-a"}, found=False, mac="", state="")
    assert named(diagnose(facts)) == [("vxlan_device_down", "node-a", "both")]


def test_a_peer_without_tunnel_address_explains_the_missing_route() -> None:
    facts = change(healthy(), CalicoNode, {"name": "node-b"}, tunnel_address="")
    facts = change(facts, RouteLookup, A_TO_B, **BY_DEFAULT_ROUTE)
    assert named(diagnose(facts)) == [("tunnel_address_missing", "node-b", "both")]


def test_a_borrower_without_tunnel_address_explains_the_lender_s_own_blackhole() -> None:
    """Seen on a running Calico: the block's owner has no /32 to the borrowed address, so its blackhole answers."""
    facts = change(healthy(), CalicoNode, {"name": "node-b"}, tunnel_address="")
    assert named(diagnose(change(facts, RouteLookup, A_TO_B, **BLACKHOLE))) == [
        ("tunnel_address_missing", "node-b", "both")
    ]


def test_two_faults_on_two_nodes_are_both_named() -> None:
    facts = change(healthy(), Link, {"node": "node-a", "device": DEVICE}, up=False)
    facts = change(facts, Neighbor, {"node": "node-b"}, mac="66:00:00:00:00:99")
    assert named(diagnose(facts)) == [
        ("vxlan_device_down", "node-a", "both"),
        ("neighbor_wrong_mac", "node-b", "reverse"),
    ]


def test_the_path_names_the_last_good_and_the_first_bad_hop() -> None:
    diagnosis = diagnose(change(healthy(), Neighbor, {"node": "node-a"}, mac="66:00:00:00:00:99"))
    forward, reverse = diagnosis.path
    assert (forward.last_good, forward.first_bad) == ("source node", "source tunnel")
    assert (reverse.last_good, reverse.first_bad) == ("", "")
    diagnosis = diagnose(change(healthy(), PodInterface, {"pod": DB[0]}, up=False))
    assert [path.first_bad for path in diagnosis.path] == ["target veth", "source veth"]


def test_felix_says_what_it_will_do() -> None:
    wounded = change(healthy(), Neighbor, {"node": "node-a"}, mac="66:00:00:00:00:99")
    assert "is alive: it repairs this within 95 s" in diagnose(wounded).causes[0].felix
    dead = change(wounded, FelixHealth, {"node": "node-a"}, reachable=False, live=False, ready=False)
    assert "does not answer" in diagnose(dead).causes[0].felix
    assert "could not be seen" in diagnose(without(wounded, FelixHealth)).causes[0].felix


HIDDEN = Cells(every=6)  # facts of a scene


@pytest.mark.parametrize("mode", [None, *WOUNDS])
def test_less_sight_never_accuses_another_and_never_heals(mode: str | None) -> None:
    """Single facts taken away in turn: the verdict may weaken to unknown, nothing else."""
    facts: list[Fact] = healthy()
    if mode is not None:
        kind, where, fields, _, _ = WOUNDS[mode]
        facts = change(facts, kind, where, **fields)
    for hidden in HIDDEN.of(mode or "healthy", facts, lambda fact: (mode is None, type(fact))):
        diagnosis = diagnose([fact for fact in facts if fact is not hidden])
        assert {cause.rule for cause in diagnosis.causes} <= {mode}, f"without {hidden}"
        if diagnosis.verdict == "healthy":
            assert mode is None or not isinstance(hidden, WOUNDS[mode][0]), f"without {hidden}"
            assert isinstance(hidden, FelixHealth) or _informs_only(hidden), f"without {hidden}"


def _informs_only(fact: Fact) -> bool:
    """Facts a healthy verdict does not rest on: answers prove the way back, the asked port proves small packets. What
    comes in by the uplink is tunnelled here; the scene has the lookup for legs without a tunnel."""
    if isinstance(fact, RouteLookup):
        return fact.incoming == "eth0"
    return isinstance(fact, ProbeResult) and (fact.pod == DB[0] or (fact.protocol == "icmp" and not fact.size))


def test_a_whole_node_unseen_is_unknown() -> None:
    kinds = (Link, LinkAddresses, RouteLookup, Neighbor, FdbEntry, PodInterface, Sysctl, Listener, FelixHealth)
    facts = [*without(healthy(), *kinds, node="node-b"), Blind(node="node-b", look="probe", reason="no answer in 3 s")]
    diagnosis = diagnose(facts)
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())
    assert [blind.look for blind in diagnosis.blind] == ["probe"]


def test_of_a_node_that_nobody_reaches_it_is_said_to_look_there_first() -> None:
    """Switched off, or its cable pulled: neither its probe nor the node itself answers, and no rule can tell why."""
    kinds = (Link, LinkAddresses, RouteLookup, Neighbor, FdbEntry, PodInterface, Sysctl, Listener, FelixHealth)
    silent = Blind(node="node-b", look="probe", reason="could not be connected to in 4 s")
    facts = [*without(healthy(), *kinds, node="node-b"), silent]
    facts = [one for one in facts if not (isinstance(one, ProbeResult) and one.node == "node-b")]
    facts = change(facts, ProbeResult, {"pod": CART[0]}, **SILENT)
    said = "node-a gets no answer from node-b itself either (172.30.0.12, icmp 0 of 2 answered (silence))"
    dead = diagnose(change(facts, ProbeResult, {"pod": "", "target_address": "172.30.0.12"}, **SILENT))
    assert (dead.verdict, dead.causes) == ("unknown", ()) and said in dead.summary
    assert "itself either" not in diagnose(facts).summary


def test_silence_without_a_cause_is_unknown_with_what_was_met() -> None:
    diagnosis = diagnose(change(healthy(), ProbeResult, {"protocol": "tcp"}, **SILENT))
    assert diagnosis.verdict == "unknown"
    assert "does not reach" in diagnosis.summary and "silence" in diagnosis.summary


def test_large_packets_lost_for_no_reason_found_are_unknown() -> None:
    """Half of them only, or all of them towards a target that is narrower and was not proven to take its own size."""
    half = change(healthy(), ProbeResult, {"size": 1450, "pod": CART[0]}, answered=1, outcome="silence")
    narrow = change(healthy(), PodInterface, {"pod": DB[0]}, mtu=1300, pod_mtu=1300)
    narrow = change(narrow, ProbeResult, {"size": 1450, "pod": DB[0]}, size=1300, **SILENT)
    for facts in (half, change(narrow, ProbeResult, {"size": 1450}, **SILENT)):
        diagnosis = diagnose(facts)
        assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())
        assert "full-size ones do not" in diagnosis.summary


def test_a_pod_made_before_a_larger_mtu_is_healthy() -> None:
    """Its MTU is smaller by right: packets of its own full size pass both ways, larger ones are not for it."""
    facts = change(healthy(), PodInterface, {"pod": DB[0]}, mtu=1300, pod_mtu=1300)
    facts = change(facts, ProbeResult, {"size": 1450, "pod": DB[0]}, size=1300)
    too_big = {"answered": 0, "outcome": "too_big", "answered_by": "172.30.0.12", "rtt_us": -1}
    facts = change(facts, ProbeResult, {"size": 1450, "pod": CART[0]}, **too_big)
    diagnosis = diagnose(facts)
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ())
    assert "shop/db takes at most 1300 bytes" in diagnosis.summary
    narrower = change(facts, ProbeResult, {"size": 1300}, **SILENT)
    assert diagnose(narrower).verdict == "unknown"


def test_large_packets_lost_between_right_devices_are_the_network_between() -> None:
    facts = change(healthy(), ProbeResult, {"size": 1450}, **SILENT)
    diagnosis = diagnose(facts)
    assert named(diagnosis) == [("path_mtu_too_small", "node-a", "both")]
    assert diagnosis.causes[0].severity == "degrades"


@pytest.mark.parametrize("uplink", [1500, 9000])
@pytest.mark.parametrize("tunnel", [1400, 1450])
def test_an_mtu_smaller_than_could_be_is_never_accused(tunnel: int, uplink: int) -> None:
    facts = change(healthy(), Link, {"device": "eth0"}, mtu=uplink)
    facts = change(facts, Link, {"device": DEVICE}, mtu=tunnel)
    facts = change(facts, PodInterface, {}, mtu=1300, pod_mtu=1300)
    facts = change(facts, ProbeResult, {"size": 1450}, size=1300)
    diagnosis = diagnose(facts)
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ())


@pytest.mark.parametrize("node", ["node-a", "node-b"])
def test_a_tunnel_larger_than_its_uplink_bears_explains_the_large_packets(node: str) -> None:
    facts = change(healthy(), Link, {"node": node, "device": "eth0"}, mtu=1400)
    assert [(warning.rule, warning.node) for warning in diagnose(facts).warnings] == [("tunnel_mtu_too_large", node)]
    lost = change(facts, ProbeResult, {"size": 1450}, **SILENT)
    assert named(diagnose(lost)) == [("tunnel_mtu_too_large", node, "both")]


def test_a_pod_larger_than_its_tunnel_only_warns_until_packets_are_lost() -> None:
    facts = change(healthy(), PodInterface, {"pod": CART[0]}, mtu=1500, pod_mtu=1500)
    facts = change(facts, ProbeResult, {"size": 1450, "pod": CART[0]}, size=1500)
    assert [warning.rule for warning in diagnose(facts).warnings] == ["pod_mtu_too_large"]
    lost = change(facts, ProbeResult, {"size": 1500}, answered=0, outcome="too_big", rtt_us=-1)
    assert named(diagnose(lost)) == [("pod_mtu_too_large", "node-a", "forward")]


@pytest.mark.parametrize(
    "switched_off",
    [(Sysctl, {"node": "node-b", "device": DB[3], "switch": "proxy_arp"}, {"value": "0"}),
     (RouteLookup, {"node": "node-b", "destination": GATEWAY}, {"found": False, "error": "ENETUNREACH"})],
)  # fmt: skip
def test_a_gateway_nobody_answers_for_only_warns_while_the_pod_remembers_it(
    switched_off: tuple[type[Fact], dict[str, object], dict[str, object]],
) -> None:
    """The symptom comes up to 38 s after the cause."""
    kind, where, fields = switched_off
    facts = change(healthy(), kind, where, **fields)
    assert [cause.severity for cause in diagnose(facts).causes] == ["breaks"]
    remembered = {"pod_gateway_mac": "ee:ee:ee:ee:ee:ee", "pod_gateway_state": "STALE"}
    facts = change(facts, PodInterface, {"pod": DB[0]}, **remembered)
    diagnosis = diagnose(facts)
    assert (diagnosis.verdict, len(diagnosis.warnings)) == ("healthy", 1)


def test_proxy_arp_of_all_interfaces_counts_for_each() -> None:
    facts = change(healthy(), Sysctl, {"node": "node-b", "switch": "proxy_arp"}, value="0")
    facts = change(facts, Sysctl, {"node": "node-b", "device": "all", "switch": "proxy_arp"}, value="1")
    assert diagnose(facts).verdict == "healthy"


@pytest.mark.parametrize("state", ["REACHABLE", "STALE", "DELAY"])
def test_a_wrong_gateway_mac_that_is_asked_for_anew_is_no_cause(state: str) -> None:
    wrong = {"pod_gateway_mac": "02:de:ad:00:00:01", "pod_gateway_state": state}
    assert diagnose(change(healthy(), PodInterface, {"pod": DB[0]}, **wrong)).causes == ()


def test_each_device_forwards_for_itself() -> None:
    """The node's switch sets all of them once; what counts is the one of the device a packet comes in by."""
    off = change(healthy(), Sysctl, {"node": "node-a", "name": "net.ipv4.ip_forward"}, value="0")
    assert [(one.rule, one.severity) for one in diagnose(off).warnings] == [("ip_forwarding_off", "warns")]
    for device in (CART[3], DEVICE):
        one_off = change(healthy(), Sysctl, {"node": "node-a", "device": device, "switch": "forwarding"}, value="0")
        [cause] = diagnose(one_off).causes
        assert (cause.rule, cause.node, device in cause.text) == ("ip_forwarding_off", "node-a", True)
        both = change(one_off, Sysctl, {"node": "node-a", "name": "net.ipv4.ip_forward"}, value="0")
        assert "net.ipv4.ip_forward is 0 on node-a" in diagnose(both).causes[0].text


def test_a_listener_on_the_loopback_is_told_apart_from_none() -> None:
    facts = change(healthy(), ProbeResult, {"protocol": "tcp"}, answered=0, outcome="refused")
    for addresses in (("127.0.0.1",), ("127.0.0.1", "::1")):
        assert named(diagnose(change(facts, Listener, {}, addresses=addresses))) == [
            ("target_listens_on_loopback", "node-b", "forward")
        ]
    assert diagnose(change(facts, Listener, {}, addresses=("127.0.0.1", "10.244.218.68"))).causes == ()
    answered_by_a_sidecar = change(healthy(), Listener, {}, addresses=("127.0.0.1",))
    assert diagnose(answered_by_a_sidecar).verdict == "healthy"


def test_an_interface_by_another_name_is_not_called_missing() -> None:
    facts = change(healthy(), PodInterface, {"pod": DB[0]}, found=False, up=False, entered=False)
    facts = change(facts, RouteLookup, AT_B, device="eni0d0bbbbbbbb")
    assert "pod_interface_missing" not in [cause.rule for cause in diagnose(facts).causes]


def test_a_gateway_the_node_finds_by_a_rule_for_its_pods_is_well() -> None:
    own_look_fails = change(healthy(), RouteLookup, route_out("node-a", GATEWAY), **NO_ROUTE)
    assert diagnose(own_look_fails).verdict == "healthy"


def test_too_big_for_a_node_itself_is_not_the_network_between() -> None:
    said = {"answered": 0, "outcome": "too_big", "answered_by": "172.30.0.11", "rtt_us": -1}
    diagnosis = diagnose(change(healthy(), ProbeResult, {"size": 1450}, **said))
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())


def test_nothing_sent_is_not_everything_answered() -> None:
    facts = change(healthy(), PodRoute, {"pod": CART[0]}, **NO_ROUTE)
    facts = change(facts, ProbeResult, {"pod": CART[0]}, sent=0, answered=0, outcome="unreachable", rtt_us=-1)
    assert "pass" not in diagnose(facts).summary


def test_an_encapsulation_not_judged_is_said() -> None:
    diagnosis = diagnose(change(healthy(), CalicoNode, {"name": "node-b"}, bpf=True))
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())
    assert any(blind.look == "encapsulation" and "eBPF" in blind.reason for blind in diagnosis.blind)


def test_a_cause_while_packets_pass_is_told_as_a_detour() -> None:
    diagnosis = diagnose(change(healthy(), RouteLookup, A_TO_B, next_hop="10.244.99.192"))
    assert "pass all the same" in diagnosis.summary
    assert DEVICE in " ".join(hop.name for hop in diagnosis.path[0].hops)


def test_a_family_whose_way_is_not_known_is_never_well() -> None:
    """Both pods have IPv6 addresses, and nothing else is known of them."""
    facts = change(healthy(), Endpoint, {"name": CART[0]}, address6="fd00:10:244::1")
    diagnosis = diagnose(change(facts, Endpoint, {"name": DB[0]}, address6="fd00:10:244::41"))
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())
    assert [blind.look for blind in diagnosis.blind] == ["path"]
    assert "over IPv6" in diagnosis.blind[0].reason
