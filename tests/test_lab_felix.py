"""The lab's nodes hold what a running Calico's hold; without it a rule proved on the lab would be proved on nothing.

Every line of a recorded node (links, addresses, routes, rules, neighbors, FDB, sysctls, firewall) is compared with the
node the lab builds from the recorded API objects. DIFFERENCES lists what differs and why, no more and no less.
"""

from __future__ import annotations

import functools
import json
import re
import time
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from lab.client import Lab
from lab.kernel import Route
from tests.lab_state import PROTOCOLS, SCOPES, TABLES, link_line, read, route_line
from tests.recordings import unpacked

SETTLED_S = 10.0
STATES = (
    "v3.31.7/healthy-always",
    "v3.31.7/healthy-crosssubnet-same-subnet",
    "v3.31.7/pool-disabled",
    "v3.32.1/crosssubnet",
    "v3.32.1/dualstack/healthy",
    "v3.32.1/dualstack/status-podips-v4-only",
    "v3.32.1/exhaustion/1-tunnel-borrowed",
    "v3.32.1/exhaustion/2-pods-borrowed",
    "v3.32.1/exhaustion/3-strict-affinity",
    "v3.32.1/exhaustion/4-strict-tunnel-lost",
    "v3.32.1/exhaustion/6-strict-off",
    "v3.32.1/exhaustion/7-pool-full",
    "v3.32.1/healthy",
    "v3.32.1/scale/5-blocks-one-node",
    "master-87c15906f20c/healthy",
    "master-87c15906f20c/pool-disabled",
)
ONLY_RECORDED, ONLY_LAB = "recorded", "lab"
Lines = dict[str, set[str]]

# (which side has it, pattern of the line, reason)
DIFFERENCES = (
    (
        ONLY_RECORDED,
        r"firewall table (filter|nat|mangle|raw)",
        "These nodes ran iptables; the lab's Felix has nftables mode (tests/test_lab_firewall.py compares its rules).",
    ),
    (ONLY_LAB, r"firewall table calico", "The same chains, in nftables mode."),
    (
        ONLY_RECORDED,
        r"sysctl netfilter/nf_conntrack_(count|max) .*",
        "Connection tracking starts with the first firewall rule; without rules the lab's nodes have none.",
    ),
)
LEFT_STANDING = (
    ONLY_RECORDED,
    r".*\bvxlan\.calico\b.*",
    "Felix leaves the device of a node that lost its tunnel address as it was; the lab knows no earlier state.",
)
WITHOUT_IPV6 = r"sysctl ipv6/conf/cali\w+/proxy_ndp"
# What differs in some states only.
OF_STATE = {
    "v3.31.7/pool-disabled": (LEFT_STANDING,),
    "v3.32.1/exhaustion/4-strict-tunnel-lost": (LEFT_STANDING,),
    "master-87c15906f20c/pool-disabled": (LEFT_STANDING,),
    "v3.32.1/dualstack/status-podips-v4-only": (
        (ONLY_RECORDED, f"{WITHOUT_IPV6} 1", "Felix sets the switch where IPv6 is on, whether the pod has any or not."),
        (
            ONLY_LAB,
            f"{WITHOUT_IPV6} 0",
            "The lab sets it for pods that have IPv6; nothing needs it (calico_truth_2.md 5).",
        ),
    ),
}
# (pattern, reason): on both sides made by the traffic of the moment, so neither side can be right about it.
NOT_COMPARED = (
    (
        r"neigh \S+ (eth0|cali\w+) \S+ (REACHABLE|STALE|DELAY|PROBE)",
        "ARP learned it; pods' MACs are chance.",
    ),
    (r"neigh ff02::\S+ \S+ 33:33:\S+ NOARP", "The kernel sent to a multicast address lately; it ages away."),
    (r"neigh 0\.0\.0\.0 lo 00:00:00:00:00:00 NOARP", "A program connected to 0.0.0.0 lately."),
)


def recorded_lines(directory: Path) -> set[str]:
    """A recorded node in the words of tests/lab_state.py."""

    def parsed(name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((directory / name).read_text())
        return found

    lines = set()
    for link in parsed("ip-link.json"):
        info = link.get("linkinfo", {})
        data = info.get("info_data", {}) if info.get("info_kind") == "vxlan" else {}
        if "local6" in data:
            data["local"] = data["local6"]
        kind, flags, state = info.get("info_kind", ""), link["flags"], link["operstate"]
        mtu, mac, txqlen = link["mtu"], link["address"], link.get("txqlen", 0)
        lines.add(link_line(link["ifname"], kind, flags, state, mtu, mac, txqlen, data))
    for link in parsed("ip-addr.json"):
        for address in link["addr_info"]:
            where = f"{address['local']}/{address['prefixlen']}"
            lines.add(f"addr {link['ifname']} {where} scope {address['scope']}")
    for route in parsed("ip-route.json"):
        lines.add(route_line(_recorded_route(route)))
    for family, name in ((4, "ip-rule.json"), (6, "ip6-rule.json")):
        for rule in parsed(name) if (directory / name).exists() else ():
            lines.add(f"rule IPv{family} {rule['priority']} {rule['src']} {rule['table']}")
    for neighbor in parsed("ip-neigh.json"):
        mac, state = neighbor.get("lladdr", ""), neighbor["state"][0]
        lines.add(f"neigh {neighbor['dst']} {neighbor['dev']} {mac} {state}")
    for entry in parsed("bridge-fdb.json"):
        lines.add(f"fdb {entry['mac']} {entry['ifname']} {entry.get('dst', '')} {entry['state'].upper()}")
    for line in (directory / "sysctl.txt").read_text().splitlines():
        name, _, value = line.removeprefix("/proc/sys/net/").partition(" = ")
        lines.add(f"sysctl {name} {value}")
    for entry in json.loads((directory / "nft.json").read_text())["nftables"]:
        if "table" in entry:
            lines.add(f"firewall table {entry['table']['name']}")
    return lines


def _recorded_route(route: dict[str, Any]) -> Route:
    def number(names: dict[int, str], word: str) -> int:
        return next((key for key, name in names.items() if name == word), int(word) if word.isdigit() else -1)

    default = "::/0" if ":" in route.get("gateway", "") else "0.0.0.0/0"
    destination = default if route["dst"] == "default" else str(ip_network(route["dst"]))
    return Route(
        destination,
        kind=route["type"],
        gateway=route.get("gateway", ""),
        device="" if route["type"] == "blackhole" else route.get("dev", ""),
        protocol=number(PROTOCOLS, route["protocol"]),
        scope=number(SCOPES, route["scope"]),
        metric=route.get("metric", 0),
        onlink="onlink" in route["flags"],
        mtu=route.get("metrics", [{}])[0].get("mtu", 0),
        source=route.get("prefsrc", ""),
        table=number(TABLES, route["table"]),
    )


def lab_lines(objects: Path) -> Lines:
    """The nodes the lab builds from recorded objects, once IPv6 has made up its mind about its own addresses."""
    with Lab.up(objects=objects, workers=False) as lab:
        deadline = time.monotonic() + SETTLED_S
        while True:
            found = {name: set(lines) for name, lines in read(lab).items() if not name.startswith("cni-")}
            if all(_settled(lines) for lines in found.values()) or time.monotonic() > deadline:
                return found
            time.sleep(0.2)


def _settled(lines: set[str]) -> bool:
    link_local = [line.split() for line in lines if line.startswith("addr ") and " fe80::" in line]
    return all(
        any(line.startswith(f"route local {words[2].partition('/')[0]}/128 dev {words[1]} ") for line in lines)
        for words in link_local
    )


@functools.cache
def differences(recording: Path) -> list[tuple[str, str, str]]:
    """(side, node, line) of everything that is on one side only."""
    built = lab_lines(recording)
    found = []
    for node, lines in built.items():
        recorded = recorded_lines(recording / node)
        # What nobody recorded, some settings and mostly the rules of IPv6, says nothing about the recording.
        subjects = {" ".join(line.split()[:2]) for line in recorded}
        lines = {
            line
            for line in lines
            if not line.startswith(("sysctl ", "rule ")) or " ".join(line.split()[:2]) in subjects
        }
        found += [(ONLY_RECORDED, node, line) for line in sorted(recorded - lines)]
        found += [(ONLY_LAB, node, line) for line in sorted(lines - recorded)]
    return [one for one in found if not any(re.fullmatch(pattern, one[2]) for pattern, _ in NOT_COMPARED)]


@pytest.mark.parametrize("name", STATES)
def test_nodes_equal_the_recorded_ones(name: str) -> None:
    found = differences(unpacked(name))
    own = OF_STATE.get(name, ())
    unlisted = [one for one in found if not any(_is(one, entry) for entry in (*DIFFERENCES, *own))]
    assert unlisted == []
    assert [entry for entry in own if not any(_is(one, entry) for one in found)] == []


def test_every_listed_difference_is_still_there() -> None:
    found = differences(unpacked("v3.32.1/healthy"))
    no_longer = [entry for entry in DIFFERENCES if not any(_is(one, entry) for one in found)]
    assert no_longer == []


def test_every_exception_is_needed() -> None:
    lines = recorded_lines(unpacked("v3.32.1/healthy") / "node-a")
    unused = [pattern for pattern, _ in NOT_COMPARED if not any(re.fullmatch(pattern, line) for line in lines)]
    assert unused == []


def _is(found: tuple[str, str, str], listed: tuple[str, str, str]) -> bool:
    side, _, line = found
    return side == listed[0] and re.fullmatch(listed[1], line) is not None
