"""Policies and firewalls that let pass what is asked about; without them every filter would look like a fault."""

from __future__ import annotations

import json
from ipaddress import ip_network

from lab import nftables
from lab.drawing import Drawing
from lab.intent import Object
from lab.nftables import Table
from lab.objects import APPLICATION_NAMESPACE, ECHO_PORT, calico
from lab.topology import NodeMachine, Topology
from lab.variants.networks import MANAGEMENT
from lab.variants.variant import drawn, furnished
from node_probe.nfnetlink import INET

# All pools of all variants, and all addresses nodes have.
PODS = {4: "10.244.0.0/15", 6: "fd00:10:244::/47"}
NODES = {4: "172.30.0.0/16", 6: "fd00:172:30::/46"}
TRUSTED = {4: (PODS[4], NODES[4], f"{MANAGEMENT}0/24"), 6: (PODS[6], NODES[6])}
OTHERS = "198.51.100.0/24"
OF_PODS = "projectcalico.org/orchestrator == 'k8s'"


@drawn()
def policies_in_force(drawing: Drawing) -> None:
    """Every pod has policies of three tiers, of Kubernetes and of Calico; what pods want of each other they allow."""
    add = drawing.entries.append
    shop = f"projectcalico.org/namespace == '{APPLICATION_NAMESPACE}'"
    everything: Object = {"action": "Allow"}
    far: Object = {"action": "Deny", "source": {"selector": "reputation == 'bad'"}}
    add(calico("Tier", "platform", {"order": 100, "defaultAction": "Deny"}))
    add(calico("Tier", "audit", {"order": 200, "defaultAction": "Pass"}))
    add(_labelled(calico("GlobalNetworkSet", "bad", {"nets": [OTHERS]}), reputation="bad"))
    add(_global("platform.no-strangers", "platform", 10, OF_PODS, [far, {"action": "Pass"}], [{"action": "Pass"}]))
    add(_global("audit.metrics", "audit", 10, shop, [_to_port("Allow", 9090)], []))
    add(_global("default.nobody-from-far", "default", 10, shop, [far], []))
    add(_global("default.egress", "default", 3000, "all()", [], [everything], ["Egress"]))
    add(
        _kubernetes(
            "own-namespace",
            {
                "podSelector": {},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {}}]}, {"from": _blocks(NODES), "ports": [{"port": 8080}]}],
            },
        )
    )
    add(_kubernetes("from-nodes", {"podSelector": {}, "ingress": [{"from": [*_blocks(NODES), *_blocks(PODS)]}]}))
    add(_kubernetes("deny-by-default", {"podSelector": {}, "policyTypes": ["Ingress"]}))
    queues: Object = {"podSelector": {"matchLabels": {"app": "queue"}}}
    add(_kubernetes("queues", {**queues, "ingress": [{"ports": [{"port": "amqp"}, {"port": 5672}]}]}))
    denied = _global("default.tomorrow", "default", 1, "all()", [{"action": "Deny"}], [{"action": "Deny"}])
    add({**denied, "kind": "StagedGlobalNetworkPolicy"})


@drawn(conflicts="policies-in-force")
def policies_for_one_port(drawing: Drawing) -> None:
    """Pods take connections to the asked port and nothing else, pings neither."""
    everybody = [{"ipBlock": {"cidr": network}} for family in drawing.sketch.families for network in TRUSTED[family]]
    ingress = [{"from": everybody, "ports": [{"port": ECHO_PORT, "protocol": "TCP"}]}]
    drawing.entries.append(_kubernetes("echo", {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": ingress}))


@drawn()
def host_endpoints(drawing: Drawing) -> None:
    """Every node has the host endpoint that kube-controllers make where they are told to, and it allows everything."""
    for name in drawing.nodes:
        addresses = [drawing.node_address(drawing.nodes.index(name), family) for family in drawing.sketch.families]
        spec = {
            "node": name,
            "interfaceName": "*",
            "expectedIPs": addresses,
            "profiles": ["projectcalico-default-allow"],
        }
        made = calico("HostEndpoint", f"{name}-auto-hep", spec)
        drawing.entries.append(_labelled(made, **{"projectcalico.org/created-by": "calico-kube-controllers"}))


def _global(
    name: str,
    tier: str,
    order: int,
    selector: str,
    ingress: list[Object],
    egress: list[Object],
    types: list[str] | None = None,
) -> Object:
    both = [one for one, rules in (("Ingress", ingress), ("Egress", egress)) if rules]
    spec = {"tier": tier, "order": order, "selector": selector, "types": types or both}
    return calico("GlobalNetworkPolicy", name, {**spec, "ingress": ingress, "egress": egress})


def _to_port(action: str, port: int) -> Object:
    return {"action": action, "protocol": "TCP", "destination": {"ports": [port]}}


def _kubernetes(name: str, spec: Object) -> Object:
    metadata = {"name": name, "namespace": APPLICATION_NAMESPACE}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def _blocks(networks: dict[int, str]) -> list[Object]:
    return [{"ipBlock": {"cidr": network}} for network in networks.values()]


def _labelled(entry: Object, **labels: str) -> Object:
    """As Calico's own client keeps labels."""
    entry["metadata"]["annotations"]["projectcalico.org/metadata"] = json.dumps({"labels": labels})
    return entry


@furnished()
def docker(topology: Topology) -> None:
    """Docker drops on every node what it forwards for others, but for the pods, which somebody let through there."""
    for node in topology.nodes.values():
        for family in node.interfaces:
            table = Table(family, "filter")
            table.chain("FORWARD", "forward", policy="drop")
            for chain in ("DOCKER-USER", "DOCKER-ISOLATION-STAGE-1", "DOCKER"):
                table.chain(chain)
                table.rule("FORWARD", nftables.counted(), nftables.decide("jump", chain))
                table.rule(chain, nftables.counted(), nftables.decide("return"))
            for side in ("source", "destination"):
                _accept(table, "FORWARD", *table.within(side, ip_network(PODS[family])))
            _write(node, table)


@furnished(conflicts="docker")
def ufw(topology: Topology) -> None:
    """Every node has a ufw that drops by default what comes in and what passes; nodes and pods it allows."""
    for node in topology.nodes.values():
        for family in node.interfaces:
            table = Table(family, "filter")
            for hook in ("input", "forward"):
                base, own = hook.upper(), f"ufw{'6' if family == 6 else ''}-user-{hook}"
                table.chain(base, hook, policy="drop")
                table.chain(own)
                known = [
                    nftables.connection(nftables.CT_STATE),
                    nftables.masked(nftables.ESTABLISHED | nftables.RELATED),
                ]
                _accept(table, base, *known, nftables.compared(bytes(4), equal=False))
                _accept(table, base, nftables.meta(nftables.INCOMING), nftables.compared(nftables.interface("lo")))
                _accept(table, base, *nftables.protocol(58))  # neighbors find each other by addresses nobody allows
                table.rule(base, nftables.counted(), nftables.decide("jump", own))
                for network in TRUSTED[family]:
                    _accept(table, own, *table.within("source", ip_network(network)))
            _write(node, table)


@furnished(conflicts="docker ufw")
def leftover_chains(topology: Topology) -> None:
    """Every node's iptables still has chains of an older Calico and kube-proxy, empty or letting everything pass."""
    for node in topology.nodes.values():
        for family in node.interfaces:
            table = Table(family, "filter")
            table.chain("FORWARD", "forward")
            for chain in ("cali-FORWARD", "cali-from-wl-dispatch", "KUBE-FORWARD"):
                table.chain(chain)
            for chain in ("cali-FORWARD", "KUBE-FORWARD"):
                table.rule("FORWARD", nftables.counted(), nftables.decide("jump", chain))
            _accept(table, "KUBE-FORWARD", *table.within("source", ip_network(PODS[family])))
            _write(node, table)


@furnished()
def firewalld(topology: Topology) -> None:
    """Every node has a firewalld that refuses what it does not know; pods and nodes it trusts."""
    for node in topology.nodes.values():
        table = Table(4, "firewalld", of=INET)
        for hook in ("input", "forward"):
            chain = f"filter_{hook.upper()}"
            table.chain(chain, hook, priority=10)
            known = [nftables.connection(nftables.CT_STATE), nftables.masked(nftables.ESTABLISHED | nftables.RELATED)]
            _accept(table, chain, *known, nftables.compared(bytes(4), equal=False))
            _accept(table, chain, nftables.meta(nftables.INCOMING), nftables.compared(nftables.interface("lo")))
            for family in (4, 6):
                for network in TRUSTED[family]:
                    of = Table(family, table.name)
                    _accept(table, chain, *nftables.of_ip(family), *of.within("source", ip_network(network)))
            # Neighbors find each other by addresses nobody trusts.
            _accept(table, chain, *nftables.protocol(58))
            table.rule(chain, nftables.counted(), nftables.decide("drop"))
        _write(node, table)


@furnished()
def pods_with_firewalls(topology: Topology) -> None:
    """Every pod has a firewall of its own, which drops all that it did not begin itself but for the asked port."""
    for pod in topology.pods.values():
        for family in pod.addresses:
            table = Table(family, "filter")
            table.chain("INPUT", "input", policy="drop")
            known = [nftables.connection(nftables.CT_STATE), nftables.masked(nftables.ESTABLISHED | nftables.RELATED)]
            _accept(table, "INPUT", *known, nftables.compared(bytes(4), equal=False))
            _accept(table, "INPUT", nftables.meta(nftables.INCOMING), nftables.compared(nftables.interface("lo")))
            if family == 6:
                _accept(table, "INPUT", *nftables.protocol(58))
            port = nftables.loaded(nftables.TRANSPORT_HEADER, 2, 2), nftables.compared(ECHO_PORT.to_bytes(2, "big"))
            _accept(table, "INPUT", *nftables.protocol(6), *port)
            with pod.kernel.namespace.entered():
                table.write()


def _accept(table: Table, chain: str, *matches: bytes) -> None:
    table.rule(chain, *matches, nftables.counted(), nftables.decide("accept"))


def _write(node: NodeMachine, table: Table) -> None:
    with node.kernel.namespace.entered():
        table.write()
