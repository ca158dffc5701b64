"""The recorded kernel answers as a real one does; without it the verdicts on recordings would be ours, not Calico's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from bot.settings import from_environment
from bot.sources.kubernetes import Cluster
from bot.sources.probes import Probes
from bot.words import parse
from engine.plan import plan
from facts import (
    Blind,
    CalicoNode,
    Fact,
    FdbEntry,
    Link,
    LinkAddresses,
    LocalPod,
    Neighbor,
    NodeAsk,
    PodRoute,
    ProbeResult,
    RouteLookup,
    SendProbe,
    Sysctl,
    Way,
)
from lab.client import Lab
from tests.recorded_kernel import Recording
from tests.recorded_states import recorded
from tests.recordings import unpacked

COMPARED = (RouteLookup, PodRoute, FdbEntry, Link, LinkAddresses, Neighbor, Sysctl)
QUESTIONS = (
    ("v3.32.1/healthy", "default/pod-a1", "default/pod-c2"),
    ("v3.32.1/healthy", "default/pod-b1", "default/pod-b2"),
    ("v3.32.1/exhaustion/2-pods-borrowed", "default/p-b1", "default/p-c1"),
    ("v3.32.1/exhaustion/2-pods-borrowed", "node-c", "default/p-a1"),
    ("v3.32.1/crosssubnet", "default/pod-a1", "default/pod-b1"),
    ("v3.32.1/dualstack/healthy", "default/pod-a1", "default/pod-b2"),
)


def lossless(ask: NodeAsk, probe: SendProbe) -> str:
    return "answered"


def comparable(facts: Iterable[Fact]) -> set[Fact]:
    """Without what ARP learned a moment ago, and what only this kernel has."""
    found: set[Fact] = set()
    for fact in facts:
        if not isinstance(fact, COMPARED) or (isinstance(fact, Sysctl) and "force_forwarding" in fact.name):
            continue
        if isinstance(fact, Neighbor) and fact.state != "PERMANENT":
            continue
        found.add(fact)
    return found


@pytest.mark.parametrize("state", dict.fromkeys(state for state, _, _ in QUESTIONS))
async def test_a_recording_answers_an_ask_like_a_kernel_that_holds_the_same(state: str) -> None:
    """The lab made of the recorded objects holds what was recorded (tests/test_lab_felix.py); its probes are real."""
    lab = await asyncio.to_thread(Lab.up, objects=unpacked(state), fixers=False)
    recording = recorded(state)
    with lab:
        settings = from_environment(lab.environment())
        async with Cluster(settings) as cluster, Probes(settings) as probes:
            for source, target in (one[1:] for one in QUESTIONS if one[0] == state):
                facts = await cluster.look(parse([source, target]))
                asks = plan(facts)
                addresses = {one.name: one.internal_address for one in facts if isinstance(one, CalicoNode)}
                real = comparable(await probes.ask(asks, addresses))
                ours = comparable(fact for ask in asks for fact in recording.answer(ask, lossless))
                assert real, (source, target)
                assert _without_sums(ours) == _without_sums(real), (source, target)


HEALTHY = "v3.32.1/healthy"


def _without_sums(facts: Iterable[Fact]) -> set[Fact]:
    """No recording tells who sums up a device's packets: that is asked by ethtool."""
    return {msgspec.structs.replace(one, sums="") if isinstance(one, Link) else one for one in facts}


LOCAL = LocalPod(name="default/pod-a1", address="10.244.174.132", interface="calidd33ceb84a6")
OUT = Way(destination="10.244.99.197", source="10.244.174.132", incoming="calidd33ceb84a6")


def answers(recording: Recording, **fields: object) -> list[Fact]:
    ask = msgspec.structs.replace(NodeAsk(node="node-a", felix=False, uplink_address="172.30.0.11"), **fields)
    return recording.answer(ask, lossless)


def lookups(recording: Recording) -> list[tuple[bool, str, str, str]]:
    """(found, error, prefix, next hop) of the node's own packets and of the pod's."""
    seen = [one for one in answers(recording, ways=(OUT,)) if isinstance(one, RouteLookup)]
    return [(one.found, one.error, one.prefix, one.next_hop) for one in seen]


def test_the_longest_prefix_wins_and_then_the_lowest_metric() -> None:
    recording = recorded(HEALTHY)
    block = (True, "", "10.244.99.192/26", "10.244.99.192")
    assert lookups(recording) == [block, block]
    recording.nodes["node-a"].routes.append(route("10.244.99.192/26", gateway="10.244.218.64", metric=50))
    assert lookups(recording) == [block, block]
    recording.nodes["node-a"].routes.append(route("10.244.99.197", gateway="10.244.218.64", metric=50))
    single = (True, "", "10.244.99.197/32", "10.244.218.64")
    assert lookups(recording) == [single, single]


def test_a_rule_for_pods_leads_only_what_pods_send_elsewhere() -> None:
    recording = recorded(HEALTHY)
    node = recording.nodes["node-a"]
    node.rules.append({"priority": 50, "src": "10.244.0.0", "srclen": 16, "table": "77"})
    node.routes.append({**route("default", gateway="172.30.0.1"), "dev": "eth0", "table": "77"})
    own, pods = lookups(recording)
    assert own == (True, "", "10.244.99.192/26", "10.244.99.192")
    assert pods == (True, "", "0.0.0.0/0", "172.30.0.1")


def test_a_route_that_swallows_refuses_and_is_named() -> None:
    recording = recorded(HEALTHY)
    recording.nodes["node-a"].routes.append({**route("10.244.99.197"), "type": "blackhole"})
    assert lookups(recording) == [(False, "EINVAL", "10.244.99.197/32", "")] * 2


def test_a_node_without_any_route_says_so() -> None:
    recording = recorded(HEALTHY)
    node = recording.nodes["node-a"]
    node.routes = [one for one in node.routes if one["table"] == "local"]
    assert lookups(recording) == [(False, "ENETUNREACH", "", "")] * 2


def test_what_a_device_may_not_forward_is_refused_as_it_comes_in() -> None:
    recording = recorded(HEALTHY)
    recording.nodes["node-a"].sysctls["/proc/sys/net/ipv4/conf/calidd33ceb84a6/forwarding"] = "0"
    own, pods = lookups(recording)
    assert own[0] and pods[:2] == (False, "EHOSTUNREACH")


def test_a_strict_filter_refuses_what_would_not_leave_by_the_same_device() -> None:
    recording = recorded(HEALTHY)
    node = recording.nodes["node-a"]
    node.sysctls["/proc/sys/net/ipv4/conf/all/rp_filter"] = "1"
    assert [found for found, *_ in lookups(recording)] == [True, True]
    node.routes = [one for one in node.routes if one["dst"] != LOCAL.address]
    assert [(found, error) for found, error, *_ in lookups(recording)] == [(True, ""), (False, "EXDEV")]


def test_what_was_not_recorded_is_blind_and_never_not_there() -> None:
    recording = recorded(HEALTHY)
    elsewhere = recording.answer(NodeAsk(node="node-z"), lossless)
    assert [(one.node, one.look) for one in elsewhere if isinstance(one, Blind)] == [("node-z", "probe")]
    del recording.pods[LOCAL.name]
    probe = SendProbe(pod=LOCAL.name, target=OUT.destination, protocol="icmp", size=-1)
    seen = answers(recording, local_pods=(LOCAL,), send=(probe,))
    assert {one.look for one in seen if isinstance(one, Blind)} == {"pod", "packets"}
    assert not any(isinstance(one, ProbeResult) for one in seen)
    silent = recording.answer(
        NodeAsk(node="node-a", felix=True, send=(SendProbe(pod="", target=OUT.destination, protocol="icmp"),)),
        lambda ask, probe: "",
    )
    assert {one.look for one in silent if isinstance(one, Blind)} >= {"packets", "felix"}


def test_a_rule_nobody_can_follow_is_blind() -> None:
    recording = recorded(HEALTHY)
    recording.nodes["node-a"].rules.append({"priority": 10, "src": "all", "fwmark": "0x1", "table": "77"})
    seen = answers(recording, ways=(OUT,))
    assert "route" in {one.look for one in seen if isinstance(one, Blind)}
    assert not any(isinstance(one, RouteLookup) for one in seen)


def test_what_answers_a_state_was_recorded_with_it(tmp_path: Path) -> None:
    """A change to one recording is no change to the next one of the same state."""
    recorded(HEALTHY).nodes["node-a"].routes.clear()
    assert recorded(HEALTHY).nodes["node-a"].routes


def route(destination: str, *, gateway: str = "", metric: int = 0) -> dict[str, object]:
    return {
        "type": "unicast",
        "dst": destination,
        "table": "main",
        "protocol": "boot",
        "scope": "global",
        "flags": ["onlink"] if gateway else [],
        **({"gateway": gateway, "dev": "vxlan.calico"} if gateway else {}),
        **({"metric": metric} if metric else {}),
    }
