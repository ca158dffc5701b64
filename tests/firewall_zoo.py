"""Policies that need every word a rule of the lab's firewall can have; without them a word could be written wrongly.

`python -m tests.firewall_zoo [legacy | nft]`, in the network namespace of a node, turns each table into the next and
prints what it then holds, by case: nft's listing, or that of a backend of iptables.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from facts import LabelledEndpoint, NetworkSet, Policy, Tier, policy_kinds
from lab import iptables, nftables
from lab.firewall.chains import Node, rendered, rendered_arp
from lab.firewall.in_iptables import InIptables
from lab.firewall.policies import Policies, programmed
from lab.firewall.words import Ruleset

TABLE_FAMILIES = {4: "ip", 6: "ip6"}
NODE = "node-x"
KUBERNETES: dict[str, Any] = {
    "podSelector": {},
    "policyTypes": ["Ingress", "Egress"],
    "ingress": [
        {
            "from": [{"podSelector": {}}],
            "ports": [
                {"port": 5432, "protocol": "TCP"},
                {"port": 9000, "endPort": 9010},
                {"port": 53, "protocol": "UDP"},
            ],
        },
        {
            "from": [
                {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.244.0.0/16", "10.1.0.0/16"]}},
                {"namespaceSelector": {}},
            ]
        },
        {"ports": [{"port": "web"}]},
        {"ports": [{"protocol": "SCTP", "port": 5}]},
    ],
    "egress": [{"to": [{"ipBlock": {"cidr": "fd00::/8"}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
}
CALICO: dict[str, Any] = {
    "order": 10,
    "selector": "all()",
    "types": ["Ingress", "Egress"],
    "applyOnForward": True,
    "ingress": [
        {"action": "Log"},
        {"action": "Deny", "protocol": "ICMP", "icmp": {"type": 13, "code": 0}},
        {"action": "Deny", "protocol": "ICMPv6", "notICMP": {"type": 128}},
        {
            "action": "Deny",
            "protocol": "TCP",
            "source": {"nets": ["1.0.0.0/8", "2.0.0.0/8"], "notNets": ["1.1.0.0/16"], "notSelector": "has(x)"},
            "destination": {"ports": [80, "100:200", "web", *range(300, 330, 2)], "notPorts": [150, "web"]},
        },
        {
            "action": "Deny",
            "protocol": "TCP",
            "source": {"nets": ["1.0.0.0/8", "2.0.0.0/8"], "ports": ["1024:65535"]},
            "destination": {"nets": ["3.0.0.0/8", "4.4.4.4/32"], "ports": [80, 443]},
        },
        {"action": "Pass", "notProtocol": "UDP"},
        {"action": "Deny", "source": {"notNets": ["9.0.0.0/8"]}},
        {"action": "Allow", "protocol": "UDP", "source": {"namespaceSelector": "global()"}},
        {"action": "Deny", "protocol": "47"},
        {"action": "Allow"},
    ],
    "egress": [
        {"action": "Allow", "protocol": "TCP", "destination": {"services": {"name": "db", "namespace": "shop"}}},
        {"action": "Allow"},
    ],
}
# Neighbors about the same endpoints, more than are asked in one stride.
GROUP = [
    {
        "order": 20 + number,
        "selector": "all()",
        "types": ["Egress"],
        "egress": [{"action": "Deny", "destination": {"nets": [f"9.9.9.{number}/32"]}}],
    }
    for number in range(7)
]


def cases(*, in_iptables: bool = False) -> Iterator[tuple[str, Ruleset]]:
    for family in (4, 6):
        for denies in ("Drop", "Reject"):
            for version in ((3, 32), (3, 29), (3, 28)):
                node = _node(family, version, denies, in_iptables)
                yield f"IPv{family} {denies} {version}", rendered(node)
                if family == 4 and not in_iptables:
                    yield f"ARP {denies} {version}", rendered_arp(node)


def _node(family: int, version: tuple[int, int], denies: str, in_iptables: bool) -> Node:
    made = programmed(_known(), NODE, family, version, denies, iptables=in_iptables)
    pods = [
        replace(chains, interface=f"cali{name[-1]}", profiles=("kns.shop", "ksa.shop.default"), address="10.244.0.5")
        for name, chains in made.pods.items()
    ]
    return Node(
        family,
        version,
        own=("172.30.0.11", "fd00:172:30::b"),
        peers=("172.30.0.12", "172.30.0.13", "fd00:172:30::c", "fd00:172:30::d"),
        tunnels=("tunl0", "vxlan.calico"),
        ipip=family == 4,
        nodes=("172.30.0.11", "172.30.0.12", "172.30.0.13"),
        pools=("10.244.0.0/16", "fd00:10:244::/48"),
        masked=("10.244.0.0/16", "fd00:10:244::/48"),
        denies=denies,
        iptables=in_iptables,
        to_host="DROP",
        pods=tuple(pods),
        hosts=tuple(made.hosts),
        policies=tuple(made.chains),
        sets=tuple(made.sets),
    )


def _known() -> Policies:
    told = [
        policy_kinds.kubernetes({"metadata": {"name": "db", "namespace": "shop"}, "spec": KUBERNETES}),
        policy_kinds.calico({"metadata": {"name": "all"}, "spec": CALICO}),
        *(
            policy_kinds.calico({"metadata": {"name": f"one-of-{number}"}, "spec": spec})
            for number, spec in enumerate(GROUP)
        ),
    ]
    everywhere = ("255.255.255.255/32", "0.0.0.0/1", "10.0.0.0/8", "ffff::/16")
    return Policies(
        tiers=(Tier(name="default", order="1000000"),),
        policies=tuple(one for one in told if isinstance(one, Policy)),
        endpoints=tuple(_endpoints()),
        network_sets=(NetworkSet(name="far", nets=everywhere),),
    )


def _endpoints() -> Iterator[LabelledEndpoint]:
    ports = [{"name": "web", "containerPort": 8080}]
    for number, name in enumerate(("a", "b"), 5):
        pod = {
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}},
            "spec": {"nodeName": NODE, "containers": [{"ports": ports}]},
            "status": {"podIPs": [{"ip": f"10.244.0.{number}"}, {"ip": f"fd00:10:244::{number}"}]},
        }
        yield policy_kinds.pod_endpoint(pod, {"metadata": {"name": "shop"}}, None)
    for interface in ("eth0", "*"):
        spec = {"node": NODE, "interfaceName": interface, "profiles": ["projectcalico-default-allow"]}
        yield policy_kinds.host_endpoint({"metadata": {"name": f"host {interface}"}, "spec": spec}, {})


def by_iptables(backend: str) -> dict[str, dict[str, dict[str, list[str]]]]:
    """Rules of each case, by table and chain, as the kernel holds them."""
    found = {}
    written: dict[int, Ruleset] = {}
    writers = {family: InIptables(backend, family) for family in TABLE_FAMILIES}
    for name, ruleset in cases(in_iptables=True):
        writers[ruleset.family].write(ruleset, written.get(ruleset.family))
        written[ruleset.family] = ruleset
        found[name] = iptables.Tools(backend, ruleset.family).listed()
    return found


def by_nftables() -> dict[str, str]:
    """nft's listing of each case."""
    found = {}
    written: dict[tuple[int, bool], Ruleset] = {}
    for name, ruleset in cases():
        before = written.get((ruleset.family, ruleset.arp))
        (nftables.amend if before else nftables.write)(ruleset.table(before))
        written[ruleset.family, ruleset.arp] = ruleset
        family = "arp" if ruleset.arp else TABLE_FAMILIES[ruleset.family]
        words = ["nft", "-n", "list", "table", family, ruleset.name]
        found[name] = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return found


def main() -> None:
    backend = "".join(sys.argv[1:])
    json.dump(by_iptables(backend) if backend else by_nftables(), sys.stdout)


if __name__ == "__main__":
    main()
