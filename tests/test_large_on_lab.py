"""Through the whole product: a rule or a middlebox that eats large packets of the asked port alone is named, with its
place and its way, and clusters on which none of this kind can be tried are accused of nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from facts import Diagnosis, ProbeResult
from lab.client import Lab
from tests.asking import ask, words_for
from tests.test_firewall_trace import CORP, needs

ASKED = "shop/cart shop/db 5432/tcp"
BY_UDP = "shop/cart shop/db 5432/udp"
HERE = str(Path(__file__).resolve().parents[1])


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab.up(variant="dualstack", fixers=False) as lab:
        yield lab


async def answer(lab: Lab, words: str = ASKED) -> Diagnosis:
    return (await ask(lab.environment(), words)).diagnosis


async def with_rule(lab: Lab, place: str, hook: str, rule: str, words: str = ASKED) -> Diagnosis:
    """place: a node or a pod."""
    done = lab.exec(place, "nft", "-f", "-", input=CORP.format(hook=hook, rule=rule))
    assert done.returncode == 0, done.stderr
    try:
        return await answer(lab, words)
    finally:
        lab.exec(place, "nft", "delete", "table", "inet", "corp")


def named(diagnosis: Diagnosis) -> list[tuple[str, str, str, str]]:
    return [(one.rule, one.node, one.leg, one.stage) for one in diagnosis.causes]


# words, where, hook, rule -> who is named, on which leg
RULES = {
    "what a node passes on": (ASKED, "node-b", "forward", "meta l4proto tcp meta length > 1400 drop",
                              ("host_firewall_drops_forward", "node-b", "forward", "target node")),
    "its answers": (ASKED, "node-a", "forward", "tcp sport 5432 meta length > 1400 reject",
                    ("host_firewall_drops_forward", "node-a", "reverse", "target node")),
    "datagrams": (BY_UDP, "node-b", "forward", "meta l4proto udp meta length > 1400 drop",
                  ("host_firewall_drops_forward", "node-b", "forward", "target node")),
    "answers by datagram": (BY_UDP, "node-b", "forward", "udp sport 5432 meta length > 1400 drop",
                            ("host_firewall_drops_forward", "node-b", "reverse", "source node")),
    "within one node": ("shop/cart shop/web 8080/tcp", "node-a", "forward", "tcp dport 8080 meta length > 1400 drop",
                        ("host_firewall_drops_forward", "node-a", "forward", "source node")),
    "from a node": ("node-a shop/db 5432/tcp", "node-b", "forward", "tcp dport 5432 meta length > 1400 drop",
                    ("host_firewall_drops_forward", "node-b", "forward", "target node")),
    "what comes into the pod": (ASKED, "shop/db", "input", "meta l4proto tcp meta length > 1400 drop",
                                ("pod_firewall_drops", "node-b", "forward", "target pod")),
    "what the asked pod answers": (ASKED, "shop/db", "output", "meta l4proto tcp meta length > 1400 drop",
                                   ("pod_firewall_drops", "node-b", "reverse", "source pod")),
    "what comes back into the pod": (BY_UDP, "shop/cart", "input", "meta l4proto udp meta length > 1400 drop",
                                     ("pod_firewall_drops", "node-a", "reverse", "target pod")),
    "what leaves the pod": (ASKED, "shop/cart", "output", "meta l4proto tcp meta length > 1400 drop",
                            ("pod_firewall_drops", "node-a", "forward", "source pod")),
}  # fmt: skip


@needs("nft")
@pytest.mark.parametrize("what", RULES)
async def test_a_rule_that_drops_large_packets_alone_is_named(lab: Lab, what: str) -> None:
    words, place, hook, rule, expected = RULES[what]
    diagnosis = await with_rule(lab, place, hook, rule, words)
    assert set(named(diagnosis)) == {expected}, diagnosis.summary
    assert all("1400" in one.text and "small ones pass" in one.text for one in diagnosis.causes)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("where", "node", "leg"), [("source", "node-a", "forward"), ("target", "node-b", "reverse")])
async def test_a_middlebox_that_eats_them_is_no_narrow_network(
    lab: Lab, where: str, node: str, leg: str, family: int
) -> None:
    lab.heal()
    diagnosis = await answer(lab, words_for(lab.inflict("large_packets_filtered", where=where, family=family)))
    lab.heal()
    assert named(diagnosis) == [("large_packets_filtered", node, leg, "underlay")], diagnosis.summary
    (found,) = diagnosis.causes
    assert "1300" in found.text and "so it is no MTU" in found.text and f"leaving {node}" in found.text


@needs("nft")
@pytest.mark.parametrize(("node", "lost"), [("node-a", "answers of 1430 bytes"), ("node-b", "those of 1430 bytes")])
async def test_an_uplink_that_is_too_narrow_is_named_where_nobody_is_told_so(lab: Lab, node: str, lost: str) -> None:
    """Pings, and what tells senders of a narrow place (ICMP), are dropped, as hardening scripts do."""
    lab.heal()
    assert lab.exec(node, "ip", "link", "set", "eth0", "mtu", "1400").returncode == 0
    diagnosis = await with_rule(lab, node, "forward", "meta l4proto { icmp, icmpv6 } drop")
    lab.heal()
    assert {one.rule for one in diagnosis.causes} == {"path_mtu_too_small"}, diagnosis.summary
    assert all(lost in one.text and f"eth0 of {node} has MTU 1400" in one.text for one in diagnosis.causes)
    assert {(one.rule, one.node) for one in diagnosis.warnings} == {("tunnel_mtu_too_large", node)}


@needs("nft")
async def test_a_narrow_network_for_which_connections_are_clamped_breaks_none(lab: Lab) -> None:
    lab.heal()
    words = words_for(lab.inflict("path_mtu_too_small"))
    broken = await answer(lab, words)
    clamped = await with_rule(lab, "node-b", "forward", "tcp flags syn tcp option maxseg size set 1100", words)
    lab.heal()
    assert {one.rule for one in broken.causes} == {"path_mtu_too_small"}
    assert (clamped.verdict, clamped.causes) == ("healthy", ()), clamped.summary
    assert {one.rule for one in clamped.warnings} == {"path_mtu_too_small"}
    assert all("those pass both ways" in one.text for one in clamped.warnings)


WIDE_AGAIN = """
import os
from pyroute2 import IPRoute
from lab.namespaces import setns
setns(os.open("/proc/1/ns/net", os.O_RDONLY))  # the network between the nodes
with IPRoute() as ip:
    ip.link("set", index=ip.link_lookup(ifname="port1")[0], mtu=1500)
"""

REMEMBERED = """
from pyroute2 import IPRoute
with IPRoute() as ip:
    cloned = [route for family in (2, 10) for route in ip.get_routes(family=family) if route["flags"] & 0x200]
    metrics = [dict(found["attrs"]) for route in cloned if (found := route.get_attr("RTA_METRICS"))]
    print([found["RTAX_MTU"] for found in metrics if "RTAX_MTU" in found])
"""


def by_python(lab: Lab, place: str, script: str) -> str:
    path = os.pathsep.join(filter(None, (HERE, os.environ.get("PYTHONPATH"))))
    done = lab.exec(place, "env", f"PYTHONPATH={path}", sys.executable, "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


async def test_who_was_told_of_a_narrow_place_is_believed_to_send_smaller_ones(lab: Lab) -> None:
    """A node remembers for minutes that a path was narrow, and tells whoever sends too much: connections heed it."""
    lab.heal()
    words = words_for(lab.inflict("path_mtu_too_small"))
    await answer(lab, words)
    by_python(lab, "node-a", WIDE_AGAIN)
    after = await answer(lab, words)
    lab.heal()
    assert (after.verdict, [one.text for one in after.causes]) == ("healthy", []), after.summary
    assert "answers of 1330 bytes 2 of 2" in after.summary, "over IPv6; else nobody remembered anything"


@pytest.mark.parametrize("family", [4, 6])
async def test_a_lab_that_was_healed_remembers_no_narrow_path(lab: Lab, family: int) -> None:
    """Else the next who asks would be told of smaller packets than the two pods use."""
    lab.heal()
    words = words_for(lab.inflict("route_mtu_too_small", where="target", family=family))
    assert {one.rule for one in (await answer(lab, words)).causes} == {"route_mtu_too_small"}
    assert by_python(lab, "shop/db", REMEMBERED) == "[1300]"
    lab.heal()
    assert by_python(lab, "shop/db", REMEMBERED) == "[]"
    after = await answer(lab, words)
    assert after.summary.count("tcp 5432 1430 bytes 2 of 2 answered") == 2, after.summary


@needs("nft")
async def test_a_rule_that_drops_all_large_packets_is_named_and_no_mtu(lab: Lab) -> None:
    diagnosis = await with_rule(lab, "node-b", "forward", "meta length > 1400 drop")
    assert {one.rule for one in diagnosis.causes} == {"host_firewall_drops_forward"}, diagnosis.summary


@needs("nft")
@pytest.mark.parametrize(
    "rule",
    [
        "meta l4proto { icmp, icmpv6 } meta length > 1400 drop",
        "tcp flags syn meta length > 80 drop",
        "tcp flags syn meta length > 600 drop",
        "ct state new meta l4proto tcp meta length > 600 drop",
        "tcp flags syn tcp option maxseg size set 1000",
        "meta l4proto { icmp, icmpv6 } drop",
    ],
    ids=[
        "large pings alone",
        "first packets with data",
        "large first packets",
        "large packets of no connection",
        "clamped connections",
        "no pings at all",
    ],
)
async def test_what_others_do_with_such_packets_by_right_breaks_nothing(lab: Lab, rule: str) -> None:
    diagnosis = await with_rule(lab, "node-b", "forward", rule)
    assert (diagnosis.verdict, [one.text for one in diagnosis.causes]) == ("healthy", []), diagnosis.summary


async def test_a_policy_that_drops_the_port_is_what_is_told(lab: Lab) -> None:
    lab.heal()
    diagnosis = await answer(lab, words_for(lab.inflict("policy_denies_ingress")))
    lab.heal()
    assert {one.rule for one in diagnosis.causes} == {"policy_denies_ingress"}
    tried = [one for one in diagnosis.facts if isinstance(one, ProbeResult) and one.port and one.size]
    assert {":" in one.target_address for one in tried} == {True}, "the policy is about IPv4 alone"
    assert not diagnosis.warnings


@pytest.mark.parametrize(
    "words",
    [ASKED, BY_UDP, "shop/cart shop/web 8080/tcp", "node-a shop/db 5432/tcp", "shop/cart node-b 10250/tcp"],
)
async def test_a_healthy_answer_says_that_it_saw_them(lab: Lab, words: str) -> None:
    diagnosis = await answer(lab, words)
    if "node-b" in words:  # nobody listens there: what is asked for is answered by no server
        assert {one.rule for one in diagnosis.causes} == {"target_not_listening"}
        return
    assert diagnosis.verdict == "healthy", diagnosis.summary
    assert "answers of 1430 bytes 2 of 2" in diagnosis.summary and "could not be seen" not in diagnosis.summary
