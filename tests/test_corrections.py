"""Sixteen things a running Calico does that the books say otherwise (calico_truth.md 1): a person is told what is so.

Where nobody could follow packets through a firewall nothing else is blamed in its place.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from bot.reply import commands
from engine import rulebase
from engine.diagnosis import diagnose
from engine.plan import plan
from engine.rule import CauseRule
from facts import Diagnosis, Fact, FelixHealth, Link, LinkAddresses, NodeAsk, RouteLookup, RuleDrop, SendProbe, Trace
from lab.apiserver import ApiServer, User
from lab.apiserver.certificate import make
from lab.apiserver.kubeconfig import kubeconfig
from node_probe.collectors import services
from node_probe.firewall.drops import Counted, drops, grown
from node_probe.processes import TICKS, Process
from node_probe.view import View
from tests.deployed import ADMINISTRATOR
from tests.recorded import native, served
from tests.recorded_answers import alive, cluster_of, followed, judged, known
from tests.recorded_calicoctl import every_run
from tests.recorded_firewall import events, ruleset
from tests.recorded_heal import Run, firewall_at, runs
from tests.recorded_kernel import Recording
from tests.recorded_states import free, recorded
from tests.recordings import load
from tests.test_cases import RECORDINGS, facts_of
from tests.test_firewall_ruleset import FLOWS, before_and_after
from tests.test_recorded_states import ZOO_BASE, flows, pods_of, with_policies

HEALTHY = "v3.32.1/healthy"
POOL_FULL = "v3.32.1/exhaustion/7-pool-full"
TUNNEL_LOST = "v3.32.1/exhaustion/4-strict-tunnel-lost"
RUNS = runs()
RULES = [rule for rule in rulebase.load().rules if isinstance(rule, CauseRule)]


def passing(ask: NodeAsk, probe: SendProbe) -> str:
    return "answered"


def losing(ask: NodeAsk, probe: SendProbe) -> str:
    """What pods send is lost; what nodes send is not."""
    return "silence" if probe.pod else "answered"


async def answer(
    recording: Recording, directory: Path, source: str, target: str, *, lost: bool = False, family: int = 4
) -> Diagnosis:
    async with cluster_of(recording, directory) as cluster:
        facts = await known(cluster, source, target, family=family)
    return judged(facts, recording, losing if lost else passing)


def run_of(fault: str, version: str = "v3.32.1") -> Run:
    (found,) = [run for run in RUNS if run.fault == fault and run.file.startswith(version)]
    return found


async def at(run: Run, number: int, directory: Path) -> Diagnosis:
    """The answer about the pair that was pinged, at this moment of the run."""
    moment = run.moments[number]
    pair = min(moment.lost or moment.pinged, key=sorted)
    source, target = (run.pod(node) for node in sorted(pair))
    return await answer(moment.recording, directory, source, target, lost=pair in moment.lost, family=run.family)


def named(diagnosis: Diagnosis) -> list[str]:
    return [cause.rule for cause in diagnosis.causes]


def warned(diagnosis: Diagnosis) -> list[str]:
    return [cause.rule for cause in diagnosis.warnings]


def advice() -> list[str]:
    """Everything a person may be told to do."""
    return [rule.remedy for rule in RULES]


@pytest.mark.parametrize("state", ["v3.31.7/pool-disabled", "master-87c15906f20c/pool-disabled"])
async def test_01_a_disabled_pool_is_the_cause_although_every_device_looks_fine(state: str, tmp_path: Path) -> None:
    diagnosis = await answer(recorded(state), tmp_path, "default/pod-a1", "default/pod-b1", lost=True)
    assert named(diagnosis) == ["pool_disabled"]
    devices = [one for one in diagnosis.facts if isinstance(one, Link) and one.device == "vxlan.calico"]
    held = [one for one in diagnosis.facts if isinstance(one, LinkAddresses) and one.device == "vxlan.calico"]
    assert len(devices) == 2 and all(one.up for one in devices)
    assert all(one.addresses for one in held)
    assert "Enable the pool again" in diagnosis.causes[0].remedy
    assert not [text for text in advice() if re.search(r"(?<!not )\bdisable (the|a|that) pool", text)]


async def test_02_a_lost_tunnel_address_is_told_never_to_come_back_by_itself(tmp_path: Path) -> None:
    lost = await at(run_of("node-b annotation IPv4VXLANTunnelAddr removed"), 0, tmp_path)
    assert named(lost) == ["tunnel_address_missing"]
    assert lost.causes[0].felix == "Felix does not repair this."
    assert "Restart the calico-node pod" in lost.causes[0].remedy


async def test_02_a_tunnel_address_released_while_in_use_is_warned_of_while_it_still_works(tmp_path: Path) -> None:
    recording = recorded(HEALTHY)
    free(recording, "10.244.218.64")
    diagnosis = await answer(recording, tmp_path, "default/pod-a1", "default/pod-b1")
    assert (diagnosis.verdict, warned(diagnosis)) == ("healthy", ["tunnel_address_freed"])


async def test_03_a_node_without_tunnel_address_is_found_where_ipam_check_finds_no_problem(tmp_path: Path) -> None:
    """From the API alone, before any node has answered."""
    async with cluster_of(recorded(TUNNEL_LOST), tmp_path) as cluster:
        diagnosis = diagnose(await known(cluster, "default/p-a1", "default/p-c1"))
    assert [(cause.rule, cause.node) for cause in diagnosis.causes] == [("tunnel_address_missing", "node-c")]


@pytest.mark.parametrize(("state", "metric"), [(HEALTHY, 1024), ("v3.31.7/healthy-always", 0)])
async def test_04_a_pods_own_route_is_well_with_the_metric_of_its_version(
    state: str, metric: int, tmp_path: Path
) -> None:
    diagnosis = await answer(recorded(state), tmp_path, "default/pod-a1", "default/pod-b1")
    own = [one for one in diagnosis.facts if isinstance(one, RouteLookup) and one.device.startswith("cali")]
    assert diagnosis.verdict == "healthy"
    assert {one.metric for one in own} == {metric}


async def test_04_a_second_route_without_metric_is_harmless_or_the_stronger_one(tmp_path: Path) -> None:
    right = await at(run_of("local_pod32_readd_without_metric"), 0, tmp_path)
    wrong = await at(run_of("local_pod32_extra_lower_metric_wrong_dev"), 0, tmp_path)
    assert (right.verdict, warned(right)) == ("healthy", [])
    assert named(wrong) == ["pod_route_wrong_device"]


async def test_05_under_vxlan_only_the_block_counts_not_who_claims_it(tmp_path: Path) -> None:
    for fault in (
        "BlockAffinity of node-b deleted (block keeps affinity)",
        "second BlockAffinity node-c for node-b block",
        "IPAMBlock of node-b: affinity changed to host:node-c",
        "IPAMBlock of node-b: affinity removed",
    ):
        assert (await at(run_of(fault), 0, tmp_path)).verdict == "healthy", fault
    assert named(await at(run_of("IPAMBlock of node-b deleted"), 0, tmp_path)) == ["allocation_missing"]


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [("vxlan_down", 10), ("vxlan_deleted", 10), ("fdb_del", 95), ("neigh_wrong_mac", 95), ("local_pod32_del", 95),
     ("cali_down", 0), ("cali_proxy_arp_0", 0), ("ip_forward_0", 0), ("pod_neigh_wrong_permanent", 0)],
)  # fmt: skip
async def test_06_devices_come_back_within_seconds_entries_within_two_minutes_and_pods_edges_never(
    fault: str, seconds: int, tmp_path: Path
) -> None:
    (cause,) = (await at(run_of(fault), 0, tmp_path)).causes
    assert cause.heals_within_s == seconds
    assert cause.felix == "Felix does not repair this." if seconds == 0 else f"within {seconds} s" in cause.felix


@pytest.mark.parametrize("version", ["v3.31.7", "v3.32.1"])
async def test_07_a_tunnel_device_that_lost_its_address_is_not_announced_back_within_seconds(
    version: str, tmp_path: Path
) -> None:
    """The address is; what hung on it takes the next resync, and meanwhile the device looks perfect."""
    run = run_of("vxlan_addr_del", version)
    bare, half = await at(run, 0, tmp_path), await at(run, 1, tmp_path)
    assert named(bare) == ["vxlan_device_address_wrong"]
    assert set(named(half)) == {"route_missing", "neighbor_missing"}
    assert all(cause.heals_within_s == 95 for cause in (*bare.causes, *half.causes))


async def looked(run: Run, number: int, directory: Path, trace: str = "") -> Diagnosis:
    """The answer at this moment of the run, with what the probe of the wounded node sees of its firewall, and on the
    node that drops with what a recorded trace tells, where one is given."""
    moment = run.moments[number]
    pair = min(moment.lost or moment.pinged, key=sorted)
    source, target = (run.pod(node) for node in sorted(pair, reverse=bool(trace)))  # node-a is the wounded one
    (wounded,) = [one["node"] for one in load("v3.32.1/loose")[run.file[8:]] if one["fault"] == run.fault]

    def told(node: str, packet: Trace) -> list[Fact]:
        met = node == wounded and not packet.reply
        outer = "vxlan" in trace
        return list(drops(node, packet, events(trace), ruleset(trace), outer=outer)) if met else []

    async with cluster_of(moment.recording, directory) as cluster:
        facts = await known(cluster, source, target, family=run.family)
        facts.append(firewall_at(moment, wounded))
        packets = losing if pair in moment.lost else passing
        if trace:
            return await followed(cluster, facts, moment.recording, packets, told)
    return judged(facts, moment.recording, packets)


@pytest.mark.parametrize(
    ("fault", "number", "trace", "empty"),
    [
        ("nft_delete_table_ip_calico", 1, "6-unknown-interface-to", "maps of Calico's nftables table"),
        ("nft_delete_table_ip_calico", 2, "7-input-non-allowed-vxlan-host", "set of nodes whose VXLAN packets"),
        ("nft_flush_ruleset", 1, "6-unknown-interface-to", "maps of Calico's nftables table"),
        ("nft_flush_ruleset", 2, "7-input-non-allowed-vxlan-host", "set of nodes whose VXLAN packets"),
    ],
)
async def test_08_chains_rebuilt_with_empty_sets_drop_and_routes_and_devices_are_not_blamed(
    fault: str, number: int, trace: str, empty: str, tmp_path: Path
) -> None:
    """Whether or not anybody follows the packets. Where nobody could see the firewall, nothing is found."""
    for where in ("", f"trace/nftables/{trace}"):
        diagnosis = await looked(run_of(fault), number, tmp_path, where)
        assert any(isinstance(one, RuleDrop) for one in diagnosis.facts) == bool(where)
        assert named(diagnosis) == ["firewall_sets_empty"], where
        assert empty in diagnosis.causes[0].text
        assert "repairs this within 95 s" in diagnosis.causes[0].felix
    unseen = await at(run_of(fault), number, tmp_path)
    assert (unseen.verdict, named(unseen), warned(unseen)) == ("unknown", [], [])
    assert "Nothing wrong was found, and yet" in unseen.summary


@pytest.mark.parametrize("fault", ["nft_delete_table_ip_calico", "nft_flush_ruleset"])
async def test_08_tables_that_are_gone_lose_no_packet_before_felix_comes_back(fault: str, tmp_path: Path) -> None:
    diagnosis = await looked(run_of(fault), 0, tmp_path)
    assert (diagnosis.verdict, named(diagnosis), warned(diagnosis)) == ("healthy", [], ["policy_not_enforced"])


async def test_09_a_policy_that_is_off_is_told_and_no_reason_for_packets_to_be_lost(tmp_path: Path) -> None:
    """It fails open: packets pass, nobody notices, and nobody is blamed for anything."""
    for fault in (
        "ipt_forward_jump_del", "ipt_flush_filter", "ipt_flush_cali_forward", "nft_del_jump_in_base_forward",
        "nft_flush_table_ip_calico",
    ):  # fmt: skip
        diagnosis = await looked(run_of(fault), 0, tmp_path)
        assert (diagnosis.verdict, named(diagnosis), warned(diagnosis)) == ("healthy", [], ["policy_not_enforced"]), (
            fault
        )
        assert (await looked(run_of(fault), -1, tmp_path)).warnings == (), fault


@pytest.mark.parametrize(("version", "told"), [("v3.32.1", True), ("v3.31.7", False)])
async def test_10_leaks_that_nobody_frees_are_put_on_kube_controllers_waiting_for_calico_node(
    version: str, told: bool, tmp_path: Path
) -> None:
    """Only in the versions that wait."""
    recording = recorded(POOL_FULL)
    for one in recording.objects:
        if one["kind"] == "ClusterInformation":
            one["spec"]["calicoVersion"] = version
    recording.objects += kube_controllers(unavailable=1)
    diagnosis = await answer(recording, tmp_path, "default/p-a1", "default/p-full-a")
    stuck = [cause.text for cause in diagnosis.warnings if cause.rule == "ipam_gc_stuck"]
    assert bool(stuck) == told
    assert all("frees none until every calico-node pod was available once, and 1 are not" in text for text in stuck)


def kube_controllers(*, unavailable: int) -> list[dict[str, Any]]:
    """Its pod runs; of calico-node's pods some are not available."""
    labels = {"k8s-app": "calico-kube-controllers"}
    container = {"name": "calico-kube-controllers", "image": "calico/kube-controllers:v3.32.1"}
    ready = {"name": container["name"], "image": container["image"], "imageID": "", "ready": True, "restartCount": 0,
             "state": {"running": {}}}  # fmt: skip
    node = {"k8s-app": "calico-node"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "calico-kube-controllers-0", "namespace": "kube-system", "labels": labels},
            "spec": {"nodeName": "node-a", "containers": [container], "hostNetwork": True},
            "status": {"phase": "Running", "containerStatuses": [ready]},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "calico-node", "namespace": "kube-system"},
            "spec": {
                "selector": {"matchLabels": node},
                "template": {"metadata": {"labels": node}, "spec": {"containers": [container]}},
            },
            "status": {"currentNumberScheduled": 3, "desiredNumberScheduled": 3, "numberMisscheduled": 0,
                       "numberReady": 3 - unavailable, "numberUnavailable": unavailable},
        },
    ]  # fmt: skip


class Recorded:
    """What `of_calico` saw of a node whose node-services wrote a log, with the clock of that log."""

    def __init__(self, log: str, first: float) -> None:
        """first: how long after the log's first process the probe begins to look, in s."""
        self.lives: dict[int, list[float]] = {}
        for hours, minutes, seconds, pid in re.findall(
            r"^\S+ (\d+):(\d+):([\d.]+) \[\w+\]\[(\d+)\]", log, re.MULTILINE
        ):
            self.lives.setdefault(int(pid), []).append(3600 * int(hours) + 60 * int(minutes) + float(seconds))
        del self.lives[min(self.lives)]  # the one that had its address, and was told to end
        self.now = min(map(min, self.lives.values())) + first
        self.boot = self.now - 900

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    async def to_thread(self, look: Callable[[], Any]) -> Any:
        return look()

    def of_calico(self) -> list[Process]:
        boot = time.clock_gettime(time.CLOCK_BOOTTIME) - (self.now - self.boot)
        seen = [Process(11, 1, round(boot * TICKS), ("runsv", "node-services"))]
        return seen + [
            Process(pid, 11, round((boot + min(at) - self.boot) * TICKS), ("calico-node", "-node-services"))
            for pid, at in self.lives.items()
            if min(at) <= self.now <= max(at)
        ]


@pytest.mark.parametrize("log", ["5-strict-allocator-restart/node-c", "7-pool-full/allocator-full-node-c"])
@pytest.mark.parametrize("first", [0.0, 0.13, 0.3, 0.6, 1.1])
async def test_11_a_node_whose_services_die_for_want_of_a_tunnel_address_is_told_so(
    log: str, first: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it is looked at: each process lives a tenth of a second, and the next one starts a second later."""
    clock = Recorded(load("v3.32.1/loose")[f"exhaustion/{log}-services.log.txt"], first)
    monkeypatch.setattr(services, "of_calico", clock.of_calico)
    monkeypatch.setattr(services, "time", clock)
    monkeypatch.setattr(services, "asyncio", clock)
    ask = NodeAsk(node="node-c", felix=True, felix_again=True)
    dying = [one async for one in services.collect(ask, cast(View, None))]
    recording = recorded(TUNNEL_LOST)
    async with cluster_of(recording, tmp_path) as cluster:
        facts = await known(cluster, "default/p-a1", "default/p-c1")
    diagnosis = judged([*facts, *dying], recording, losing)
    assert named(diagnosis) == ["tunnel_address_missing"]
    (warning,) = [cause for cause in diagnosis.warnings if cause.rule == "node_services_crash_looping"]
    assert "give it no tunnel address" in warning.text
    assert "failed to reconcile tunnel address" in warning.remedy
    assert "strictAffinity" in warning.remedy


@pytest.mark.parametrize(("confirmed", "told"), [(False, []), (True, ["felix_not_ready"])])
async def test_12_a_felix_that_restarts_is_no_fault_and_one_that_stays_away_is(
    confirmed: bool, told: list[str], tmp_path: Path
) -> None:
    """It exits by itself when settings of its node change, and its paths live on meanwhile."""
    recording = recorded(HEALTHY)
    away = FelixHealth(node="node-b", reachable=False, detail="nothing listens on 127.0.0.1:9099", confirmed=confirmed)
    async with cluster_of(recording, tmp_path) as cluster:
        facts = await known(cluster, "default/pod-a1", "default/pod-b1")
    seen = [
        one
        for ask in plan(facts)
        for one in recording.answer(ask, passing, away if ask.node == "node-b" else alive(ask.node))
    ]
    diagnosis = diagnose([*facts, *seen])
    assert (diagnosis.verdict, warned(diagnosis)) == ("healthy", told)


async def test_13_ping_that_a_tier_drops_at_its_end_is_answered_with_what_to_ask_next(tmp_path: Path) -> None:
    """Where they could be followed the rule is named, whatever the case of its words: of these nothing else passes."""
    dropped = [flow for flow in flows() if flow[0] == "01-knp-ingress" and flow[-1] == "timeout"]
    assert dropped
    for _, source, target, _, _ in dropped:
        diagnosis = await answer(recorded(ZOO_BASE), tmp_path, source, target, lost=True)
        assert (diagnosis.verdict, named(diagnosis)) == ("unknown", [])
        assert "Policy often drops ICMP: ask again with the port" in diagnosis.summary
    for found in await answers_of("01-knp-ingress", tmp_path, ping=True):
        (cause,) = found.causes
        assert cause.rule == "policy_denies_ingress"
        assert "at the end of tier default, where none of its policies took them (NetworkPolicy " in cause.text
        assert "End of tier default. Drop if no policies passed packet" in cause.text


async def answers_of(name: str, directory: Path, *, ping: bool = False) -> list[Diagnosis]:
    """To the recorded flows of one set of policies that were dropped, or to pings beside them, which met the same."""
    recording = with_policies(name)
    names = {pod.address: pod.name for pod in pods_of(recording)}
    found = []
    async with cluster_of(recording, directory) as cluster:
        for flow in (one for one in FLOWS if one["set"] == name and one["result"] == "timeout"):
            address, _, port = flow["dst"].partition(":")
            ((node, (rule,)),) = flow["drop_rules"].items()
            if address not in names:
                continue
            asked = names[address] if ping else f"{names[address]} {port}/tcp"
            facts = await known(cluster, f"default/{flow['src']}", asked, family=4)

            def counted(at: str, packet: Trace, flow: Any = flow, node: str = node, rule: Any = rule) -> list[Fact]:
                if at != node or packet.reply:
                    return []
                return list(grown(node, [Counted(packet, rule["packets"])], *before_and_after(flow, node)))

            found.append(await followed(cluster, facts, recording, losing, counted))
    assert found
    return found


async def test_14_an_explicit_deny_whose_rule_has_no_name_is_put_on_nothing_else(tmp_path: Path) -> None:
    dropped = [flow for flow in flows() if flow[0] in ("06-calico-np-order", "12-networkset") and flow[-1] == "timeout"]
    assert dropped
    recording = recorded(ZOO_BASE)
    async with cluster_of(recording, tmp_path) as cluster:
        for _, source, target, port, _ in dropped:
            facts = await known(cluster, source, f"{target} {port}/tcp", family=4)
            diagnosis = judged(facts, recording, lambda ask, probe: "silence" if probe.port else "answered")
            assert (diagnosis.verdict, named(diagnosis)) == ("unknown", [])


@pytest.mark.parametrize(
    ("name", "policy"),
    [("06-calico-np-order", "NetworkPolicy default/deny-g2-first"), ("12-networkset", "NetworkPolicy default/")],
)
async def test_14_an_explicit_deny_is_named_by_its_chain_and_by_the_rule_with_the_conditions(
    name: str, policy: str, tmp_path: Path
) -> None:
    for found in await answers_of(name, tmp_path):
        (cause,) = found.causes
        assert cause.rule == "policy_denies_ingress"
        assert f"by rule 1 of Calico {policy}" in cause.text and "Its conditions stand in the rule" in cause.text


def ended_well() -> dict[str, set[str]]:
    """Words of a calicoctl command that a real one took -> the options it took with them."""
    found: dict[str, set[str]] = {}
    for run in every_run("v3.32.1"):
        if run.status == 0:
            words, options = command(run.command.removeprefix("calicoctl "))
            found.setdefault(words, set()).update(options)
    return found


def command(text: str) -> tuple[str, list[str]]:
    """(its words, its options without what they are given)"""
    parts = text.split()
    return " ".join(one for one in parts if one[0] != "-" and one.islower()), re.findall(r"(?<!\S)--?[a-z-]+", text)


def works(told: str) -> bool:
    """Would a running Calico do what this command is told for? What `-o` is given is the name of a file."""
    words, options = command(told)
    well = ended_well()
    named_file = words == "ipam check" and re.search(r"-o FILE\b", told)
    return words in well and set(options) <= well[words] | ({"-o"} if named_file else set())


def to_be_typed() -> set[str]:
    """What of calicoctl an answer shows a cause with, whichever the cause is."""
    answers = [(mode, diagnose(facts_of(recording))) for mode, recording in (case.values for case in RECORDINGS)]
    causes = [(one, answer) for mode, answer in answers for one in answer.causes + answer.warnings if one.rule == mode]
    lines = [command.line for one, answer in causes for command in commands.to_see(one, answer)]
    return {line.removeprefix("calicoctl ") for line in lines if line.startswith("calicoctl ")}


def test_15_whoever_does_as_told_meets_no_error_of_calicoctl() -> None:
    """`ipam check -o json` writes a file called json, and there is no `get blockaffinities`."""
    told = [one for text in advice() for one in re.findall(r"`calicoctl ([^`]*)`", text)]
    told += [one for one in to_be_typed() if one.split()[0] != "get"]  # of which no run has an object's name
    assert len(told) > 5
    assert [one for one in told if not works(one)] == []
    assert not works("get blockaffinities") and not works("ipam check -o json") and not works("get ipamconfigurations")


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("group", ["crd.projectcalico.org", "projectcalico.org"])
async def test_16_what_people_are_told_to_do_to_blocks_is_what_kubectl_does(group: str, tmp_path: Path) -> None:
    """It refuses to apply an IPAMBlock. That a second node claims a block is mended without one."""
    run = run_of("second BlockAffinity node-c for node-b block")
    recording = run.moments[0].recording
    resources = recording.objects if group.startswith("crd.") else [native(one) for one in recording.objects]
    async with served(resources, tmp_path, group=group) as world, world.cluster() as cluster:

        async def warnings() -> list[str]:
            facts = await known(cluster, run.pod("node-c"), run.pod("node-b"), family=4)
            diagnosis = judged(facts, recording, passing)
            assert diagnosis.verdict == "healthy"
            remedies.extend(cause.remedy for cause in diagnosis.warnings)
            return warned(diagnosis)

        remedies: list[str] = []
        assert await warnings() == ["block_affinity_conflict"]
        (told,) = re.findall(r"`kubectl ([^`]*)`", remedies[0])
        if not group.startswith("crd."):
            assert "without `crd.`" in remedies[0]
            told = told.replace("crd.", "")
        server, certificate = ApiServer(world.store, {ADMINISTRATOR: User(ADMINISTRATOR, grants=None)}), make()
        config = tmp_path / "by TLS"  # kubectl sends no token otherwise
        config.write_text(kubeconfig(await server.start(tls=certificate.context), ADMINISTRATOR, certificate.authority))
        words = told.replace("NODE-BLOCK", "node-c-10-244-218-64-26").split()
        done = await asyncio.create_subprocess_exec("kubectl", "--kubeconfig", str(config), *words)
        assert await done.wait() == 0
        await server.stop()
        assert await warnings() == []
    verbs = {verb for text in advice() for verb in re.findall(r"kubectl (\w+)", text)}
    assert verbs <= {"delete", "describe", "logs"}  # those that no block is sent with


def test_each_of_the_sixteen_has_its_test() -> None:
    there = {name.split("_")[1] for name in globals() if re.match(r"test_\d\d_", name)}
    assert there == {f"{number:02}" for number in range(1, 17)}
