"""The lab's firewall is the one a running Calico programs, rule for rule; without it what is proved about policies in
the lab would be proved about our own idea of them.

The real rules were listed on a node in nftables mode under every kind of policy (recorded, calico_truth_2.md 3). What
differs by nature is left out of the comparison: the digests in comments and names, handles, counters.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.client import Lab
from lab.firewall import node_state, policies
from lab.firewall.chains import rendered, rendered_arp
from lab.firewall.words import Networks, Ruleset, Served
from lab.intent import Objects, interface_name
from lab.kernel import FAMILIES
from tests import firewall_zoo
from tests.recorded_firewall import files
from tests.recordings import load

Object = dict[str, Any]
Listing = dict[str, list[str]]  # "chain NAME", "set NAME" or "map NAME" -> its lines; sets of one name side by side

ZOO = sorted({path.split("/")[1] for path in files() if path.startswith("policy-zoo/")})
OF_THE_ZOO = "policy-zoo/00-no-policy/objects"  # pods, nodes and namespaces were the same under every policy
DUAL_STACK = "dualstack/healthy"
GROUP = "crd.projectcalico.org"
SETTLED_S = 5.0
DENY_ALL = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "deny-all", "namespace": "shop"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
}
# (table, line, reason): what a running Calico has and the lab leaves out.
LEFT_OUT = (
    (
        "ip6 calico",
        r"fe80::[0-9a-f:]+",
        "Felix lists link-local addresses of the node, too; only rules about DSCP ask for them.",
    ),
)


def plain(line: str) -> str:
    """Without what is different on every node and at every moment."""
    line = re.sub(r" # handle \d+$", "", line.strip())
    line = re.sub(r"counter packets \d+ bytes \d+", "counter", line)
    line = re.sub(r"cali:[^;]{16};", "cali:DIGEST;", line)
    line = re.sub(r"(cali[46]0[sn]-)[\w-]{23}", r"\1DIGEST", line)
    return re.sub(r"(cali-g[io]-)[\w-]{20}", r"\1DIGEST", line)


def recorded_table(text: str, table: str) -> Listing:
    """A table of an `nft -a -n list ruleset`."""
    found: Listing = {}
    inside, lines, elements = False, [""], ""
    for line in text.splitlines():
        if line.startswith("table "):
            inside = line.startswith(f"table {table} ")
        elif inside and (opened := re.match(r"\t(chain|set|map) (\S+) {", line)):
            lines = found.setdefault(plain(f"{opened[1]} {opened[2]}"), [])
        elif inside and ("elements = {" in line or elements):
            elements += line.strip()
            if "}" in line:
                members = elements.removeprefix("elements = {").rstrip("} ").split(",")
                lines.append(", ".join(sorted(member.strip() for member in members)))
                elements = ""
        elif inside and line.startswith("\t\t") and not re.match(r"\t\t(type (?!\w+ hook)|flags )", line):
            lines.append(plain(line))
    return {name: sorted(lines) if name.startswith("set ") else lines for name, lines in found.items()}


def lab_table(ruleset: Ruleset) -> Listing:
    """The same of what the lab writes."""
    found: Listing = {}
    for chain in ruleset.chains:
        hook = [f"type {chain.kind} hook {chain.hook} priority {chain.priority}; policy accept;"] if chain.hook else []
        found[plain(f"chain {chain.name}")] = hook + [plain(rule.text) for rule in chain.rules]
    for one in ruleset.sets:
        members = found.setdefault(plain(f"set {one.name}"), [])
        if one.members:
            members.append(", ".join(sorted(_members(one))))
            members.sort()
    for dispatch in ruleset.maps:
        found[f"map {dispatch.name}"] = [", ".join(sorted(f'"{name}" : goto {to}' for name, to in dispatch.chains))]
    return found


def _members(one: Networks | Served) -> list[str]:
    if isinstance(one, Served):
        return [f"{address} . {protocol} . {port}" for address, protocol, port in one.members]
    return [
        str(member.network_address if member.prefixlen == member.max_prefixlen else member) for member in one.members
    ]


def listed(*directories: dict[str, Any]) -> Callable[[str], list[Object]]:
    """`list_of` of Lists in recorded files; a later file's object hides an earlier one's of the same name."""
    entries: dict[tuple[str, str, str, str], Object] = {
        (one["apiVersion"], one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]): one
        for directory in directories
        for content in directory.values()
        for one in content["items"]
    }

    def list_of(word: str) -> list[Object]:
        plural, _, group = word.partition(".")
        return [one for key, one in entries.items() if _plural(one["kind"]) == plural and key[0].startswith(group)]

    return list_of


def _plural(kind: str) -> str:
    return kind.lower()[:-1] + "ies" if kind.endswith("y") else kind.lower() + "s"


def within(state: str, directory: str) -> dict[str, Any]:
    return {name: content for name, content in load(state).items() if name.startswith(f"{directory}/")}


def rulesets(list_of: Callable[[str], list[Object]], node: str, family: int) -> tuple[Ruleset, Ruleset]:
    """Of IP and of ARP."""
    families = {one: Objects.read(list_of, one) for one in FAMILIES}
    state = node_state(families, node, family, policies(list_of, GROUP))
    return rendered(state), rendered_arp(state)


@pytest.mark.parametrize("name", ZOO)
def test_policies_become_the_rules_a_running_calico_made_of_them(name: str) -> None:
    list_of = listed(
        within("v3.32.1/healthy", "cr"),
        within("v3.32.1/loose", OF_THE_ZOO),
        within("v3.32.1/loose", f"policy-zoo/{name}/objects"),
    )
    text = files()[f"policy-zoo/{name}/0-idle/node-c/nft.txt"]
    ip, arp = rulesets(list_of, "node-c", 4)
    assert lab_table(ip) == recorded_table(text, "ip calico")
    assert lab_table(arp) == recorded_table(text, "arp calico-arp")


@pytest.mark.parametrize("family", FAMILIES)
def test_both_families_have_their_table(family: int) -> None:
    list_of = listed(*(within(f"v3.32.1/{DUAL_STACK}", one) for one in ("cr", "k8s")))
    name = "ip calico" if family == 4 else "ip6 calico"
    recorded = recorded_table(files()[f"{DUAL_STACK}/node-c/nft.txt"], name)
    for table, pattern, _ in LEFT_OUT:
        if table == name:
            without = {key: [re.sub(rf", {pattern}", "", line) for line in lines] for key, lines in recorded.items()}
            assert without != recorded
            recorded = without
    assert lab_table(rulesets(list_of, "node-c", family)[0]) == recorded


def chains(listing: Listing) -> Listing:
    return {key: lines for key, lines in listing.items() if key.startswith("chain ")}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab.up(workers=False) as running:
        yield running


@pytest.mark.skipif(shutil.which("nft") is None, reason="there is no nft program here that could list the rules")
def test_the_kernel_holds_what_the_rules_say(lab: Lab) -> None:
    """Every word a rule can have, in both families, refused or dropped, of an old Calico and a new one."""
    here = str(Path(__file__).resolve().parents[1])
    done = lab.exec("node-a", "env", f"PYTHONPATH={here}", sys.executable, "-m", "tests.firewall_zoo")
    assert done.returncode == 0, done.stderr
    lab.heal()
    by_case: dict[str, str] = json.loads(done.stdout)
    cases = dict(firewall_zoo.cases())
    assert by_case.keys() == cases.keys()
    for name, ruleset in cases.items():
        text = by_case[name]
        found = recorded_table(text, re.findall(r"^table (\w+ \S+)", text, re.MULTILINE)[0])
        assert chains(found) == chains(lab_table(ruleset)), name


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_a_policy_applied_to_the_lab_is_programmed_and_healed_away(lab: Lab) -> None:
    apply(lab, DENY_ALL)
    until(lambda: len(lab.mesh()["unanswered"]) == 30)
    allow = replace_spec(DENY_ALL, name="allow-own", ingress=[{"from": [{"podSelector": {}}]}])
    apply(lab, allow)
    until(lambda: lab.mesh()["unanswered"] == [])
    lab.heal()
    assert lab.mesh() == {"pairs": 30, "unanswered": []}
    assert "deny-all" not in apply(lab, None)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize(
    "spec",
    [
        {"selector": "(("},
        {"selector": "all()", "ingress": [{"action": "Deny", "protocol": "XYZ"}]},
        {"selector": "all()", "ingress": [{"action": "Deny", "source": {"nets": ["nonsense"]}}]},
        {"selector": "all()", "ingress": [{"deny": True}]},
    ],
)
def test_a_policy_felix_cannot_read_stops_no_other(lab: Lab, spec: Object) -> None:
    nonsense = {"apiVersion": f"{GROUP}/v1", "kind": "GlobalNetworkPolicy", "metadata": {"name": "odd"}, "spec": spec}
    apply(lab, nonsense)
    apply(lab, DENY_ALL)
    until(lambda: len(lab.mesh()["unanswered"]) == 30)
    lab.heal()


@pytest.mark.skipif(shutil.which("nft") is None, reason="there is no nft program here that could do it")
def test_what_somebody_did_to_the_firewall_is_healed_away(lab: Lab) -> None:
    whole = lab.exec("node-b", "nft", "-n", "-s", "list", "ruleset").stdout
    for wound in (
        ("insert", "rule", "ip", "calico", "filter-FORWARD", "drop"),
        ("delete", "element", "ip", "calico", "cali40all-vxlan-net", "{ 172.30.0.11, 172.30.0.13 }"),
        ("add", "table", "ip", "corp_fw"),
        ("delete", "table", "ip", "calico"),
    ):
        done = lab.exec("node-b", "nft", *wound)
        assert done.returncode == 0, done.stderr
        lab.heal()
        assert lab.mesh()["unanswered"] == []
        assert lab.exec("node-b", "nft", "-n", "-s", "list", "ruleset").stdout == whole


@pytest.mark.skipif(None in (shutil.which("nft"), shutil.which("kubectl")), reason="nft and kubectl are not both here")
def test_a_change_of_policies_leaves_other_wounds_alone(lab: Lab) -> None:
    interface = {pod["name"]: interface_name(*pod["name"].split("/")) for pod in lab.status()["pods"]}["shop/web"]
    done = lab.exec("node-a", "nft", "insert", "rule", "ip", "calico", f"filter-cali-tw-{interface}", "drop")
    assert done.returncode == 0, done.stderr
    assert not lab.reaches("shop/db", "shop/web")
    apply(lab, replace_spec(DENY_ALL, name="deny-cart", podSelector={"matchLabels": {"app": "cart"}}))
    until(lambda: not lab.reaches("shop/db", "shop/cart"))
    assert not lab.reaches("shop/db", "shop/web")
    assert lab.reaches("shop/db", "shop/mail")
    lab.heal()
    assert lab.mesh() == {"pairs": 30, "unanswered": []}


def replace_spec(policy: Object, *, name: str, **spec: Any) -> Object:
    return {**policy, "metadata": {**policy["metadata"], "name": name}, "spec": {**policy["spec"], **spec}}


def apply(lab: Lab, entry: Object | None) -> str:
    """Creates it; returns the names of the NetworkPolicies there are then."""
    environment = {**os.environ, **lab.administrator()}
    for words in (["create", "-f", "-"],) if entry else ():
        subprocess.run(["kubectl", *words], env=environment, input=json.dumps(entry), check=True, text=True)
    done = subprocess.run(
        ["kubectl", "get", "networkpolicies", "-A", "-o", "name"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SETTLED_S
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)
