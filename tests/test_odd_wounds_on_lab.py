"""Wounds of which a kernel says why to who sends, and marks that no routing rule swallows: what is known is told, and
nobody is accused for what is beside it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from engine.diagnosis import diagnose
from facts import FirewallTrace, RoutingRules, from_builtins
from lab.client import Lab
from tests.asking import ask

CASE = Path(__file__).parent / "cases" / "routing_mark_diverts.json"
ASKED = "shop/cart shop/db 5432/tcp"
TTL = """
add table ip m
add chain ip m p { type filter hook prerouting priority -150; }
add rule ip m p ip saddr 10.244.0.0/16 ip ttl set 1
"""


async def test_who_says_no_and_why_stands_in_an_answer_that_knows_no_cause(lab: Lab) -> None:
    try:
        ports = "net.ipv4.ip_local_port_range=1024 1024", "net.ipv4.ip_local_reserved_ports=1024"
        assert lab.exec("shop/cart", "sysctl", "-qw", *ports).returncode == 0
        told = (await ask(lab.environment(), ASKED)).diagnosis
        assert told.verdict == "unknown", told.causes
        assert "tcp 5432: the sender's own kernel says: Cannot assign requested address." in told.summary
    finally:
        ports = "net.ipv4.ip_local_port_range=32768 60999", "net.ipv4.ip_local_reserved_ports="
        lab.exec("shop/cart", "sysctl", "-qw", *ports)
        lab.heal()
    assert lab.exec("node-a", "nft", "-f", "-", input=TTL).returncode == 0
    try:
        told = (await ask(lab.environment(), "shop/cart shop/db")).diagnosis
        assert told.verdict == "unknown", told.causes
        assert "says: time to live exceeded in transit." in told.summary
    finally:
        lab.heal()


@pytest.mark.parametrize("action", ["unreachable", "prohibit", "blackhole"])
@pytest.mark.parametrize("to", ["10.244.218.64/26", "10.244.174.129"])
async def test_a_rule_that_ends_what_is_for_a_pod_is_named_and_no_route_is_missing(
    lab: Lab, action: str, to: str
) -> None:
    """Of a block of the peer's, and of the node's own pod."""
    try:
        assert lab.exec("node-a", "ip", "rule", "add", "to", to, action, "pref", "90").returncode == 0
        for words in (ASKED, "shop/db shop/cart 8080/tcp"):
            told = (await ask(lab.environment(), words)).diagnosis
            assert [(one.rule, one.node) for one in told.causes] == [("routing_rule_diverts", "node-a")], told.summary
            assert f"90: to {to}" in told.causes[0].text and told.causes[0].fix == ""
    finally:
        lab.exec("node-a", "ip", "rule", "del", "pref", "90")
        lab.heal()


@pytest.mark.parametrize(
    ("place", "value", "words", "said"),
    [
        ("shop/cart", "1", "shop/cart shop/db", "from shop/cart by calie45f23531db of node-a has a time to live"),
        ("shop/cart", "1", "shop/cart shop/web", "from shop/cart by calie45f23531db of node-a has a time to live"),
        ("shop/cart", "2", "shop/cart shop/db", "from shop/cart by vxlan.calico of node-b has a time to live"),
        ("shop/cart", "1", "shop/db shop/cart", "from shop/cart by calie45f23531db of node-a has a time to live"),
        ("node-a", "1", "node-a shop/db", "from node-a by vxlan.calico of node-b has a time to live"),
    ],
)
async def test_where_packets_have_no_hops_left_is_told(lab: Lab, place: str, value: str, words: str, said: str) -> None:
    """A kernel says so once in a while only, and a ping's sender may not hear it."""
    try:
        assert lab.exec(place, "sysctl", "-qw", f"net.ipv4.ip_default_ttl={value}").returncode == 0
        told = (await ask(lab.environment(), words)).diagnosis
        assert told.verdict == "unknown", told.causes
        assert said in told.summary
    finally:
        lab.exec(place, "sysctl", "-qw", "net.ipv4.ip_default_ttl=64")


async def test_a_rule_about_what_a_node_itself_sends_is_nothing_to_its_pods(lab: Lab) -> None:
    def rule(*words: str) -> None:
        done = lab.exec("node-a", "ip", "rule", *words, "pref", "90")
        assert done.returncode == 0, done.stderr

    async def named(words: str) -> list[tuple[str, str]]:
        return [(one.rule, one.node) for one in (await ask(lab.environment(), words)).diagnosis.causes]

    peers = "iif", "lo", "to", "10.244.218.64/26"
    try:
        for decides in (("unreachable",), ("table", "77"), ("blackhole",)):
            lab.exec("node-a", "ip", "route", "replace", "default", "via", "172.30.0.1", "table", "77")
            rule("add", *peers, *decides)
            assert (await ask(lab.environment(), ASKED)).diagnosis.verdict == "healthy"
            sent = (await ask(lab.environment(), f"node-a {ASKED.split(maxsplit=1)[1]}")).diagnosis
            assert sent.verdict != "healthy" and {one.node for one in sent.causes} <= {"node-a"}
            if decides[0] in ("unreachable", "blackhole"):
                assert not sent.causes, "the route is there"
                assert f"iif lo {decides[0]} ends what node-a itself sends" in sent.summary
            rule("del")
        # A reverse path filter asks as a node does that sends, and so the rule decides on it: no route is missing.
        rule("add", "iif", "lo", "to", "10.244.0.0/16", "blackhole")
        assert await named(ASKED) == [("calico_reverse_path_drops", "node-a")]
        assert await named("shop/cart shop/web 8080/tcp") == [("calico_reverse_path_drops", "node-a")]
    finally:
        lab.exec("node-a", "ip", "rule", "del", "pref", "90")
        lab.exec("node-a", "ip", "route", "flush", "table", "77")
        lab.heal()


async def test_of_a_node_that_is_off_the_network_it_is_said_to_look_there_first_whoever_was_to_send() -> None:
    with Lab.up() as own:
        assert own.exec("node-b", "ip", "link", "set", "eth0", "down").returncode == 0
        for words in (ASKED, "shop/db shop/cart 8080/tcp"):
            told = (await ask(own.environment(), words)).diagnosis
            assert told.verdict == "unknown", told.causes
            assert "node-a gets no answer from node-b itself either (172.30.0.12" in told.summary
            assert "see first whether node-b is up" in told.summary


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        (("90: fwmark 0x40/0x40 lookup 100",), True),
        (("90: fwmark 0x40/0x40 iif lo lookup 100",), False),  # for what the node itself sends
        (("90: from 10.244.0.0/16 fwmark 0x40/0xff blackhole",), True),
        (("90: fwmark 0x80/0x80 lookup 100",), False),  # another mark
        (("90: fwmark 0x40/0x40 lookup 254",), False),  # the kernel's own table, which everybody's packets get to
        (("90: not fwmark 0x40/0x40 lookup 100",), False),  # as Felix has it for WireGuard
        (("90: dport 5432 blackhole",), False),
        ((), False),
    ],
)
def test_only_a_rule_that_asks_for_the_packets_mark_is_accused(rules: tuple[str, ...], named: bool) -> None:
    facts = [from_builtins(one) for one in json.loads(CASE.read_text())["recordings"][0]["facts"]]
    assert any(isinstance(one, FirewallTrace) and one.mark & 0x40 for one in facts)
    changed = [
        msgspec.structs.replace(one, rules=rules) if isinstance(one, RoutingRules) and one.node == "node-a" else one
        for one in facts
    ]
    told = diagnose(changed)
    assert [one.rule for one in told.causes] == (["routing_mark_diverts"] if named else [])
    assert told.verdict == ("cause" if named else "unknown")
