"""The lab's kube-proxy makes of the recorded Services what the recorded kube-proxy made of them on node-c."""

from __future__ import annotations

import re

import pytest

from lab import kube_proxy_iptables
from lab.kube_proxy import Port, _chain, _endpoint_chain, _refusal, ports
from tests.recorded_firewall import files
from tests.recordings import load

RECORDED = "v3.32.1/loose"
CLUSTER = "10.244.0.0/16"
# A chain of kubelet's, one by which kube-proxy learns of a flush, and a rule that only counts what the next one takes.
NOT_SAID = re.compile(r" -m nfacct --nfacct-name  ct_state_invalid_dropped_pkts| --reject-with icmp-port-unreachable")
LEFT_OUT = ("KUBE-FIREWALL", "KUBE-PROXY-CANARY", "localhost_nps_accepted_pkts")
# As `nft list table ip kube-proxy` printed it: map service-ips, and the chains of the endpoints behind each.
SERVED = {
    "service-BMW57UXU-default/svc-ok/tcp/web": {
        "endpoint-2BGU3Q6E-default/svc-ok/tcp/web__10.244.174.129/8080",
        "endpoint-UELSTKS7-default/svc-ok/tcp/web__10.244.218.65/8080",
    },
    "service-TJRC5DCO-default/svc-wrongport/tcp/web": {
        "endpoint-JFPWPPJQ-default/svc-wrongport/tcp/web__10.244.218.65/9999"
    },
    "service-WREDUUAU-default/svc-np/tcp/web": {"endpoint-6SM7OOIF-default/svc-np/tcp/web__10.244.218.65/8080"},
    "service-ZWXYRWN5-default/svc-local/tcp/web": {"endpoint-ZKLKGOW3-default/svc-local/tcp/web__10.244.218.65/8080"},
    "service-ZYH3QEV6-default/svc-stale/tcp/web": {"endpoint-UHHNV3HV-default/svc-stale/tcp/web__10.244.218.120/8080"},
    "service-BXU7D5YE-default/svc-policy/tcp/web": {"endpoint-DMWGK77G-default/svc-policy/tcp/web__10.244.218.66/8080"},
    "service-BKKDIZNC-default/svc-self/tcp/web": {"endpoint-Q2O4EFBP-default/svc-self/tcp/web__10.244.174.130/8080"},
    "service-2QRHZV4L-default/kubernetes/tcp/https": {
        "endpoint-ZBXHOH7D-default/kubernetes/tcp/https__172.30.0.1/6443"
    },
}
# Map no-endpoint-services: comment -> verdict.
DEAD = {
    "default/svc-none:web": ("goto", "reject-chain"),
    "default/svc-notready:web": ("goto", "reject-chain"),
    "default/svc-intlocal:web": ("drop", ""),
    "default/svc-noslice:web": ("goto", "reject-chain"),
    "default/svc-npnone:web": ("goto", "reject-chain"),
}


def of_node(node: str, family: int = 4) -> list[Port]:
    lists = {name: load(RECORDED)[f"services/objects/{name}.json"]["items"] for name in ("services", "endpointslices")}
    return ports(lists.__getitem__, node, family)


def test_chains_and_refusals_are_those_of_the_recorded_node() -> None:
    made = of_node("node-c")
    served = {_chain("service", one): {_endpoint_chain(one, end) for end in one.inside} for one in made if one.inside}
    assert served == SERVED
    assert {one.comment: _refusal(one.anywhere) for one in made if not one.inside} == DEAD


@pytest.mark.parametrize(("node", "inside", "outside"), [("node-a", 0, 0), ("node-b", 1, 1), ("node-c", 0, 0)])
def test_a_local_policy_serves_a_nodes_own_endpoints(node: str, inside: int, outside: int) -> None:
    made = {one.name: one for one in of_node(node)}
    assert len(made["default/svc-intlocal"].inside) == inside
    assert len(made["default/svc-local"].outside) == outside
    assert len(made["default/svc-local"].inside) == 1


def test_there_is_nothing_of_a_family_no_service_has() -> None:
    assert of_node("node-a", family=6) == []


def test_in_iptables_mode_its_rules_are_those_of_the_recorded_node() -> None:
    made = of_node("node-a")
    wanted = {
        "filter": {**kube_proxy_iptables.JUMPS["filter"], **kube_proxy_iptables.refusals(made)},
        "nat": {**kube_proxy_iptables.JUMPS["nat"], **kube_proxy_iptables.translations(made, CLUSTER)},
    }
    assert {table: {name: sorted(rules) for name, rules in chains.items()} for table, chains in wanted.items()} == (
        recorded_chains(files()["services/trace/node-a/iptables-nft-save.txt"])
    )


def recorded_chains(saved: str) -> dict[str, dict[str, list[str]]]:
    """kube-proxy's own, in no order (it is that of Services), without what is left out."""
    found: dict[str, dict[str, list[str]]] = {"filter": {}, "nat": {}}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif (opened := re.match(r":(KUBE-\S+)", line)) and table in found and opened[1] not in LEFT_OUT:
            found[table].setdefault(opened[1], [])
        elif table in found and not any(word in line for word in ("cali", *LEFT_OUT)):
            for name, rule in re.findall(r"^\[\d+:\d+\] -A (\S+) (.*)", line):
                found[table].setdefault(name, []).append(NOT_SAID.sub("", rule))
    return {table: {name: sorted(rules) for name, rules in chains.items()} for table, chains in found.items()}
