"""Fresh packets followed through real firewalls, on two nodes of real namespaces: the rule that ended them is named."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bot import followed
from engine.attribution import blame
from engine.plan import second
from facts import Blind, Fact, FirewallTrace, LocalPod, NodeAsk, ProbeResult, RuleDrop, SendProbe, Trace
from lab.client import Lab
from node_probe import ours, packets
from node_probe.answer import Prober
from node_probe.firewall import arming, legacy, trace
from node_probe.packets import SMALL
from tests import exhaustive
from tests.asking import ask as ask_lab
from tests.namespaces import in_namespaces
from tests.scene import change, healthy
from tests.test_tap import watches
from tests.two_nodes import (
    BLOCK,
    CART,
    CART6,
    CART_INTERFACE,
    DB,
    DB6,
    DB_INTERFACE,
    NODE,
    NODE6,
    TUNNEL,
    TUNNEL6,
    TwoNodes,
    ask,
    echo,
    from_cart,
)

PORT = 8080
OTHER = {"a": "b", "b": "a"}
LOGGER = Path("/proc/sys/net/netfilter/nf_log/2")


def needs(*tools: str) -> Callable[..., Any]:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not installed here")


def run(*command: str, text: str = "") -> str:
    """In the namespace of the calling thread."""
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def nft(text: str) -> None:
    run("nft", "-f", "-", text=text)


def guard(rule: str, hook: str = "forward", policy: str = "accept", family: str = "inet") -> None:
    """A table of somebody else's, in the place of the last one."""
    table = f"table {family} corp"
    chain = f"chain guard {{ type filter hook {hook} priority 10; policy {policy}; {rule}\n}}"
    nft(f"{table} {{ }}\ndelete {table}\n{table} {{ {chain}\n}}\n")


def of_family(six: bool) -> tuple[str, str, dict[str, str]]:
    return (CART6, DB6, NODE6) if six else (CART, DB, NODE)


def follow(node: str, protocol: str = "icmp", port: int = 0, *, send: bool = True, six: bool = False) -> NodeAsk:
    """What the bot asks this node once packets from shop/cart on a to shop/db on b were lost."""
    cart, db, addresses = of_family(six)
    common: dict[str, Any] = {"protocol": protocol, "port": port, "encapsulation": "vxlan", "tunnel_port": 4789}
    common["peer"] = addresses[OTHER[node]]
    probe = from_cart(protocol, db, port=port)
    fields: dict[str, Any] = {} if node == "a" else {"local_pods": ()}
    return ask(
        node=f"node-{node}",
        family=6 if six else 4,
        uplink_address=addresses[node],
        ways=(),
        read=False,
        send=(probe,) if send and node == "a" else (),
        watch=tuple(one for one in watches(node, six=six) if (one.way == "out") == (node == "a")),
        trace=(
            Trace(source=cart, target=db, count=probe.count, **common),
            Trace(source=db, target=cart, reply=True, **common),
        ),
        patience_ms=200,
        **fields,
    )


def answers(nodes: TwoNodes, *asks: NodeAsk, seconds: float = 4.0, mode: str = "all") -> list[Fact]:
    """What the probes of both nodes say, each asked all that is for it at the same time."""

    async def answer(node: str) -> list[Fact]:
        prober = Prober(f"node-{node}", {}, trace=mode)
        until = time.monotonic() + seconds
        try:
            own = [one for one in asks if one.node == prober.node]
            return [fact for some in await asyncio.gather(*(prober.answer(one, until) for one in own)) for fact in some]
        finally:
            await prober.close()

    there: list[Fact] = []
    thread = threading.Thread(target=lambda: there.extend(nodes.b.run(lambda: asyncio.run(answer("b")))))
    thread.start()
    here = asyncio.run(answer("a"))
    thread.join()
    return here + there


def drops(facts: Sequence[Fact]) -> list[RuleDrop]:
    return [fact for fact in facts if isinstance(fact, RuleDrop)]


def way(facts: Sequence[Fact], node: str, source: str = CART, *, outer: bool = False) -> FirewallTrace:
    (found,) = [
        fact
        for fact in facts
        if isinstance(fact, FirewallTrace)
        and (fact.node, fact.source_address, fact.outer) == (f"node-{node}", source, outer)
    ]
    return found


def blind(facts: Sequence[Fact]) -> list[tuple[str, bool]]:
    return [(fact.look, fact.minor) for fact in facts if isinstance(fact, Blind)]


def tables() -> list[str]:
    return [line for line in run("nft", "list", "tables").splitlines() if "why_" in line]


@needs("nft")
@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("protocol", ["icmp", "tcp", "udp"])
@in_namespaces
def test_a_rule_that_drops_is_named_word_by_word_and_soon(protocol: str, six: bool) -> None:
    nodes = TwoNodes(dual=six)
    cart, db, _ = of_family(six)
    port = 0 if protocol == "icmp" else PORT
    rule = f'ip{"6" if six else ""} daddr {db} counter drop comment "no way"'
    nodes.b.run(lambda: guard(rule))
    asks = follow("a", protocol, port, six=six), follow("b", protocol, port, six=six)
    began = time.monotonic()
    facts = answers(nodes, *asks)
    assert time.monotonic() - began < 2.0, "a lost packet must not cost the whole deadline"
    (drop,) = drops(facts)
    assert (drop.node, drop.table, drop.chain, drop.hook) == ("node-b", "corp", "guard", "forward")
    assert (drop.text, drop.comment, drop.verdict, drop.number) == (rule, "no way", "drop", 1)
    assert (drop.how, drop.backend, drop.family, drop.packets) == ("trace", "nft", 6 if six else 4, 2)
    assert (drop.protocol, drop.port, drop.reply, drop.outer) == (protocol, port, False, False)
    assert (way(facts, "b", cart).seen, way(facts, "b", cart).dropped) == (2, 2)
    # Where they left they passed, tunnel and all.
    for outer in (False, True):
        left = way(facts, "a", cart, outer=outer)
        assert (left.seen, left.dropped, left.last_hook) == (2, 0, "postrouting")
    assert blind(facts) == []
    assert tables() == nodes.b.run(tables) == []


@needs("nft")
@in_namespaces
def test_packets_that_pass_are_followed_to_the_end_and_back() -> None:
    nodes = TwoNodes()
    echo(nodes.db, PORT)
    nodes.b.run(lambda: guard(f"ip daddr {DB} accept"))
    facts = answers(nodes, follow("a", "tcp", PORT), follow("b", "tcp", PORT))
    assert [fact.answered for fact in facts if isinstance(fact, ProbeResult)] == [2]
    assert drops(facts) == [] and blind(facts) == []
    for node in ("a", "b"):
        for source in (CART, DB):
            met = way(facts, node, source)
            assert (met.seen, met.dropped, met.last_hook) == (2, 0, "postrouting")
    for node, source, hook in (("a", CART, "postrouting"), ("b", CART, "input"), ("a", DB, "input")):
        met = way(facts, node, source, outer=True)
        assert (met.seen, met.dropped, met.last_hook) == (2, 0, hook)


@needs("nft")
@in_namespaces
def test_a_policy_that_drops_and_a_rule_that_refuses() -> None:
    nodes = TwoNodes()
    nodes.b.run(lambda: guard("ct state established accept", policy="drop"))
    (drop,) = drops(answers(nodes, follow("a"), follow("b")))
    assert (drop.node, drop.chain, drop.number, drop.text) == ("node-b", "guard", 0, "policy drop")
    nodes.b.run(lambda: guard(""))
    guard(f"ip saddr {CART} tcp dport {PORT} reject with tcp reset")
    (drop,) = drops(answers(nodes, follow("a", "tcp", PORT), follow("b", "tcp", PORT)))
    assert (drop.node, drop.verdict, drop.number) == ("node-a", "reject", 1)
    assert "reject with tcp reset" in drop.text


@needs("nft")
@in_namespaces
def test_an_answer_that_is_dropped_is_told_from_what_it_answers() -> None:
    nodes = TwoNodes()
    echo(nodes.db, PORT)
    guard(f"ip saddr {DB} drop", hook="prerouting")
    facts = answers(nodes, follow("a", "tcp", PORT), follow("b", "tcp", PORT))
    (drop,) = drops(facts)
    assert (drop.node, drop.reply, drop.source_address, drop.hook) == ("node-a", True, DB, "prerouting")
    assert (way(facts, "b", DB).dropped, way(facts, "a", DB).dropped) == (0, 2)


@needs("nft")
@in_namespaces
def test_old_answers_that_a_server_repeats_are_none_to_todays_packets() -> None:
    """What was answered and lost a minute ago is sent again and again, and would look like a way that works."""
    nodes = TwoNodes()
    echo(nodes.db, PORT)
    nodes.b.run(lambda: guard(f"ip saddr {DB} drop"))
    answers(nodes, follow("a", "tcp", PORT), follow("b", "tcp", PORT))
    nodes.b.run(lambda: guard(f"ip daddr {DB} drop"))
    repeated = follow("b", "tcp", PORT, send=False)

    async def for_seconds() -> list[Fact]:
        following = trace.Following(repeated, legacy.Log())
        await following.arm(time.monotonic() + 1)
        try:
            until = time.monotonic() + 10
            while not any(packet.followed == 2 for packet in following._packets):
                assert time.monotonic() < until, "the kernel repeats a SYN-ACK after a second"
                await asyncio.sleep(0.05)
            return await following.facts(time.monotonic() + 2)
        finally:
            following.close()

    facts = nodes.b.run(lambda: asyncio.run(for_seconds()))
    assert way(facts, "b", DB).seen == 0


@needs("nft")
@in_namespaces
def test_what_routing_loses_no_rule_is_accused_of() -> None:
    nodes = TwoNodes()
    nodes.b.run(lambda: guard(f"ip daddr {DB} accept"))
    index = nodes.index("b", DB_INTERFACE)
    nodes.at("b", lambda ip: ip.route("del", dst=f"{DB}/32", oif=index, scope=253))  # the block's blackhole is left
    facts = answers(nodes, follow("a"), follow("b"))
    assert drops(facts) == []
    assert (way(facts, "b").seen, way(facts, "b").last_hook) == (2, "prerouting")


@needs("nft")
@in_namespaces
def test_the_tunnels_own_packets_dropped_where_they_arrive() -> None:
    nodes = TwoNodes()
    nodes.b.run(lambda: guard("udp dport 4789 drop", hook="input"))
    facts = answers(nodes, follow("a"), follow("b"))
    (drop,) = drops(facts)
    assert (drop.node, drop.outer, drop.hook, drop.text) == ("node-b", True, "input", "udp dport 4789 drop")
    assert (way(facts, "b", outer=True).dropped, way(facts, "b").seen) == (2, 0)


WIRE = "udp dport 4789"
AT_DEVICES = {  # node, hook, device, the rule's condition, of the tunnel's packets
    "source veth": ("a", "ingress", CART_INTERFACE, "", False),
    "source tunnel": ("a", "egress", TUNNEL, "", False),
    "source uplink": ("a", "egress", "eth0", WIRE, True),
    "target uplink": ("b", "ingress", "eth0", WIRE, True),
    "target tunnel": ("b", "ingress", TUNNEL, "", False),
    "target veth": ("b", "egress", DB_INTERFACE, "", False),
}


def at_devices(asked: NodeAsk) -> NodeAsk:
    """As the bot asks: with the node's own end of the flow, and the tunnel of its family."""
    six = asked.family == 6
    db = LocalPod(name="shop/db", address=DB6 if six else DB, interface=DB_INTERFACE)
    cart = LocalPod(name="shop/cart", address=CART6 if six else CART, interface=CART_INTERFACE)
    pods = (cart if asked.node == "node-a" else db,)
    return msgspec.structs.replace(asked, local_pods=pods, tunnel_device=TUNNEL6 if six else TUNNEL)


@needs("nft")
@pytest.mark.parametrize(("place", "six"), exhaustive.matrix(2, AT_DEVICES, (False, True)))
@in_namespaces
def test_a_rule_at_a_device_is_named_with_its_device(place: str, six: bool) -> None:
    node, hook, device, condition, outer = AT_DEVICES[place]
    nodes = TwoNodes(dual=six)
    cart, db, _ = of_family(six)
    device = TUNNEL6 if six and device == TUNNEL else device
    condition = condition or f"{'ip6' if six else 'ip'} daddr {db}"
    rule = f"{condition} counter drop"
    chain = f"chain guard {{ type filter hook {hook} device {device} priority 10; {rule}\n}}"
    nodes.at(node, lambda _: nft(f"table netdev corp {{ {chain}\n}}\n"))
    facts = answers(nodes, *(at_devices(follow(one, "tcp", PORT, six=six)) for one in ("a", "b")))
    (drop,) = drops(facts)
    assert (drop.node, drop.hook, drop.device, drop.outer) == (f"node-{node}", hook, device, outer)
    assert (drop.table, drop.chain, drop.number, drop.text, drop.packets) == ("corp", "guard", 1, rule, 2)
    assert (drop.source_address, drop.how, drop.reply) == (cart, "trace", False)
    met = way(facts, node, cart, outer=outer)
    assert (met.seen, met.dropped) == (2, 2), "a packet is one, whether or not it is met again behind its device"
    assert blind(facts) == []
    assert tables() == nodes.b.run(tables) == []


@needs("nft")
@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
@in_namespaces
def test_without_any_tool_beside_the_probe_the_rule_is_named_all_the_same(six: bool) -> None:
    nodes = TwoNodes(dual=six)
    _, db, _ = of_family(six)
    ip, version = ("ip6", 6) if six else ("ip", 4)
    nodes.b.run(lambda: guard(f'{ip} daddr {db} tcp dport {PORT} counter drop comment "no way"'))
    os.environ["PATH"] = ""
    facts = answers(nodes, *(at_devices(follow(one, "tcp", PORT, six=six)) for one in ("a", "b")))
    (drop,) = drops(facts)
    assert (drop.node, drop.table, drop.chain, drop.hook, drop.number) == ("node-b", "corp", "guard", "forward", 1)
    conditions = f"meta nfproto ipv{version} {ip} daddr {db} meta l4proto tcp th dport {PORT}"
    assert drop.text == f'{conditions} counter drop comment "no way"'
    assert (drop.comment, drop.backend, drop.packets) == ("no way", "nft", 2)
    assert blind(facts) == []


@needs("nft")
@in_namespaces
def test_a_chain_for_both_families_at_a_device_is_named_too() -> None:
    nodes = TwoNodes()
    chain = f"chain guard {{ type filter hook ingress device {CART_INTERFACE} priority 0; policy drop; }}"
    nft(f"table inet corp {{ {chain}\n}}\n")
    (drop,) = drops(answers(nodes, follow("a"), follow("b")))
    assert (drop.node, drop.hook, drop.device, drop.text) == ("node-a", "ingress", CART_INTERFACE, "policy drop")


@needs("nft", "iptables-nft", "iptables-nft-save")
@in_namespaces
def test_rules_of_iptables_nft_are_told_in_its_own_words() -> None:
    nodes = TwoNodes()

    def deny() -> None:
        run("iptables-nft", "-N", "corp-deny")
        run("iptables-nft", "-A", "FORWARD", "-d", DB, "-j", "corp-deny")
        run("iptables-nft", "-A", "corp-deny", "-m", "comment", "--comment", "not today", "-j", "DROP")

    nodes.b.run(deny)
    (drop,) = drops(answers(nodes, follow("a"), follow("b")))
    assert (drop.backend, drop.table, drop.chain, drop.comment) == ("iptables-nft", "filter", "corp-deny", "not today")
    assert (drop.through, drop.hook) == (("FORWARD",), "forward")
    assert drop.text.endswith("-j DROP")


@needs("nft", "iptables-legacy", "iptables-legacy-save")
@pytest.mark.parametrize("target", ["DROP", "REJECT"])
@in_namespaces
def test_rules_of_iptables_legacy_are_seen_though_nftables_is_blind_for_them(target: str) -> None:
    nodes = TwoNodes()
    before = nodes.b.run(LOGGER.read_text)
    nodes.b.run(lambda: run("iptables-legacy", "-A", "FORWARD", "-d", "192.0.2.1", "-j", "ACCEPT"))
    nodes.b.run(lambda: run("iptables-legacy", "-A", "FORWARD", "-d", DB, "-j", target))
    facts = answers(nodes, follow("a"), follow("b"))
    (drop,) = drops(facts)
    assert (drop.backend, drop.table, drop.chain, drop.number) == ("iptables-legacy", "filter", "FORWARD", 2)
    assert (drop.verdict, drop.how, drop.packets) == (target.lower(), "trace", 2)
    assert drop.text.startswith(f"-A FORWARD -d {DB}/32 -j {target}")
    assert blind(facts) == []
    # Nothing of it stays: neither rule nor table, and the kernel logs packets where it did.
    assert nodes.b.run(LOGGER.read_text) == before and nodes.b.run(tables) == []
    assert "TRACE" not in nodes.b.run(lambda: run("iptables-legacy-save"))


@needs("iptables-legacy")
@pytest.mark.parametrize("mode", ["all", "nft"])
@in_namespaces
def test_a_rule_of_iptables_legacy_is_named_with_its_policy_where_its_tools_are_not_beside_the_probe(mode: str) -> None:
    """As in a container that has none of them: the chain, its number, Calico's words and the rule's own ones."""
    nodes = TwoNodes()
    chain, policy = "cali-pi-np/shop/stay", "NetworkPolicy shop/stay ingress"
    rules = (
        ("-N", chain),
        ("-A", "FORWARD", "-d", DB, "-m", "comment", "--comment", "cali:638TriinwfaKDyR0", "-j", chain),
        ("-A", chain, "-p", "tcp", "-m", "comment", "--comment", "cali:738TriinwfaKDyR0", "-j", "RETURN"),
        ("-A", chain, "-m", "comment", "--comment", "cali:838TriinwfaKDyR0", "-m", "comment", "--comment", policy, "-j",
         "DROP"),
    )  # fmt: skip
    for rule in rules:
        nodes.b.run(lambda rule=rule: run("iptables-legacy", *rule))
    os.environ["PATH"] = ""  # in this child process alone
    facts = answers(nodes, follow("a"), follow("b"), mode=mode)
    (drop,) = drops(facts)
    assert (drop.backend, drop.table, drop.chain, drop.number) == ("iptables-legacy", "filter", chain, 2)
    assert (drop.verdict, drop.packets, drop.through, drop.hook) == ("drop", 2, ("FORWARD",), "forward")
    assert drop.text.endswith("-j DROP") and drop.comment == policy
    assert (found := blame(drop, ())).what == "policy"
    assert (found.kind, found.namespace, found.name, found.direction) == ("NetworkPolicy", "shop", "stay", "ingress")
    assert not any("not installed" in one.reason for one in facts if isinstance(one, Blind))


@needs("nft", "iptables-legacy", "iptables-legacy-save")
@in_namespaces
def test_where_legacy_may_not_be_traced_its_counters_name_the_rule() -> None:
    nodes = TwoNodes()
    nodes.b.run(lambda: run("iptables-legacy", "-A", "FORWARD", "-d", DB, "-j", "DROP"))
    facts = answers(nodes, follow("a"), follow("b"), mode="nft")
    (drop,) = drops(facts)
    assert (drop.how, drop.backend, drop.chain, drop.packets) == ("counter", "iptables-legacy", "FORWARD", 2)
    assert ("firewall trace", True) in blind(facts)
    # An nft trace alone has them end behind the routing decision, and that is not routing's fault.
    (traced,) = [f for f in facts if isinstance(f, FirewallTrace) and (f.node, f.how, f.outer, f.source_address) == (
        "node-b", "trace", False, CART)]  # fmt: skip
    assert (traced.seen, traced.dropped, traced.last_hook) == (2, 0, "forward")


@needs("nft")
@in_namespaces
def test_a_node_that_is_not_to_be_traced_still_answers_and_compares_its_counters() -> None:
    nodes = TwoNodes()
    nodes.b.run(lambda: guard(f"ip daddr {DB} counter drop"))
    armed: list[str] = []

    def look() -> None:
        while not ended.wait(0.02):
            armed.extend(nodes.b.run(tables))

    ended = threading.Event()
    thread = threading.Thread(target=look)
    thread.start()
    try:
        facts = answers(nodes, follow("a"), follow("b"), mode="off")
    finally:
        ended.set()
        thread.join()
    assert armed == []
    (drop,) = drops(facts)
    assert (drop.node, drop.how, drop.chain, drop.packets) == ("node-b", "counter", "guard", 2)
    assert [fact.answered for fact in facts if isinstance(fact, ProbeResult)] == [0]
    reasons = [fact.reason for fact in facts if isinstance(fact, Blind) and fact.look == "firewall trace"]
    assert len(reasons) == 2 and all("turned off" in reason for reason in reasons)


@needs("nft")
@in_namespaces
def test_what_ends_a_connection_is_followed_and_where_only_counters_are_read_nobody_is_accused() -> None:
    nodes = TwoNodes()
    echo(nodes.db, PORT)
    nodes.b.run(lambda: guard(f"tcp dport {PORT} tcp flags & (fin | syn) == fin counter drop"))
    asks = [
        msgspec.structs.replace(
            one,
            send=tuple(msgspec.structs.replace(probe, later=True) for probe in one.send),
            trace=tuple(msgspec.structs.replace(each, later=True) for each in one.trace),
        )
        for one in (follow("a", "tcp", PORT), follow("b", "tcp", PORT))
    ]
    facts = answers(nodes, *asks)
    (drop,) = drops(facts)
    assert (drop.node, drop.chain, drop.reply, drop.later) == ("node-b", "guard", False, True) and drop.packets >= 2
    assert [fact.unended for fact in facts if isinstance(fact, ProbeResult)] == [2]
    facts = answers(nodes, *asks, mode="off")
    assert drops(facts) == []
    reasons = [fact.reason for fact in facts if isinstance(fact, Blind) and fact.look == "firewall trace"]
    assert any("what follows in a connection is not compared" in reason for reason in reasons)


@needs("nft")
@in_namespaces
def test_two_questions_at_once_do_not_mix() -> None:
    nodes = TwoNodes()
    echo(nodes.db, PORT)
    nodes.b.run(lambda: guard(f"tcp dport {PORT} drop"))
    asks = [follow(node, *kind) for node in ("a", "b") for kind in (("tcp", PORT), ("udp", PORT))]
    facts = answers(nodes, *asks)
    (drop,) = drops(facts)
    assert (drop.node, drop.protocol, drop.packets) == ("node-b", "tcp", 2)
    for protocol, dropped in (("tcp", 2), ("udp", 0)):
        met = way([f for f in facts if getattr(f, "protocol", "") == protocol], "b")
        assert (met.seen, met.dropped) == (2, dropped)


@needs("nft", "iptables-legacy", "iptables-legacy-save")
@in_namespaces
def test_two_questions_at_once_about_iptables_legacy() -> None:
    """The kernel has one log of packets: who is done first must not take it from the other."""
    nodes = TwoNodes()
    before = nodes.b.run(LOGGER.read_text)
    echo(nodes.db, PORT)
    nodes.b.run(lambda: run("iptables-legacy", "-A", "FORWARD", "-p", "tcp", "-d", DB, "-j", "DROP"))
    facts = answers(nodes, *(follow(node, *kind) for node in ("a", "b") for kind in (("udp", PORT), ("tcp", PORT))))
    (drop,) = drops(facts)
    assert (drop.node, drop.protocol, drop.packets, drop.chain) == ("node-b", "tcp", 2, "FORWARD")
    assert nodes.b.run(LOGGER.read_text) == before and nodes.b.run(tables) == []


@needs("nft")
@in_namespaces
def test_what_a_node_sends_itself_is_followed_from_its_output_on() -> None:
    nodes = TwoNodes()
    own = follow("a")
    sent = {"source": BLOCK["a"], "encapsulation": "vxlan", "peer": NODE["b"], "tunnel_port": 4789}
    fields = {field: getattr(own, field) for field in NodeAsk.__struct_fields__} | {
        "send": (SendProbe(pod="", target=DB, protocol="icmp"),),
        "watch": (),
        "trace": (Trace(target=DB, protocol="icmp", **sent),),  # type: ignore[arg-type]
    }
    facts = answers(nodes, NodeAsk(**fields))
    for outer in (False, True):
        met = way(facts, "a", BLOCK["a"], outer=outer)
        assert (met.seen, met.dropped, met.last_hook) == (2, 0, "postrouting")
    guard(f"ip daddr {DB} drop", hook="output")
    (drop,) = drops(answers(nodes, NodeAsk(**fields)))
    assert (drop.hook, drop.outer, drop.source_address) == ("output", False, BLOCK["a"])


def ping_of_ours() -> bytes:
    """From shop/cart to shop/db, as it goes into a tunnel."""
    ip = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 60, 7, 0, 64, 1, 0, socket.inet_aton(CART), socket.inet_aton(DB)
    )  # fmt: skip
    return ip + struct.pack("!BBHHH", 8, 0, 0, 1, 1) + SMALL


@needs("nft")
@pytest.mark.parametrize(
    "encapsulation, rule", [("ipip", "meta l4proto 4 drop"), ("wireguard", "udp dport 51820 drop")]
)
@in_namespaces
def test_packets_of_other_tunnels_dropped_where_they_arrive(encapsulation: str, rule: str) -> None:
    """The devices are not needed for that: on the wire it is a packet in a packet, or one that is sealed."""
    nodes = TwoNodes()
    nodes.b.run(lambda: guard(rule, hook="input"))
    one = Trace(
        source=CART, target=DB, protocol="icmp", encapsulation=encapsulation, peer=NODE["a"], tunnel_port=51820
    )  # fmt: skip
    asked = ask(node="node-b", ways=(), local_pods=(), read=False, trace=(one,))

    async def look() -> list[Fact]:
        following = trace.Following(asked, legacy.Log())
        await following.arm(time.monotonic() + 1)
        try:
            await asyncio.to_thread(from_a)
            return await following.facts(time.monotonic() + 2)
        finally:
            following.close()

    def from_a() -> None:
        armed.set()
        sent.wait()

    armed, sent = threading.Event(), threading.Event()
    facts: list[Fact] = []
    thread = threading.Thread(target=lambda: facts.extend(nodes.b.run(lambda: asyncio.run(look()))))
    thread.start()
    armed.wait()
    if encapsulation == "ipip":
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, 4) as wire:
            wire.sendto(ping_of_ours(), (NODE["b"], 0))
            wire.sendto(ping_of_ours().replace(socket.inet_aton(CART), bytes(4)), (NODE["b"], 0))  # somebody else's
    else:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
            wire.sendto(b"sealed", (NODE["b"], 51820))
            wire.sendto(b"other", (NODE["b"], 51821))
    sent.set()
    thread.join()
    (drop,) = drops(facts)
    assert (drop.outer, drop.packets, drop.chain, drop.hook) == (True, 1, "guard", "input")
    assert way(facts, "b", outer=True).seen == 1


FLOOD = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.connect((sys.argv[1], 9))
    print("flooding", flush=True)
    while True:
        try:
            one.send(b"x" * 64)
        except OSError:
            pass
"""


@needs("nft")
@in_namespaces
def test_a_flood_between_the_same_pods_neither_hides_nor_adds_a_packet() -> None:
    nodes = TwoNodes()
    nodes.b.run(lambda: guard(f"ip daddr {DB} tcp dport {PORT} drop"))
    flood = nodes.cart.run(
        lambda: subprocess.Popen([sys.executable, "-c", FLOOD, DB], stdout=subprocess.PIPE, text=True)
    )
    try:
        assert flood.stdout.readline() == "flooding\n"
        facts = answers(nodes, follow("a", "tcp", PORT), follow("b", "tcp", PORT))
    finally:
        flood.kill()
        flood.wait()
    (drop,) = drops(facts)
    assert (drop.node, drop.packets) == ("node-b", 2) and blind(facts) == []
    assert {(way(facts, node, outer=outer).seen) for node in ("a", "b") for outer in (False, True)} == {2}


@needs("nft")
@in_namespaces
def test_other_packets_of_the_same_pods_are_left_alone() -> None:
    """Only fresh packets of the asked kind are followed, whatever else goes on between the two."""
    nodes = TwoNodes()
    guard("", policy="accept")
    packets = SendProbe(pod="shop/cart", target=DB, protocol="tcp", port=PORT + 1, count=20)
    mixed = ask(**{field: getattr(follow("a", "tcp", PORT), field) for field in NodeAsk.__struct_fields__} | {
        "send": (packets, from_cart("icmp"))})  # fmt: skip
    facts = answers(nodes, mixed, follow("b", "tcp", PORT))
    assert {fact.seen for fact in facts if isinstance(fact, FirewallTrace)} == {0}


@in_namespaces
def test_a_probe_without_net_admin_says_what_it_lacks_and_answers() -> None:
    TwoNodes()
    without_net_admin()
    facts = asyncio.run(alone(follow("a")))
    assert [fact.sent for fact in facts if isinstance(fact, ProbeResult)] == [2]
    (said,) = [fact for fact in facts if isinstance(fact, Blind)]
    assert (said.look, said.minor) == ("firewall trace", True) and "NET_ADMIN" in said.reason


def without_net_admin() -> None:
    head = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(head, sets) == 0
    for word in range(2):
        sets[word] &= ~(1 << 12)
    assert libc.capset(head, sets) == 0


async def alone(one: NodeAsk) -> list[Fact]:
    prober = Prober(one.node, {})
    try:
        return await prober.answer(one, time.monotonic() + 1)
    finally:
        await prober.close()


@in_namespaces
def test_a_question_nobody_can_follow_costs_nothing_else() -> None:
    TwoNodes()
    one = follow("a")
    for traces in ((Trace(source=CART, target=DB, protocol="sctp"),), one.trace * ours.MOST):
        fields = {field: getattr(one, field) for field in NodeAsk.__struct_fields__} | {"trace": traces}
        facts = asyncio.run(alone(NodeAsk(**fields)))
        assert blind(facts) == [("firewall trace", True)]
        assert [fact.sent for fact in facts if isinstance(fact, ProbeResult)] == [2]


# -- nothing stays behind

HOLDS = """
import asyncio, sys, time
from node_probe.firewall import legacy, trace
from tests.test_firewall_trace import follow

async def hold():
    log = legacy.Log()
    following = trace.Following(follow("a"), log)
    await following.arm(time.monotonic() + 5)
    log.join(4, print)
    print("armed", flush=True)
    await asyncio.sleep(60)

asyncio.run(hold())
"""


@needs("nft")
@in_namespaces
def test_what_a_killed_probe_leaves_behind_is_gone_or_swept() -> None:
    before = LOGGER.read_text()
    process = subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "armed\n"
    assert LOGGER.read_text().strip() == legacy.OURS
    assert len([name for name in tables() if arming.NAME in name]) == 1
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until = time.monotonic() + 5
    while any(arming.NAME in name for name in tables()):
        assert time.monotonic() < until, tables()
        time.sleep(0.01)
    trace.sweep()
    assert LOGGER.read_text() == before and tables() == []


@needs("nft")
@in_namespaces
def test_tables_that_no_kernel_removes_are_swept_and_those_in_use_are_not() -> None:
    """A kernel before 5.12 knows no owners: the table of a killed probe stays there."""
    nft(f"table ip {arming.NAME}dead {{ chain x {{ }}\n}}\ntable ip6 {arming.NAME}dead {{ }}\ntable ip corp {{ }}\n")
    held = arming.OwnTable(arming.NAME + "alive", ours.followed(follow("a").trace), 4)
    try:
        trace.sweep()
        assert tables() == [f"table ip {arming.NAME}alive"]
        assert "table ip corp" in run("nft", "list", "tables")
    finally:
        held.close()
    assert tables() == []


def until_armed() -> None:
    until = time.monotonic() + 5
    while not tables():
        assert time.monotonic() < until


@needs("nft")
@in_namespaces
def test_a_question_that_is_broken_off_leaves_nothing() -> None:
    TwoNodes()

    async def broken_off() -> None:
        prober = Prober("node-a", {})
        asked = asyncio.create_task(prober.answer(follow("a"), time.monotonic() + 10))
        await asyncio.to_thread(until_armed)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert tables() == []
        await prober.close()

    asyncio.run(broken_off())


# -- when it is asked


def lossy(**fields: Any) -> list[Fact]:
    return change(healthy(), ProbeResult, {"pod": "shop/cart", **fields}, answered=0, outcome="silence", rtt_us=-1)


def test_only_where_packets_of_the_asked_kind_are_lost_both_nodes_are_asked_again() -> None:
    assert second(healthy(), healthy()) == []
    assert second(healthy(), lossy(protocol="icmp")) == [], "the asked port answers"
    asks = second(healthy(), lossy(protocol="tcp"))
    assert [(one.node, one.read, one.felix, one.ways) for one in asks] == [
        ("node-a", False, False, ()),
        ("node-b", False, False, ()),
    ]
    assert [[(probe.pod, probe.protocol, probe.port) for probe in one.send] for one in asks] == [
        [("shop/cart", "tcp", 5432)],
        [],
    ]
    for one in asks:
        assert [(leg.protocol, leg.port, leg.encapsulation, leg.tunnel_port) for leg in one.trace] == [
            ("tcp", 5432, "vxlan", 4789)
        ] * 2
        assert sorted(leg.reply for leg in one.trace) == [False, True]
        assert len({leg.peer for leg in one.trace} - {one.uplink_address}) == 1


@pytest.mark.parametrize(
    ("between_nodes_us", "waits_ms"),
    [(400, 150), (60_000, 600), (900_000, 1000), (-1, 200)],
    ids=["near", "far", "slower than a second look may be", "nobody knows"],
)
def test_a_packet_that_is_followed_is_waited_for_as_long_as_its_path_takes(
    between_nodes_us: int, waits_ms: int
) -> None:
    """300 ms are promised where packets are fast; what is late on a slow path is not to be called lost."""
    seen = change(healthy(), ProbeResult, {}, answered=0, outcome="silence", rtt_us=-1)
    if between_nodes_us > 0:
        between = {"pod": "", "target_address": NODE["b"]}
        seen = change(seen, ProbeResult, between, answered=2, outcome="answered", rtt_us=between_nodes_us)
    asks = second(healthy(), seen)
    assert {ask.node: ask.patience_ms for ask in asks} == {"node-a": waits_ms, "node-b": waits_ms}


@in_namespaces
def test_a_trace_of_lost_packets_waits_once_for_all_of_them_together() -> None:
    nodes = TwoNodes()
    nodes.b.run(lambda: guard(f"ip daddr {DB} drop"))
    waits: list[tuple[str, float]] = []
    met_by = packets.met_by

    async def recorded(one: Any, probe: Any, exchanging: Any, timeout: float) -> Any:
        waits.append(("begins", timeout))
        met = await met_by(one, probe, exchanging, timeout)
        waits.append(("ends", timeout))
        return met

    packets.met_by = recorded  # in this child process alone
    facts = answers(nodes, follow("a"), follow("b"))
    assert [drop.packets for drop in drops(facts)] == [2]
    assert [what for what, _ in waits] == ["begins"] * 2 + ["ends"] * 2
    assert all(timeout <= 0.3 for _, timeout in waits)


def test_where_large_packets_alone_are_lost_pings_of_their_size_are_followed() -> None:
    full = next(one.size for one in healthy() if isinstance(one, ProbeResult) and one.size)
    asks = second(healthy(), lossy(protocol="icmp", size=full))
    assert [[(probe.protocol, probe.size) for probe in one.send] for one in asks] == [[("icmp", full)], []]
    assert {(leg.protocol, leg.port) for one in asks for leg in one.trace} == {("icmp", 0)}


async def test_a_probe_that_cannot_follow_is_told_of_and_its_other_words_are_left_out() -> None:
    asks = second(healthy(), lossy(protocol="tcp"))
    trace_of_a = FirewallTrace(
        node="node-a", source_address="x", target_address="y", protocol="tcp", how="trace", seen=2
    )
    late = ProbeResult(
        node="node-a", pod="", source_address="", target_address="y", protocol="tcp", sent=2, answered=2,
        outcome="answered",
    )  # fmt: skip
    kept = followed.kept(asks, [trace_of_a, late])
    assert kept[0] == trace_of_a and blind(kept) == [("firewall trace", True)]
    assert [fact.node for fact in kept if isinstance(fact, Blind)] == ["node-b"]


# -- the whole way: bot, both probes, engine

CORP = "table inet corp {{ chain guard {{ type filter hook {hook} priority 10; {rule}\n}}\n}}\n"
ENDS = {
    "from pod to pod": ("shop/cart shop/db 5432/tcp", "node-b", "forward", "tcp dport 5432 drop"),
    "within one node": ("shop/cart shop/web 8080/tcp", "node-a", "forward", "tcp dport 8080 drop"),
    "from a pod to a node, under the address of its own": (
        "shop/cart node-b 10250/tcp", "node-b", "input", "tcp dport 10250 drop",
    ),
    "from node to node": ("node-a node-b 10250/tcp", "node-b", "input", "tcp dport 10250 drop"),
    "from a node to a pod": ("node-a shop/db 5432/tcp", "node-b", "forward", "tcp dport 5432 drop"),
    "out of the cluster": ("shop/cart 172.30.0.1 10250/tcp", "node-a", "postrouting", "tcp dport 10250 drop"),
}  # fmt: skip


@needs("nft")
@pytest.mark.parametrize("ends", ENDS)
async def test_a_question_names_the_rule_that_ate_its_packets(lab: Lab, ends: str) -> None:
    words, place, hook, rule = ENDS[ends]
    done = lab.exec(place, "nft", "-f", "-", input=CORP.format(hook=hook, rule=rule))
    assert done.returncode == 0, done.stderr
    try:
        facts = (await ask_lab(lab.environment(), words)).diagnosis.facts
    finally:
        lab.exec(place, "nft", "delete", "table", "inet", "corp")
    (drop,) = drops(facts)
    assert (drop.node, drop.hook, drop.text, drop.how, drop.reply) == (place, hook, rule, "trace", False)
    assert drop.packets == 2
    left = {name: lab.exec(name, "nft", "list", "tables").stdout for name in ("node-a", "node-b")}
    assert all(arming.NAME not in listed for listed in left.values()), left


@needs("nft")
async def test_packets_to_a_service_are_followed_into_what_kube_proxy_does_with_them(lab: Lab) -> None:
    told = lab.inflict("service_without_endpoints")
    facts = (await ask_lab(lab.environment(), f"{told['source']} {told['target']}")).diagnosis.facts
    (drop,) = drops(facts)
    assert (drop.node, drop.table, drop.verdict) == ("node-a", "kube-proxy", "reject")
    name, _, port = told["target"].partition(" ")
    assert drop.map == "no-endpoint-services" and drop.element.startswith(f"{name.removeprefix('svc/')}:"), port
    assert drop.packets == way(facts, "a", drop.source_address).dropped > 0
