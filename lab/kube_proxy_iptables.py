"""Turns a Service's address into an endpoint's as kube-proxy does in iptables mode; without it nodes of the lab whose
Calico is in that mode would have a kube-proxy that few such nodes have.

Chains, rules and their order are those of a running kube-proxy v1.34 (recorded, calico_truth_2.md 4), without the
counters of netfilter's accounting (`-m nfacct`), which a kernel may not have.
"""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lab.iptables import Tools

if TYPE_CHECKING:
    from lab.kube_proxy import Port

OWN = "KUBE-"
MASQUERADE = "0x4000"
NEW = "-m conntrack --ctstate NEW"
LOADBALANCER, PORTALS = "kubernetes load balancer firewall", "kubernetes service portals"
EXTERNAL = "kubernetes externally-visible service portals"
Chains = dict[str, list[str]]


def _comment(text: str) -> str:
    return f'-m comment --comment "{text}"'


# By table, which chains of the kernel's own lead to which of kube-proxy's.
JUMPS: dict[str, Chains] = {
    "filter": {
        "INPUT": [
            f"{NEW} {_comment(LOADBALANCER)} -j KUBE-PROXY-FIREWALL",
            f"{_comment('kubernetes health check service ports')} -j KUBE-NODEPORTS",
            f"{NEW} {_comment(EXTERNAL)} -j KUBE-EXTERNAL-SERVICES",
        ],
        "FORWARD": [
            f"{NEW} {_comment(LOADBALANCER)} -j KUBE-PROXY-FIREWALL",
            f"{_comment('kubernetes forwarding rules')} -j KUBE-FORWARD",
            f"{NEW} {_comment(PORTALS)} -j KUBE-SERVICES",
            f"{NEW} {_comment(EXTERNAL)} -j KUBE-EXTERNAL-SERVICES",
        ],
        "OUTPUT": [
            f"{NEW} {_comment(LOADBALANCER)} -j KUBE-PROXY-FIREWALL",
            f"{NEW} {_comment(PORTALS)} -j KUBE-SERVICES",
        ],
    },
    "nat": {
        "PREROUTING": [f"{_comment(PORTALS)} -j KUBE-SERVICES"],
        "OUTPUT": [f"{_comment(PORTALS)} -j KUBE-SERVICES"],
        "POSTROUTING": [f"{_comment('kubernetes postrouting rules')} -j KUBE-POSTROUTING"],
    },
}


def write(tools: Tools, wanted: Sequence[Port], cluster: str) -> None:
    """cluster: what pods have their addresses from. Raises OSError."""
    found = tools.listed()
    lines: dict[str, list[str]] = {}
    for table, chains in (("filter", refusals(wanted)), ("nat", translations(wanted, cluster))):
        told = [f":{name} - [0:0]" for name in chains]
        there = found.get(table, {})
        for base, jumps in JUMPS[table].items():
            told += [f"-I {base} {jump}" for jump in reversed(jumps) if jump not in there.get(base, [])]
        told += [f"-A {name} {rule}" for name, rules in chains.items() for rule in rules]
        gone = [name for name in there if name.startswith(OWN) and name not in chains]
        lines[table] = told + [f"-F {name}" for name in gone] + [f"-X {name}" for name in gone]
    tools.restore(lines)


def refusals(wanted: Sequence[Port]) -> Chains:
    """Of the table `filter`: nothing at all is refused, and what another node could serve is dropped."""
    chains: Chains = {
        "KUBE-PROXY-FIREWALL": [],
        "KUBE-NODEPORTS": [],
        "KUBE-SERVICES": [],
        "KUBE-EXTERNAL-SERVICES": [],
        "KUBE-FORWARD": [
            "-m conntrack --ctstate INVALID -j DROP",
            f"{_comment('kubernetes forwarding rules')} -m mark --mark {MASQUERADE}/{MASQUERADE} -j ACCEPT",
            f"{_comment('kubernetes forwarding conntrack rule')} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ],
    }
    for one in wanted:
        why, end = _refusal(one)
        said = _comment(f"{one.comment} {why}")
        if not one.inside:
            chains["KUBE-SERVICES"].append(f"{_to(one)} {said} {_dport(one, one.port)} {end}")
        if one.node_port and not one.outside:
            chains["KUBE-EXTERNAL-SERVICES"].append(
                f"{_protocol(one)} {said} -m addrtype --dst-type LOCAL {_dport(one, one.node_port)} {end}"
            )
    return chains


def translations(wanted: Sequence[Port], cluster: str) -> Chains:
    """Of the table `nat`."""
    chains: Chains = defaultdict(list)
    chains["KUBE-MARK-MASQ"] = [f"-j MARK --set-xmark {MASQUERADE}/{MASQUERADE}"]
    chains["KUBE-POSTROUTING"] = [
        f"-m mark ! --mark {MASQUERADE}/{MASQUERADE} -j RETURN",
        f"-j MARK --set-xmark {MASQUERADE}/0x0",
        f"{_comment('kubernetes service traffic requiring SNAT')} -j MASQUERADE --random-fully",
    ]
    chains["KUBE-NODEPORTS"] = []
    chains["KUBE-SERVICES"] = []
    for one in wanted:
        if one.inside:
            _served(chains, one, cluster)
        if one.node_port and one.inside:
            _opened(chains, one, cluster)
    last = "kubernetes service nodeports; NOTE: this must be the last rule in this chain"
    chains["KUBE-SERVICES"].append(f"{_comment(last)} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS")
    return chains


def _served(chains: Chains, one: Port, cluster: str) -> None:
    into, said = _chain("SVC", one), _comment(f"{one.comment} cluster IP")
    to = f"{_to(one)} {said} {_dport(one, one.port)}"
    chains["KUBE-SERVICES"].append(f"{to} -j {into}")
    chains[into] = [f"! -s {cluster} {to} -j KUBE-MARK-MASQ", *_balanced(chains, one, one.inside)]


def _opened(chains: Chains, one: Port, cluster: str) -> None:
    into, said = _chain("EXT", one), _comment(one.comment)
    chains["KUBE-NODEPORTS"].append(f"{_protocol(one)} {said} {_dport(one, one.node_port)} -j {into}")
    about, inside = f"for {one.comment} external destinations", _chain("SVC", one)
    if not one.outside_local:
        chains[into] = [f"{_comment(f'masquerade traffic {about}')} -j KUBE-MARK-MASQ", f"-j {inside}"]
        return
    own = "-m addrtype --src-type LOCAL"
    chains[into] = [
        f"-s {cluster} {_comment(f'pod traffic {about}')} -j {inside}",
        f"{_comment(f'masquerade LOCAL traffic {about}')} {own} -j KUBE-MARK-MASQ",
        f"{_comment(f'route LOCAL traffic {about}')} {own} -j {inside}",
    ]
    if one.outside:
        chains[into].append(f"-j {_chain('SVL', one)}")
        chains[_chain("SVL", one)] = _balanced(chains, one, one.outside)


def _balanced(chains: Chains, one: Port, ends: Sequence[tuple[str, int]]) -> list[str]:
    """Each endpoint is as likely: of two the first one by half, of three by a third."""
    found = []
    for number, (address, port) in enumerate(ends):
        end = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        into, said = _chain("SEP", one, end), _comment(one.comment)
        length = 128 if ":" in address else 32
        chains[into] = [
            f"-s {address}/{length} {said} -j KUBE-MARK-MASQ",
            f"{_protocol(one)} {said} -m {one.protocol.lower()} -j DNAT --to-destination {end}",
        ]
        left = len(ends) - number
        chance = f"-m statistic --mode random --probability {1 / left:.11f} " if left > 1 else ""
        found.append(f"{_comment(f'{one.comment} -> {end}')} {chance}-j {into}")
    return found


def _refusal(one: Port) -> tuple[str, str]:
    return ("has no local endpoints", "-j DROP") if one.anywhere else ("has no endpoints", "-j REJECT")


def _to(one: Port) -> str:
    return f"-d {one.address}/{128 if ':' in one.address else 32} {_protocol(one)}"


def _protocol(one: Port) -> str:
    return f"-p {one.protocol.lower()}"


def _dport(one: Port, port: int) -> str:
    return f"-m {one.protocol.lower()} --dport {port}"


def _chain(kind: str, one: Port, end: str = "") -> str:
    name = f"{one.comment}{one.protocol.lower()}{end}"
    return f"{OWN}{kind}-{base64.b32encode(hashlib.sha256(name.encode()).digest()).decode()[:16]}"
