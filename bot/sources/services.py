"""What a Service and its EndpointSlices say, as facts; pure, so that every kind of Service has a test."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from bot.errors import UserError
from bot.sources.names import is_address
from bot.words import Asked
from facts import Backend, ServicePort

Object = Mapping[str, Any]

LOOKED_AT = 4  # endpoints whose path is judged in full
WAITING = 5  # names of endpoints that are not ready, in a fact
NODE_PORTS = 30000  # from here on a node's port may well be a Service's
SENT = ("tcp", "udp")  # what a probe can send
FAMILIES = {"IPv4": 4, "IPv6": 6}


class Client(NamedTuple):
    """Who asks the Service, and by which address of it."""

    sender: str  # name of the Endpoint that kube-proxy hands on for: the client, or the node whose nodePort is asked
    node: str  # whose kube-proxy that is
    zone: str = ""  # of that node
    family: int = 0  # the only one that was asked for; 0: every one
    entry: Mapping[int, str] | None = None  # where a nodePort is asked: the addresses of its node by family
    published: Mapping[int, str] | None = None  # where such an address of the Service is asked: those by family
    inside: bool = True  # False: from elsewhere to a nodePort


def asked_port(service: Object, asked: Asked) -> tuple[str, int]:
    """Protocol and port of the question: the asked ones, else those of the Service's only port.

    Raises UserError where a Service has several, or no network of its own at all.
    """
    name, spec = _name(service), _spec(service)
    if spec.get("type") == "ExternalName":
        alias = str(spec.get("externalName") or "a name outside")
        raise UserError(
            f"{name} is a Service of type ExternalName: DNS gives {alias} for it, and no packet ever goes to the "
            f"Service itself. Ask about the address {alias} has."
        )
    if asked.port:
        return asked.protocol, asked.port
    found = [(protocol, int(one["port"])) for one in _ports(spec) if (protocol := _protocol(one)) in SENT]
    if len(found) == 1:
        return found[0]
    words = [f"{port}/{protocol}" for protocol, port in found]
    if not words:
        raise UserError(
            f"{name} names no TCP or UDP port. Say which one is meant: why {asked.source} {asked.target} 80/tcp"
        )
    raise UserError(
        f"{name} has {len(words)} ports: {', '.join(words)}. Say which one is meant: "
        f"why {asked.source} {asked.target} {words[0]}",
        word=asked.target,
        choices=[f"{asked.target} {one}" for one in words],
    )


def read(
    service: Object,
    slices: Sequence[Object] | None,
    protocol: str,
    port: int,
    client: Client,
) -> tuple[list[ServicePort], list[Backend]]:
    """The asked port, in each family the Service has, and its endpoints. slices: None when they could not be read."""
    spec = _spec(service)
    by_node_port = client.entry is not None
    headless = spec.get("clusterIP") == "None" and not by_node_port
    number_of = "nodePort" if by_node_port else "port"
    own = next(
        (one for one in _ports(spec) if (_protocol(one), int(one.get(number_of) or 0)) == (protocol, port)), None
    )
    policy = "internalTrafficPolicy" if client.inside else "externalTrafficPolicy"
    # What a pod or a node sends to a published address is held to neither: as if a load balancer had brought it back.
    local = spec.get(policy) == "Local" and not headless and not client.published
    found: list[ServicePort] = []
    behind: list[Backend] = []
    for number, address in (client.published or {}).items() or _addresses(spec, headless):
        if client.family not in (0, number):
            continue
        if client.entry is not None:
            address = client.entry.get(number, "")
            if not address:
                continue
        ends: list[tuple[Backend, Object]] = []
        if headless or own is not None:
            wanted = None if headless else str((own or {}).get("name") or "")
            ends = _backends(_name(service), slices or (), number, wanted, protocol, port)
        chosen = {one for one, _ in _used(ends, client.node, client.zone, local=local)}
        found.append(
            ServicePort(
                service=_name(service),
                family=number,
                address=address,
                protocol=protocol,
                port=port,
                found=headless or own is not None,
                target_port=str((own or {}).get("targetPort") or ""),
                node_port=int((own or {}).get("nodePort") or 0),
                by_node_port=by_node_port,
                node=client.node,
                local=local,
                kind=str(spec.get("type") or "ClusterIP"),
                headless=headless,
                selector=",".join(f"{key}={value}" for key, value in sorted((spec.get("selector") or {}).items())),
                internal_policy=str(spec.get("internalTrafficPolicy") or "Cluster"),
                external_policy=str(spec.get("externalTrafficPolicy") or ""),
                affinity=str(spec.get("sessionAffinity") or "None"),
                ports=ports(service),
                counted=slices is not None,
                ready=sum(one.ready for one, _ in ends),
                serving=sum(_still_serves(one) for one, _ in ends),
                waiting=tuple(one.pod or one.address for one, _ in ends if not one.ready and not _still_serves(one))[
                    :WAITING
                ],
                nodes=tuple(sorted({one.node for one, _ in ends if one.ready or _still_serves(one)})),
            )
        )
        behind += [msgspec.structs.replace(one, used=one in chosen, sender=client.sender) for one, _ in ends]
    return found, behind


def has_node_port(service: Object, protocol: str, port: int) -> bool:
    """Is this port of every node the Service's?"""
    return any((_protocol(one), one.get("nodePort")) == (protocol, port) for one in _ports(_spec(service)))


def ports(service: Object) -> tuple[str, ...]:
    """All of its ports: 5432/tcp."""
    return tuple(f"{one['port']}/{_protocol(one)}" for one in _ports(_spec(service)))


def cluster_addresses(service: Object) -> list[str]:
    """Its ClusterIPs, as everybody writes them; a headless Service has none."""
    spec = _spec(service)
    written = [str(one) for one in spec.get("clusterIPs") or (spec.get("clusterIP"),) if one]
    return [str(ipaddress.ip_address(one)) for one in written if is_address(one)]


def published(service: Object) -> list[str]:
    """Addresses beside its ClusterIPs that kube-proxy turns into an endpoint's: externalIPs, and a load balancer's, but
    for one whose load balancer is to have the packets itself (ipMode Proxy). A headless Service has none."""
    spec = _spec(service)
    if spec.get("clusterIP") == "None":
        return []
    balancer: Object = (service.get("status") or {}).get("loadBalancer") or {}
    taken = [one.get("ip") for one in balancer.get("ingress") or () if one.get("ipMode") != "Proxy"]
    written = [str(one) for one in (*(spec.get("externalIPs") or ()), *taken) if one]
    return [str(ipaddress.ip_address(one)) for one in dict.fromkeys(written) if is_address(one)]


def has_port(service: Object, protocol: str, port: int) -> bool:
    """Is this port of its addresses one of the Service's?"""
    return any((_protocol(one), one.get("port")) == (protocol, port) for one in _ports(_spec(service)))


def has_hints(slices: Iterable[Object]) -> bool:
    """Does any endpoint ask for clients of some zone or node? Then the client's own zone matters."""
    return any(end.get("hints") for one in slices for end in one.get("endpoints") or ())


def to_look_at(backends: Sequence[Backend], source: str, most: int = LOOKED_AT) -> list[Backend]:
    """Whose path is to be judged: of those kube-proxy may use one for each node first, and never the client itself.

    A pod in both families counts once.
    """
    ends: dict[str, list[Backend]] = {}
    for one in backends:
        if one.used and one.pod != source:
            ends.setdefault(one.pod or one.address, []).append(one)
    by_node: dict[str, list[str]] = {}
    for name, group in ends.items():
        by_node.setdefault(group[0].node, []).append(name)
    order = sorted(
        ((turn, name) for names in by_node.values() for turn, name in enumerate(names)), key=lambda one: one[0]
    )
    return [one for _, name in order[:most] for one in ends[name]]


def declares(pod: Object, protocol: str, port: int) -> bool:
    """Does a container of the pod name this port in its spec?"""
    spec = _spec(pod)
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    return any(
        (_protocol(one), int(one.get("containerPort") or 0)) == (protocol, port)
        for container in containers
        for one in container.get("ports") or ()
    )


def _backends(
    service: str, slices: Iterable[Object], family: int, name: str | None, protocol: str, port: int
) -> list[tuple[Backend, Object]]:
    """Endpoints of that family with their object in the slice. name: of the port; None for a headless Service, whose
    clients go to the endpoints themselves, on the port they ask for."""
    found: dict[tuple[str, int], tuple[Backend, Object]] = {}
    for one in slices:
        if FAMILIES.get(str(one.get("addressType"))) != family:
            continue
        numbers = (
            [port]
            if name is None
            else [
                int(entry["port"])
                for entry in one.get("ports") or ()
                if str(entry.get("name") or "") == name and _protocol(entry) == protocol and entry.get("port")
            ]
        )
        for number in numbers:
            for end in one.get("endpoints") or ():
                addresses = end.get("addresses") or ()
                if not addresses:
                    continue
                backend = _backend(service, family, str(addresses[0]), protocol, number, end)
                before = found.get((backend.address, number))
                if before is None or backend.ready > before[0].ready:
                    found[backend.address, number] = backend, end
    return list(found.values())


def _backend(service: str, family: int, address: str, protocol: str, port: int, end: Object) -> Backend:
    """What a slice leaves open counts as the API's reader should take it: ready, serving, not being ended."""
    conditions: Object = end.get("conditions") or {}
    target: Object = end.get("targetRef") or {}
    ready = conditions.get("ready")
    serving = conditions.get("serving")
    pod = f"{target.get('namespace')}/{target.get('name')}" if target.get("kind") == "Pod" else ""
    return Backend(
        service=service,
        family=family,
        address=str(ipaddress.ip_address(address)),
        protocol=protocol,
        port=port,
        pod=pod,
        node=str(end.get("nodeName") or ""),
        ready=ready is not False,
        serving=(ready is not False) if serving is None else bool(serving),
        terminating=bool(conditions.get("terminating")),
    )


def _still_serves(one: Backend) -> bool:
    return not one.ready and one.serving and one.terminating


def _used(ends: Sequence[tuple[Backend, Object]], node: str, zone: str, *, local: bool) -> list[tuple[Backend, Object]]:
    """What kube-proxy on that node sends to: ready ones, else those that are being ended and still serve; of its own
    node where the policy is Local, else of its zone where every endpoint has a hint and one of them is for it."""
    here = [one for one in ends if one[0].node == node] if local else list(ends)
    ready = [one for one in here if one[0].ready]
    if not ready:
        return [one for one in here if _still_serves(one[0])]
    if not local and zone and all((end.get("hints") or {}).get("forZones") for _, end in ready):
        mine = [one for one in ready if zone in [to.get("name") for to in one[1]["hints"]["forZones"]]]
        return mine or ready
    return ready


def _addresses(spec: Object, headless: bool) -> list[tuple[int, str]]:
    """(family, ClusterIP) of each; of a headless Service (family, "")."""
    if headless:
        return [(FAMILIES[one], "") for one in spec.get("ipFamilies") or ("IPv4",) if one in FAMILIES]
    return [(ipaddress.ip_address(one).version, one) for one in cluster_addresses({"spec": spec})]


def _name(service: Object) -> str:
    meta = service["metadata"]
    return f"{meta['namespace']}/{meta['name']}"


def _spec(resource: Object) -> Object:
    return resource.get("spec") or {}


def _ports(spec: Object) -> list[Object]:
    return list(spec.get("ports") or ())


def _protocol(port: Object) -> str:
    return str(port.get("protocol") or "TCP").lower()
