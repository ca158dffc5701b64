"""Connections that begin and bring nothing: the rule that ends what follows the handshake is named, on either way, in
nodes and in pods; and where nothing that can be followed ends it, nobody is accused."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from facts import Cause, ProbeResult
from lab.client import Lab
from tests.asking import ask

ASKED = "shop/cart shop/db 5432/tcp"
BEHIND = "tcp flags & (syn | rst | ack) == ack"  # everything but the handshake's first two
NODE, POD = "host_firewall_drops_forward", "pod_firewall_drops"
RULES = """
add table inet later
add chain inet later passing { type filter hook HOOK priority -200; }
add rule inet later passing RULE
"""

# Its socket's own filter takes first packets alone (of TCP's header: flags & SYN), which no rule tells of.
SERVER = """
import ctypes, os, socket, struct, time
one = socket.create_server(("", 9000))
code = [(0x30, 0, 0, 13), (0x54, 0, 0, 2), (0x15, 0, 1, 2), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0)]
memory = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
one.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HP", len(code), ctypes.addressof(memory)))
if os.fork() == 0:
    time.sleep(600)
"""


@pytest.fixture
def later(lab: Lab) -> Iterator[Lab]:
    yield lab
    lab.heal()


def rule(lab: Lab, place: str, hook: str, words: str) -> None:
    rules = RULES.replace("HOOK", hook).replace("RULE", f"{words} drop")
    assert lab.exec(place, "nft", "-f", "-", input=rules).returncode == 0


async def the_cause(lab: Lab, asked: str = ASKED) -> Cause:
    told = (await ask(lab.environment(), asked)).diagnosis
    assert told.verdict == "cause", (told.summary, told.blind)
    (cause,) = told.causes
    assert cause.severity == "breaks"
    return cause


@pytest.mark.parametrize(
    ("place", "hook", "words", "mode", "leg", "stage"),
    [
        ("node-b", "forward", f"tcp dport 5432 {BEHIND}", NODE, "forward", "target node"),
        ("node-a", "forward", f"tcp dport 5432 ct state established {BEHIND}", NODE, "forward", "source node"),
        ("node-b", "forward", "tcp dport 5432 ct original packets > 2", NODE, "forward", "target node"),
        ("node-a", "forward", f"tcp sport 5432 {BEHIND}", NODE, "reverse", "target node"),
        ("shop/cart", "output", "tcp dport 5432 tcp flags & fin == fin", POD, "forward", "source pod"),
        ("shop/db", "input", f"tcp dport 5432 {BEHIND}", POD, "forward", "target pod"),
        ("shop/db", "output", f"tcp sport 5432 {BEHIND}", POD, "reverse", "source pod"),
    ],
)
async def test_the_rule_that_ends_what_follows_the_handshake_is_named(
    later: Lab, place: str, hook: str, words: str, mode: str, leg: str, stage: str
) -> None:
    rule(later, place, hook, words)
    cause = await the_cause(later)
    assert (cause.rule, cause.leg, cause.stage) == (mode, leg, stage)
    assert "rule 1 of chain passing (table later, nft)" in cause.text
    follows = (
        "what shop/db answers in connections that shop/cart has made to tcp 5432"
        if leg == "reverse"
        else "what follows in connections of tcp 5432 that shop/cart has made to shop/db"
    )
    assert follows in cause.text


async def test_a_rule_about_what_a_tunnel_carries_is_not_told_to_drop_all_of_it(later: Lab) -> None:
    within = "@th,504,8 & 0x03 == 0x01"  # of TCP's flags inside of VXLAN: an end, and no beginning
    rule(later, "node-b", "input", f"udp dport 4789 {within}")
    cause = await the_cause(later)
    assert (cause.rule, cause.leg, cause.stage) == ("host_firewall_drops_vxlan", "forward", "target tunnel")
    assert cause.text.endswith("Only what follows in connections ends there: the handshake passes.")


async def test_a_rule_of_iptables_that_counts_a_connections_packets_is_named() -> None:
    with Lab.up(variant="iptables-nft", fixers=False) as lab:
        counts = "-m connbytes --connbytes 3: --connbytes-mode packets --connbytes-dir original"
        words = f"iptables-nft -I FORWARD -p tcp --dport 5432 {counts} -j DROP"
        assert lab.exec("node-b", *words.split()).returncode == 0
        cause = await the_cause(lab)
    assert (cause.rule, cause.leg, cause.stage) == (NODE, "forward", "target node")
    assert "rule 1 of chain FORWARD (table filter, iptables-nft)" in cause.text and "connbytes" in cause.text


async def test_what_no_rule_ends_is_not_called_healthy_and_accuses_nobody() -> None:
    with Lab.up(fixers=False) as lab:
        served = lab.exec("shop/db", sys.executable, "-c", SERVER)
        assert served.returncode == 0, served.stderr
        told = (await ask(lab.environment(), "shop/cart shop/db 9000/tcp")).diagnosis
    assert told.verdict == "unknown" and told.causes == (), (told.summary, told.causes)
    assert "connections are made, and nothing that follows in them comes back" in told.summary
    assert "seen arriving at eth0 of shop/db, and never answered by shop/db" in told.summary
    untold = [one.reason for one in told.blind if one.look == "firewall"]
    assert "what follows in a connection was looked for, and no rule was seen to end it" in untold, told.blind
    (tried,) = [one for one in told.facts if isinstance(one, ProbeResult) and one.port == 9000 and not one.size]
    assert (tried.sent, tried.answered, tried.unended) == (2, 0, 2)
