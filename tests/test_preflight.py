"""What `preflight` says of probes and clocks that a lab cannot show: many nodes, other versions, fewer capabilities."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path

import pytest

from bot.commands import preflight
from bot.preflight import here, nodes, rights
from bot.preflight.cluster import clock
from bot.preflight.model import NOT, OK, SKIPPED, UNSEEN
from bot.preflight.nodes import Probe
from bot.sources.clock import skew
from bot.sources.kubernetes import CLASSIC, NATIVE
from facts import Blind, NodeMachine, say
from facts.node_status import NEEDED
from fixes.approvers import Approvers
from node_probe.collectors import system


def probe(node: str, *, version: str = "1", without: tuple[str, ...] = (), ahead_s: float | None = 0.0) -> Probe:
    has = tuple(name for name in NEEDED if name not in without)
    machine = NodeMachine(node=node, kernel="6.1", uptime_s=9, probe=version, capabilities=has)
    return Probe(node=node, facts=(machine,), ahead_s=ahead_s)


def dead(node: str, why: str) -> Probe:
    return Probe(node=node, facts=(Blind(node=node, look="probe", reason=why),))


def wrong(*probes: Probe) -> list[str]:
    return [f"{one.about}: {one.found}" for one in nodes.judge(probes, (), "1") if one.state == NOT]


def test_certificates_that_run_out_soon_are_told_while_there_is_time() -> None:
    now = datetime(2026, 11, 26, 12, tzinfo=UTC)
    days = {name: now + timedelta(days=number) for name, number in (("a", 30), ("b", 6), ("c", 2))}
    probes = [Probe(node=name, until=until) for name, until in days.items()]

    def told(bots: datetime | None, *seen: Probe) -> dict[str, str]:
        found = nodes.certificates(bots, seen, now)
        return {f"{one.state} {one.about}": f"{one.found}" for one in found}

    well = {"ok certificates of bot and probes": "2 are valid until 2026-12-26 12:00 UTC or longer"}
    assert told(days["a"], probes[0]) == well
    assert told(days["b"], *probes) == {
        "not certificate of the bot": "it runs out on 2026-12-02 12:00 UTC",
        "not certificate of the probe of c, b": "it runs out on 2026-11-28 12:00 UTC",
        "ok certificates of bot and probes": "1 are valid until 2026-12-26 12:00 UTC or longer",
    }
    assert told(None, dead("a", "refused")) == {}, "why it is silent is said elsewhere"


@pytest.mark.parametrize(
    ("labels", "has"),
    [
        ({}, True),
        ({"kubernetes.io/os": "linux", "eks.amazonaws.com/compute-type": "ec2", "type": "worker"}, True),
        ({"kubernetes.io/os": "windows"}, False),
        ({"kubernetes.io/os": "linux", "eks.amazonaws.com/compute-type": "fargate"}, False),
        ({"kubernetes.io/os": "linux", "type": "virtual-kubelet"}, False),
    ],
)
def test_a_node_that_no_probe_can_be_on_is_no_dead_one(labels: dict[str, str], has: bool) -> None:
    assert nodes.has_probe({"metadata": {"name": "a", "labels": labels}}) is has
    assert nodes.has_probe({"metadata": {"name": "a"}})


def test_thousands_of_dead_probes_are_a_screenful() -> None:
    many = [
        dead(f"node-{number}", f"its probe at 10.0.{number // 250}.{number % 250}: refused") for number in range(3000)
    ]
    told = preflight.report(nodes.judge([*many, probe("well")], (), "1"), many)
    assert len(told.notes) < 20 and max(map(len, told.notes)) < 400
    assert told.notes[0].startswith("not  probe of node-0: its probe at 10.0.0.0: refused. Nothing on it can be seen")
    assert any("and 2980 more: they do not answer either" in note for note in told.notes)
    assert told.status == 3 and len(told.data["nodes"]) == 3000


def test_other_versions_and_capabilities_and_clocks_are_told_with_their_nodes() -> None:
    well = probe("a")
    assert wrong(well) == []
    assert wrong(well, probe("b", version="0")) == ["probe of b: it is of version 0, and this is 1"]
    assert wrong(well, probe("b", version="")) == ["probe of b: it is of version ?, and this is 1"]
    assert wrong(probe("b", without=("SYS_ADMIN",))) == [
        "probe of b: without SYS_ADMIN: it sees nothing inside pods"
    ]  # fmt: skip
    assert wrong(well, probe("b", ahead_s=7.4)) == ["clock of b: 7 s ahead of the one here"]
    assert wrong(well, probe("b", ahead_s=-60)) == ["clock of b: 60 s behind the one here"]


def test_a_probe_that_is_to_see_less_is_in_order_and_what_it_does_not_see_is_told() -> None:
    (line,) = [one for one in nodes.judge([probe("a", without=("NET_ADMIN",))], (), "1") if one.about == "probe of a"]
    assert line.state == OK and "which rule drops a packet" in line.found


def test_what_was_not_seen_is_not_in_order() -> None:
    assert [one.state for one in nodes.judge([], (), "1")] == [UNSEEN]
    assert UNSEEN in {one.state for one in nodes.judge([probe("a", ahead_s=None)], (), "1")}
    assert SKIPPED in {one.state for one in nodes.judge([probe("a")], ("windows",), "1")}
    assert preflight.report([clock("cluster", say("clock"), None)]).status == 3


@pytest.mark.parametrize(("said", "told"), [(1000, 0), (1001, 0.9), (999, 0), (998, -1), (1030, 29.9), (970, -29)])
def test_a_clock_is_off_only_by_what_is_sure(said: int, told: float) -> None:
    """The header has whole seconds, and the answer took 0.1 s."""
    assert skew(formatdate(said, usegmt=True), 1000.0, 1000.1) == pytest.approx(told)
    assert skew("yesterday", 1000.0, 1000.1) is None


def test_the_rights_are_those_of_the_manifests_for_the_group_that_is_served() -> None:
    served = {"apps", "networking.k8s.io", "calico-why.io"}
    classic = rights.needed(served, CLASSIC, "here", "calico-system")
    native = rights.needed(served, NATIVE, "here", "calico-system")
    assert {one.group for one in classic} == {*served, "", "crd.projectcalico.org"}
    assert {one.group for one in native} == {*served, "", "projectcalico.org"}
    assert {one.on for one in classic if one.namespace == "calico-system"} == {
        "daemonsets.apps calico-node",
        "configmaps calico-config",
        "pods/log",
    }
    assert {one.verb for one in classic if one.on == "fixrequests.calico-why.io" and one.namespace == "here"} == {
        *("get", "list", "watch", "create", "relay")
    }


def test_capabilities_are_read_as_the_kernel_writes_them() -> None:
    assert system._capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n") == NEEDED
    assert system._capabilities("CapEff:\t0000000000282000\n") == ("NET_RAW", "SYS_ADMIN", "SYS_PTRACE")


def test_a_bot_without_approvers_is_not_in_order(tmp_path: Path) -> None:
    (line,) = here.approvers(Approvers(), of_a_bot=True)
    assert line.state == NOT
    (line,) = here.approvers(Approvers(frozenset({"S0NETOPS"})), of_a_bot=True)
    assert line.state == OK
    assert [one.state for one in here.state(tmp_path, of_a_bot=True)] == [OK]
