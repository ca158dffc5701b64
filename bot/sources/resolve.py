"""Finds what a word of a question stands for; without it whoever asks would have to know nodes and addresses."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Sequence
from typing import NamedTuple

from bot.errors import COULD_NOT_JUDGE, UserError
from bot.sources import describe, ipam, services
from bot.sources.allocations import Addresses
from bot.sources.api import PAGE, Missing, Refused, name
from bot.sources.names import is_address
from bot.sources.reader import Object, Reader, together
from facts import Allocation, Blind

EVENTS = 200  # of one pod; the API server keeps them for an hour
SAME_NAME = 20  # pods of one name, or with one address
DNS_NAME = re.compile(r"(?:(?P<pod>[^.]+)\.)?(?P<service>[^.]+)\.(?P<namespace>[^.]+)\.svc(?:\..+)?")  # of the cluster
TUNNEL = "TunnelAddress"  # how the kinds of allocations of nodes' tunnels end
SHOWN = 6  # candidates in a sentence


class Found(NamedTuple):
    """What a word stands for. resource is the pod, node or service; {} for a bare address."""

    kind: str
    name: str
    node: str
    addresses: Sequence[str]
    resource: Object
    events: Sequence[Object] = ()
    blind: Sequence[Blind] = ()

    @property
    def routed(self) -> bool:
        """Its address is one that Calico may have given: not a node's, a service's, or none."""
        host_network = bool((self.resource.get("spec") or {}).get("hostNetwork"))
        return self.kind in ("pod", "address") and not host_network and bool(self.addresses)


class Resolver:
    """Words and addresses of one cluster. Everything here raises UserError where pods may not be read."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def word(self, word: str) -> Found:
        """Raises UserError where nothing, or more than one thing, is called so."""
        if is_address(word):
            return await self.address(word)
        namespace, slash, short = word.rpartition("/")
        if slash:
            return await self._qualified(namespace, short)
        if named := DNS_NAME.fullmatch(word):
            return await self._by_dns(named["pod"] or "", named["service"], named["namespace"])
        return await self._short(short)

    async def _by_dns(self, pod: str, service: str, namespace: str) -> Found:
        """The Service of a name as an application has it in its log, or the pod of a StatefulSet behind one."""
        if pod:
            return await self._qualified(namespace, pod)
        hidden: list[Blind] = []
        path = f"/api/v1/namespaces/{name(namespace)}/services/{name(service)}"
        found = await self._reader.optional(path, "services", hidden)
        if found:
            return _found_service(found)
        raise _may_be(f"{namespace}/{service}", hidden) or await self._no_such_pod(namespace, service)

    async def _qualified(self, namespace: str, short: str) -> Found:
        pod = await self.pod(namespace, short)
        if pod:
            return await self.found_pod(pod)
        hidden: list[Blind] = []
        path = f"/api/v1/namespaces/{name(namespace)}/services/{name(short)}"
        service = await self._reader.optional(path, "services", hidden)
        if service:
            return _found_service(service)
        raise _may_be(f"{namespace}/{short}", hidden) or await self._no_such_pod(namespace, short)

    async def _short(self, short: str) -> Found:
        """A pod of the context's namespace, else the only pod of that name, else a node, else the only such service."""
        pod = await self.pod(self._reader.api.namespace, short)
        if pod:
            return await self.found_pod(pod)
        selector: dict[str, str | int] = {"fieldSelector": f"metadata.name={short}", "limit": SAME_NAME}
        hidden: list[Blind] = []
        pods, node, services = await together(
            self._pods("/api/v1/pods", **selector),
            self._reader.optional(f"/api/v1/nodes/{name(short)}", "nodes", hidden),
            self._reader.listed("/api/v1/services", "services", hidden, **selector),
        )
        for candidates in (pods, [] if node else services or []):
            if len(candidates) > 1:
                raise _ambiguous(short, candidates)
        if pods:
            return await self.found_pod(pods[0])
        if node:
            return Found("node", short, short, _internal_addresses(node), node)
        if services:
            return _found_service(services[0])
        raise _may_be(short, hidden) or await self._no_such_pod(self._reader.api.namespace, short, anywhere=True)

    async def address(self, address: str) -> Found:
        """The pod that has the address now, the node whose own address it is, the service, or the bare address."""
        pods = await self._pods("/api/v1/pods", fieldSelector=f"status.podIP={address}", limit=SAME_NAME)
        living = [pod for pod in pods if not describe.finished(pod)]
        own = [pod for pod in living if not (pod.get("spec") or {}).get("hostNetwork")]
        if own:
            running = [pod for pod in own if (pod.get("status") or {}).get("phase") == "Running"] or own
            return await self.found_pod(max(running, key=lambda pod: str(pod["metadata"].get("creationTimestamp"))))
        if living:
            node = str(living[0]["spec"].get("nodeName") or "")
            return Found("node", node, node, (address,), {})
        hidden: list[Blind] = []
        services = await self._reader.listed(
            "/api/v1/services", "services", hidden, fieldSelector=f"spec.clusterIP={address}", limit=2
        )
        if services and len(services) == 1 and (services[0].get("spec") or {}).get("clusterIP") == address:
            return _found_service(services[0])
        return Found("address", address, "", (address,), {}, blind=hidden)

    async def by_second_address(self, found: Found, addresses: Addresses, *, sends: bool = False) -> Found:
        """The pod that has this address beside its first one, or the node; the API finds neither by that.

        IPAM names the pod, which must say itself that it has the address, and the node whose tunnel has it: what a node
        sends into the tunnel carries that, so as the one that sends it is the node. Nodes are few enough to read one
        page of. Raises UserError for a tunnel's address as the target, to which nobody sends anything.
        """
        if found.kind != "address":
            return found
        asked = ipaddress.ip_address(found.name)
        pools = [pool for pool, _ in (await addresses.calico).pools or ()]
        pooled, address = ipam.pool_of(asked, pools) is not None, str(asked)
        for one in await addresses.of([address]) if pooled or asked.version == 6 else ():
            if not isinstance(one, Allocation) or not one.owner:
                continue
            if one.owner_kind.endswith(TUNNEL):
                return await self._by_tunnel(found, one.owner, sends=sends)
            namespace, _, short = one.owner.partition("/")
            pod = await self.pod(namespace, short) if one.owner_kind == "pod" else None
            if pod and not describe.finished(pod) and address in describe.addresses(pod):
                return await self.found_pod(pod)
        nodes = None if pooled else await self._reader.listed("/api/v1/nodes", "nodes", [], limit=PAGE)
        for node in nodes or ():
            calico_s = [one.address for one in describe.calico_nodes(node, None, {})]
            if address in (*calico_s, *_internal_addresses(node)):
                own = str(node["metadata"]["name"])
                return Found("node", own, own, (address,), node)
        if asked.version == 4:
            return found
        for service in await self._reader.listed("/api/v1/services", "services", [], limit=PAGE) or ():
            if address in _found_service(service).addresses:
                return _found_service(service)
        return found

    async def _by_tunnel(self, found: Found, owner: str, *, sends: bool) -> Found:
        node = await self._reader.optional(f"/api/v1/nodes/{name(owner)}", "nodes", [])
        annotations = (node or {}).get("metadata", {}).get("annotations") or {}
        if node is None or found.name not in annotations.values():
            return found
        if sends:
            return Found("node", owner, owner, _internal_addresses(node), node)
        raise UserError(
            f"{found.name} is the address of {owner}'s tunnel: packets that {owner} sends to pods carry it, and nobody "
            f"is asked anything under it. Ask about the node: {owner}, or about a pod there.",
            word=found.name,
            choices=[owner],
        )

    async def found_pod(self, pod: Object) -> Found:
        node = str((pod.get("spec") or {}).get("nodeName") or "")
        blind: list[Blind] = []
        events = await self._events(pod, blind) if describe.waits(pod) else []
        return Found("pod", describe.pod_name(pod), node, describe.addresses(pod), pod, events, blind)

    async def pod(self, namespace: str, short: str) -> Object | None:
        try:
            return await self._reader.api.get(f"/api/v1/namespaces/{name(namespace)}/pods/{name(short)}")
        except Missing:
            return None
        except Refused as error:
            raise _may_not_read_pods(error) from error

    async def _events(self, pod: Object, blind: list[Blind]) -> list[Object]:
        meta = pod["metadata"]
        selector = f"involvedObject.name={meta['name']},involvedObject.uid={meta.get('uid', '')}"
        path = f"/api/v1/namespaces/{name(meta['namespace'])}/events"
        return await self._reader.listed(path, "events", blind, fieldSelector=selector, limit=EVENTS) or []

    async def _pods(self, path: str, **query: str | int) -> list[Object]:
        """One page of pods."""
        try:
            return list((await self._reader.api.get(path, **query)).get("items") or ())
        except Refused as error:
            raise _may_not_read_pods(error) from error

    async def _no_such_pod(self, namespace: str, short: str, *, anywhere: bool = False) -> UserError:
        """What there is instead. One page of one namespace is read for it, and of nodes, never more."""
        word = short if anywhere else f"{namespace}/{short}"
        pods = await self._pods(f"/api/v1/namespaces/{name(namespace)}/pods", limit=PAGE)
        if not pods and not anywhere:
            found: list[Blind] = []
            exists = await self._reader.optional(f"/api/v1/namespaces/{name(namespace)}", "namespaces", found)
            if exists is None and not found:
                return UserError(f"{word} does not exist: there is no namespace {namespace}.", word=word)
        similar = [pod for pod in pods if pod["metadata"]["name"].startswith(short)]
        text = "pods of that name"
        if not similar:
            path = f"/api/v1/namespaces/{name(namespace)}/services"
            services = await self._reader.listed(path, "services", []) or []
            nodes = (await self._reader.listed("/api/v1/nodes", "nodes", []) if anywhere else None) or []
            named = {one["metadata"]["name"]: one for one in (*nodes, *services, *pods)}
            similar = [named[near] for near in difflib.get_close_matches(short, named, n=3)]
            text = "similar names" if any(one in nodes for one in similar) else f"similar names in {namespace}"
        kinds = f"a pod, node or service called {short}" if anywhere else "a pod or service"
        if not similar:
            return UserError(
                f"{word} does not exist: nothing is known as {kinds}, and no name in {namespace} is like it. "
                f"List them with: kubectl get pods -n {namespace}",
                word=word,
            )
        more = f" and {len(similar) - SHOWN} more" if len(similar) > SHOWN else ""
        return UserError(
            f"{word} does not exist; {text}: {', '.join(_placed(one) for one in similar[:SHOWN])}{more}.",
            word=word,
            choices=[_called(one) for one in similar[:SHOWN]],
        )


def _found_service(service: Object) -> Found:
    return Found("service", describe.pod_name(service), "", services.cluster_addresses(service), service)


def _internal_addresses(node: Object) -> tuple[str, ...]:
    known = (node.get("status") or {}).get("addresses") or ()
    return tuple(one["address"] for one in known if one["type"] == "InternalIP" and is_address(one["address"]))


def _placed(resource: Object) -> str:
    node = (resource.get("spec") or {}).get("nodeName")
    return f"{_called(resource)} ({node})" if node else _called(resource)


def _called(resource: Object) -> str:
    """As a question has it: a node is of no namespace."""
    return describe.pod_name(resource) if resource["metadata"].get("namespace") else str(resource["metadata"]["name"])


def _ambiguous(short: str, candidates: Sequence[Object]) -> UserError:
    names = [describe.pod_name(one) for one in candidates]
    return UserError(
        f"{short} can mean {len(names)} things: {', '.join(_placed(one) for one in candidates[:SHOWN])}"
        f"{' and more' if len(names) > SHOWN else ''}. Write the namespace too, such as {names[0]}.",
        word=short,
        choices=names[:SHOWN],
    )


def _may_not_read_pods(error: Refused) -> UserError:
    if error.status == 403:
        return UserError(
            f"This user may not read the pods ({error.reason}), and without them there is no question to answer. "
            "It needs get and list on pods.",
            status=COULD_NOT_JUDGE,
        )
    return UserError(f"The pods could not be read: {error.reason}. Try again.", status=COULD_NOT_JUDGE)


def _may_be(word: str, hidden: Sequence[Blind]) -> UserError | None:
    """What could not be read may have the word's name. hidden: looks for nodes, services or both."""
    if not hidden:
        return None
    kind = {"nodes": "a node", "services": "a Service"}[hidden[0].look]
    return UserError(
        f"{word} is no pod, and whether it is {kind} could not be seen: {hidden[0].look}: {hidden[0].reason}. "
        f"This user needs get and list on {hidden[0].look}.",
        status=COULD_NOT_JUDGE,
    )
