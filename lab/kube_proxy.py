"""Turns a Service's address into an endpoint's on every node, as kube-proxy does in nftables mode; without it no
ClusterIP of the lab would answer. In iptables mode its rules are those of kube_proxy_iptables.py.

Table, chains and maps have the names and the shape of a running kube-proxy v1.34 (recorded, calico_truth_2.md 4).
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from lab import kube_proxy_iptables, nftables
from lab.iptables import Tools
from lab.kernel import Kernel, family_of
from lab.nftables import Network, Table, key

Object = Mapping[str, Any]

TABLE = "kube-proxy"
MASQUERADE = 0x4000
PROTOCOLS = {"TCP": 6, "UDP": 17}
SERVICE_CIDRS = {4: "10.96.0.0/16", 6: "fd00:10:96::/112"}
READS = ("services", "endpointslices")


@dataclass(frozen=True, slots=True)
class Port:
    """One port of a Service in one family, with the endpoints a node may send to."""

    name: str  # namespace/service
    port_name: str
    address: str
    protocol: str  # TCP | UDP
    port: int
    node_port: int
    inside: tuple[tuple[str, int], ...]  # for clients of the cluster
    outside: tuple[tuple[str, int], ...]  # by nodePort, from outside the cluster
    anywhere: bool  # an endpoint is usable on some node, this one or not
    outside_local: bool  # externalTrafficPolicy Local

    @property
    def full_name(self) -> str:
        return f"{self.name}/{self.protocol.lower()}/{self.port_name}"

    @property
    def comment(self) -> str:
        return f"{self.name}:{self.port_name}" if self.port_name else self.name


def ports(list_of: Callable[[str], Iterable[Object]], node: str, family: int) -> list[Port]:
    """What kube-proxy on that node makes of the Services. `list_of("services")` gives the plain objects."""
    slices = list(list_of("endpointslices"))
    found: list[Port] = []
    for service in list_of("services"):
        spec, meta = service["spec"], service["metadata"]
        addresses = [one for one in spec.get("clusterIPs") or (spec.get("clusterIP"),) if one not in ("", "None", None)]
        for address in addresses:
            if family_of(address) == family:
                mine = [one for one in slices if _belongs(one, meta, family)]
                found += [_port(meta, spec, one, address, mine, node) for one in spec.get("ports") or ()]
    return [one for one in found if one.protocol in PROTOCOLS]


def _belongs(one: Object, service: Object, family: int) -> bool:
    meta = one["metadata"]
    return bool(
        meta["namespace"] == service["namespace"]
        and (meta.get("labels") or {}).get("kubernetes.io/service-name") == service["name"]
        and one["addressType"] == f"IPv{family}"
    )


def _port(meta: Object, spec: Object, port: Object, address: str, slices: Iterable[Object], node: str) -> Port:
    protocol = port.get("protocol", "TCP")
    ends = [
        (end, int(entry["port"]))
        for one in slices
        for entry in one.get("ports") or ()
        if (entry.get("name") or "", entry.get("protocol", "TCP")) == (port.get("name") or "", protocol)
        for end in one.get("endpoints") or ()
    ]
    everywhere, here = _usable(ends), _usable([one for one in ends if one[0].get("nodeName") == node])
    local_inside = spec.get("internalTrafficPolicy") == "Local"
    local_outside = spec.get("externalTrafficPolicy") == "Local"
    return Port(
        name=f"{meta['namespace']}/{meta['name']}",
        port_name=port.get("name") or "",
        address=address,
        protocol=protocol,
        port=int(port["port"]),
        node_port=int(port.get("nodePort") or 0),
        inside=here if local_inside else everywhere,
        outside=here if local_outside else everywhere,
        anywhere=bool(everywhere),
        outside_local=local_outside,
    )


def _usable(ends: list[tuple[Object, int]]) -> tuple[tuple[str, int], ...]:
    """Ready ones, else those that are being ended and still serve."""

    def condition(end: Object, name: str) -> bool:
        return bool((end.get("conditions") or {}).get(name))

    ready = [one for one in ends if (one[0].get("conditions") or {}).get("ready") is not False]
    serving = [one for one in ends if condition(one[0], "serving") and condition(one[0], "terminating")]
    return tuple(sorted({(end["addresses"][0], port) for end, port in ready or serving}))


class KubeProxy:
    """Of one node. Blocking; in the thread that owns its kernel."""

    def __init__(self, kernel: Kernel, family: int, node_address: str, backend: str = "") -> None:
        """backend: of iptables, "" for nftables. Raises NamespacesForbidden where the machine does not have it."""
        self._tools = Tools(backend, family) if backend else None
        self._kernel = kernel
        self._family = family
        self._node_address = node_address
        self._written: object = None

    def apply(self, wanted: list[Port], cluster: str) -> None:
        """cluster: what pods have their addresses from. Nothing is written for nothing. Raises OSError."""
        state = (tuple(wanted), cluster)
        if state == self._written or (not wanted and self._written is None):
            return
        table = Table(self._family, TABLE)
        with self._kernel.namespace.entered():
            if self._tools:
                kube_proxy_iptables.write(self._tools, wanted, cluster)
            elif wanted:
                _fill(table, wanted, self._node_address, ip_network(cluster))
                table.write()
            else:
                table.remove()
        self._written = state if wanted else None

    def forget(self) -> None:
        """Somebody flushed the firewall."""
        self._written = None


def _fill(table: Table, wanted: list[Port], node_address: str, cluster: Network) -> None:
    _base_chains(table)
    for name in (
        "nodeport-endpoints-check", "service-endpoints-check", "services", "masquerading", "cluster-ips-check",
        "mark-for-masquerade", "reject-chain",
    ):  # fmt: skip
        table.chain(name)
    width = table.length
    served = [one for one in wanted if one.inside]
    dead = [one for one in wanted if not one.inside]
    opened = [one for one in served if one.node_port]
    for one in served:
        table.chain(_chain("service", one))
        for end in _ends(one):
            table.chain(_endpoint_chain(one, end))
    for one in opened:
        table.chain(_chain("external", one))
    addresses = table.set("cluster-ips", width, [_packed(one.address) for one in _by_address(wanted)])
    own = table.set("nodeport-ips", width, [_packed(node_address)])
    no_endpoint = table.verdict_map(
        "no-endpoint-services",
        width + 8,
        [(_service_key(one), *(_refusal(one.anywhere)), one.comment) for one in dead],
    )
    no_node_port = table.verdict_map(
        "no-endpoint-nodeports",
        8,
        [(_port_key(one), *_refusal(one.anywhere), one.comment) for one in wanted if one.node_port and not one.outside],
    )
    by_address = table.verdict_map(
        "service-ips", width + 8, [(_service_key(one), "goto", _chain("service", one), "") for one in served]
    )
    by_port = table.verdict_map(
        "service-nodeports", 8, [(_port_key(one), "goto", _chain("external", one), "") for one in opened]
    )
    _base_rules(table)
    load_own = [table.address("destination"), nftables.lookup(own, "nodeport-ips", verdict=False)]
    table.rule(
        "nodeport-endpoints-check",
        *load_own,
        *table.ports(),
        nftables.lookup(no_node_port, "no-endpoint-nodeports", verdict=True),
    )
    table.rule(
        "service-endpoints-check",
        *table.service(),
        nftables.lookup(no_endpoint, "no-endpoint-services", verdict=True),
    )
    table.rule("services", *table.service(), nftables.lookup(by_address, "service-ips", verdict=True))
    table.rule("services", *load_own, *table.ports(), nftables.lookup(by_port, "service-nodeports", verdict=True))
    table.rule(
        "cluster-ips-check",
        table.address("destination"),
        nftables.lookup(addresses, "cluster-ips", verdict=False),
        table.refused(),
        comment="Reject traffic to invalid ports of ClusterIPs",
    )
    table.rule(
        "cluster-ips-check",
        *table.within("destination", ip_network(SERVICE_CIDRS[table.family])),
        nftables.decide("drop"),
        comment="Drop traffic to unallocated ClusterIPs",
    )
    for one in served:
        _service_rules(table, one, cluster)
    for one in opened:
        _external_rules(table, one, cluster)


def _base_chains(table: Table) -> None:
    for hook in ("input", "forward", "output"):
        table.chain(f"filter-{hook}", hook)
    table.chain("nat-prerouting", "prerouting", "nat", -100)
    table.chain("nat-output", "output", "nat", -100)
    table.chain("nat-postrouting", "postrouting", "nat", 100)


def _base_rules(table: Table) -> None:
    for chain, target in (
        ("filter-input", "nodeport-endpoints-check"),
        ("filter-input", "service-endpoints-check"),
        ("filter-forward", "service-endpoints-check"),
        ("filter-forward", "cluster-ips-check"),
        ("filter-output", "service-endpoints-check"),
        ("filter-output", "cluster-ips-check"),
    ):
        table.rule(chain, *nftables.new_connection(), nftables.decide("jump", target))
    table.rule("nat-prerouting", nftables.decide("jump", "services"))
    table.rule("nat-output", nftables.decide("jump", "services"))
    table.rule("nat-postrouting", nftables.decide("jump", "masquerading"))
    table.rule("masquerading", *nftables.marked(MASQUERADE, yes=False), nftables.decide("return"))
    table.rule("masquerading", *nftables.set_mark(MASQUERADE, on=False))
    table.rule("masquerading", nftables.masqueraded())
    table.rule("mark-for-masquerade", *nftables.set_mark(MASQUERADE, on=True))
    table.rule("reject-chain", table.refused())


def _service_rules(table: Table, one: Port, cluster: Network) -> None:
    chain = _chain("service", one)
    table.rule(
        chain,
        *table.is_address("destination", one.address),
        *table.within("source", cluster, inside=False),
        nftables.decide("jump", "mark-for-masquerade"),
    )
    for end in _ends(one):
        address, port = end
        into = _endpoint_chain(one, end)
        table.rule(into, *table.is_address("source", address), nftables.decide("jump", "mark-for-masquerade"))
        table.rule(into, *nftables.protocol(PROTOCOLS[one.protocol]), *table.translated(address, port))
    _balance(table, chain, one, one.inside)


def _balance(table: Table, chain: str, one: Port, ends: Sequence[tuple[str, int]]) -> None:
    choices = [(struct.pack("=I", number), "goto", _endpoint_chain(one, end), "") for number, end in enumerate(ends)]
    choice = table.choice(choices)
    table.rule(chain, nftables.random_number(len(choices)), choice)


def _external_rules(table: Table, one: Port, cluster: Network) -> None:
    chain, into = _chain("external", one), _chain("service", one)
    if not one.outside_local:
        table.rule(chain, nftables.decide("jump", "mark-for-masquerade"))
        table.rule(chain, nftables.decide("goto", into))
        return
    table.rule(
        chain,
        *table.within("source", cluster),
        nftables.decide("goto", into),
        comment="short-circuit pod traffic",
    )
    local = nftables.decide("jump", "mark-for-masquerade")
    table.rule(chain, *table.from_the_node(), local, comment="masquerade local traffic")
    table.rule(chain, *table.from_the_node(), nftables.decide("goto", into), comment="short-circuit local traffic")
    if one.outside:
        _balance(table, chain, one, one.outside)


def _ends(one: Port) -> list[tuple[str, int]]:
    return sorted({*one.inside, *one.outside})


def _by_address(wanted: Iterable[Port]) -> list[Port]:
    return list({one.address: one for one in wanted}.values())


def _refusal(anywhere: bool) -> tuple[str, str]:
    """Nothing at all is refused; what another node could serve is dropped, as a health check will see to it."""
    return ("drop", "") if anywhere else ("goto", "reject-chain")


def _chain(kind: str, one: Port) -> str:
    return f"{kind}-{_hash(one.full_name)}-{one.full_name}"


def _endpoint_chain(one: Port, end: tuple[str, int]) -> str:
    address, port = end
    name = f"{one.full_name}__{address.replace(':', '.')}/{port}"
    return f"endpoint-{_hash(name)}-{name}"


def _hash(text: str) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:8]


def _packed(address: str) -> bytes:
    return ip_address(address).packed


def _port_key(one: Port) -> bytes:
    return key(bytes([PROTOCOLS[one.protocol]]), one.node_port.to_bytes(2, "big"))


def _service_key(one: Port) -> bytes:
    return key(_packed(one.address), bytes([PROTOCOLS[one.protocol]]), one.port.to_bytes(2, "big"))
