"""What Kubernetes and Calico say about both sides of a question; without it a kernel has nothing to be held against."""

from __future__ import annotations

import asyncio
import difflib
import ipaddress
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import msgspec

from bot.errors import COULD_NOT_JUDGE, UserError
from bot.settings import Settings
from bot.sources import describe, ipam, services, upkeep
from bot.sources.api import PAGE, Api, Missing, Refused, Unreachable, name
from bot.sources.names import Address, affinity_name, block_name
from bot.words import Asked
from facts import (
    Allocation,
    Backend,
    Blind,
    CalicoNode,
    CalicoSettings,
    Endpoint,
    Fact,
    GarbageCollector,
    Pool,
    Question,
    ServicePort,
    say,
)

T = TypeVar("T")
Object = dict[str, Any]

CLASSIC = "crd.projectcalico.org/v1"
NATIVE = "projectcalico.org/v3"
KUBE_CONTROLLERS = "calico-kube-controllers"
CALICO_NODE = "k8s-app=calico-node"  # what the operator, the manifests and the chart all call Calico's own pods
EVENTS = 200  # of one pod; the API server keeps them for an hour
SAME_NAME = 20  # pods of one name, or with one address
SHOWN = 6  # candidates in a sentence


_Blocks = dict[str, "asyncio.Future[Object | Blind | None]"]  # blocks of one look, by object name


class _Calico(NamedTuple):
    """What is read once for both sides."""

    settings: CalicoSettings
    auto_allocate: bool
    block_limit: int  # blocks a node may have
    cooldown_s: int  # how long a released address is kept back
    pools: list[tuple[Pool, Object]] | None  # IPv4 pools with their resources; None when they could not be read
    felix: Object  # spec of FelixConfiguration default
    blind: list[Blind]


class _Agents(NamedTuple):
    """What the calico-node pods of the asked nodes say. environments: Felix's settings there, by node."""

    facts: list[Fact]
    environments: dict[str, dict[str, str]]


class _Found(NamedTuple):
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


class _Behind(NamedTuple):
    """What a Service as the target comes down to; of anything else the question's own port, and nothing."""

    protocol: str
    port: int
    service: str = ""  # the one whose nodePort is asked
    ports: Sequence[ServicePort] = ()
    backends: Sequence[Backend] = ()
    found: Sequence[_Found] = ()  # the endpoints whose path is to be judged
    blind: Sequence[Blind] = ()
    family: int = 0  # the only one in which the Service has the asked nodePort


class Cluster:
    """One cluster, looked at with targeted GETs only: nothing is listed whole to find one thing.

    async with Cluster(settings) as cluster:
        facts = await cluster.look(parse(["shop/cart", "shop/db", "5432/tcp"]))
    """

    def __init__(self, settings: Settings, *, timeout_s: float = 5.0) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._connected: Api | None = None
        self._group = ""
        self.name = settings.cluster  # how answers call it

    async def __aenter__(self) -> Cluster:
        self._connected = await Api.connect(
            self._settings.kubeconfig, self._settings.context, timeout_s=self._timeout_s
        )
        self.name = self.name or self._connected.context
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connected:
            await self._connected.close()

    @property
    def api(self) -> Api:
        """Of the entered cluster; `api.calls` counts the requests sent."""
        if self._connected is None:
            raise RuntimeError("the cluster is used outside `async with`")
        return self._connected

    async def look(self, asked: Asked) -> list[Fact]:
        """The question, both endpoints and all that Calico says about them and their nodes.

        What could not be read is a `Blind`. Raises UserError when the question falls: no such pod, an ambiguous name,
        an API server that does not answer or does not let this user read pods, no Calico.
        """
        try:
            return await self._look(asked)
        except Unreachable as error:
            raise self.api.unreachable(error) from error

    async def _look(self, asked: Asked) -> list[Fact]:
        group = asyncio.ensure_future(self.group())
        calico = asyncio.ensure_future(self._calico(group))
        try:
            named = await _together(self._resolve(asked.source), self._resolve(asked.target))
            sides = await _together(*(self._by_second_address(one, calico) for one in named))
            source, target = sides
            if source.name == target.name:
                raise UserError(
                    f"Both sides are {source.name}: what it sends to itself never leaves it. Name two different pods."
                )
            behind = await self._behind(source, target, asked)
            sides = list({one.name: one for one in (*sides, *behind.found)}.values())
            blocks: _Blocks = {}
            names = list(dict.fromkeys(one.node for one in sides if one.node))
            # The blocks of the pods are read beside their nodes: the tunnel addresses are in the same ones, mostly.
            *nodes, _, holders, agents = await _together(
                *(self._node(one, group, calico) for one in names),
                self._allocations([to for one in sides if one.routed for to in one.addresses], calico, blocks),
                self._holders([one.addresses for one in sides if one.kind == "pod" and one.routed]),
                self._calico_pods(names),
            )
            common = await calico
        finally:
            for task in (calico, group):
                task.cancel()
            await asyncio.gather(calico, group, return_exceptions=True)

        known = [
            upkeep.as_told(node, agents.environments.get(node.name, {})) for found, _, _ in nodes for node in found
        ]
        prefixes = {node.name: node.interface_prefix for node in known}
        endpoints = [_endpoint(one, prefixes) for one in sides]
        addresses = [to for one in sides if one.routed for to in one.addresses]
        senders = {one.node for one in sides if not one.routed}  # nodes that send under an address of their tunnel's
        addresses += [node.tunnel_address for node in known]
        addresses += [
            one for node in known if node.name in senders for one in (node.ipip_address, node.wireguard_address)
        ]
        waiting = {one.node: one for one in endpoints if _waits_for_address(one) and one.node in prefixes}
        resources = {found[0].name: resource for found, resource, _ in nodes if found}
        allocated, *used = await _together(
            self._allocations(addresses, calico, blocks),
            *(self._usage(resources[node], _namespaces(endpoints, node), common) for node in waiting),
        )
        claims = await self._claims(known, allocated, common) if len(prefixes) > 1 else []
        placed = [_placed_in_pools(one, common.pools) for one in endpoints]
        facts: list[Fact] = [
            Question(
                source=source.name,
                target=target.name,
                protocol=behind.protocol,
                port=behind.port,
                family=_family(asked.source) or _family(asked.target) or behind.family,
                service=behind.service,
            ),
            *placed,
            *behind.ports,
            *(_looked_up(one, placed, common.pools) for one in behind.backends),
            common.settings,
            *(_with_tunnel_block(node, allocated) for node in known),
            *(pool for pool, _ in common.pools or ()),
            *allocated,
            *(fact for found in used for fact in found),
            *claims,
            *holders,
            *agents.facts,
            *(blind for one in sides for blind in one.blind),
            *behind.blind,
            *common.blind,
            *(blind for _, _, blinds in nodes for blind in blinds),
        ]
        return list(dict.fromkeys(facts))

    # -- which store, and what holds for all ------------------------------------------------------------------------

    async def group(self) -> str:
        """The API group Calico keeps its objects in, by Calico's own rule; remembered. Raises UserError when none."""
        if self._settings.api_group:
            if self._settings.api_group not in (CLASSIC, NATIVE):
                raise UserError(
                    f"CALICO_API_GROUP is {self._settings.api_group!r}; Calico knows {CLASSIC} and {NATIVE}."
                )
            return self._settings.api_group
        if not self._group:
            try:
                self._group = await self._discover()
            except (Missing, Refused):
                return CLASSIC  # discovery is closed to this user; the looks that follow say what they met themselves
            except Unreachable as error:
                raise self.api.unreachable(error) from error
        return self._group

    async def _discover(self) -> str:
        served = {one.get("name") for one in (await self.api.get("/apis")).get("groups") or ()}
        if CLASSIC.split("/")[0] in served:
            return CLASSIC
        if NATIVE.split("/")[0] in served:
            return NATIVE
        raise UserError(
            f"{self.name} is not a Calico cluster: its API server {self.api.server} serves neither {CLASSIC} nor "
            f"{NATIVE}. Check that KUBECONFIG points to the cluster you mean. "
            "A Calico that keeps its objects in an etcd of its own cannot be asked about.",
            status=COULD_NOT_JUDGE,
        )

    async def _calico(self, group: Awaitable[str]) -> _Calico:
        """ClusterInformation, IPAM configuration, cluster-wide FelixConfiguration and the pools."""
        base = f"/apis/{await group}"
        config = "ipamconfigs" if base.endswith(CLASSIC) else "ipamconfigurations"
        blind: list[Blind] = []
        information, configuration, felix, pools = await _together(
            self._optional(f"{base}/clusterinformations/default", "clusterinformations", blind),
            self._optional(f"{base}/{config}/default", config, blind),
            self._optional(f"{base}/felixconfigurations/default", "felixconfigurations", blind),
            self._list(f"{base}/ippools", "ippools", blind),
        )
        about, limits = _spec(information), _spec(configuration)
        version = str(about.get("calicoVersion") or "")
        bgp: Object | None = None
        if any("Always" != _spec(one).get("vxlanMode") != "CrossSubnet" for one in pools or ()):
            hidden = list[Blind]()
            resource = await self._optional(f"{base}/bgpconfigurations/default", "bgpconfigurations", hidden)
            bgp = None if hidden else _spec(resource)
            blind += [msgspec.structs.replace(one, minor=True) for one in hidden]
        return _Calico(
            settings=CalicoSettings(
                version=version,
                group=base.removeprefix("/apis/"),
                datastore_ready=bool(about.get("datastoreReady", True)),
                strict_affinity=bool(limits.get("strictAffinity")),
                dataplane=upkeep.dataplane(version, _spec(felix)),
                **upkeep.routes(version, _spec(felix), bgp),
            ),
            auto_allocate=bool(limits.get("autoAllocateBlocks", True)),
            block_limit=int(limits.get("maxBlocksPerHost") or ipam.BLOCKS_PER_NODE),
            cooldown_s=int(limits.get("ipCooldownSeconds") or 0),
            pools=None if pools is None else [(pool, one) for one in pools if (pool := describe.pool(one))],
            felix=_spec(felix),
            blind=blind,
        )

    async def _node(
        self, node: str, group: Awaitable[str], calico: Awaitable[_Calico]
    ) -> tuple[list[CalicoNode], Object, list[Blind]]:
        """The node as Calico's annotations have it, with its resource; empty when it cannot be read or is gone."""
        blind: list[Blind] = []
        base = f"/apis/{await group}"
        resource, overrides = await _together(
            self._optional(f"/api/v1/nodes/{name(node)}", "nodes", blind, node=node),
            self._optional(f"{base}/felixconfigurations/node.{name(node)}", "felixconfigurations", blind, node=node),
        )
        common = await calico
        if resource is None:
            if not any(one.look == "nodes" for one in blind):
                missing = say("there is no node {node} in the API", node=node)
                blind.append(Blind(node=node, look="nodes", reason=missing))
            return [], {}, blind
        felix = {**common.felix, **_spec(overrides)}
        found = describe.calico_nodes(resource, common.pools, felix)
        if any(one.look == "felixconfigurations" for one in (*common.blind, *blind)):
            found = [msgspec.structs.replace(one, settings_read=False) for one in found]
        return found, resource, blind

    # -- what a word stands for -------------------------------------------------------------------------------------

    async def _resolve(self, word: str) -> _Found:
        if _is_address(word):
            return await self._resolve_address(word)
        namespace, slash, short = word.rpartition("/")
        if slash:
            return await self._resolve_qualified(namespace, short)
        return await self._resolve_short(short)

    async def _resolve_qualified(self, namespace: str, short: str) -> _Found:
        pod = await self._pod(namespace, short)
        if pod:
            return await self._found_pod(pod)
        hidden: list[Blind] = []
        path = f"/api/v1/namespaces/{name(namespace)}/services/{name(short)}"
        service = await self._optional(path, "services", hidden)
        if service:
            return _found_service(service)
        raise _may_be(f"{namespace}/{short}", hidden) or await self._no_such_pod(namespace, short)

    async def _resolve_short(self, short: str) -> _Found:
        """A pod of the context's namespace, else the only pod of that name, else a node, else the only such service."""
        pod = await self._pod(self.api.namespace, short)
        if pod:
            return await self._found_pod(pod)
        selector: dict[str, str | int] = {"fieldSelector": f"metadata.name={short}", "limit": SAME_NAME}
        hidden: list[Blind] = []
        pods, node, services = await _together(
            self._pods("/api/v1/pods", **selector),
            self._optional(f"/api/v1/nodes/{name(short)}", "nodes", hidden),
            self._list("/api/v1/services", "services", hidden, **selector),
        )
        for candidates, found in ((pods, self._found_pod), (services or [], _found_service_later)):
            if len(candidates) > 1:
                raise _ambiguous(short, candidates)
            if candidates:
                return await found(candidates[0])
        if node:
            return _Found("node", short, short, _internal_addresses(node), node)
        raise _may_be(short, hidden) or await self._no_such_pod(self.api.namespace, short, anywhere=True)

    async def _resolve_address(self, address: str) -> _Found:
        """The pod that has the address now, the node whose own address it is, the service, or the bare address."""
        pods = await self._pods("/api/v1/pods", fieldSelector=f"status.podIP={address}", limit=SAME_NAME)
        living = [pod for pod in pods if not describe.finished(pod)]
        own = [pod for pod in living if not (pod.get("spec") or {}).get("hostNetwork")]
        if own:
            running = [pod for pod in own if (pod.get("status") or {}).get("phase") == "Running"] or own
            return await self._found_pod(max(running, key=lambda pod: str(pod["metadata"].get("creationTimestamp"))))
        if living:
            node = str(living[0]["spec"].get("nodeName") or "")
            return _Found("node", node, node, (address,), {})
        hidden: list[Blind] = []
        services = await self._list(
            "/api/v1/services", "services", hidden, fieldSelector=f"spec.clusterIP={address}", limit=2
        )
        if services and len(services) == 1 and (services[0].get("spec") or {}).get("clusterIP") == address:
            return _found_service(services[0])
        return _Found("address", address, "", (address,), {}, blind=hidden)

    async def _by_second_address(self, found: _Found, calico: Awaitable[_Calico]) -> _Found:
        """The pod that has this address beside its first one, or the node; the API finds neither by that.

        IPAM names the pod, which must say itself that it has the address. Nodes are few enough to read one page of. An
        IPv4 address is looked for only where a pool has it: a pod's whose first one is of IPv6.
        """
        if found.kind != "address":
            return found
        asked = ipaddress.ip_address(found.name)
        pools = [] if asked.version == 6 else [pool for pool, _ in (await calico).pools or ()]
        if asked.version == 4 and ipam.pool_of(asked, pools) is None:
            return found
        address = str(asked)
        for one in await self._allocations([address], calico, {}):
            if isinstance(one, Allocation) and one.owner_kind == "pod" and one.owner:
                namespace, _, short = one.owner.partition("/")
                pod = await self._pod(namespace, short)
                if pod and not describe.finished(pod) and address in describe.addresses(pod):
                    return await self._found_pod(pod)
        if asked.version == 4:
            return found
        nodes = await self._list("/api/v1/nodes", "nodes", [], limit=PAGE)
        for node in nodes or ():
            calico_s = [one.address for one in describe.calico_nodes(node, None, {})]
            if address in (*calico_s, *_internal_addresses(node)):
                own = str(node["metadata"]["name"])
                return _Found("node", own, own, (address,), node)
        for service in await self._list("/api/v1/services", "services", [], limit=PAGE) or ():
            if address in _found_service(service).addresses:
                return _found_service(service)
        return found

    # -- what stands behind a Service -------------------------------------------------------------------------------

    async def _behind(self, source: _Found, target: _Found, asked: Asked) -> _Behind:
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
            every = await self._everything("/api/v1/services", "services", blind)
            protocol, port = asked.protocol, asked.port
            listening = next((one for one in every or () if services.has_node_port(one, protocol, port)), None)
            if every is None:  # nobody needs to listen on a Service's port, so it is not to be asked who does
                return _Behind("", 0, blind=blind)
            if listening is None:
                return _Behind(protocol, port)
            service = listening
            held = {family: describe.of_family(target.addresses, family) for family in (4, 6)}
            entry = {family: address for family, address in held.items() if address}
            inside = source.node == target.node  # what is on the node itself is served as from inside
            client = services.Client(target.name, target.node, entry=entry, inside=inside)
        else:
            return _Behind(asked.protocol, asked.port)
        service_name = describe.pod_name(service)
        namespace, _, short = service_name.partition("/")
        slices = await self._list(
            f"/apis/discovery.k8s.io/v1/namespaces/{name(namespace)}/endpointslices",
            "endpointslices",
            blind,
            labelSelector=f"kubernetes.io/service-name={short}",
        )
        zone = ""
        if client.node and services.has_hints(slices or ()):
            node = await self._optional(f"/api/v1/nodes/{name(client.node)}", "nodes", blind, node=client.node)
            zone = str(_labels(node or {}).get("topology.kubernetes.io/zone") or "")
        client = client._replace(zone=zone, family=_family(asked.source) or _family(asked.target))
        ports, backends = services.read(service, slices, protocol, port, client)
        chosen = services.to_look_at(backends, client.sender)
        looked = await _together(*(self._backend(one) for one in chosen))
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
        return _Behind(
            protocol,
            port,
            by_node_port,
            ports,
            [known.get(one, one) for one in backends],
            found,
            blind,
            families.pop() if len(families) == 1 else 0,
        )

    async def _backend(self, backend: Backend) -> tuple[Backend, _Found | None]:
        """The endpoint with the name of what has its address now, and that; a pod of its slice that has it not is
        stale."""
        now = ""
        if backend.pod:
            namespace, _, short = backend.pod.partition("/")
            pod = await self._pod(namespace, short)
            living = describe.addresses(pod) if pod and not describe.finished(pod) else ()
            now = describe.of_family(living, backend.family)
            if pod and backend.address in living:
                return _named(backend, await self._found_pod(pod))
        found = await self._resolve_address(backend.address)
        if found.kind in ("pod", "node") or (found.kind == "address" and not backend.pod):
            return _named(backend, found)
        return msgspec.structs.replace(backend, stale=bool(backend.pod), has_now=now), None

    async def _found_pod(self, pod: Object) -> _Found:
        node = str((pod.get("spec") or {}).get("nodeName") or "")
        blind: list[Blind] = []
        events = await self._events(pod, blind) if describe.waits(pod) else []
        return _Found("pod", describe.pod_name(pod), node, describe.addresses(pod), pod, events, blind)

    async def _events(self, pod: Object, blind: list[Blind]) -> list[Object]:
        meta = pod["metadata"]
        selector = f"involvedObject.name={meta['name']},involvedObject.uid={meta.get('uid', '')}"
        path = f"/api/v1/namespaces/{name(meta['namespace'])}/events"
        return await self._list(path, "events", blind, fieldSelector=selector, limit=EVENTS) or []

    async def _pod(self, namespace: str, short: str) -> Object | None:
        try:
            return await self.api.get(f"/api/v1/namespaces/{name(namespace)}/pods/{name(short)}")
        except Missing:
            return None
        except Refused as error:
            raise _may_not_read_pods(error) from error

    async def _pods(self, path: str, **query: str | int) -> list[Object]:
        """One page of pods."""
        try:
            return list((await self.api.get(path, **query)).get("items") or ())
        except Refused as error:
            raise _may_not_read_pods(error) from error

    async def _no_such_pod(self, namespace: str, short: str, *, anywhere: bool = False) -> UserError:
        """What there is instead. One page of one namespace is read for it, never more."""
        word = short if anywhere else f"{namespace}/{short}"
        pods = await self._pods(f"/api/v1/namespaces/{name(namespace)}/pods", limit=PAGE)
        if not pods and not anywhere:
            found: list[Blind] = []
            exists = await self._optional(f"/api/v1/namespaces/{name(namespace)}", "namespaces", found)
            if exists is None and not found:
                return UserError(f"{word} does not exist: there is no namespace {namespace}.", word=word)
        similar = [pod for pod in pods if pod["metadata"]["name"].startswith(short)]
        text = "pods of that name"
        if not similar:
            near = difflib.get_close_matches(short, [pod["metadata"]["name"] for pod in pods], n=3)
            similar, text = [pod for pod in pods if pod["metadata"]["name"] in near], f"similar names in {namespace}"
        kinds = f"a pod, node or service called {short}" if anywhere else "a pod or service"
        if not similar:
            return UserError(
                f"{word} does not exist: nothing is known as {kinds}, and no name in {namespace} is like it. "
                f"List them with: kubectl get pods -n {namespace}",
                word=word,
            )
        more = f" and {len(similar) - SHOWN} more" if len(similar) > SHOWN else ""
        return UserError(
            f"{word} does not exist; {text}: {', '.join(_placed(pod) for pod in similar[:SHOWN])}{more}.",
            word=word,
            choices=[describe.pod_name(pod) for pod in similar[:SHOWN]],
        )

    # -- addresses --------------------------------------------------------------------------------------------------

    async def _allocations(self, addresses: Sequence[str], calico: Awaitable[_Calico], known: _Blocks) -> list[Fact]:
        """What the blocks say about each of the addresses; those that are none are passed over."""
        common = await calico
        unique = [one for one in dict.fromkeys(addresses) if _is_address(one)]
        found = await _together(*(self._allocation(one, common, known) for one in unique))
        return [fact for facts in found for fact in facts]

    async def _allocation(self, address: str, calico: _Calico, known: _Blocks) -> list[Fact]:
        """What the block that contains the address says about it. The block is found by name: nothing is listed."""
        ip = ipaddress.ip_address(address)
        pools = [pool for pool, _ in calico.pools or ()]
        for networks in ipam.candidates(ip, pools):
            answers = await _together(*(self._block(block_name(one), calico.settings.group, known) for one in networks))
            if unread := [one for one in answers if isinstance(one, Blind)]:
                return [unread[0]]
            living = [spec for spec in answers if spec and not spec.get("deleted")]
            if living:
                return [self._judged(ip, living[0], calico.pools)]
        return [self._judged(ip, None, calico.pools)]

    async def _block(self, block: str, group: str, known: _Blocks) -> Object | Blind | None:
        """Spec of a block, read once for all the addresses in it; None when there is none."""
        if block not in known:
            known[block] = asyncio.ensure_future(self._read_block(block, group))
        return await known[block]

    async def _read_block(self, block: str, group: str) -> Object | Blind | None:
        blind: list[Blind] = []
        found = await self._optional(f"/apis/{group}/ipamblocks/{block}", "ipamblocks", blind)
        return blind[0] if blind else _spec(found) or None

    @staticmethod
    def _judged(ip: Address, spec: Object | None, pools: list[tuple[Pool, Object]] | None) -> Allocation:
        found = ipam.allocation(ip, spec, ipam.pool_of(ip, [pool for pool, _ in pools or ()]))
        return msgspec.structs.replace(found, pools_read=pools is not None)

    async def _usage(self, node: Object, namespaces: Sequence[str], calico: _Calico) -> list[Fact]:
        """How full the pools are that a waiting pod on this node could get its address from."""
        base, blind = f"/apis/{calico.settings.group}", list[Blind]()
        blocks, reservations, nodes, labels = await _together(
            self._everything(f"{base}/ipamblocks", "ipamblocks", blind),
            self._everything(f"{base}/ipreservations", "ipreservations", blind),
            self._count_nodes(),
            self._namespace_labels(namespaces, calico, blind),
        )
        # Half of what decides says nothing: a pool with a limit nobody could read looks like one with room.
        unread = [one for one in calico.blind if one.look.startswith("ipamconfig")]
        if blocks is None or calico.pools is None or blind or unread:
            return list(blind)
        reserved = ipam.reservations(reservations or ())
        chosen = [pool for pool, one in calico.pools if not ipam.refusal(pool, one, node, labels)]
        usable = [
            ipam.usage(
                pool,
                node["metadata"]["name"],
                [_spec(block) for block in blocks],
                reserved,
                among=[one for one in chosen if (":" in one.cidr) == (":" in pool.cidr)],
                nodes=nodes,
                version=calico.settings.version,
                strict_affinity=calico.settings.strict_affinity,
                auto_allocate=calico.auto_allocate,
                block_limit=calico.block_limit,
                cooldown_s=calico.cooldown_s,
            )
            for pool in chosen
        ]
        if not usable:
            strict = calico.settings.strict_affinity
            usable = [ipam.no_pool(node["metadata"]["name"], nodes=nodes, strict_affinity=strict)]
        told = ipam.together(usable)
        full = [
            pool
            for pool, _ in calico.pools
            if any(one.pool == pool.name and one.exhausted and not one.other_pool for one in told)
        ]
        leaks = await self._leaks(node["metadata"]["name"], full, blocks, calico) if full else []
        return [*told, *leaks]

    async def _namespace_labels(self, namespaces: Sequence[str], calico: _Calico, blind: list[Blind]) -> list[Object]:
        """The namespaces, read only when a pool chooses by them."""
        if not any(_spec(one).get("namespaceSelector") for _, one in calico.pools or ()):
            return []
        found = await _together(
            *(
                self._optional(f"/api/v1/namespaces/{name(one)}", "namespaces", blind)
                for one in dict.fromkeys(namespaces)
            )
        )
        return [one for one in found if one]

    async def _count_nodes(self) -> int:
        """Nodes of the cluster, from a list of one that says how many it left out; -1 when it cannot be known."""
        try:
            answer = await self.api.get("/api/v1/nodes", limit=1)
        except (Missing, Refused, Unreachable):
            return -1
        meta: Object = answer.get("metadata") or {}
        if meta.get("continue") and "remainingItemCount" not in meta:
            return -1
        return len(answer.get("items") or ()) + int(meta.get("remainingItemCount") or 0)

    # -- pods beside the asked ones ---------------------------------------------------------------------------------

    async def _holders(self, pods: Sequence[Sequence[str]]) -> list[Fact]:
        """Who has each of these pods' addresses now.

        The API finds pods by their first address only. That finds the other ones' as well: who took one address twice
        took the whole pod's.
        """
        blind: list[Blind] = []
        unique = list(dict.fromkeys(addresses[0] for addresses in pods))
        found = await _together(
            *(
                self._list("/api/v1/pods", "pods", blind, fieldSelector=f"status.podIP={one}", limit=SAME_NAME)
                for one in unique
            )
        )
        listed = dict(zip(unique, found, strict=True))
        holders = [
            describe.address_holders(one, listed[addresses[0]] or ())
            for addresses in pods
            for one in addresses
            if listed[addresses[0]] is not None
        ]
        return [*holders, *blind]

    async def _calico_pods(self, nodes: Sequence[str]) -> _Agents:
        """The calico-node pod of each node; nothing where Calico runs in another way."""
        blind: list[Blind] = []
        found = await _together(
            *(
                self._list(
                    "/api/v1/pods",
                    "calico-node pods",
                    blind,
                    labelSelector=CALICO_NODE,
                    fieldSelector=f"spec.nodeName={node}",
                    limit=SAME_NAME,
                )
                for node in nodes
            )
        )
        told: list[Fact] = [describe.calico_pod(node, pods) for node, pods in zip(nodes, found, strict=True) if pods]
        told += await self.typha(next((pods[0] for pods in found if pods), {}), blind)
        lacking = [node for node, pods in zip(nodes, found, strict=True) if pods == []]
        # A node without one is news only where other nodes have one.
        if lacking and (
            told or await self._list("/api/v1/pods", "calico-node pods", blind, labelSelector=CALICO_NODE, limit=1)
        ):
            told += [describe.calico_pod(node, ()) for node in lacking]
        told += (msgspec.structs.replace(one, minor=True) for one in blind)
        return _Agents(told, {node: upkeep.environment(pods) for node, pods in zip(nodes, found, strict=True) if pods})

    async def typha(self, agent: Object, blind: list[Blind]) -> list[Fact]:
        """What stands behind the Service by which a calico-node pod is told to find Typha, if it is told of one."""
        setting = upkeep.typha_setting(agent)
        namespace = str((agent.get("metadata") or {}).get("namespace", ""))
        service = setting.service
        if setting.config_map:
            path = f"/api/v1/namespaces/{name(namespace)}/configmaps/{name(setting.config_map)}"
            found = await self._optional(path, "configmaps", blind)
            service = str(((found or {}).get("data") or {}).get(setting.key) or "")
        if service in ("", "none"):
            return []
        slices = await self._list(
            f"/apis/discovery.k8s.io/v1/namespaces/{name(namespace)}/endpointslices",
            "endpointslices",
            blind,
            labelSelector=f"kubernetes.io/service-name={service}",
        )
        return [] if slices is None else [upkeep.typha(f"{namespace}/{service}", slices)]

    async def _leaks(self, node: str, full: Sequence[Pool], blocks: Sequence[Object], calico: _Calico) -> list[Fact]:
        """Addresses of full pools that belong to nobody any more, and who should free them."""
        base, blind = f"/apis/{calico.settings.group}", list[Blind]()
        pods, nodes = await _together(
            self._everything("/api/v1/pods", "pods", blind), self._everything("/api/v1/nodes", "nodes", blind)
        )
        again = await self._everything(f"{base}/ipamblocks", "ipamblocks", blind)
        found: list[Fact] = [msgspec.structs.replace(one, minor=True) for one in blind]
        if pods is None or nodes is None or again is None:
            return found
        before, after, now = [_spec(one) for one in blocks], [_spec(one) for one in again], datetime.now(UTC)
        leaks = [upkeep.leaked(pool, node, before, after, pods, nodes, now=now) for pool in full]
        if not any(one.count for one in leaks):
            return [*found, *leaks]
        about = await self._garbage_collector(pods, base)
        grace_s = next((one.grace_s for one in about if isinstance(one, GarbageCollector)), 0)
        return [*found, *(msgspec.structs.replace(one, grace_s=grace_s or one.grace_s) for one in leaks), *about]

    async def _garbage_collector(self, pods: Sequence[Object], base: str) -> list[Fact]:
        blind: list[Blind] = []
        collectors = [pod for pod in pods if _labels(pod).get("k8s-app") == KUBE_CONTROLLERS]
        agents = [pod for pod in pods if _labels(pod).get("k8s-app") == CALICO_NODE.partition("=")[2]]
        namespace = next((str(pod["metadata"].get("namespace", "")) for pod in (*collectors, *agents)), "")
        daemon_set, configuration = await _together(
            self._daemon_set(namespace, blind),
            self._optional(f"{base}/kubecontrollersconfigurations/default", "kubecontrollersconfigurations", blind),
        )
        found = upkeep.garbage_collector(collectors, daemon_set, _spec(configuration))
        return [found, *(msgspec.structs.replace(one, minor=True) for one in blind)]

    async def _daemon_set(self, namespace: str, blind: list[Blind]) -> Object | None:
        """Of calico-node; None where no pod tells in which namespace it would be."""
        if not namespace:
            return None
        path = f"/apis/apps/v1/namespaces/{name(namespace)}/daemonsets/calico-node"
        return await self._optional(path, "daemonsets", blind)

    async def _claims(self, nodes: Sequence[CalicoNode], allocated: Sequence[Fact], calico: _Calico) -> list[Fact]:
        """Who claims the blocks of the asked pods beside their owners.

        Each of the asked nodes is looked at; where BIRD writes the routes, where a claim does harm, all claims are.
        """
        base, blind = f"/apis/{calico.settings.group}", list[Blind]()
        blocks = {one.block: one for one in allocated if isinstance(one, Allocation) and one.block and one.block_node}
        owners = {block: one.block_node for block, one in blocks.items()}
        names = dict.fromkeys(node.name for node in nodes)
        if any(upkeep.by_bird(one, calico.settings) for one in blocks.values()):
            found = await self._everything(f"{base}/blockaffinities", "blockaffinities", blind) or []
        else:
            claimed = [
                affinity_name(node, ipaddress.ip_network(block))
                for block, owner in owners.items()
                for node in names
                if node != owner
            ]
            looked = (
                self._optional(f"{base}/blockaffinities/{name(one)}", "blockaffinities", blind) for one in claimed
            )
            found = [one for one in await _together(*looked) if one]
        return [*upkeep.claims(found, owners), *(msgspec.structs.replace(one, minor=True) for one in blind)]

    # -- one look ---------------------------------------------------------------------------------------------------

    async def _optional(self, path: str, look: str, blind: list[Blind], *, node: str = "") -> Object | None:
        """One object; None when there is none, or (with a Blind added) when it cannot be read."""
        try:
            return await self.api.get(path)
        except Missing:
            return None
        except (Refused, Unreachable) as error:
            blind.append(Blind(node=node, look=look, reason=error.reason))
            return None

    async def _list(self, path: str, look: str, blind: list[Blind], **query: str | int) -> list[Object] | None:
        """One page of a list; None (with a Blind added) when it cannot be read."""
        try:
            return list((await self.api.get(path, **{"limit": PAGE, **query})).get("items") or ())
        except (Missing, Refused, Unreachable) as error:
            missing = say("the API server has no {look}", look=look)
            blind.append(Blind(look=look, reason=getattr(error, "reason", missing)))
            return None

    async def _everything(self, path: str, look: str, blind: list[Blind]) -> list[Object] | None:
        """A whole list, page by page: only for what must be counted."""
        try:
            return await self.api.pages(path)
        except (Missing, Refused, Unreachable) as error:
            missing = say("the API server has no {look}", look=look)
            blind.append(Blind(look=look, reason=getattr(error, "reason", missing)))
            return None


async def _together(*looks: Coroutine[Any, Any, Any]) -> list[Any]:
    """All at once; the first error ends the others and is raised as itself."""
    tasks = [asyncio.ensure_future(look) for look in looks]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _labels(resource: Object) -> Object:
    return (resource.get("metadata") or {}).get("labels") or {}


def _spec(resource: Object | None) -> Object:
    return dict((resource or {}).get("spec") or {})


def _endpoint(found: _Found, prefixes: Mapping[str, str]) -> Endpoint:
    """prefixes: of the interfaces of pods, by node."""
    if found.kind == "pod":
        return describe.pod_endpoint(found.resource, found.events, interface_prefix=prefixes.get(found.node) or "cali")
    return Endpoint(
        name=found.name,
        kind=found.kind,
        node=found.node,
        address=describe.of_family(found.addresses, 4),
        address6=describe.of_family(found.addresses, 6),
        addresses=tuple(found.addresses),
    )


def _placed_in_pools(endpoint: Endpoint, pools: list[tuple[Pool, Object]] | None) -> Endpoint:
    """An address of a pool that no pod has is nobody's, and not one outside the cluster."""
    if endpoint.kind == "address" and ipam.pool_of(
        ipaddress.ip_address(endpoint.name), [pool for pool, _ in pools or ()]
    ):
        return msgspec.structs.replace(endpoint, kind="nobody")
    return endpoint


def _with_tunnel_block(node: CalicoNode, allocated: Sequence[Fact]) -> CalicoNode:
    blocks = {one.address: one.block for one in allocated if isinstance(one, Allocation)}
    return msgspec.structs.replace(
        node,
        tunnel_block=blocks.get(node.tunnel_address, ""),
        ipip_block=blocks.get(node.ipip_address) or node.ipip_block,
        wireguard_block=blocks.get(node.wireguard_address) or node.wireguard_block,
    )


def _namespaces(endpoints: Sequence[Endpoint], node: str) -> list[str]:
    """Namespaces of the pods that wait for an address on this node."""
    return [one.name.split("/")[0] for one in endpoints if one.node == node and _waits_for_address(one)]


def _waits_for_address(endpoint: Endpoint) -> bool:
    return (
        endpoint.kind == "pod"
        and bool(endpoint.node)
        and not endpoint.addresses
        and not endpoint.host_network
        and endpoint.phase not in describe.FINISHED
        and not endpoint.terminating
    )


def _named(backend: Backend, found: _Found) -> tuple[Backend, _Found]:
    declared = found.kind == "pod" and services.declares(found.resource, backend.protocol, backend.port)
    return msgspec.structs.replace(backend, endpoint=found.name, declared=declared), found


def _looked_up(backend: Backend, endpoints: Sequence[Endpoint], pools: list[tuple[Pool, Object]] | None) -> Backend:
    """An address of a pool that no pod has is no end of a path. One of no pool may be a pod's in a second network, of
    which the API says nothing: whether that is stale nobody can tell."""
    nobody = any(one.name == backend.endpoint and one.kind == "nobody" for one in endpoints)
    ours = ipam.pool_of(ipaddress.ip_address(backend.address), [pool for pool, _ in pools or ()]) is not None
    return msgspec.structs.replace(backend, endpoint="" if nobody else backend.endpoint, stale=backend.stale and ours)


def _found_service(service: Object) -> _Found:
    spec = service.get("spec") or {}
    addresses = [one for one in spec.get("clusterIPs") or (spec.get("clusterIP"),) if one and _is_address(str(one))]
    return _Found("service", describe.pod_name(service), "", addresses, service)


async def _found_service_later(service: Object) -> _Found:
    return _found_service(service)


def _internal_addresses(node: Object) -> tuple[str, ...]:
    known = (node.get("status") or {}).get("addresses") or ()
    return tuple(one["address"] for one in known if one["type"] == "InternalIP" and _is_address(one["address"]))


def _placed(resource: Object) -> str:
    node = (resource.get("spec") or {}).get("nodeName")
    return f"{describe.pod_name(resource)} ({node})" if node else describe.pod_name(resource)


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


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _family(word: str) -> int:
    """4 or 6 for an address, 0 for a name."""
    return ipaddress.ip_address(word).version if _is_address(word) else 0
