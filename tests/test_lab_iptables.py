"""In iptables mode the lab's firewall is the one a running Calico programs, rule for rule; without it what is proved
about that mode would be proved about our own idea of it.

The real rules were listed on nodes with iptables-nft and with iptables-legacy under every kind of policy (recorded,
calico_truth_2.md 3). Left out are the digests in comments and names, and counters.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lab.firewall import node_state, policies
from lab.firewall.chains import rendered
from lab.firewall.in_iptables import members
from lab.firewall.words import Networks, Ruleset, Served, ipset, iptables_chain
from lab.intent import Objects
from lab.kernel import FAMILIES
from tests.recorded_firewall import files
from tests.test_lab_firewall import DUAL_STACK, GROUP, OF_THE_ZOO, ZOO, listed, within

Object = dict[str, Any]
Listing = dict[str, list[str]]  # "TABLE CHAIN" -> its rules, "set NAME" -> its members

OF_THE_MODE = {"node-a": "iptables-nft-save.txt", "node-b": "iptables-legacy-save.txt"}
SET = re.compile(r"(create|add) (\S+) (\S+)")
# What the tools print otherwise than it is written.
PRINTED = (
    (re.compile(r"-p ipencap\b"), "-p 4"),  # by /etc/protocols, where there is one
    (re.compile(r"-p gre\b"), "-p 47"),
    (re.compile(r" --reject-with icmp6?-port-unreachable"), ""),  # the default
    (re.compile(r"-j CT --notrack"), "-j NOTRACK"),  # since iptables 1.8.10
)
# (how it begins, reason): members of sets a running Calico has and the lab leaves out.
LEFT_OUT = (("fe80::", "Felix lists link-local addresses of the node, too; only rules about DSCP ask for them."),)


def plain(line: str) -> str:
    """Without what is different on every node and at every moment."""
    line = re.sub(r'cali:[\w-]{16}"', 'cali:DIGEST"', line)
    line = re.sub(r"(cali[46]0[sn]:)[\w-]{23}", r"\1DIGEST", line)
    line = re.sub(r"(cali-g[io]-)[\w-]{20}", r"\1DIGEST", line)
    for pattern, written in PRINTED:
        line = pattern.sub(written, line)
    return line


def recorded(saved: str, sets: str, family: int) -> Listing:
    """Felix's own of an `iptables-save -c` and an `ipset save`."""
    found: Listing = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":cali-"):
            found.setdefault(plain(f"{table} {line[1:].split()[0]}"), [])
        elif appended := re.match(r"(?:\[\d+:\d+\] )?-A (\S+) (.*cali.*)", line):
            found.setdefault(plain(f"{table} {appended[1]}"), []).append(plain(appended[2]))
    for kind, name, rest in SET.findall(sets):
        if name.startswith(f"cali{family}"):
            found.setdefault(plain(f"set {name}"), [])
            if kind == "add" and not any(rest.startswith(begin) for begin, _ in LEFT_OUT):
                found[plain(f"set {name}")].append(rest)
    return {name: sorted(lines) if name.startswith("set ") else lines for name, lines in found.items()}


def of_lab(ruleset: Ruleset) -> Listing:
    """The same of what the lab writes."""
    found: Listing = {}
    for chain in ruleset.chains:
        table, name = iptables_chain(chain.name)
        if chain.rules or name.startswith("cali-"):
            found[plain(f"{table} {name}")] = [plain(rule.saved) for rule in chain.rules]
    for one in ruleset.sets:
        assert isinstance(one, Networks | Served)
        found.setdefault(plain(f"set {ipset(one.name)}"), []).extend(members(one))
    return {name: sorted(lines) if name.startswith("set ") else lines for name, lines in found.items()}


def ruleset(list_of: Callable[[str], list[Object]], node: str, family: int) -> Ruleset:
    """As if Calico's settings said iptables, which the recorded nodes found out by themselves."""
    families = {one: Objects.read(list_of, one) for one in FAMILIES}
    state = node_state(families, node, family, policies(list_of, GROUP))
    return rendered(replace(state, iptables=True))


@pytest.mark.parametrize("node", OF_THE_MODE)
@pytest.mark.parametrize("name", ZOO)
def test_policies_become_the_rules_a_running_calico_made_of_them(name: str, node: str) -> None:
    list_of = listed(
        within("v3.32.1/healthy", "cr"),
        within("v3.32.1/loose", OF_THE_ZOO),
        within("v3.32.1/loose", f"policy-zoo/{name}/objects"),
    )
    saved, sets = (files()[f"policy-zoo/{name}/0-idle/{node}/{file}"] for file in (OF_THE_MODE[node], "ipset-save.txt"))
    assert of_lab(ruleset(list_of, node, 4)) == recorded(saved, sets, 4)


@pytest.mark.parametrize("node", ["node-a", "node-b"])
@pytest.mark.parametrize("family", FAMILIES)
def test_both_families_have_their_tables(family: int, node: str) -> None:
    list_of = listed(*(within(f"v3.32.1/{DUAL_STACK}", one) for one in ("cr", "k8s")))
    tool = "iptables" if family == 4 else "ip6tables"
    saved, sets = (files()[f"{DUAL_STACK}/{node}/{file}"] for file in (f"{tool}-nft-save.txt", "ipset-save.txt"))
    assert of_lab(ruleset(list_of, node, family)) == recorded(saved, sets, family)
