"""The network between two nodes is accused when they can prove it, and of nothing that one of them did itself."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from engine.diagnosis import diagnose
from facts import (
    CalicoNode,
    Diagnosis,
    Fact,
    FdbEntry,
    ForeignVxlan,
    ForeignVxlans,
    Link,
    MacSharers,
    Neighbor,
    NeighborTable,
    NodeAddress,
    PodInterface,
    ProbeResult,
    Sighting,
)
from lab.client import Lab
from tests.asking import ask
from tests.scene import CART, DB, DEVICE, NODES, change, healthy
from tests.xdp import dropping

SILENT = {"answered": 0, "outcome": "silence", "rtt_us": -1}
A, B = NODES["node-a"][0], NODES["node-b"][0]
LEFT_A, AT_B = {"node": "node-a", "way": "out"}, {"node": "node-b", "way": "in"}
AT_A = {"node": "node-a", "way": "in"}
NOTHING = {"seen": 0, "device": "", "outer_target": ""}
DEAF = {**NOTHING, "heard": False, "enclosed": False}
INTERNAL = "192.168.7.12"
Changes = list[tuple[type[Fact], dict[str, Any], dict[str, Any]]]


def after(changes: Changes, *, lost: bool = True) -> Diagnosis:
    """The verdict on the healthy scene so changed; `lost`: no packet from pod to pod came back."""
    facts = healthy()
    for pod in (CART[0], DB[0]) if lost else ():
        facts = change(facts, ProbeResult, {"pod": pod}, **SILENT)
    for kind, where, fields in changes:
        facts = change(facts, kind, where, **fields)
    return diagnose(facts)


def named(diagnosis: Diagnosis) -> list[tuple[str, str, str]]:
    return [(cause.rule, cause.node, cause.leg) for cause in diagnosis.causes]


WELL_OR_SOMEBODY_ELSES: dict[str, Changes] = {
    "seen at the other node's card: it is that node's own doing": [(Sighting, AT_B, {"seen": 2})],
    "never left the node: it is the node's own doing": [
        (Sighting, LEFT_A, NOTHING),
        (Sighting, AT_B, NOTHING),
    ],
    "the other node did not look on all the time": [(Sighting, AT_B, {**NOTHING, "enclosed": False})],
    "nobody may look": [(Sighting, {}, {"seen": -1, "heard": False, "enclosed": False})],
    "sent to another node": [(Sighting, LEFT_A, {"outer_target": "172.30.0.13"}), (Sighting, AT_B, NOTHING)],
    "a node's own kernel does not let its ping out": [
        (Sighting, AT_B, DEAF),
        (Sighting, LEFT_A, NOTHING),
        (ProbeResult, {"node": "node-a", "pod": ""}, {"sent": 0, **SILENT}),
    ],
    "ping between nodes is forbidden, and nothing else": [(ProbeResult, {"pod": ""}, SILENT)],
    "the other node was reached when this one looked no more": [
        (Sighting, {}, {**DEAF, "looked_ms": 2400, "answered_ms": 2500}),
        (Sighting, LEFT_A, {"seen": 8}),
        (Sighting, {"node": "node-b"}, {"answered_ms": 4700}),
        (ProbeResult, {"pod": ""}, SILENT),
    ],
    "nobody knows when each node looked": [
        (Sighting, AT_B, {**DEAF, "answered_ms": -1}),
        (ProbeResult, {"pod": ""}, SILENT),
    ],
    "nothing arrives, and nothing was sent": [
        (Sighting, AT_B, DEAF),
        (Sighting, LEFT_A, NOTHING),
        (ProbeResult, {"pod": ""}, SILENT),
    ],
    "some packets with wrong sums, and TCP passes": [
        (Sighting, AT_B, {"bad_checksums": 3}),
        (ProbeResult, {"protocol": "tcp"}, {"answered": 2, "outcome": "answered", "rtt_us": 300}),
    ],
    "a table that was full once": [(NeighborTable, {}, {"refused": 900})],
    "a table that was never full": [(NeighborTable, {}, {"collectable": 1020})],
    "another VXLAN network beside Calico's": [
        (
            ForeignVxlans,
            {"node": "node-a"},
            {
                "devices": (
                    ForeignVxlan(device="flannel.1", vni=1, port=8472, up=True),
                    ForeignVxlan(device="vx7", vni=7, port=4789, up=True),
                    ForeignVxlan(device="vx4096", vni=4096, port=4790, up=True),
                    ForeignVxlan(device="idle", vni=-1, port=4789, up=False),
                )
            },
        )
    ],
    "an old entry with the same MAC": [
        (MacSharers, {"node": "node-a"}, {"addresses": ("10.244.218.64", "10.244.218.90")})
    ],
}


@pytest.mark.parametrize("what", WELL_OR_SOMEBODY_ELSES)
def test_near_misses_accuse_nobody(what: str) -> None:
    diagnosis = after(WELL_OR_SOMEBODY_ELSES[what])
    assert (diagnosis.causes, diagnosis.warnings) == ((), ())
    assert diagnosis.verdict == ("healthy" if "TCP passes" in what else "unknown")


CARD = {"node": "node-b", "device": "eth0"}
PROGRAMS: dict[str, tuple[Changes, str]] = {
    "swallowed": ([(Sighting, AT_B, NOTHING)], "eth0"),
    "cut": ([(Sighting, AT_B, DEAF), (ProbeResult, {"pod": ""}, SILENT)], "eth0"),
    "arrived": ([], DEVICE),
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_where_a_program_comes_before_the_look_it_is_told_and_the_network_not_accused(what: str) -> None:
    changes, device = PROGRAMS[what]
    named_without = ["underlay_drops_vxlan"] if what == "swallowed" else ["underlay_unreachable"]
    assert [cause.rule for cause in after(changes).causes] == (named_without if changes else [])
    diagnosis = after([*changes, (Link, {"node": "node-b", "device": device}, {"programs": ("enp1s0",)})])
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())
    assert [(one.rule, one.node) for one in diagnosis.warnings] == [("xdp_program_attached", "node-b")]
    assert "enp1s0" in diagnosis.warnings[0].text


def test_a_program_that_lets_packets_pass_is_not_told() -> None:
    """Felix itself attaches one where a host endpoint has untracked policy."""
    diagnosis = after([(Link, {}, {"programs": ("eth0",)})], lost=False)
    assert (diagnosis.verdict, diagnosis.warnings) == ("healthy", ())
    elsewhere = [(Sighting, LEFT_A, {"outer_target": "172.30.0.13"}), (Sighting, AT_B, NOTHING)]
    assert after([*elsewhere, (Link, CARD, {"programs": ("eth0",)})]).warnings == ()


def reached(address: str) -> list[Fact]:
    """Pings of node-a to another address of node-b come back."""
    ping = next(f for f in healthy() if isinstance(f, ProbeResult) and f.pod == "" and f.node == "node-a")
    return change([ping], ProbeResult, {}, target_address=address)


def test_a_node_with_another_network_by_which_it_is_reached_is_well() -> None:
    facts = change(healthy(), CalicoNode, {"name": "node-b"}, internal_address=INTERNAL) + reached(INTERNAL)
    diagnosis = diagnose(facts)
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ())
    # Where nodes do not answer pings on the network that pods use, that is no proof either.
    diagnosis = diagnose(change(facts, ProbeResult, {"pod": "", "target_address": B}, **SILENT))
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ())


CUT_THERE: Changes = [(Sighting, AT_B, DEAF), (ProbeResult, {"pod": ""}, SILENT)]
CUT_BACK: Changes = [(Sighting, AT_A, DEAF), (ProbeResult, {"pod": ""}, SILENT)]
UNRESOLVED: Changes = [
    (Neighbor, {"node": "node-a", "address": B}, {"found": True, "mac": "", "state": "FAILED"}),
    (Neighbor, {"node": "node-b", "address": A}, {"found": True, "mac": "", "state": "FAILED"}),
    (Sighting, {"way": "out"}, NOTHING),
]
STATIC = {"found": True, "mac": "02:00:00:00:00:99", "state": "PERMANENT"}
WOUNDS: dict[str, tuple[Changes, list[tuple[str, str, str]]]] = {
    "swallowed there": ([(Sighting, AT_B, NOTHING)], [("underlay_drops_vxlan", "node-a", "forward")]),
    "swallowed both ways": (
        [(Sighting, AT_B, NOTHING), (Sighting, AT_A, NOTHING)],
        [("underlay_drops_vxlan", "node-a", "forward"), ("underlay_drops_vxlan", "node-b", "reverse")],
    ),
    "cut there": (CUT_THERE, [("underlay_unreachable", "node-a", "forward")]),
    "cut there, told by a node that met the other's probe": (
        [*CUT_THERE, (Sighting, {}, {"answered_ms": 4700}), (Sighting, AT_A, {"begun": True})],
        [("underlay_unreachable", "node-a", "forward")],
    ),
    "cut back": (CUT_BACK, [("underlay_unreachable", "node-b", "reverse")]),
    "cut": ([*CUT_THERE, *CUT_BACK], [("underlay_unreachable", "node-a", "forward")]),
    "cut, and nobody answers ARP": (
        [*CUT_THERE, *CUT_BACK, *UNRESOLVED],
        [("underlay_unreachable", "node-a", "forward")],
    ),
    "a wrong static entry": (
        [
            *CUT_THERE,
            (Neighbor, {"node": "node-a", "address": B}, STATIC),
            (Link, {"device": "eth0"}, {"mac": "02:00:00:00:00:01"}),
        ],
        [("underlay_neighbor_wrong", "node-a", "forward")],
    ),
    "an old node address": (
        [*CUT_THERE, *CUT_BACK, (NodeAddress, {"node": "node-b"}, {"found": False, "others": ("eth0 172.30.0.77",)})],
        [("node_address_stale", "node-b", "both")],
    ),
    "two peers of one MAC": (
        [
            (MacSharers, {"node": "node-a"}, {"addresses": ("10.244.218.64", "10.244.99.192")}),
            (FdbEntry, {"node": "node-a"}, {"peer": "172.30.0.13"}),
        ],
        [("vxlan_mac_duplicate", "node-a", "forward")],
    ),
    "Calico's device cannot be set up": (
        [
            (Link, {"node": "node-b", "device": DEVICE}, {"up": False}),
            (ForeignVxlans, {"node": "node-b"}, {"devices": (ForeignVxlan(device="ovs", vni=-1, port=4789, up=True),)}),
        ],
        [("vxlan_device_conflict", "node-b", "both")],
    ),
    "answers with wrong sums": (
        [
            (Sighting, AT_A, {"bad_checksums": 4}),
            (ProbeResult, {"protocol": "icmp"}, {"answered": 2, "outcome": "answered"}),
        ],
        [("checksum_offload_broken", "node-b", "reverse")],
    ),
}


@pytest.mark.parametrize("what", WOUNDS)
def test_what_is_proved_is_named_alone(what: str) -> None:
    changes, wanted = WOUNDS[what]
    assert named(after(changes)) == wanted


def test_wrong_sums_are_a_warning_where_no_port_was_asked() -> None:
    """They are of somebody else's connections then, and a single bad cable may spoil a few."""
    facts = change(healthy(port=0), Sighting, AT_B, bad_checksums=3)
    diagnosis = diagnose(facts)
    assert (diagnosis.verdict, [one.rule for one in diagnosis.warnings]) == ("healthy", ["checksum_offload_broken"])
    assert "ask again with the port" in diagnosis.warnings[0].text
    assert not diagnose(healthy(port=0)).warnings


def test_a_node_is_known_by_an_address_its_peer_does_not_reach() -> None:
    facts = change(healthy(), CalicoNode, {"name": "node-b"}, internal_address=INTERNAL)
    facts = change(facts, ProbeResult, {"node": "node-a"}, **SILENT)
    facts = change(facts, Sighting, AT_B, **DEAF) + reached(INTERNAL)
    assert named(diagnose(facts)) == [("node_address_wrong", "node-b", "both")]
    # Neither address answers: then it is not the choice between them.
    facts = change(facts, ProbeResult, {"target_address": INTERNAL}, **SILENT)
    assert "node_address_wrong" not in [cause.rule for cause in diagnose(facts).causes]


HERE = str(Path(__file__).resolve().parents[1])


def by_hand(lab: Lab, node: str, script: str) -> None:
    path = os.pathsep.join(filter(None, (HERE, os.environ.get("PYTHONPATH"))))
    done = lab.exec(node, "env", f"PYTHONPATH={path}", sys.executable, "-c", f"from lab.wire import *\n{script}")
    assert (done.returncode, done.stderr) == (0, "")


async def answered(lab: Lab) -> Diagnosis:
    return (await ask(lab.environment(), "shop/cart shop/db 5432/tcp")).diagnosis


@pytest.mark.parametrize("node", ["node-a", "node-b"])
async def test_a_nodes_own_firewall_is_not_the_network_between(lab: Lab, node: str) -> None:
    """The packets did arrive: what the node then does with them is its own rule's."""
    by_hand(lab, node, "drop_udp('eth0', 4789)")
    leg = "forward" if node == "node-b" else "reverse"
    assert named(await answered(lab)) == [("host_firewall_drops_vxlan", node, leg)]


async def test_wrong_sums_of_what_a_node_itself_sends_into_the_tunnel(lab: Lab) -> None:
    """The bug of this kind that is known best: a node does not reach a Service's pods, its own pods do."""
    lab.inflict("checksum_offload_broken", "shop/cart", "shop/db", "source")
    diagnosis = (await ask(lab.environment(), "node-a shop/db 5432/tcp")).diagnosis
    assert named(diagnosis) == [("checksum_offload_broken", "node-a", "forward")]
    uplink = next(
        one for one in diagnosis.facts if isinstance(one, Link) and (one.node, one.device) == ("node-a", "eth0")
    )
    assert uplink.sums == "kernel", "as set on this node, with which its card is out of it"


async def test_large_packets_that_are_lost_where_no_ping_is_answered(lab: Lab) -> None:
    by_hand(lab, "node-b", "drop_protocol('vxlan.calico', 1)")
    healthy_but_pings = await answered(lab)
    assert healthy_but_pings.verdict == "healthy", healthy_but_pings
    assert "tcp 5432 1450 bytes 2 of 2 answered" in healthy_but_pings.summary
    lab.inflict("path_mtu_too_small", "shop/cart", "shop/db", "source")
    diagnosis = await answered(lab)
    assert named(diagnosis) == [("path_mtu_too_small", "node-a", "both")]
    assert "Packets of up to 1354 bytes come back" in diagnosis.causes[0].text, "1400, and a VLAN's header, less VXLAN"
    # A bridge with br_netfilter, as the lab's underlay may be, hands out in pieces what it does not take in.
    from_there = (await ask(lab.environment(), "shop/db shop/web 8080/tcp")).diagnosis
    assert named(from_there) == [("path_mtu_too_small", "node-b", "both")]
    assert "1450 bytes do not" in from_there.causes[0].text


def with_program(lab: Lab, node: str, device: str, program: int, *words: str) -> None:
    path = os.pathsep.join(filter(None, (HERE, os.environ.get("PYTHONPATH"))))
    argv = ["env", f"PYTHONPATH={path}", sys.executable, "-m", "tests.xdp", device, *words]
    with os.fdopen(program, "rb", closefd=False) as standard_input, tempfile.TemporaryFile() as said:
        status = lab.run(node, argv, standard_input, said, said)
        said.seek(0)
        assert (status, said.read()) == (0, b"")


@pytest.mark.parametrize("device", ["eth0", "vxlan.calico"])
async def test_a_program_of_a_card_is_not_the_network_between(lab: Lab, device: str) -> None:
    """It drops before the probe looks: what leaves one node and is never seen by the other may have arrived."""
    program = dropping(4789 if device == "eth0" else 0)
    with_program(lab, "node-b", device, program)
    try:
        diagnosis = await answered(lab)
    finally:
        with_program(lab, "node-b", device, program, "off")
        os.close(program)
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())
    (warning,) = diagnosis.warnings
    assert (warning.rule, warning.node) == ("xdp_program_attached", "node-b") and device in warning.text
    assert (await answered(lab)).verdict == "healthy"


async def test_a_program_on_a_pod_s_interface_is_told(lab: Lab) -> None:
    told = next(one for one in (await answered(lab)).facts if isinstance(one, PodInterface) and one.pod == "shop/cart")
    program = dropping(0)
    with_program(lab, "node-a", told.interface, program)
    try:
        diagnosis = await answered(lab)
    finally:
        with_program(lab, "node-a", told.interface, program, "off")
        os.close(program)
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())
    assert [(one.rule, one.node) for one in diagnosis.warnings] == [("xdp_program_on_pod_interface", "node-a")]


async def test_both_directions_are_told(lab: Lab) -> None:
    for where in ("source", "target"):
        lab.inflict("underlay_drops_vxlan", where=where)
    assert named(await answered(lab)) == [
        ("underlay_drops_vxlan", "node-a", "forward"),
        ("underlay_drops_vxlan", "node-b", "reverse"),
    ]
    lab.heal()
    for where in ("source", "target"):
        lab.inflict("underlay_unreachable", where=where)
    assert named(await answered(lab)) == [("underlay_unreachable", "node-a", "forward")]
