"""What was seen of packets on their way becomes an answer's path: a stage nobody saw them pass is not called ok."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.language import language
from engine.diagnosis import diagnose
from engine.path import paths, stages_of
from engine.plan import expected_legs
from engine.sights import Track, strangers, tracks
from facts import (
    Bystander,
    Fact,
    Leg,
    LegPath,
    Link,
    Neighbor,
    PodInterface,
    ProbeResult,
    RuleDrop,
    StageSighting,
    Sysctl,
)
from tests.scene import CART, DB, WEB, change, healthy

BOTH = ("forward", "reverse")
DEVICES = {"vxlan": "vxlan.calico", "ipip": "tunl0", "wireguard": "wireguard.cali"}


def both_legs(encapsulation: str = "vxlan") -> list[Leg]:
    """Of the flow from shop/cart to shop/db, or within one node."""
    legs = expected_legs(healthy(CART, WEB if encapsulation == "local" else DB))
    if encapsulation in ("vxlan", "local"):
        return legs
    device = DEVICES.get(encapsulation, "vxlan.calico")
    return [msgspec.structs.replace(leg, encapsulation=encapsulation, tunnel_device=device) for leg in legs]


def sighting(leg: Leg, end: str, device: str, going: str, **fields: Any) -> StageSighting:
    """Two packets met at one end of the leg, in its pod where `fields` say so."""
    return StageSighting(
        node=leg.source_node if end == "source" else leg.target_node,
        source_address=leg.source_address,
        target_address=leg.target_address,
        reply=leg.direction == "reverse",
        **({"device": device, "going": going, "seen": 2, "enclosed": True} | fields),
    )


def passed(leg: Leg, stage: str) -> StageSighting | None:
    """Packets that leave this stage as they should; None where nobody could know them."""
    end, _, place = stage.partition(" ")
    header = leg.encapsulation if leg.encapsulation in ("vxlan", "ipip") else ""
    around: dict[str, Any] = {}
    if header:
        around = {
            "encapsulation": header, "outer_source": leg.source_node_address, "outer_target": leg.target_node_address,
        }  # fmt: skip
    if header == "vxlan":
        around |= {"port": leg.vxlan_port, "vni": leg.vni, "inner_mac": leg.target_tunnel_mac}
    tunnelled = leg.encapsulation in DEVICES
    if stage in ("source tunnel", "underlay"):
        if leg.encapsulation == "wireguard":
            return None
        return sighting(leg, *(("source", "eth0", "out") if place else ("target", "eth0", "in")), **around)
    return {
        "source pod": sighting(leg, "source", "eth0", "out", pod=leg.source),
        "source veth": sighting(leg, "source", leg.source_interface, "in"),
        "source node": sighting(
            leg, "source", leg.tunnel_device if tunnelled else leg.target_interface if leg.encapsulation == "local"
            else "eth0", "out",
        ),
        "target tunnel": sighting(leg, "target", leg.tunnel_device, "in"),
        "target node": sighting(leg, "target", leg.target_interface, "out"),
        "target veth": sighting(leg, "target", "eth0", "in", pod=leg.target),
    }[f"{end} {place}"]  # fmt: skip


def looked(leg: Leg) -> list[StageSighting]:
    """Where packets were looked for, and none met."""
    none = {"device": "", "going": "", "seen": 0}
    return [
        sighting(leg, end, **none, pod=pod)
        for end, name in (("source", leg.source), ("target", leg.target))
        for pod in ("", name)
    ]


def until(legs: Sequence[Leg], direction: str, last: str) -> list[StageSighting]:
    """They came to the end of the other leg, or none did, and on this one were seen last when they left that stage."""
    found: list[StageSighting] = []
    for leg in legs:
        stages = stages_of(leg)[:-1]
        if leg.direction == direction:
            stages = stages[: stages.index(last) + 1] if last else ()
        elif direction == "forward":
            stages = ()
        found += [met for stage in stages if (met := passed(leg, stage))]
        places = {(one.node, one.pod) for one in found if one.reply == (leg.direction == "reverse")}
        found += [one for one in looked(leg) if (one.node, one.pod) not in places]
    return found


def silent(**fields: Any) -> list[Fact]:
    facts = healthy(port=fields.pop("port", 5432))
    return change(facts, ProbeResult, {"pod": "shop/cart"}, answered=0, outcome="silence", rtt_us=-1)


def drawn(legs: Sequence[Leg], found: Sequence[Track], *, lost: bool = True) -> dict[str, LegPath]:
    return {leg.direction: leg for leg in paths(legs, (), (), (), found, lost=lost)}


def states(leg: LegPath) -> str:
    return " ".join(hop.state for hop in leg.hops)


CASES = [
    (encapsulation, direction, number)
    for encapsulation in ("vxlan", "ipip", "wireguard", "direct", "local")
    for direction in BOTH
    for number in range(len(stages_of(both_legs(encapsulation)[0])))
]


@pytest.mark.parametrize("encapsulation, direction, number", CASES)
def test_a_loss_is_behind_the_stage_the_packets_were_last_seen_to_leave(
    encapsulation: str, direction: str, number: int
) -> None:
    """number: of the stage they are lost in."""
    legs = both_legs(encapsulation)
    leg = next(one for one in legs if one.direction == direction)
    stages = stages_of(leg)
    known = [stage for stage in stages[:-1] if passed(leg, stage)]
    before = [stage for stage in stages[:number] if stage in known]
    last = before[-1] if before else ""
    if direction == "reverse" and number in (0, len(stages) - 1):
        return  # an answer nobody saw is the end of the other leg, and what the sender does with one is not seen
    found = tracks(legs, until(legs, direction, last))
    track = next(one for one in found if one.leg.direction == direction)
    unsure = stages[stages.index(last) + 1] if last else stages[0]
    assert (track.last_good, track.first_bad) == (last, unsure if unsure in (*known, stages[-1]) else "")
    path = drawn(legs, found)[direction]
    assert [hop.stage for hop in path.hops if hop.state == "ok"] == list(
        stages[: stages.index(last) + 1 if last else 0]
    )
    assert path.first_bad == track.first_bad and path.last_good == last
    assert path.lost and leg.source in path.lost and leg.target in path.lost
    other = next(one for one in drawn(legs, found).values() if one.direction != direction)
    whole = direction == "reverse"
    assert {hop.state for hop in other.hops} == ({"ok"} if whole else {"unknown"})


def test_the_answer_says_it_in_one_sentence_in_both_languages() -> None:
    facts = silent()
    legs = expected_legs(facts)
    diagnosis = diagnose([*facts, *until(legs, "forward", "source tunnel")])
    assert diagnosis.verdict == "unknown"
    seen = "was seen leaving node-a by eth0 inside the tunnel, and never reaching node-b."
    said = f"A packet from shop/cart to shop/db {seen}"
    assert said in diagnosis.summary
    path = diagnosis.path[0]
    assert (path.last_good, path.first_bad, path.lost) == ("source tunnel", "underlay", said)
    assert [hop.met for hop in path.hops] == [2, 2, 2, 2, 0, 0, 0, 0, 0]
    chinese = language("zh")(path.lost, path.lost_message)
    assert (
        chinese == "从 shop/cart 到 shop/db 的报文：最后看到它在隧道内从 eth0 离开 node-a，之后从未看到它到达 node-b。"
    )


WRONG = {
    "another node": ({"outer_target": "172.30.0.13"}, "it was sent to 172.30.0.13, which is node-c and not node-b"),
    "nobody": ({"outer_target": "172.30.0.99"}, "it was sent to 172.30.0.99, which is not node-b"),
    "the inner MAC": (
        {"inner_mac": "66:00:00:00:00:99"},
        "its inner frame is for 66:00:00:00:00:99, and vxlan.calico of node-b is 66:89:3a:22:7a:ac",
    ),
    "the VNI": ({"vni": 4097}, "its VNI is 4097 and should be 4096"),
    "the port": ({"port": 8472}, "it was sent to UDP port 8472, and VXLAN's is 4789"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_a_tunnels_header_is_told(what: str) -> None:
    changes, said = WRONG[what]
    legs = both_legs()
    facts: list[Fact] = [
        msgspec.structs.replace(one, **changes) if one.encapsulation else one
        for one in until(legs, "forward", "source tunnel")
    ]
    facts.append(Bystander(address="172.30.0.13", node="node-c"))
    (track,) = tracks(legs, facts)
    assert (track.last_good, track.first_bad) == ("source node", "source tunnel")
    assert track.told == f"A packet from shop/cart to shop/db was seen going into vxlan.calico of node-a; {said}."
    known = [*healthy(), *facts]
    assert strangers(known, known) == ({changes["outer_target"]} if "outer_target" in changes else set())


def test_a_frame_for_another_mac_that_arrives_is_told_with_its_device() -> None:
    legs = both_legs()
    facts = [
        msgspec.structs.replace(one, others=True) if (one.device, one.going) == ("vxlan.calico", "in") else one
        for one in until(legs, "forward", "target tunnel")
    ]
    (track,) = tracks(legs, facts)
    assert (track.last_good, track.first_bad) == ("underlay", "target tunnel")
    assert "its frame is for a MAC that is not that of vxlan.calico" in str(track.told)


def test_packets_that_leave_without_their_tunnel_or_by_another_pods_device() -> None:
    legs = both_legs()
    bare = [*until(legs, "forward", "source veth"), sighting(legs[0], "source", "eth0", "out")]
    (track,) = tracks(legs, bare)
    assert track.first_bad == "source node" and "it left node-a by eth0 without the tunnel" in str(track.told)
    astray = [*until(legs, "forward", "target tunnel"), sighting(legs[0], "target", "cali000other", "out")]
    (track,) = tracks(legs, astray)
    assert track.first_bad == "target node" and "it went out by cali000other of node-b" in str(track.told)


def test_a_node_that_did_not_look_on_all_the_time_says_nothing_of_what_it_did_not_meet() -> None:
    legs = both_legs()
    facts = until(legs, "forward", "source tunnel")
    late = [msgspec.structs.replace(one, enclosed=False) if one.node == "node-b" else one for one in facts]
    (track,) = tracks(legs, late)
    assert (track.last_good, track.first_bad, track.told) == ("source tunnel", "", None)
    assert states(drawn(legs, [track])["forward"]) == "ok ok ok ok" + " unknown" * 5
    heard = [msgspec.structs.replace(one, listened=one.node == "node-a") for one in late]
    assert [track.first_bad for track in tracks(legs, heard)] == ["underlay"], "its word came before the packets left"
    (track,) = tracks(legs, [one for one in facts if one.node == "node-a"])
    assert track.first_bad == ""


def test_a_pod_nobody_could_enter_leaves_open_in_which_of_two_stages_they_were_lost() -> None:
    legs = both_legs()
    facts = [
        msgspec.structs.replace(one, seen=-1) if one.pod == "shop/db" else one
        for one in until(legs, "forward", "target node")
    ]
    assert [track.first_bad for track in tracks(legs, facts)] == [""]
    facts = [msgspec.structs.replace(one, seen=-1, device="") if one.pod == "shop/cart" else one for one in
             until(legs, "forward", "source node")]  # fmt: skip
    (track,) = tracks(legs, facts)
    assert track.first_bad == "source tunnel"
    assert states(drawn(legs, [track])["forward"]).startswith("ok ok ok bad unknown"), (
        "they passed it to be seen behind"
    )


def test_what_a_program_of_a_card_or_a_veth_may_have_dropped_is_not_called_lost_before_it() -> None:
    """Such a program (XDP) decides before anybody sees the packet: the network, or the pod, would be accused of it."""
    legs = both_legs()
    card = change(healthy(), Link, {"node": "node-b", "device": "eth0"}, programs=("eth0",))
    (track,) = tracks(legs, [*card, *until(legs, "forward", "source tunnel")])
    assert (track.last_good, track.first_bad) == ("source tunnel", "")
    veth = change(healthy(), PodInterface, {"node": "node-a", "pod": "shop/cart"}, program=True)
    (track,) = tracks(legs, [*veth, *until(legs, "forward", "source pod")])
    assert (track.last_good, track.first_bad) == ("source pod", "")


def test_a_datagram_nobody_answers_accuses_no_pod_and_neither_does_a_refusal() -> None:
    legs = [msgspec.structs.replace(leg, protocol="udp") for leg in both_legs()]
    arrived = until(legs, "forward", "target veth")
    (track,) = tracks(legs, arrived)
    assert (track.last_good, track.first_bad) == ("target veth", "")
    assert str(track.told).endswith("was seen arriving at eth0 of shop/db, and never answered by shop/db.")
    refused = change(healthy(), ProbeResult, {"pod": "shop/cart", "protocol": "tcp"}, answered=0, outcome="refused")
    probes = [one for one in refused if isinstance(one, ProbeResult)]
    (track,) = tracks(both_legs(), [*until(both_legs(), "forward", "target veth"), *probes])
    assert (track.last_good, track.first_bad, track.told) == ("target veth", "", None)


def test_where_all_that_was_sent_came_back_nothing_is_drawn_anew() -> None:
    legs = both_legs()
    facts = until(legs, "reverse", "target veth")
    assert tracks(legs, facts) == []
    diagnosis = diagnose([*silent(), *facts])
    assert diagnosis.verdict == "unknown"
    assert {hop.state for leg in diagnosis.path for hop in leg.hops} == {"unknown"}


def test_answers_to_somebody_elses_packets_are_none_to_ours_that_a_rule_ended_at_once() -> None:
    """Two people ask at once, one about the pod and one about its node, which natOutgoing has speak for the pod."""
    one, other = both_legs("host")
    there, home = msgspec.structs.replace(one, target_kind="node"), msgspec.structs.replace(other, source_kind="node")
    legs = [there, home]
    ours = [met for stage in ("source pod", "source veth") if (met := passed(there, stage))]
    theirs = passed(home, "underlay")
    assert theirs
    drop = RuleDrop(
        node=there.source_node, source_address=there.source_address, target_address=there.target_address,
        protocol="icmp", how="trace", packets=2, backend="nft", family=4, table="calico", chain="c", text="drop",
    )  # fmt: skip
    facts = [*silent(), *ours, theirs, *(one for one in looked(home) if one.pod == home.target)]
    assert [one.leg.direction for one in tracks(legs, facts)] == ["forward", "reverse"]
    (track,) = tracks(legs, [*facts, drop])
    assert (track.leg, track.last_good) == (there, "source veth")
    partly = msgspec.structs.replace(drop, packets=1)
    assert len(tracks(legs, [*facts, partly])) == 2, "the other one may have been answered"


def test_what_was_seen_on_the_way_changes_no_verdict() -> None:
    well = diagnose([*healthy(), *until(both_legs(), "forward", "source tunnel")])
    assert well.verdict == "healthy" and {hop.state for leg in well.path for hop in leg.hops} == {"ok"}


def test_a_cause_keeps_its_place_and_only_what_was_seen_is_ok() -> None:
    facts = change(silent(), Sysctl, {"node": "node-a", "switch": "forwarding"}, value="0")
    legs = expected_legs(facts)
    diagnosis = diagnose([*facts, *until(legs, "forward", "source pod")])
    (cause,) = diagnosis.causes
    path = diagnosis.path[0]
    assert (cause.stage, path.first_bad, path.last_good) == ("source node", "source node", "source pod")
    assert states(path) == "ok unknown bad" + " unknown" * 6, "nobody saw them come in by the veth"
    assert path.lost


@given(st.data())
def test_nothing_is_ok_that_was_not_seen_and_nothing_bad_but_behind_what_was(data: st.DataObject) -> None:
    legs = both_legs(data.draw(st.sampled_from(["vxlan", "ipip", "wireguard", "direct", "local"])))
    every = [met for leg in legs for stage in stages_of(leg)[:-1] if (met := passed(leg, stage))]
    every += [one for leg in legs for one in looked(leg)]
    kept = data.draw(st.lists(st.sampled_from(every), unique=True))
    facts = [
        msgspec.structs.replace(
            one,
            enclosed=data.draw(st.booleans()),
            seen=data.draw(st.sampled_from([-1, 0, 1, 2])),
            others=data.draw(st.booleans()),
            device=data.draw(st.sampled_from([one.device, "eth1"])),
        )
        for one in kept
    ]
    found = tracks(legs, facts)
    for path in paths(legs, (), (), (), found, lost=True):
        met = [hop.met > 0 for hop in path.hops]
        last = max((number for number, here in enumerate(met) if here), default=-1)
        for number, hop in enumerate(path.hops):
            assert hop.state != "ok" or (number <= last and hop.met != 0)
            assert hop.state != "bad" or (number == last + 1 and hop.met == 0)
        if path.first_bad:
            assert path.lost and any(one.seen > 0 or one.enclosed for one in facts)


def test_the_cause_that_is_where_packets_were_lost_comes_first() -> None:
    """What others can follow from comes before it only where nobody saw them get lost."""
    facts = change(silent(), Neighbor, {"node": "node-a"}, mac="66:00:00:00:00:99")
    facts = change(facts, Sysctl, {"node": "node-b", "switch": "forwarding"}, value="0")
    legs = both_legs()
    blind = diagnose(facts)
    seen = diagnose([*facts, *until(legs, "forward", "source node")])
    behind = diagnose([*facts, *until(legs, "forward", "target tunnel")])
    modes = ["ip_forwarding_off", "neighbor_wrong_mac"]
    assert [cause.rule for cause in blind.causes] == modes
    assert [cause.rule for cause in seen.causes] == modes[::-1]
    assert [cause.rule for cause in behind.causes] == modes
