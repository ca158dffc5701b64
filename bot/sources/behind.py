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
            client = services.Client(source.name, source.node)
        elif target.kind == "node" and asked.port >= services.NODE_PORTS:
            every = await self._reader.everything("/api/v1/services", "services", blind)
            protocol, port = asked.protocol, asked.port
            listening = next((one for one in every or () if services.has_node_port(one, protocol, port)), None)
            if every is None:  # nobody needs to listen on a Service's port, so it is not to be asked who does
                return Behind("", 0, blind=blind)
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


def _named(backend: Backend, found: Found) -> tuple[Backend, Found]:
    declared = found.kind == "pod" and services.declares(found.resource, backend.protocol, backend.port)
    return msgspec.structs.replace(backend, endpoint=found.name, declared=declared), found


def looked_up(backend: Backend, endpoints: Sequence[Endpoint], pools: list[tuple[Pool, Object]] | None) -> Backend:
    """An address of a pool that no pod has is no end of a path. One of no pool may be a pod's in a second network, of
    which the API says nothing: whether that is stale nobody can tell."""
    nobody = any(one.name == backend.endpoint and one.kind == "nobody" for one in endpoints)
    ours = ipam.pool_of(ipaddress.ip_address(backend.address), [pool for pool, _ in pools or ()]) is not None
    return msgspec.structs.replace(backend, endpoint="" if nobody else backend.endpoint, stale=backend.stale and ours)
