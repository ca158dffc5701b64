"""Were a rule read or counted wrongly, an incident channel would read of a policy that let the packet pass."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from facts import Blind
from facts.ask import Trace
from facts.firewall import FirewallTrace, RuleDrop
from node_probe.firewall import reading as tools
from node_probe.firewall.drops import Counted, drops, grown, wanted
from node_probe.firewall.event import Event
from node_probe.firewall.ruleset import (
    IPTABLES_LEGACY,
    IPTABLES_NFT,
    Chain,
    Rule,
    Ruleset,
    from_nft,
    from_save,
    with_handles,
)
from tests.namespaces import in_namespaces
from tests.recorded_firewall import directories, events, files, ruleset
from tests.recordings import load

ASKED = Trace(source="10.244.218.65", target="10.244.174.129", protocol="tcp", port=8080)
SCENARIOS = directories(r"trace/.*/meta\.json")
END = "{} if no policies passed packet"
# scenario -> (chain, n-th rule, its comment, chains before it, title, tier, consulted)
POD = ("FORWARD", "cali-FORWARD", "cali-to-wl-dispatch")
EXPECTED: dict[str, tuple[Any, ...]] = {
    "1-default-deny-ingress": (
        "cali-tw-",
        7,
        "End of tier default. Drop if no policies passed packet",
        POD,
        "",
        "default",
        ("KubernetesNetworkPolicy default/default-deny ingress",),
    ),
    "2-gnp-explicit-deny": (
        "cali-pi-gnp/block-g1",
        2,
        "",
        (*POD, "cali-tw-"),
        "GlobalNetworkPolicy block-g1 ingress",
        "default",
        (),
    ),
    "3-end-of-tier-security": (
        "cali-tw-",
        7,
        "End of tier security. Drop if no policies passed packet",
        POD,
        "",
        "security",
        ("NetworkPolicy default/security.allow-only-https ingress",),
    ),
    "4-egress-deny-at-source": (
        "cali-po-np/default/no-egress",
        2,
        "",
        ("FORWARD", "cali-FORWARD", "cali-from-wl-dispatch", "cali-fw-"),
        "NetworkPolicy default/no-egress egress",
        "default",
        (),
    ),
    "5-rpfilter-spoofed-source": ("cali-PREROUTING", 5, "", ("PREROUTING",), "", "", ()),
    "6-unknown-interface-from": ("cali-from-wl-dispatch", -1, "Unknown interface", POD[:2], "", "", ()),
    "6-unknown-interface-to": ("cali-to-wl-dispatch", -1, "Unknown interface", POD[:2], "", "", ()),
    "7-input-non-allowed-vxlan-host": (
        "cali-INPUT",
        2,
        "Drop IPv4 VXLAN packets from non-allowed hosts",
        ("INPUT",),
        "",
        "",
        (),
    ),
    "8-foreign-nft-table-drop": ("guard", 1, "", (), "", "", ()),
    "10-own-route-missing-rpfilter": ("cali-PREROUTING", 5, "", ("PREROUTING",), "", "", ()),
}
PASSED = {"0-allowed": "postrouting", "9-pod-route-missing-blackhole": "prerouting"}


def bare(chain: str) -> str:
    """As iptables calls it, without the pod's interface and without the tree that many pods make of a dispatch."""
    chain = re.sub(r"^(filter|raw|mangle|nat)-", "", chain)
    return re.sub(r"(?<=cali-[tf]w-).*|(?<=dispatch)-\w$", "", chain)


@pytest.mark.parametrize("directory", SCENARIOS)
def test_a_recorded_trace_names_the_rule_that_ended_its_packets(directory: str) -> None:
    mode, scenario = directory.split("/")[1:]
    rules = ruleset(directory)
    trace, *ended = drops("node-a", ASKED, events(directory), rules)
    assert isinstance(trace, FirewallTrace)
    if scenario in PASSED:
        assert not ended and (trace.dropped, trace.last_hook) == (0, PASSED[scenario])
        return
    (drop,) = ended
    assert isinstance(drop, RuleDrop)
    assert trace.seen == trace.dropped == drop.packets > 0 and trace.last_hook == ""
    chain, number, comment, through, title, tier, consulted = EXPECTED[scenario]
    assert bare(drop.chain) == chain
    assert (drop.comment, drop.title, drop.tier, drop.consulted_titles) == (comment, title, tier, consulted)
    assert tuple(dict.fromkeys(map(bare, drop.through))) == through
    assert number in (drop.number, -1)
    assert drop.verdict == "drop"
    assert drop.backend == ("nft" if mode == "nftables" or chain == "guard" else mode)
    told = json.loads(files()[f"{directory}/meta.json"])
    if drop.backend == IPTABLES_LEGACY:
        (last,) = told["legacy_last"]
        assert f" {drop.table}:{drop.chain}:rule:{drop.number} " in last
    else:
        # Whoever recorded it read these lines by eye.
        assert any(f" {drop.table} {drop.chain} rule " in one for one in told["nft_drop_lines"])
        assert all(f"# handle {drop.handle} " in one for one in told["nft_drop_lines"])
    if drop.backend == IPTABLES_NFT:
        last = files()[f"{directory}/xtables-monitor-trace.txt"].rstrip().splitlines()[-1]
        assert last.endswith(f":DROP  -4 -t {drop.table} {drop.text}")


def test_a_recorded_policy_shows_what_its_drop_only_has_a_mark_for() -> None:
    for directory in SCENARIOS:
        for drop in drops("node-a", ASKED, events(directory), ruleset(directory)):
            if isinstance(drop, RuleDrop) and drop.title:
                assert "cali40s" in drop.marked_by and (drop.nth, drop.drops) == (1, 1)
            elif isinstance(drop, RuleDrop):
                assert drop.marked_by == ""


SERVICES = {
    ("node-a", "no-endpoints"): ("KUBE-SERVICES", "reject", "default/svc-none:web has no endpoints"),
    ("node-a", "internal-local"): ("KUBE-SERVICES", "drop", "default/svc-intlocal:web has no local endpoints"),
    ("node-c", "no-endpoints"): ("reject-chain", "reject", "helper for @no-endpoint-services / @no-endpoint-nodeports"),
    ("node-c", "internal-local"): ("service-endpoints-check", "drop", ""),
    ("node-c", "unallocated-ip"): ("cluster-ips-check", "drop", "Drop traffic to unallocated ClusterIPs"),
}


ADDRESSES = {"no-endpoints": "10.96.0.51", "internal-local": "10.96.0.57"}
DECIDED = {
    "no-endpoints": ("no-endpoint-services", "default/svc-none:web"),
    "internal-local": ("no-endpoint-services", "default/svc-intlocal:web"),
}


@pytest.mark.parametrize("name", ["no-endpoints", "internal-local", "unallocated-ip", "svc-ok", "stale-endpoint"])
@pytest.mark.parametrize("node", ["node-a", "node-c"])
def test_a_recorded_trace_of_a_service_names_kube_proxys_rule(node: str, name: str) -> None:
    directory = f"services/trace/{node}"
    asked = Trace(source=ASKED.source, target=ADDRESSES.get(name, ASKED.target), protocol="tcp", port=80)
    trace, *ended = drops(node, asked, events(directory, name), ruleset(directory))
    assert isinstance(trace, FirewallTrace)
    if (node, name) not in SERVICES:
        assert not ended and trace.last_hook == "postrouting"
        return
    (drop,) = ended
    assert isinstance(drop, RuleDrop)
    assert (drop.chain, drop.verdict, drop.comment) == SERVICES[node, name]
    assert drop.hook == "forward" and drop.through
    if node == "node-a":  # nft calls a REJECT a drop, and so does xtables-monitor, but it prints the rule
        last = files()[f"{directory}/{name}-xtables-monitor.txt"].rstrip().splitlines()[-1]
        assert last.endswith(drop.text)
    elif name == "internal-local":
        assert "vmap @no-endpoint-services" in drop.text
    if node == "node-c":
        assert (drop.map, drop.element) == DECIDED.get(name, ("", ""))


# --- counters ---

FLOWS: list[dict[str, Any]] = load("v3.32.1/loose")["policy-zoo/table.json"]
NUMBERS = {id(one): sum(other["set"] == one["set"] for other in FLOWS[: n + 1]) for n, one in enumerate(FLOWS)}


def before_and_after(flow: dict[str, Any], node: str) -> tuple[Ruleset, Ruleset]:
    number = NUMBERS[id(flow)]
    before = f"{number - 1}-after-flow" if number > 1 else "0-idle"
    where = f"policy-zoo/{flow['set']}"
    return ruleset(f"{where}/{before}/{node}"), ruleset(f"{where}/{number}-after-flow/{node}")


@pytest.mark.parametrize("node", ["node-a", "node-c"])
@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: f"{flow['set']}: {flow['flow']}")
def test_counters_name_the_rule_that_ended_a_recorded_flow(flow: dict[str, Any], node: str) -> None:
    expected = flow["drop_rules"].get(node, [])
    before, after = before_and_after(flow, node)
    found = grown(node, [Counted(ASKED, expected[0]["packets"] if expected else 2)], before, after)
    if not expected:
        assert found == []
        return
    trace, drop = found
    assert isinstance(trace, FirewallTrace) and isinstance(drop, RuleDrop)
    assert (trace.how, drop.how, drop.packets) == ("counter", "counter", expected[0]["packets"])
    recorded = expected[0]
    assert f"{drop.table} {drop.chain}" == recorded["chain"] or drop.chain == recorded["chain"]
    assert recorded["rule"] in drop.text
    assert recorded["no_or_handle"] in (drop.number, str(drop.handle))
    assert drop.through and (drop.tier or drop.title)
    assert drop.hook == ("input" if flow["set"].startswith("15-") else "forward")


DENIED = next(flow for flow in FLOWS if flow["drop_rules"].get("node-c"))


def test_counters_say_nothing_where_another_number_was_sent() -> None:
    before, after = before_and_after(DENIED, "node-c")
    (blind,) = grown("node-c", [Counted(ASKED, 7)], before, after)
    assert isinstance(blind, Blind) and blind.minor and "of 7 sent" in blind.reason


def test_counters_say_nothing_across_a_change_of_policy() -> None:
    """Felix keeps the handles and counts from 0: a difference would name a rule that never saw the packet."""
    before = ruleset("policy-zoo/02-knp-egress/4-after-flow/node-c")
    _, after = before_and_after(DENIED, "node-c")
    (blind,) = grown("node-c", [Counted(ASKED, 2)], before, after)
    assert isinstance(blind, Blind) and "changed while packets were sent" in blind.reason


def test_counters_say_nothing_where_two_rules_that_drop_counted() -> None:
    before, after = before_and_after(DENIED, "node-c")
    foreign = """table inet guard {
\tchain forward { # handle 1
\t\ttype filter hook forward priority 5; policy accept;
\t\tip daddr 192.0.2.1 counter packets %d bytes 0 drop # handle 2
\t}
}
"""
    a, b = (Ruleset([*one.chains.values(), *from_nft(foreign % n)]) for one, n in ((before, 3), (after, 4)))
    (blind,) = grown("node-c", [Counted(ASKED, 2)], a, b)
    assert isinstance(blind, Blind) and blind.reason == "2 rules that drop counted packets meanwhile"


def foreign(words: str = "", *, policy: int = 0, counted: int = 0) -> Ruleset:
    """Somebody's own rules: what the policy and the rule that drops have counted."""
    text = f"""*filter
:FORWARD DROP [{policy}:0]
:guard - [0:0]
[{9 + counted}:9] -A FORWARD -j guard
[{counted}:0] -A guard {words} -j DROP
COMMIT
"""
    return Ruleset(from_save(text, backend=IPTABLES_LEGACY, family="ip"))


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        ("-s 10.244.218.0/24", True),
        ("-s 10.244.218.65/32 -d 10.244.174.129/32 -p tcp -m tcp --dport 8080", True),
        ("! -s 10.0.0.0/24 ! -p udp", True),
        ("-s 10.244.1.0/24", False),
        ("-d 192.0.2.1/32", False),
        ("-p udp -m udp --dport 53", False),
        ("-s fd00::/8", False),
    ],
)
def test_a_rule_that_says_it_is_about_others_is_not_blamed(words: str, ours: bool) -> None:
    """Somebody else's packets may be dropped in the same second, and be as many."""
    found = grown("node-a", [Counted(ASKED, 2)], foreign(words, counted=3), foreign(words, counted=5))
    if ours:
        _, drop = found
        assert isinstance(drop, RuleDrop) and (drop.chain, drop.through) == ("guard", ("FORWARD",))
    else:
        (blind,) = found
        assert isinstance(blind, Blind) and "about other packets" in blind.reason


def test_a_pod_is_not_blamed_for_what_another_pods_rules_dropped() -> None:
    before, after = before_and_after(DENIED, "node-c")
    (packets,) = (rule["packets"] for rule in DENIED["drop_rules"]["node-c"])
    _, drop = grown("node-c", [Counted(ASKED, packets, ["cali1b3732f617b"])], before, after)
    assert isinstance(drop, RuleDrop) and drop.chain.endswith("cali1b3732f617b")
    for others in ([], ["cali20a839c368e"]):
        (blind,) = grown("node-c", [Counted(ASKED, packets, others)], before, after)
        assert isinstance(blind, Blind) and "about other packets" in blind.reason


@pytest.mark.parametrize(
    ("counted", "kinds"),
    [(2, ("icmp",)), (3, ("tcp",)), (5, ("icmp", "tcp")), (7, ("tcp", "udp")), (8, None), (9, ("icmp", "tcp", "udp"))],
)
def test_packets_of_several_kinds_are_told_apart_by_how_many_they_were(
    counted: int, kinds: tuple[str, ...] | None
) -> None:
    """Where a policy drops pings and connections, its rule counts both."""
    legs = [
        Counted(Trace(source=ASKED.source, target=ASKED.target, protocol=protocol), sent)
        for protocol, sent in (("icmp", 2), ("tcp", 3), ("udp", 4))
    ]
    found = grown("node-a", legs, foreign(), foreign(counted=counted))
    if counted == 5:
        assert [type(one) for one in found] == [FirewallTrace, RuleDrop] * 2
    drops_of = [(one.protocol, one.packets) for one in found if isinstance(one, RuleDrop)]
    assert drops_of == [(leg.asked.protocol, leg.sent) for leg in legs if leg.asked.protocol in (kinds or ())]
    assert kinds or isinstance(found[0], Blind)


def test_as_many_packets_of_two_kinds_are_not_told_apart() -> None:
    legs = [Counted(Trace(source=ASKED.source, target=ASKED.target, protocol=one), 2) for one in ("icmp", "tcp")]
    (blind,) = grown("node-a", legs, foreign(), foreign(counted=2))
    assert isinstance(blind, Blind) and "more than one kind" in blind.reason
    _, drop = grown("node-a", legs, foreign("-p tcp"), foreign("-p tcp", counted=2))
    assert isinstance(drop, RuleDrop) and drop.protocol == "tcp"


def test_a_policy_that_drops_is_counted_and_named() -> None:
    _, drop = grown("node-a", [Counted(ASKED, 2)], foreign(policy=3), foreign(policy=5))
    assert isinstance(drop, RuleDrop)
    assert (drop.chain, drop.number, drop.text, drop.hook) == ("FORWARD", 0, "policy drop", "forward")


def test_counters_say_nothing_where_packets_came_by_more_than_one_way() -> None:
    """A policy's chain serves many pods: which one's packets it dropped, only its callers' counters can tell."""
    text = """*filter
:FORWARD ACCEPT [0:0]
:cali-tw-cali1 - [0:0]
:cali-tw-cali2 - [0:0]
:cali-pi-gnp/foo - [0:0]
[9:9] -A FORWARD -o cali1 -j cali-tw-cali1
[9:9] -A FORWARD -o cali2 -j cali-tw-cali2
[%d:9] -A cali-tw-cali1 -j cali-pi-gnp/foo
[%d:9] -A cali-tw-cali2 -j cali-pi-gnp/foo
[%d:0] -A cali-pi-gnp/foo -j DROP
COMMIT
"""
    listed = [from_save(text % counts, backend=IPTABLES_LEGACY, family="ip") for counts in ((1, 1, 1), (3, 3, 3))]
    (blind,) = grown("node-a", [Counted(ASKED, 2)], Ruleset(listed[0]), Ruleset(listed[1]))
    assert isinstance(blind, Blind) and "more than one way" in blind.reason


def test_counters_say_nothing_where_a_listing_was_not_to_be_had() -> None:
    before, after = before_and_after(DENIED, "node-c")
    (blind,) = grown("node-c", [Counted(ASKED, 2)], before, Ruleset(after.chains.values(), ["nft failed"]))
    assert isinstance(blind, Blind) and blind.reason == "nft failed"


# --- what a trace cannot tell must not be told ---


def hooked(*hooks: str, backend: str = "nft") -> list[Chain]:
    return [Chain(backend=backend, family="inet", table="own", name=f"at {hook}", hook=hook) for hook in hooks]


def met(packet: str, chain: str, **more: Any) -> Event:
    given = {"backend": "nft", "family": "inet", "table": "own", "kind": "policy", "verdict": "accept", **more}
    return Event(packet=packet, chain=chain, **given)


def last_hook(found: list[Event], rules: Ruleset) -> str:
    (trace,) = drops("node-a", ASKED, found, rules)
    assert isinstance(trace, FirewallTrace)
    return trace.last_hook


def test_routing_is_not_blamed_where_nobody_watches_behind_it() -> None:
    """On a node with iptables-legacy alone an nft trace ends in prerouting for every packet, delivered or not."""
    assert last_hook([met("1", "at prerouting")], Ruleset(hooked("prerouting"))) == ""
    assert last_hook([met("1", "at prerouting")], Ruleset(hooked("prerouting", "forward"))) == ""
    assert last_hook([met("1", "at prerouting")], Ruleset(hooked("prerouting", "forward", "input"))) == "prerouting"


def test_two_backends_that_tell_of_one_packet_count_it_once() -> None:
    rules = Ruleset([*hooked("prerouting"), *hooked("prerouting", "input", "forward", backend=IPTABLES_LEGACY)])
    legacy = {"backend": IPTABLES_LEGACY, "verdict": ""}
    both = [met("1", "at prerouting"), met("a", "at prerouting", **legacy), met("a", "at forward", **legacy)]
    (trace,) = drops("node-a", ASKED, both, rules)
    assert isinstance(trace, FirewallTrace) and (trace.seen, trace.last_hook) == (1, "forward")
    same = [met("1", "at prerouting"), met("1", "at prerouting", **legacy), met("2", "at prerouting")]
    (trace,) = drops("node-a", ASKED, same, rules)
    assert isinstance(trace, FirewallTrace) and trace.seen == 2


def test_a_number_the_kernel_gave_again_is_another_packet() -> None:
    rules = Ruleset(hooked("prerouting", "input", "forward"))
    again = [met("1", "at prerouting"), met("1", "at forward"), met("1", "at prerouting"), met("1", "at forward")]
    (trace,) = drops("node-a", ASKED, again, rules)
    assert isinstance(trace, FirewallTrace) and (trace.seen, trace.last_hook) == (2, "forward")
    ended = [met("1", "at forward", verdict="drop"), met("1", "at forward", verdict="drop")]
    trace, drop = drops("node-a", ASKED, ended, rules)
    assert isinstance(trace, FirewallTrace) and isinstance(drop, RuleDrop)
    assert (trace.seen, trace.dropped, drop.packets) == (2, 2, 2)
    assert (drop.number, drop.text, drop.hook) == (0, "policy drop", "forward")


def test_a_rule_that_is_not_listed_any_more_gets_no_other_rules_words() -> None:
    """Handles are used again: the accept that stands there now did not drop."""
    rule = Rule(
        backend="nft",
        family="inet",
        table="own",
        chain="at forward",
        number=1,
        handle=7,
        text="accept",
        verdict="accept",
    )
    chain = Chain(backend="nft", family="inet", table="own", name="at forward", hook="forward", rules=(rule,))
    for handle in (7, 8):
        _, drop = drops(
            "node-a", ASKED, [met("1", "at forward", kind="rule", handle=handle, verdict="drop")], Ruleset([chain])
        )
        assert isinstance(drop, RuleDrop) and (drop.text, drop.number) == ("", -1)


def test_handles_of_another_moment_are_not_given_to_a_listing() -> None:
    """The n-th rule of the tool is the n-th of the kernel only while nobody changes them in between."""
    saved = files()["trace/iptables-nft/2-gnp-explicit-deny/iptables-nft-save.txt"]
    chains = {
        chain.name: chain for chain in from_save(saved, backend=IPTABLES_NFT, family="ip") if chain.table == "filter"
    }
    chain = chains["cali-pi-gnp/block-g1"]
    assert [rule.handle for rule in with_handles(chain, [307, 308, 309]).rules] == [307, 308, 309]
    assert with_handles(chain, [307, 308]) == chain


# --- the tools of this machine ---


def test_what_is_not_installed_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    read = tools.read(4, time.monotonic() + 5)
    assert not read.chains
    assert "nft is not installed here, so its rules were not read" in read.unread


def program(directory: Path, name: str, text: str) -> None:
    directory.joinpath(name).write_text(f"#!/bin/sh\n{text}\n")
    directory.joinpath(name).chmod(0o755)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exec sleep 60", "nft was not done in time or printed too much"),
        (
            "while :; do echo 1234567890123456789012345678901234567890; done",
            "nft was not done in time or printed too much",
        ),
        ("echo 'Operation not permitted (you must be root)' >&2; exit 1", "Operation not permitted (you must be root)"),
    ],
)
def test_a_tool_that_hangs_or_fails_is_a_reason_in_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, reason: str
) -> None:
    program(tmp_path, "nft", text)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(tools, "LIMIT", 1 << 20)
    started = time.monotonic()
    read = tools.read(4, started + 1)
    assert time.monotonic() - started < 3
    assert any(reason in one for one in read.unread)


def needs(*names: str) -> pytest.MarkDecorator:
    missing = [name for name in names if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed here: {', '.join(missing)}")


def run(*command: str, text: str = "") -> None:
    subprocess.run(command, input=text, text=True, check=True, capture_output=True, timeout=20)


OWN_RULES = r"""*filter
:FORWARD DROP [0:0]
:cali-FORWARD - [0:0]
-A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
-A cali-FORWARD -s {source} -m comment --comment "cali:638TriinwfaKDyR0" -m comment --comment "\"no\" -j ACCEPT" -j DROP
-A cali-FORWARD -p tcp -m comment --comment word -m mark --mark 0x0/0x20000 -j REJECT --reject-with tcp-reset
-A cali-FORWARD -j MARK --set-xmark 0x10000/0x10000
COMMIT
"""


@needs("nft", "iptables-nft-restore", "iptables-nft-save", "ip6tables-nft-restore", "ip6tables-nft-save")
@pytest.mark.parametrize("family", [4, 6])
@in_namespaces
def test_the_tools_of_this_machine_are_read_as_one(family: int) -> None:
    six, ip, source = ("6", "ip6", "fd00::/64") if family == 6 else ("", "ip", "10.0.0.0/24")
    run(f"ip{six}tables-nft-restore", text=OWN_RULES.format(source=source))
    run(
        "nft",
        "-f",
        "-",
        text="table inet guard { chain forward { type filter hook forward priority 5; counter drop; }; }",
    )
    read = tools.read(family, time.monotonic() + 10)
    assert not read.unread
    base, own = (read.chain("nft", ip, "filter", name) for name in ("FORWARD", "cali-FORWARD"))
    assert base and own
    assert (base.hook, base.policy, base.packets) == ("forward", "drop", 0)
    drop, reject, mark = own.rules
    assert (drop.backend, drop.verdict, drop.digest, drop.comment) == (
        IPTABLES_NFT,
        "drop",
        "638TriinwfaKDyR0",
        '"no" -j ACCEPT',
    )
    assert (reject.verdict, reject.comment, reject.text.endswith("-j REJECT --reject-with tcp-reset")) == (
        "reject",
        "word",
        True,
    )
    assert (mark.verdict, base.rules[0].verdict, base.rules[0].targets) == ("", "jump", ("cali-FORWARD",))
    guard = read.chain("nft", "inet", "guard", "forward")
    assert guard and (guard.rules[0].text, guard.rules[0].packets) == ("counter drop", 0)


@needs("nft", "iptables-legacy-restore", "iptables-legacy-save")
@in_namespaces
def test_rules_of_iptables_legacy_are_read_beside_the_others() -> None:
    try:
        run("iptables-legacy-restore", text=OWN_RULES.format(source="10.0.0.0/24"))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this kernel has no iptables-legacy for this user: {error.stderr}")
    run("iptables-nft-restore", text=OWN_RULES.format(source="10.0.1.0/24"))
    read = tools.read(4, time.monotonic() + 10)
    assert not read.unread
    legacy, new = (read.chain(backend, "ip", "filter", "cali-FORWARD") for backend in (IPTABLES_LEGACY, "nft"))
    assert legacy and new
    assert "10.0.0.0/24" in legacy.rules[0].text and "10.0.1.0/24" in new.rules[0].text


MATCHED_SET = re.compile(r"--match-set (\S+) (\S+)")


@needs("iptables-legacy-restore", "ipset")
@pytest.mark.parametrize("directory", [one for one in SCENARIOS if "/iptables-legacy/" in one])
@in_namespaces
def test_a_recorded_drop_of_iptables_legacy_is_named_without_its_tool(directory: str) -> None:
    """The same rule, number, policy and words as iptables-legacy-save printed, read from the kernel itself."""
    saved = files()[f"{directory}/iptables-legacy-save.txt"]
    for name, sides in dict(MATCHED_SET.findall(saved)).items():
        run("ipset", "create", name, "hash:ip,port" if "," in sides else "hash:net")
    restored_in_legacy("iptables-legacy-restore", saved)
    os.environ["PATH"] = ""
    read = tools.read(4, time.monotonic() + 10, legacy_only=True)
    printed = ruleset(directory)
    kept = [chain for chain in printed.chains.values() if chain.backend != IPTABLES_LEGACY]
    assert not read.unread and read.chains.keys() == printed.chains.keys() - {chain.key for chain in kept}
    told, by_tool = (drops("node-a", ASKED, events(directory), one) for one in (read.besides(kept), printed))
    assert told == by_tool
    for key, chain in read.chains.items():
        same = [(rule.comment, rule.digest, rule.verdict, rule.targets) for rule in chain.rules]
        assert same == [(rule.comment, rule.digest, rule.verdict, rule.targets) for rule in printed.chains[key].rules]
        assert (chain.hook, chain.policy) == (printed.chains[key].hook, printed.chains[key].policy)


def restored_in_legacy(tool: str, text: str) -> None:
    try:
        run(tool, text=text)
    except subprocess.CalledProcessError as error:
        if "initialize" not in error.stderr:  # as it says of a table that it may not make
            raise
        pytest.skip(f"this kernel has no iptables-legacy for this user: {error.stderr}")


LEGACY_WORDS = r"""*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:corp - [0:0]
:empty - [0:0]
-A FORWARD ! -s {source} -d {target} -i cali+ ! -o eth0 -p tcp -m tcp ! --sport 1000:2000 --dport 5432 -j DROP
-A FORWARD -p udp -m udp --dport 53 -g corp
-A FORWARD -m conntrack ! --ctstate RELATED,ESTABLISHED -j corp
-A FORWARD -m conntrack --ctstate INVALID -m comment --comment "a \"quoted\" word" -j DROP
-A FORWARD -m state --state NEW -j RETURN
-A FORWARD -p tcp -m multiport ! --sports 1,2:3,4 -m mark ! --mark 0x1/0xff -j ACCEPT
-A corp -m addrtype --dst-type LOCAL -m mark --mark 0x7 -j MARK --set-xmark 0x10000/0x10000
-A corp ! -p {ping}
-A corp -j empty
COMMIT
"""


@needs("iptables-legacy-restore", "iptables-legacy-save", "ip6tables-legacy-restore", "ip6tables-legacy-save")
@pytest.mark.parametrize("family", [4, 6])
@in_namespaces
def test_without_its_tool_rules_of_iptables_legacy_are_told_in_its_words(family: int) -> None:
    six, source, target, ping = ("6", "fd00::/64", "fd01::7/128", "ipv6-icmp") if family == 6 else (
        "", "10.0.0.0/8", "10.1.2.3/32", "icmp")  # fmt: skip
    restored_in_legacy(f"ip{six}tables-legacy-restore", LEGACY_WORDS.format(source=source, target=target, ping=ping))
    printed = tools.read(family, time.monotonic() + 10, legacy_only=True)
    os.environ["PATH"] = ""
    read = tools.read(family, time.monotonic() + 10, legacy_only=True)
    assert read.unread == printed.unread == ()
    for key, chain in printed.chains.items():
        assert [rule.text for rule in read.chains[key].rules] == [rule.text for rule in chain.rules]
    assert read.chains == printed.chains
    some = tools.read(family, time.monotonic() + 10, wanted=[(IPTABLES_LEGACY, f"ip{six}", "filter", "corp")])
    assert {chain.name: len(chain.rules) for chain in some.chains.values() if chain.rules} == {"corp": 3}


@needs("iptables-legacy-restore")
@in_namespaces
def test_what_no_word_is_known_for_stands_in_square_brackets_and_an_end_is_known_all_the_same() -> None:
    lines = "-A FORWARD ! -f -m length --length 1400:1500 -j REJECT\n-A FORWARD -j LOG --log-prefix x"
    restored_in_legacy("iptables-legacy-restore", f"*filter\n{lines}\nCOMMIT\n")
    os.environ["PATH"] = ""
    (chain,) = [
        one for one in tools.read(4, time.monotonic() + 10, legacy_only=True).chains.values() if one.name == "FORWARD"
    ]
    assert [(rule.text, rule.verdict) for rule in chain.rules] == [
        ("-A FORWARD ! -f -m [length] -j REJECT", "reject"),
        ("-A FORWARD -j LOG [...]", ""),
    ]


@needs("nft")
@in_namespaces
def test_a_maps_chains_are_read_for_the_counters() -> None:
    text = """table ip calico {
        map dispatch { type ifname : verdict; elements = { "cali1" : goto one, "cali2" : jump two } }
        chain one { counter drop; }
        chain two { reject with icmp type host-prohibited; }
        chain forward { type filter hook forward priority 0; policy drop; oifname vmap @dispatch;
            ct state vmap { established : accept, invalid : goto one }; }
    }"""
    run("nft", "-f", "-", text=text)
    read = tools.read(4, time.monotonic() + 10)
    chain, two = (read.chain("nft", "ip", "calico", name) for name in ("forward", "two"))
    assert chain and two
    assert (chain.policy, chain.rules[0].targets, chain.rules[1].targets) == ("drop", ("one", "two"), ("one",))
    assert two.rules[0].verdict == "reject"


MANY = 200


@needs("nft", "iptables-nft-restore", "iptables-nft-save")
@in_namespaces
def test_of_a_large_firewall_only_what_matters_is_read() -> None:
    """Listed as a whole, twenty thousand rules of kube-proxy take longer than the person who asks should wait."""
    chains = "".join(f":KUBE-SVC-{n} - [0:0]\n" for n in range(MANY))
    rules = "".join(f"-A KUBE-SVC-{n} -s 10.0.0.{n % 250} -j DROP\n" for n in range(MANY))
    own = OWN_RULES.format(source="10.0.0.0/24").replace("*filter\n", f"*filter\n{chains}")
    run("iptables-nft-restore", text=own.replace("COMMIT", f"{rules}COMMIT"))
    run(
        "nft",
        "-f",
        "-",
        text="table inet guard { chain forward { type filter hook forward priority 5; counter drop; }; }",
    )
    lost = [
        met("1", "PREROUTING", family="ip", table="nat"),
        met("1", "FORWARD", family="ip", table="filter", kind="rule", handle=1, verdict="jump"),
        met("1", "KUBE-SVC-7", family="ip", table="filter", kind="rule", handle=2, verdict="drop"),
        met("2", "forward", table="guard", kind="rule", handle=2, verdict="drop"),
    ]
    keys = wanted(lost)
    assert ("nft", "ip", "nat", "PREROUTING") not in keys
    read = tools.read(4, time.monotonic() + 10, wanted=keys)
    assert not read.unread
    listed = {name: len(chain.rules) for (_, _, _, name), chain in read.chains.items() if chain.rules}
    assert listed == {"FORWARD": 1, "cali-FORWARD": 3, "KUBE-SVC-7": 1, "forward": 1}
    assert read.chains["nft", "ip", "filter", "FORWARD"].hook == "forward"
    (rule,) = read.chains["nft", "ip", "filter", "KUBE-SVC-7"].rules
    assert (
        rule.backend == IPTABLES_NFT
        and read.rule(read.chains["nft", "ip", "filter", "KUBE-SVC-7"], handle=rule.handle) == rule
    )
    everything = tools.read(4, time.monotonic() + 20)
    assert not everything.unread and sum(len(chain.rules) for chain in everything.chains.values()) == MANY + 5


@needs("iptables-nft-restore", "iptables-nft-save", "nft")
@in_namespaces
def test_a_rule_of_iptables_is_named_where_nft_is_not_installed(tmp_path: Path) -> None:
    run("iptables-nft-restore", text=OWN_RULES.format(source="10.0.0.0/24"))
    keys = [("nft", "ip", "filter", "cali-FORWARD")]
    whole = tools.read(4, time.monotonic() + 10, wanted=keys)
    tmp_path.joinpath("iptables-nft-save").symlink_to(shutil.which("iptables-nft-save") or "")
    os.environ["PATH"] = str(tmp_path)
    read = tools.read(4, time.monotonic() + 10, wanted=keys)
    assert read.unread == ()
    assert read.chains[keys[0]] == whole.chains[keys[0]]
    assert read.chains[keys[0]].rules[0].handle > 0


@needs("iptables-nft-restore", "nft")
@in_namespaces
def test_rules_that_iptables_cannot_print_are_told_in_nfts_words(tmp_path: Path) -> None:
    """nft may write into iptables' chains, and iptables-nft-save may be too old for the rules, or not there."""
    run("iptables-nft-restore", text=OWN_RULES.format(source="10.0.0.0/24"))
    key = ("nft", "ip", "filter", "cali-FORWARD")
    iptables = tools.read(4, time.monotonic() + 10, wanted=[key])
    run("nft", "insert", "rule", "ip", "filter", "cali-FORWARD", "meta", "cpu", "7", "counter", "drop")
    own, *_ = tools.read(4, time.monotonic() + 10, wanted=[key]).chains[key].rules
    assert own.verdict == "drop" and own.handle > 0
    tmp_path.joinpath("nft").symlink_to(shutil.which("nft") or "")
    os.environ["PATH"] = str(tmp_path)
    read = tools.read(4, time.monotonic() + 10, wanted=[key])
    assert read.unread == ("iptables-nft-save is not installed here, so its rules were not read",)
    assert [rule.verdict for rule in read.chains[key].rules] == ["drop", "drop", "reject", ""]
    saved = [rule.comment for rule in iptables.chains[key].rules]
    assert any(saved) and [rule.comment for rule in read.chains[key].rules[1:]] == saved


FOREIGN = """table inet corp {
    map services { type ipv4_addr . inet_proto . inet_service : verdict; elements = {
        10.96.0.57 . tcp . 80 comment "default/web:http" : drop,
        10.96.0.58 . tcp . 80 comment "default/db:sql" : goto refused } }
    chain refused { reject; }
    chain guard { type filter hook forward priority 10; policy drop;
        ct state established,related accept
        ip daddr . meta l4proto . th dport vmap @services
        iifname "cali*" ip saddr 10.244.0.0/16 ip daddr != 10.1.2.3 tcp dport 5432 counter drop comment "ticket 4711"
        ip saddr 10.0.0.0/12 meta mark & 0x00020000 == 0x00000000 counter drop
        meta l4proto icmp log prefix "x" limit rate 1/second jump refused
        meta mark set meta mark | 0x00040000
        fib saddr . mark . iif oif 0 drop comment "cali:aaaaaaaaaaaaaaaa;  Check the source"
        udp dport 4789-4790 reject
    }
}
"""


@needs("nft")
@in_namespaces
def test_without_any_tool_rules_are_told_as_the_kernel_has_them(tmp_path: Path) -> None:
    run("nft", "-f", "-", text=FOREIGN)
    key = ("nft", "inet", "corp", "guard")
    whole = tools.read(4, time.monotonic() + 10, wanted=[key]).chains[key]
    os.environ["PATH"] = str(tmp_path)
    read = tools.read(4, time.monotonic() + 10, wanted=[key])
    chain = read.chains[key]
    assert read.unread == () and (chain.hook, chain.policy) == ("forward", "drop")
    same = ("number", "handle", "comment", "digest", "verdict", "targets")
    for ours, nfts in zip(chain.rules, whole.rules, strict=True):
        assert [getattr(ours, one) for one in same] == [getattr(nfts, one) for one in same]
    assert [rule.text for rule in chain.rules] == [
        "ct state established,related accept",
        "meta nfproto ipv4 ip daddr . meta l4proto . th dport vmap @services",
        'iifname "cali*" meta nfproto ipv4 ip saddr 10.244.0.0/16 ip daddr != 10.1.2.3 meta l4proto tcp th dport 5432 '
        'counter drop comment "ticket 4711"',
        "meta nfproto ipv4 ip saddr 10.0.0.0/12 meta mark & 0x20000 == 0x0 counter drop",
        "meta l4proto icmp log limit jump refused",
        "meta mark set meta mark & 0xfffbffff ^ 0x40000",
        'fib saddr . mark . iif oif 0 drop comment "cali:aaaaaaaaaaaaaaaa;  Check the source"',
        "meta l4proto udp th dport >= 4789 th dport <= 4790 reject",
    ]
    element = read.element(chain, "services", ("10.96.0.57", "6", "80"))
    assert element and element.comment == "default/web:http"


@needs("iptables-nft-restore")
@in_namespaces
def test_without_any_tool_a_rule_of_iptables_has_its_comment_too(tmp_path: Path) -> None:
    run("iptables-nft-restore", text=OWN_RULES.format(source="10.0.0.0/24"))
    keys = [("nft", "ip", "filter", "cali-FORWARD")]
    whole = tools.read(4, time.monotonic() + 10, wanted=keys).chains[keys[0]]
    os.environ["PATH"] = str(tmp_path)
    read = tools.read(4, time.monotonic() + 10, wanted=keys)
    told = [(rule.comment, rule.verdict, rule.handle) for rule in read.chains[keys[0]].rules]
    assert read.unread == () and told == [(rule.comment, rule.verdict, rule.handle) for rule in whole.rules]
    assert read.chains["nft", "ip", "filter", "FORWARD"].hook == "forward"


@needs("nft")
@in_namespaces
def test_a_chain_that_went_meanwhile_is_a_reason() -> None:
    run(
        "nft",
        "-f",
        "-",
        text="table inet guard { chain forward { type filter hook forward priority 5; counter drop; }; }",
    )
    read = tools.read(
        4, time.monotonic() + 10, wanted=[("nft", "inet", "guard", "gone"), ("nft", "inet", "guard", "forward")]
    )
    assert len(read.unread) == 1 and "nft failed" in read.unread[0]
    assert len(read.chains["nft", "inet", "guard", "forward"].rules) == 1
