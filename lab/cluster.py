"""API objects, machines, and a Felix for each node between the two; without it the parts would not know each other.

Two threads: the event loop owns the API objects and every listener, one further thread owns all netlink sockets, and
has some write packet filters for it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address, ip_network
from itertools import permutations
from pathlib import Path
from typing import Any, TypeVar

from lab import faults, looping, mesh
from lab.allocator import HANDLE, reconcile_tunnel_addresses, release
from lab.apiserver.store import Event, Store
from lab.errors import LabError
from lab.felix import DEVICE_TICK_S, REFRESH_S, Felix
from lab.firewall import READS as FIREWALL_READS
from lab.firewall import Firewall, Policies, backend, node_state, policies
from lab.intent import Object, Objects, PodRecord, intent
from lab.kernel import DEFAULT, FAMILIES, MAIN, Kernel, Route
from lab.kube_proxy import READS as KUBE_PROXY_READS
from lab.kube_proxy import KubeProxy, ports
from lab.listeners import HEALTH_PORT, Stuck, TcpEcho, UdpEcho, start_felix_health
from lab.objects import ECHO_PORT, EXTRA_PORTS, calico_node_name, handle_of, plural, stored
from lab.sketch import Sketch
from lab.topology import Topology
from lab.variants import Variant

REACTION_S = 0.02  # how long Felix gathers changes before it acts
FELIX_READS = ("nodes", "pods", "ipamblocks", "ippools", "felixconfigurations", "clusterinformations")
KEPT_BY_HEALING = ("calico-why.io",)  # the record of who approved what is not a wound
KEPT_IN = "calico-why"  # nor is what its ConfigMap says: whether fixes are on, and how many an hour
RUNIT = Path("/run/runit")  # the lab's own /run
T = TypeVar("T")
log = logging.getLogger("cluster")


class Cluster:
    """Made and awaited on the event loop. The methods under "for faults" are called from the kernels' thread."""

    def __init__(self, store: Store, variants: Sequence[Variant], sketch: Sketch) -> None:
        self.store = store
        self.variants = variants
        self.sketch = sketch
        self.inflicted: list[dict[str, str]] = []
        self.topology: Topology
        self.families: dict[int, Objects] = {}
        self._felixes: dict[tuple[str, int], Felix] = {}
        self._kube_proxies: dict[tuple[str, int], KubeProxy] = {}
        self._firewalls: dict[tuple[str, int], Firewall] = {}
        self._services: dict[str, list[Object]] = {}  # what kube-proxy reads
        self._policies = Policies()
        self._asleep: set[str] = set()  # nodes whose Felix programs nothing any more
        self._behind: set[str] = set()  # nodes whose kube-proxy does not
        self._kernels = ThreadPoolExecutor(1, thread_name_prefix="kernels")
        self._filters = ThreadPoolExecutor(8, thread_name_prefix="filters")
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._seed: dict[tuple[str, str, str], Object] = {}
        self._echoes: dict[str, list[TcpEcho | UdpEcho | Stuck]] = {}
        self._unready: set[str] = set()  # nodes whose Felix says that it is not ready
        self._loops: list[subprocess.Popen[bytes]] = []  # programs that die and are started again
        self._misplaced: set[str] = set()  # pods whose servers listen elsewhere than on all their addresses
        self._one_at_a_time = asyncio.Lock()
        self._changed = asyncio.Event()
        self._pools_changed = False
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- life

    async def build(self) -> None:
        """Machines for the objects in the store, programmed and answering. Raises OSError."""
        self._seed = dict(self._everything())
        self.families = self._read()
        await self.in_kernel(self._build, self.families)
        for name in self.topology.pods:
            await self.open_listeners(name)
        for node in self.topology.nodes.values():
            listening = await self.in_kernel(
                node.kernel.namespace.socket,
                socket.SOCK_STREAM,
                ("127.0.0.1", int(self.families[4].setting(node.name, "healthPort", HEALTH_PORT))),
            )
            await start_felix_health(listening, partial(self._felix_ready, node.name))
        self.store.subscribe(self._heard)
        self._start(self._react())

    def _felix_ready(self, node: str) -> bool:
        return node not in self._unready

    def _build(self, families: dict[int, Objects]) -> None:
        self.topology = Topology(self.sketch.uplink_mtu, self.sketch.uplink_slaves)
        self.topology.build(families)
        for name, node in self.topology.nodes.items():
            for family in node.interfaces:
                self._felixes[name, family] = Felix(name, node.kernel, family)
                address = str(node.interfaces[family].ip)
                of_iptables = backend(families[family], name)
                self._kube_proxies[name, family] = KubeProxy(node.kernel, family, address, of_iptables)
                self._firewalls[name, family] = Firewall(node.kernel, family, of_iptables)
        self._program(families)
        self._furnish()
        self.topology.remember_switches()

    def _furnish(self) -> None:
        for variant in self.variants:
            variant.machines(self.topology)

    def start_healing(self) -> None:
        """Felix looks again from now on: the device every 10 s, entries and firewalls every 90 s."""
        self._start(self._every(DEVICE_TICK_S, self._felixes, Felix.check_device))
        self._start(self._every(REFRESH_S, self._felixes, Felix.refresh))
        self._start(self._every(REFRESH_S, self._firewalls, Firewall.refresh))

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)

    async def in_kernel(self, act: Callable[..., T], *arguments: Any) -> T:
        """Runs `act` in the thread that owns the netlink sockets."""
        return await self._loop.run_in_executor(self._kernels, act, *arguments)

    # ---- Felix

    def log(self, pod: str) -> str | None:
        """What the Felix of a calico-node pod has said; None for any other pod, in which nothing runs that speaks."""
        for node in self.topology.nodes:
            if calico_node_name(node) == pod:
                lines = [line for (name, _), felix in self._felixes.items() if name == node for line in felix.log]
                return "".join(f"{line}\n" for line in sorted(lines))
        return None

    def _heard(self, event: Event) -> None:
        if event.resource.plural in (*FELIX_READS, *FIREWALL_READS, *KUBE_PROXY_READS):
            self._pools_changed = self._pools_changed or event.resource.plural == "ippools"
            self._changed.set()

    async def _react(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(REACTION_S)
            async with self._one_at_a_time:
                await self._sync()

    async def _sync(self) -> None:
        """The kernels follow the objects."""
        if self._pools_changed:
            self._pools_changed = False
            reconcile_tunnel_addresses(self.store)
        self._changed.clear()
        self.families = self._read()
        try:
            await self.in_kernel(self._program, self.families)
        except (OSError, LookupError, ValueError):  # no schema keeps nonsense out of Calico's objects
            log.exception("Felix could not follow a change")

    def _program(self, families: dict[int, Objects]) -> None:
        for (name, family), felix in self._felixes.items():
            if name in families[family].nodes and name not in self._asleep:
                felix.apply(intent(families[family], name, felix.applied.device, self.sketch.uplink_mtu))
        # Felix puts its jumps before those of kube-proxy.
        for name, family in self._kube_proxies:
            if name not in self._behind:
                self._serve_services(name, family, families, self._services.__getitem__)
        self._at_once(
            partial(firewall.apply, node_state(families, name, family, self._policies))
            for (name, family), firewall in self._firewalls.items()
            if name in families[family].nodes and name not in self._asleep
        )

    def _at_once(self, acts: Iterable[Callable[[], None]]) -> None:
        """Nodes' packet filters, which nobody else writes meanwhile: the kernel waits some ten milliseconds for each
        change, for many at one time. Raises what the first of them raises that fails."""
        for done in [self._filters.submit(act) for act in acts]:
            done.result()

    def _serve_services(
        self, node: str, family: int, families: Mapping[int, Objects], list_of: Callable[[str], list[Object]]
    ) -> None:
        pods = next((str(pool.network) for pool in families[family].pools), "")
        if pods:
            self._kube_proxies[node, family].apply(ports(list_of, node, family), pods)

    async def _every(self, seconds: float, parts: Mapping[tuple[str, int], T], act: Callable[[T], None]) -> None:
        while True:
            await asyncio.sleep(seconds)
            async with self._one_at_a_time:
                for (node, _), part in parts.items():
                    if node in self._asleep:
                        continue
                    try:
                        await self.in_kernel(act, part)
                    except OSError:
                        log.exception("Felix of %s could not look again", node)

    # ---- wounds

    async def inflict(self, name: str, source: str, target: str, where: str = "", family: int = 4) -> dict[str, str]:
        """Wounds one node of the pair. Returns {fault, source, target, where, node}: the pair to ask about afterwards.

        Raises LabError for a fault, pod, place or address family that does not exist.
        """
        fault = faults.load(name)
        where = where or fault.WHERE[0]
        if where not in fault.WHERE:
            raise LabError(f"{name} can only be inflicted on the {' or '.join(fault.WHERE)} side, not on {where!r}.", 2)
        if family not in faults.families(name):
            raise LabError(f"{name} has no IPv{family}: it wounds nothing of that family.", 2)
        wound = self._wound(source, target, where, family)
        async with self._one_at_a_time:
            asked = await self.in_kernel(fault.inflict, self, wound)
            await self._sync()
        told = {"fault": name, "source": source, "target": target, "where": where, "node": wound.node, **(asked or {})}
        self.inflicted.append(told)
        return told

    def _wound(self, source: str, target: str, where: str, family: int) -> faults.Wound:
        for pod in (source, target):
            if pod not in self.topology.pods:
                raise LabError(f"There is no pod {pod} in this lab; it has {', '.join(self.topology.pods)}.", 2)
            if family not in self.topology.pods[pod].addresses:
                raise LabError(f"{pod} has no IPv{family} address; start the lab with --variant dualstack.", 2)
        nodes = {pod: self.topology.pods[pod].record.node for pod in (source, target)}
        pod, other = (source, target) if where == "source" else (target, source)
        others = [name for name in self.topology.nodes if name not in nodes.values()]
        if nodes[pod] == nodes[other]:
            if not others:
                raise LabError("A fault needs a second node; start the lab with --nodes 2.", 2)
            nodes = {pod: nodes[pod], other: others.pop(0)}
        third = others[0] if others else ""
        return faults.Wound(source, target, where, nodes[pod], nodes[other], pod, other, third, family)

    async def heal(self) -> None:
        """Everything as it was when the lab came up, but for the record of fix requests, their switch and limits."""
        async with self._one_at_a_time:
            self._restore_objects()
            self._pools_changed = False
            self._changed.clear()
            self.families = self._read()
            self._asleep.clear()
            self._behind.clear()
            await self.in_kernel(self._restore_kernels, self.families)
            for name in self.topology.pods:
                if name in self._misplaced or not self._echoes.get(name):
                    self._close_listeners(name)
                    await self.open_listeners(name)
            self._misplaced.clear()
            self._unready.clear()
            while self._loops:
                looping.stop(self._loops.pop())
            self.inflicted.clear()

    def _restore_objects(self) -> None:
        now = dict(self._everything())
        # Namespaces last: one takes its objects with it.
        for resource, namespace, name in sorted(now.keys() - self._seed.keys(), key=lambda key: key[0] == "namespaces"):
            self.store.delete(resource, name, namespace or None)
        for key, wanted in self._seed.items():
            if key in now and now[key]["metadata"]["uid"] != wanted["metadata"]["uid"]:  # deleted and made anew since
                self.store.delete(key[0], key[2], key[1] or None)
                del now[key]
            if key not in now:
                fresh = dict(wanted, metadata={k: v for k, v in wanted["metadata"].items() if k != "resourceVersion"})
                self.store.create(fresh)
            else:
                self._put(wanted)

    def _restore_kernels(self, families: dict[int, Objects]) -> None:
        self._at_once(kernel.flush_firewall for kernel in self.topology.kernels())
        self.topology.restore_switches()  # a device without IPv6 takes no address back
        self.topology.restore()
        for kube_proxy in self._kube_proxies.values():
            kube_proxy.forget()
        self._at_once(firewall.flushed for firewall in self._firewalls.values())
        self._program(families)
        for (name, family), felix in self._felixes.items():
            self.topology.remove_foreign_routes(name, felix.applied.routes, family)
            felix.check_device()
            for interface in felix.applied.endpoints:
                felix.set_pod_interface_sysctls(interface)
            felix.refresh()
        self._furnish()
        self.topology.restore_switches()
        for kernel in self.topology.kernels():
            kernel.forget_paths()
            kernel.forget_connections()

    # ---- looking

    async def mesh(self) -> dict[str, Any]:
        """{"pairs": number, "unanswered": [[from, to], ...]} of pings from every pod to every other.

        A pair is two pods that have addresses of one family; it answers when every address does.
        """
        found = await asyncio.gather(*map(self._mesh_of, mesh.PROTOCOLS))
        pairs = {pair for pairs, _ in found for pair in pairs}
        return {"pairs": len(pairs), "unanswered": sorted({pair for _, missing in found for pair in missing})}

    async def _mesh_of(self, family: int) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
        """The pairs that have addresses of a family, and those of them that do not answer."""
        addresses = {name: pod.addresses[family] for name, pod in self.topology.pods.items() if family in pod.addresses}
        sockets = await self.in_kernel(self._ping_sockets, list(addresses), family)
        try:
            return set(permutations(addresses, 2)), await mesh.unanswered(addresses, sockets, family)
        finally:
            for one in sockets.values():
                one.close()

    def _ping_sockets(self, pods: list[str], family: int) -> dict[str, socket.socket]:
        made = {}
        for name in pods:
            with self.topology.pods[name].kernel.namespace.entered():
                made[name] = socket.socket(
                    FAMILIES[family], socket.SOCK_RAW | socket.SOCK_NONBLOCK, mesh.PROTOCOLS[family]
                )
        return made

    def place(self, name: str) -> Kernel:
        """The kernel of a node or of a pod namespace/name. Raises LabError."""
        if name in self.topology.nodes:
            return self.topology.nodes[name].kernel
        if name in self.topology.pods:
            return self.topology.pods[name].kernel
        raise LabError(
            f"There is no node or pod called {name} in this lab; "
            f"it has {', '.join([*self.topology.nodes, *self.topology.pods])}.",
            2,
        )

    # ---- pods' listeners

    async def open_listeners(self, name: str) -> None:
        """TCP and UDP echo inside a pod."""
        everywhere = "::" if 6 in self.topology.pods[name].addresses else "0.0.0.0"
        await self._serve(name, await self.in_kernel(self._bound, name, everywhere))

    def _bound(self, name: str, address: str) -> list[tuple[socket.socket, socket.socket]]:
        """A TCP and a UDP socket for each port the pod serves."""
        namespace = self.topology.pods[name].kernel.namespace
        return [
            (
                namespace.socket(socket.SOCK_STREAM, (address, port)),
                namespace.socket(socket.SOCK_DGRAM, (address, port)),
            )
            for port in (ECHO_PORT, *EXTRA_PORTS.get(name, ()))
        ]

    async def _serve(self, name: str, sockets: list[tuple[socket.socket, socket.socket]]) -> None:
        for stream, datagram in sockets:
            self._echoes.setdefault(name, []).extend([await TcpEcho.start(stream), await UdpEcho.start(datagram)])

    def _close_listeners(self, name: str) -> None:
        for echo in self._echoes.pop(name, []):
            echo.close()

    # ---- for faults

    def kernel(self, node: str) -> Kernel:
        return self.topology.nodes[node].kernel

    def felix(self, node: str, family: int = 4) -> Felix:
        return self._felixes[node, family]

    def firewall(self, node: str, family: int = 4) -> Firewall:
        return self._firewalls[node, family]

    def put_felix_to_sleep(self, node: str) -> None:
        """What it programmed stays, and what changes in the API is not programmed, until the lab is healed."""
        self._asleep.add(node)

    def put_kube_proxy_to_sleep(self, node: str) -> None:
        """It takes up what the API says now, and nothing that comes after, until the lab is healed."""
        for name, family in self._kube_proxies:
            if name == node:
                self._serve_services(node, family, self.families, self.listed)
        self._behind.add(node)

    def pod(self, name: str, family: int = 4) -> PodRecord:
        machine = self.topology.pods[name]
        return replace(machine.record, address=machine.addresses[family])

    def cidr(self, pod: str, family: int = 4) -> str:
        """A pod's address with the length of a single one."""
        return f"{self.pod(pod, family).address}/{32 if family == 4 else 128}"

    def uplink(self, node: str) -> str:
        """The device that leads to the other nodes."""
        return self.topology.nodes[node].uplink

    def node_address(self, node: str, family: int = 4) -> str:
        return self.families[family].nodes[node].address

    def tunnel_address(self, node: str, family: int = 4) -> str:
        return self.families[family].nodes[node].tunnel

    def tunnel_mac(self, node: str, family: int = 4) -> str:
        return self.families[family].nodes[node].mac

    def block(self, node: str, family: int = 4) -> str:
        """CIDR of the first block affine to a node."""
        return next(str(block.network) for block in self.families[family].blocks if block.node == node)

    def route_to(self, node: str, pod: str, family: int = 4) -> Route:
        """By which Felix or BIRD sends from a node to a pod of another: of its block, of its own address, or of all.

        Raises LabError where there is none.
        """
        address = ip_address(self.pod(pod, family).address)
        leading = [
            route
            for route in self.felix(node, family).applied.routes
            if route.kind == "unicast"
            and address in ip_network(route.destination)
            and route.device != self.pod(pod, family).interface
        ]
        if not leading:
            raise LabError(f"{node} has no route to {pod} that leads to another node.", 2)
        return max(leading, key=lambda route: ip_network(route.destination).prefixlen)

    def default_route(self, node: str, family: int = 4) -> Route:
        """The node's own, of its main table."""
        routes = self.kernel(node).routes(family)
        return next(route for route in routes if (route.destination, route.table) == (DEFAULT[family], MAIN))

    def change(self, resource: str, name: str, edit: Callable[[Object], None], namespace: str | None = None) -> Object:
        """Reads an object, lets `edit` change it, writes it back."""

        def act() -> Object:
            found = self.store.get(plural(resource, self.sketch.group), name, namespace)
            edit(found)
            return self._put(found)

        return self._on_loop(act)

    def create(self, entry: Object) -> Object:
        return self._on_loop(lambda: self.store.create(stored(entry, self.sketch.group)))

    def delete(self, resource: str, name: str, namespace: str | None = None) -> None:
        self._on_loop(lambda: self.store.delete(resource, name, namespace))

    def listed(self, resource: str) -> list[Object]:
        return self._on_loop(lambda: self.store.list(resource))

    def get(self, resource: str, name: str, namespace: str | None = None) -> Object:
        return self._on_loop(lambda: self.store.get(resource, name, namespace))

    def close_listeners(self, pod: str) -> None:
        """Nothing listens in this pod any more."""
        self._on_loop(lambda: self._close_listeners(pod))

    def listen_on(self, pod: str, address: str) -> None:
        """This pod's servers listen on one address only."""
        self.close_listeners(pod)
        self._misplaced.add(pod)
        sockets = self._bound(pod, address)
        asyncio.run_coroutine_threadsafe(self._serve(pod, sockets), self._loop).result()

    def hang(self, pod: str) -> None:
        """This pod's servers take no connection any more, and their queues are full."""
        self.close_listeners(pod)
        self._misplaced.add(pod)
        record = self.topology.pods[pod]
        address = next(iter(record.addresses.values()))
        for stream, datagram in self._bound(pod, "::" if 6 in record.addresses else "0.0.0.0"):
            datagram.close()
            self._echoes.setdefault(pod, []).append(Stuck(stream, record.kernel.namespace, address))

    def free_address(self, address: str, container: str) -> None:
        """IPAM forgets a pod's address, as after the CNI plugin's DEL."""
        self._on_loop(lambda: release(self.store, address, handle_of(container)))

    def free_tunnel_address(self, node: str, family: int = 4) -> None:
        """IPAM forgets a node's tunnel address, as after `calicoctl ipam release`; the annotation stays."""
        self._on_loop(lambda: release(self.store, self.tunnel_address(node, family), HANDLE[family].format(node)))

    def demand(self, node: str, device: str, kind: str) -> None:
        """Raises LabError when the node has no such device."""
        if self.kernel(node).link(device) is None:
            raise LabError(f"This fault needs {kind}, and {node} of this lab has no {device}.", 2)

    def crash_loop(self, node: str, part: str) -> None:
        """`calico-node -PART` dies on this node and is started again, until the lab is healed."""
        self._loops.append(looping.start(self.kernel(node).namespace, part, RUNIT))

    def make_felix_unready(self, node: str) -> None:
        """Its readiness fails until the lab is healed."""
        self._unready.add(node)

    def now(self) -> str:
        return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    # ---- the store

    def _on_loop(self, act: Callable[[], T]) -> T:
        if threading.get_ident() == self._loop_thread:
            return act()

        async def run() -> T:
            return act()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def _list(self, resource: str) -> list[Object]:
        return list(self.store.view(self.store.resource(resource)))

    def _read(self) -> dict[int, Objects]:
        self._services = {resource: self._list(resource) for resource in KUBE_PROXY_READS}
        self._policies = policies(self._list, self.sketch.group)
        return {family: Objects.read(self._list, family) for family in FAMILIES}

    def _put(self, entry: Object) -> Object:
        """Writes all of an object, its status too, whatever version it was read at."""
        fresh = dict(entry, metadata={k: v for k, v in entry["metadata"].items() if k != "resourceVersion"})
        written = self.store.update(fresh)
        resource = self.store.registry.by_kind(entry["apiVersion"], entry["kind"])
        if resource is not None and resource.has_status and written.get("status") != entry.get("status"):
            written = self.store.update_status(fresh)
        return written

    def _everything(self) -> list[tuple[tuple[str, str, str], Object]]:
        """((resource, namespace, name), object) of what healing restores."""
        found = []
        for resource in self.store.registry:
            if resource.group in KEPT_BY_HEALING or resource.plural in ("customresourcedefinitions", "leases"):
                continue
            for entry in self.store.view(resource):
                metadata = entry["metadata"]
                namespace = metadata.get("namespace", "")
                if (resource.qualified, namespace) != ("configmaps", KEPT_IN):
                    found.append(((resource.qualified, namespace, metadata["name"]), entry))
        return found
