"""Firewalls judged from facts: what a recorded rule dropped is named, its echoes are not, and nobody else is blamed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.diagnosis import diagnose
from facts import (
    CalicoFirewall,
    CalicoNode,
    CalicoSettings,
    ConnectionTable,
    Diagnosis,
    Fact,
    Neighbor,
    ProbeResult,
    RuleDrop,
    ServicePort,
    Trace,
)
from node_probe.firewall.drops import drops
from tests.other_ways import ipip, wireguard
from tests.recorded_firewall import events, ruleset
from tests.scene import CART, DB, change, healthy, without
from tests.test_services import scene, service, tried

BACKENDS = ("iptables-legacy", "iptables-nft", "nftables")
RECORDED = Trace(source="10.244.174.129", target="10.244.99.193", protocol="icmp")
LOST: dict[str, Any] = {"answered": 0, "outcome": "silence", "rtt_us": -1}
PORT = 5432
FULL = {"limit": 1000, "refused": 17}


def lost(*more: Fact) -> list[Fact]:
    """Nothing from cart comes back."""
    return [*change(healthy(), ProbeResult, {"pod": CART[0]}, **LOST), *more]


def dropped(directory: str, **fields: Any) -> RuleDrop:
    """The recorded drop, of a packet from cart to db on db's node."""
    found = drops("node-b", RECORDED, events(directory), ruleset(directory))
    (drop,) = [one for one in found if isinstance(one, RuleDrop)]
    about = {"source_address": CART[2], "target_address": DB[2], "protocol": "tcp", "port": PORT}
    return msgspec.structs.replace(drop, **{**about, **fields})


def by_rule(**fields: Any) -> RuleDrop:
    about: dict[str, Any] = {
        "node": "node-b", "source_address": CART[2], "target_address": DB[2], "protocol": "tcp", "port": PORT,
        "how": "trace", "backend": "iptables-nft", "family": 4, "table": "filter", "chain": "FORWARD", "number": 1,
        "text": "-A FORWARD -s 10.0.0.0/8 -j DROP", "hook": "forward",
    }  # fmt: skip
    return RuleDrop(**{**about, **fields})


def rules(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    return [(cause.rule, cause.node) for cause in diagnosis.causes]


def warned(diagnosis: Diagnosis) -> list[str]:
    return [cause.rule for cause in diagnosis.warnings]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_recorded_foreign_tables_drop_is_the_host_firewalls(backend: str) -> None:
    diagnosis = diagnose(lost(dropped(f"trace/{backend}/8-foreign-nft-table-drop")))
    assert rules(diagnosis) == [("host_firewall_drops_forward", "node-b")]
    assert "chain guard (table corp_fw, nft)" in diagnosis.causes[0].text
    assert diagnosis.causes[0].stage == "target node"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_recorded_drop_of_a_host_that_is_not_allowed_is_felix_not_knowing_the_node(backend: str) -> None:
    drop = dropped(f"trace/{backend}/7-input-non-allowed-vxlan-host", outer=True)
    diagnosis = diagnose(lost(drop))
    assert rules(diagnosis) == [("vxlan_source_not_allowed", "node-b")]
    assert "non-allowed hosts" in diagnosis.causes[0].text
    # A node without a tunnel address is in nobody's set: that is the root, and this its echo.
    nameless = change(lost(drop), CalicoNode, {"name": "node-a"}, tunnel_address="")
    assert rules(diagnose(nameless)) == [("tunnel_address_missing", "node-a")]


@pytest.mark.parametrize(
    ("text", "hook", "sends"),
    [
        ("-A OUTPUT -p udp --dport 4789 -j DROP", "output", True),
        ("-A INPUT -p udp --dport 4789 -j DROP", "input", False),
        (
            "-A OUT_FILTER -p udp --dport 4789 -j DROP",
            "forward",
            True,
        ),  # a packet the source's node sends, all the same
    ],
)
def test_the_tunnels_packets_are_told_as_sent_or_taken_and_the_network_is_not_blamed(
    text: str, hook: str, sends: bool
) -> None:
    node = "node-a" if sends else "node-b"
    diagnosis = diagnose(lost(by_rule(node=node, outer=True, hook=hook, chain=hook.upper(), text=text)))
    assert rules(diagnosis) == [("host_firewall_drops_vxlan", node)]
    assert ("that it sends to node-b" if sends else "that come from node-a") in diagnosis.causes[0].text


@pytest.mark.parametrize(("facts", "name"), [(ipip(), "IPIP"), (wireguard(), "WireGuard")])
def test_the_packets_of_other_tunnels_are_what_the_node_itself_takes(facts: list[Fact], name: str) -> None:
    drop = by_rule(outer=True, hook="input", chain="INPUT", text="-A INPUT -s 172.30.0.11/32 -j DROP")
    diagnosis = diagnose([*change(facts, ProbeResult, {"pod": CART[0]}, **LOST), drop])
    assert rules(diagnosis) == [("host_firewall_drops_local", "node-b")]
    assert f"drops the {name} packets that come from node-a" in diagnosis.causes[0].text


def test_a_rule_that_could_not_be_listed_is_told_by_its_chain() -> None:
    diagnosis = diagnose(lost(by_rule(number=-1, text="", table="corp_fw", chain="guard", backend="nft")))
    assert rules(diagnosis) == [("host_firewall_drops_forward", "node-b")]
    assert "guard" in diagnosis.causes[0].text


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"text": "-A FORWARD -m conntrack --ctstate INVALID -j DROP"}, "conntrack_invalid_drops"),
        ({"chain": "KUBE-FORWARD", "text": "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"},
         "conntrack_invalid_drops"),
        ({"text": "-A FORWARD -m conntrack --ctstate NEW -j DROP"}, "host_firewall_drops_forward"),
    ],
)  # fmt: skip
def test_what_belongs_to_no_connection_is_not_put_on_whoever_wrote_the_rule(fields: dict[str, Any], rule: str) -> None:
    assert rules(diagnose(lost(by_rule(**fields)))) == [(rule, "node-b")]


@pytest.mark.parametrize(
    ("count", "facts", "named", "warnings"),
    [
        (1000, lost(), [("conntrack_table_full", "node-b")], []),
        (990, lost(), [("conntrack_table_full", "node-b")], []),
        (900, lost(), [], []),
        (1000, healthy(), [], ["conntrack_table_full"]),
    ],
)
def test_a_full_table_is_the_cause_only_where_packets_are_lost(
    count: int, facts: list[Fact], named: list[tuple[str, str]], warnings: list[str]
) -> None:
    diagnosis = diagnose([*facts, ConnectionTable(node="node-b", count=count, **FULL)])
    assert (rules(diagnosis), warned(diagnosis)) == (named, warnings)
    if named:
        assert "has dropped 17 packets" in diagnosis.causes[0].text


def test_a_full_table_is_a_warning_beside_what_explains_the_loss() -> None:
    facts = change(lost(), Neighbor, {"node": "node-a", "device": "vxlan.calico"}, mac="66:00:00:00:00:99")
    diagnosis = diagnose([*facts, ConnectionTable(node="node-b", count=1000, **FULL)])
    assert (rules(diagnosis), warned(diagnosis)) == ([("neighbor_wrong_mac", "node-a")], ["conntrack_table_full"])


def test_no_limit_is_never_reached() -> None:
    diagnosis = diagnose([*lost(), ConnectionTable(node="node-b", count=10**6, limit=0, refused=0)])
    assert (rules(diagnosis), warned(diagnosis)) == ([], [])


def wall(**fields: Any) -> CalicoFirewall:
    return CalicoFirewall(**{"node": "node-b", "backends": ("nftables",), "entered": ("nftables",), **fields})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"entered": ()}, "does not lead to cali-FORWARD"),
        ({"backends": (), "entered": ()}, "everything from and to its pods passes"),
    ],
)
def test_a_policy_that_is_off_is_a_warning_and_never_why_packets_are_lost(fields: dict[str, Any], says: str) -> None:
    well, bad = diagnose([*healthy(), wall(**fields)]), diagnose(lost(wall(**fields)))
    assert (well.verdict, rules(well), warned(well)) == ("healthy", [], ["policy_not_enforced"])
    assert says in well.warnings[0].text
    assert (bad.verdict, rules(bad)) == ("unknown", [])


@pytest.mark.parametrize("fields", [{"bpf": True}, {"foreign_dataplane": True}, {"settings_read": False}])
def test_a_node_whose_policies_are_not_the_kernels_is_not_said_to_have_none(fields: dict[str, Any]) -> None:
    facts = change([*healthy(), wall(backends=(), entered=())], CalicoNode, {"name": "node-b"}, **fields)
    assert "policy_not_enforced" not in warned(diagnose(facts))


EMPTY_MAPS = {"from_pods": 0, "to_pods": 0, "vxlan_peers": 0}


def test_empty_maps_are_told_where_packets_are_lost_and_what_they_drop_is_their_echo() -> None:
    unknown = by_rule(
        backend="nft", table="calico", chain="filter-cali-to-wl-dispatch", number=3,
        text='counter drop comment "cali:Zz; Unknown interface"', comment="Unknown interface",
    )  # fmt: skip
    assert rules(diagnose(lost(wall(**EMPTY_MAPS)))) == [("firewall_sets_empty", "node-b")]
    assert rules(diagnose(lost(wall(**EMPTY_MAPS), unknown))) == [("firewall_sets_empty", "node-b")]
    assert rules(diagnose(lost(wall(from_pods=9, to_pods=9), unknown))) == [("endpoint_unknown_to_felix", "node-b")]
    nobody = dropped("trace/nftables/7-input-non-allowed-vxlan-host", outer=True)
    assert rules(diagnose(lost(wall(from_pods=9, to_pods=9, vxlan_peers=0), nobody))) == [
        ("firewall_sets_empty", "node-b")
    ]
    both = {("endpoint_unknown_to_felix", "node-b"), ("firewall_sets_empty", "node-b")}
    assert set(rules(diagnose(lost(wall(from_pods=9, to_pods=9, vxlan_peers=0), unknown)))) == both
    no_peer = change(
        lost(wall(from_pods=9, to_pods=9, vxlan_peers=0)), CalicoNode, {"name": "node-a"}, tunnel_address=""
    )
    assert rules(diagnose(no_peer)) == [("tunnel_address_missing", "node-a")]
    well = diagnose([*healthy(), wall(**EMPTY_MAPS)])
    assert (well.verdict, warned(well)) == ("healthy", [])


def left_behind(**fields: Any) -> RuleDrop:
    """Of Calico's chains for iptables."""
    about = {
        "chain": "cali-to-wl-dispatch",
        "text": '-A cali-to-wl-dispatch -m comment --comment "cali:Zz; Unknown interface" -j DROP',
        "comment": "Unknown interface",
    }
    return by_rule(**{**about, **fields})


BOTH = ("nftables", "iptables-nft")


@pytest.mark.parametrize("dataplane", ["", "nftables", "iptables"])
def test_calicos_rules_of_two_filters_are_told_where_the_ones_that_drop_are_not_felixs_own(dataplane: str) -> None:
    facts = change(lost(wall(backends=BOTH, entered=BOTH), left_behind()), CalicoSettings, {}, dataplane=dataplane)
    told = diagnose(facts)
    assert rules(told) == [("firewall_backends_mixed", "node-b")]
    # Which of the two Felix keeps is told only where its settings say it.
    assert ("is not what policies and nodes are now" in told.causes[0].text) == (dataplane == "nftables")
    assert ("are left behind; if it is" in told.causes[0].text) == (dataplane != "nftables")
    own = left_behind(
        backend="nft", table="calico", chain="filter-cali-to-wl-dispatch",
        text='counter drop comment "cali:Zz; Unknown interface"',
    )  # fmt: skip
    facts = change(lost(wall(backends=BOTH, entered=BOTH), own), CalicoSettings, {}, dataplane="nftables")
    assert rules(diagnose(facts)) == [("endpoint_unknown_to_felix", "node-b")]


def test_of_one_filter_alone_nothing_is_left_behind() -> None:
    alone = wall(backends=("iptables-nft",), entered=("iptables-nft",))
    assert rules(diagnose(lost(alone, left_behind()))) == [("endpoint_unknown_to_felix", "node-b")]


def refused(*more: Fact, **fields: Any) -> list[Fact]:
    """kube-proxy's own reject of what cart sends to the Service."""
    drop = by_rule(
        node=CART[1], target_address="10.96.0.9", port=80, chain="KUBE-SERVICES", verdict="reject",
        text='-A KUBE-SERVICES -d 10.96.0.9/32 -m comment --comment "shop/db-service has no endpoints" -j REJECT',
        comment="shop/db-service has no endpoints",
    )  # fmt: skip
    return scene(service(**fields), tried(0, "refused"), drop, *more)


def test_a_kube_proxy_that_is_behind_is_told_and_one_that_is_right_is_not() -> None:
    """That the Service has no endpoint is said once, of the Service."""
    assert rules(diagnose(refused())) == [("kube_proxy_refuses", CART[1])]
    assert "because no endpoint is known there" in diagnose(refused()).causes[0].text
    right = without(refused(ready=0, nodes=()), ServicePort)
    right += [service(ready=0, nodes=())]
    assert rules(diagnose(right)) == [("service_without_endpoints", "")]


def test_a_kube_proxy_is_not_behind_an_api_that_nobody_could_read() -> None:
    unread = diagnose(refused(counted=False, ready=0, nodes=()))
    assert (unread.verdict, rules(unread)) == ("unknown", [])


def test_whom_a_service_does_not_serve_is_told() -> None:
    drop = by_rule(
        node=CART[1], target_address="10.96.0.9", port=80, chain="KUBE-FW-ABC", verdict="drop",
        text="-A KUBE-FW-ABC -j DROP", comment="shop/db-service loadbalancer IP",
    )  # fmt: skip
    diagnosis = diagnose(scene(service(), tried(0, "silence"), drop))
    assert rules(diagnosis) == [("kube_proxy_refuses", CART[1])]
    assert "loadBalancerSourceRanges do not name it" in diagnosis.causes[0].text
