"""Finds what stands behind a Service; without it the question would be about an address that nobody has."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from bot.errors import UserError
from bot.sources import describe, ipam, services
from bot.sources.api import name
from bot.sources.names import family
from bot.sources.reader import Object, Reader, labels, together
from bot.sources.resolve import Found, Resolver
from bot.words import Asked
from facts import Backend, Blind, Endpoint, Pool, ServicePort, say


class Behind(NamedTuple):
    """What a Service as the target comes down to; of anything else the question's own port, and nothing."""

    protocol: str
    port: int
    service: str = ""  # the one whose nodePort is asked
    ports: Sequence[ServicePort] = ()
    backends: Sequence[Backend] = ()
    found: Sequence[Found] = ()  # the endpoints whose path is to be judged
    blind: Sequence[Blind] = ()
    family: int = 0  # the only one in which the Service has the asked nodePort


class Services:
    """The Services of one cluster."""

    def __init__(self, reader: Reader, resolver: Resolver) -> None:
        self._reader = reader
        self._resolver = resolver
        self._every: tuple[list[Object] | None, list[Blind]] | None = None

    async def of_address(self, found: Found, asked: Asked) -> Found:
        """The Service that an asked address leads to where the API finds it by nothing: a load balancer's, an external
        one, its second ClusterIP. It may be a node's own, of which the Service takes its ports only.

        Raises UserError where several Services share it, and the port does not tell which is meant.
        """
        of_a_node = found.kind == "node" and asked.port > 0
        if found.blind or not (found.kind == "address" or of_a_node):
            return found
        every, hidden = await self._services()
        if every is None:
            return found if of_a_node else found._replace(blind=hidden)
        held = [(one, addresses) for one in every if (addresses := _shared(one, found))]
        meant = [one for one in held if services.has_port(one[0], asked.protocol, asked.port)] if asked.port else held
        choice = meant if of_a_node else meant or held
        if len(choice) > 1:
            words = ", ".join(f"{describe.pod_name(one)} ({', '.join(services.ports(one))})" for one, _ in choice)
            raise UserError(
                f"{found.name} is an address of {len(choice)} Services: {words}. "
                f"Say by a port of it which one is meant: why {asked.source} {asked.target} 80/tcp",
                word=asked.target,
            )
        for service, addresses in choice:
            return Found("service", describe.pod_name(service), "", addresses, service)
        return found

    async def _services(self) -> tuple[list[Object] | None, list[Blind]]:
        """All of them, since none can be looked up by such an address or by a nodePort; read once."""
        if self._every is None:
            blind: list[Blind] = []
            every = await self._reader.everything("/api/v1/services", "services", blind)
            self._every = every, blind
        return self._every

    async def behind(self, source: Found, target: Found, asked: Asked) -> Behind:
        """The asked port of a Service and its endpoints, some of them looked up as if they had been asked about."""
        if source.kind == "service":
            raise UserError(
                f"{source.name} is a Service, and a Service sends nothing. Write one of its pods as the first side.",
                word=asked.source,
            )
        blind: list[Blind] = []
        if target.kind == "service":
            service, (protocol, port) = target.resource, services.asked_port(target.resource, asked)
            own = set(services.published(service)) & set(target.addresses)
            held = {family: describe.of_family(own, family) for family in (4, 6)}
            published = {family: address for family, address in held.items() if address}
            client = services.Client(source.name, source.node, published=published or None)
        elif target.kind == "node" and asked.port:
            every, hidden = await self._services()
            protocol, port = asked.protocol, asked.port
            listening = next((one for one in every or () if services.has_node_port(one, protocol, port)), None)
            if every is None and port >= services.NODE_PORTS:
                # Nobody needs to listen on a Service's port, so it is not to be asked who does.
                return Behind("", 0, blind=hidden)
            if listening is None:
                return Behind(protocol, port)
            service = listening
            held = {family: describe.of_family(target.addresses, family) for family in (4, 6)}
            entry = {family: address for family, address in held.items() if address}
            inside = source.node == target.node  # what is on the node itself is served as from inside
            client = services.Client(target.name, target.node, entry=entry, inside=inside)
        else:
            return Behind(asked.protocol, asked.port)
        service_name = describe.pod_name(service)
        namespace, _, short = service_name.partition("/")
        slices = await self._reader.listed(
            f"/apis/discovery.k8s.io/v1/namespaces/{name(namespace)}/endpointslices",
            "endpointslices",
            blind,
            labelSelector=f"kubernetes.io/service-name={short}",
        )
        zone = ""
        if client.node and services.has_hints(slices or ()):
            node = await self._reader.optional(f"/api/v1/nodes/{name(client.node)}", "nodes", blind, node=client.node)
            zone = str(labels(node or {}).get("topology.kubernetes.io/zone") or "")
        client = client._replace(zone=zone, family=family(asked.source) or family(asked.target))
        ports, backends = services.read(service, slices, protocol, port, client)
        chosen = services.to_look_at(backends, client.sender)
        looked = await together(*(self._backend(one) for one in chosen))
        known = dict(zip(chosen, (backend for backend, _ in looked), strict=True))
        left = {one.pod or one.address for one in backends if one.used and one not in known and one.pod != one.sender}
        if left:
            reason = say(
                "{count} more endpoints of {service}: their paths were not judged, only packets were sent",
                count=len(left),
                service=service_name,
            )
            blind.append(Blind(look="endpoints", reason=reason, minor=True))
        found = [one for _, one in looked if one is not None]
        by_node_port = service_name if client.entry is not None else ""
        families = {one.family for one in ports} if by_node_port else set()
        return Behind(
            protocol,
            port,
            by_node_port,
            ports,
            [known.get(one, one) for one in backends],
            found,
            blind,
            families.pop() if len(families) == 1 else 0,
        )

    async def _backend(self, backend: Backend) -> tuple[Backend, Found | None]:
        """The endpoint with the name of what has its address now, and that; a pod of its slice that has it not is
        stale."""
        now = ""
        if backend.pod:
            namespace, _, short = backend.pod.partition("/")
            pod = await self._resolver.pod(namespace, short)
            living = describe.addresses(pod) if pod and not describe.finished(pod) else ()
            now = describe.of_family(living, backend.family)
            if pod and backend.address in living:
                return _named(backend, await self._resolver.found_pod(pod))
        found = await self._resolver.address(backend.address)
        if found.kind in ("pod", "node") or (found.kind == "address" and not backend.pod):
            return _named(backend, found)
        return msgspec.structs.replace(backend, stale=bool(backend.pod), has_now=now), None


def _shared(service: Object, found: Found) -> list[str]:
    """Of the addresses asked for those that lead to the Service."""
    own = {*services.cluster_addresses(service), *services.published(service)}
    return [one for one in found.addresses if one in own]


def _named(backend: Backend, found: Found) -> tuple[Backend, Found]:
    declared = found.kind == "pod" and services.declares(found.resource, backend.protocol, backend.port)
    return msgspec.structs.replace(backend, endpoint=found.name, declared=declared), found


def looked_up(backend: Backend, endpoints: Sequence[Endpoint], pools: list[tuple[Pool, Object]] | None) -> Backend:
    """An address of a pool that no pod has is no end of a path. One of no pool may be a pod's in a second network, of
    which the API says nothing: whether that is stale nobody can tell."""
    nobody = any(one.name == backend.endpoint and one.kind == "nobody" for one in endpoints)
    ours = ipam.pool_of(ipaddress.ip_address(backend.address), [pool for pool, _ in pools or ()]) is not None
    return msgspec.structs.replace(backend, endpoint="" if nobody else backend.endpoint, stale=backend.stale and ours)
