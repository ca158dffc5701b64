"""What of allocations, users, handles, affinities and tunnels does not belong together; without it a leaked address and
one of a pod that is just ending would look the same.

Pure over a State. What is no fault is a remark and not counted: calicoctl's false alarms (calico.md 2.5) among them.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

import msgspec

from bot.ipam.state import State
from bot.ipam.tunnels import TUNNELS
from bot.sources import describe, ipam, upkeep
from bot.sources.kubernetes import CLASSIC
from bot.sources.names import Network, seconds
from facts import Blind, GarbageCollector, Leak, Pool, say
from fixes.kinds.release_ip import GRACE_S, NETWORK_STATUS, addresses_in
from fixes.release import WINDOWS_RESERVED, fingerprint, kind_of, wrong
from fixes.resources.form import convert_uid
from fixes.resources.kinds import Object

YOUNG_S = 300  # a pod that is set up or taken down takes no longer (the kubelet gives up after four minutes)
KUBE_CONTROLLERS = "calico-kube-controllers"
NOT_OF_IPAM = "cni.projectcalico.org/ipAddrsNoIpam"  # a pod's own wish for addresses IPAM does not know


class Held(NamedTuple):
    """One allocation. kind: as fixes.release.kind_of; attribute: all of it, with `sequence` and `block`."""

    address: str
    block: str
    affinity: str  # of the block, "host:node-a", "" for none
    kind: str
    attribute: Object

    @property
    def about(self) -> Mapping[str, Any]:
        return self.attribute.get("secondary") or {}

    @property
    def handle(self) -> str:
        return str(self.attribute.get("handle_id") or "").split("\r")[0]

    @property
    def node(self) -> str:
        """Whom it is given to, the block's own node where that is not said."""
        return str(self.about.get("node") or self.affinity.partition(":")[2])

    @property
    def pod(self) -> str:
        return f"{self.about.get('namespace', '')}/{self.about['pod']}" if self.about.get("pod") else ""

    @property
    def attributes(self) -> str:
        """As calicoctl writes them."""
        extra = ",".join(f"{key}={self.about[key]}" for key in sorted(self.about))
        return f"Main:{self.handle or '<none>'} Extra:{extra}"


class User(NamedTuple):
    """Who has an address. label: as calicoctl writes it; kind: pod | node | service; name: namespace/name, or a node's.

    leaving: it ends, or is being made anew, so that no fault of its addresses lasts.
    """

    label: str
    kind: str
    name: str
    leaving: bool = False


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that does not belong together, or a remark.

    kind: leaked | outside_pools | not_allocated | several_owners | held_for_another | leaked_handle | missing_handle |
    handle_counts_less | invalid_block | block_in_no_pool | overlapping_blocks | claimed_by_another |
    affinity_without_block | block_without_affinity | affinity_twice | no_tunnel_address; of remarks passing |
    unjudged | handle_counts_more | affinity_in_passing | node_gone | other_ipam. The rest is "" where it says nothing.
    """

    kind: str
    about: str  # the address, handle, block or node it is about
    text: str  # a line in words, English as calicoctl's
    address: str = ""
    block: str = ""
    handle: str = ""
    sequence: str = ""  # 61 bits, which not every reader of JSON keeps whole
    owner: str = ""  # fixes.release.fingerprint of what IPAM holds it for
    pod: str = ""
    node: str = ""
    since: str = ""  # when it was allocated

    @property
    def key(self) -> tuple[str, ...]:
        """The same for the same thing in another look: given away again it is another one."""
        return (self.kind, self.about, self.block, self.handle, self.sequence, self.owner, self.pod, self.node)


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that was looked at, and what was found. leaks: of pods alone, by address: those may be released."""

    taken: datetime
    group: str  # where Calico keeps its objects
    grace_s: int
    information: Mapping[str, Any]  # spec of ClusterInformation
    revision: str  # its resourceVersion
    blocks: Mapping[str, str]  # CIDR -> affinity, by the names of their objects
    active_pools: Sequence[str]  # CIDRs
    allocations: Mapping[str, Sequence[Held]]
    users: Mapping[str, Sequence[User]]
    tunnels: int  # addresses of nodes' tunnels
    services: int  # load balancers with an address of Calico's
    workloads: int  # addresses of pods
    matched: int  # handles that are in use
    affinities: int
    nodes: int
    tunnel_nodes: int  # nodes that should have tunnel addresses
    handles: Sequence[Object]  # that nothing in a block has
    left_out: Mapping[str, int]  # kind -> allocations nobody is known to use and that are no leak
    problems: Sequence[Problem]
    remarks: Sequence[Problem]
    leaks: Mapping[str, Leak]
    collector: GarbageCollector | None  # who frees leaked addresses by itself; None where that is not known
    blind: Sequence[Blind]

    def uid(self, one: Object) -> str:
        """An object's, as Calico shows it."""
        uid = str(one["metadata"].get("uid") or "")
        return convert_uid(uid) if self.group == CLASSIC else uid

    def of(self, *kinds: str) -> list[Problem]:
        return [one for one in (*self.problems, *self.remarks) if one.kind in kinds]

    @property
    def guid(self) -> str:
        return str(self.information.get("clusterGUID") or "")


def report(state: State) -> Report:
    """Of one moment. What could not be read is in `blind`, and nothing is said that would rest on it."""
    found = _Look(state)
    problems = [*found.leaked(), *found.used(), *found.counted(), *found.shaped(), *found.claimed(), *found.tunnelled()]
    known = state.all("clusterinformations")
    information = known[0] if known else {}
    return Report(
        taken=state.taken,
        group=state.group,
        grace_s=found.grace_s,
        information=information.get("spec") or {},
        revision=str((information.get("metadata") or {}).get("resourceVersion") or ""),
        blocks={str(one["spec"]["cidr"]): str(one["spec"].get("affinity") or "") for one in found.blocks},
        active_pools=[str(one["spec"]["cidr"]) for one in state.all("ippools") if not one["spec"].get("disabled")],
        allocations=found.allocations,
        users=found.users,
        tunnels=sum(one.kind == "node" for some in found.users.values() for one in some),
        services=len({one.name for some in found.users.values() for one in some if one.kind == "service"}),
        workloads=sum(one.kind == "pod" for some in found.users.values() for one in some),
        matched=found.matched,
        affinities=len(state.all("blockaffinities")),
        nodes=len(state.all("nodes")),
        tunnel_nodes=found.tunnel_nodes,
        handles=found.unused_handles,
        left_out=found.left_out,
        problems=problems,
        remarks=found.remarks,
        leaks=found.leaks,
        collector=_collector(state),
        blind=state.blind,
    )


def settled(first: Report, second: Report) -> Report:
    """The second of two looks; problems are those of both: what is just being made or taken down shows in one alone."""
    seen = {one.key for one in first.problems}
    passing = [
        msgspec.structs.replace(one, kind="passing", text=f"{one.text} This was not so a few seconds before.")
        for one in second.problems
        if one.key not in seen
    ]
    lasting = [one for one in second.problems if one.key in seen]
    leaked = {one.address for one in lasting if one.kind == "leaked"}
    return replace(
        second,
        problems=lasting,
        remarks=[*second.remarks, *passing],
        leaks={address: one for address, one in second.leaks.items() if address in leaked},
    )


def grace_s(state: State) -> int:
    """How long kube-controllers look on before they free a leaked address; 15 minutes where they never do."""
    node = (state.spec("kubecontrollersconfigurations").get("controllers") or {}).get("node") or {}
    return seconds(str(node.get("leakGracePeriod") or ""), GRACE_S) or GRACE_S


def _collector(state: State) -> GarbageCollector | None:
    if state.unread("pods"):
        return None
    pods = [
        one for one in state.all("pods") if (one["metadata"].get("labels") or {}).get("k8s-app") == KUBE_CONTROLLERS
    ]
    return upkeep.garbage_collector(pods, None, state.spec("kubecontrollersconfigurations"))


class _Look:
    """The resources of one State, put beside each other."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.grace_s = grace_s(state)
        self.remarks: list[Problem] = []
        self.leaks: dict[str, Leak] = {}
        self.left_out: Counter[str] = Counter()
        self.unused_handles: list[Object] = []
        self.matched = self.tunnel_nodes = 0
        self.sighted = not state.unread("pods") and not state.unread("nodes")
        self.pods = {describe.pod_name(one): one for one in state.all("pods")}
        self.nodes = {str(one["metadata"]["name"]): one for one in state.all("nodes")}
        named = sorted(state.all("ipamblocks"), key=lambda one: str(one["metadata"]["name"]))
        self.blocks = [one for one in named if not one["spec"].get("deleted") and _network(one["spec"].get("cidr"))]
        self.pools = [(pool, one) for one in state.all("ippools") if (pool := describe.pool(one))]
        self.allocations: dict[str, list[Held]] = {}
        for one in self.blocks:
            for held in _held(one["spec"]):
                self.allocations.setdefault(held.address, []).append(held)
        self.users: dict[str, list[User]] = {}
        for address, user in (*self._of_nodes(), *self._of_services(), *self._of_pods()):
            self.users.setdefault(address, []).append(user)
        self.other_ipam = self._other_ipam()

    # -- who has which address --------------------------------------------------------------------------------------

    def _of_nodes(self) -> Iterator[tuple[str, User]]:
        for name, node in self.nodes.items():
            own = {_plain(one) for one in describe.node_addresses(node)[1]}
            for one in TUNNELS:
                address = _plain(_annotations(node).get(one.annotation, ""))
                # A node whose whole traffic WireGuard encrypts has its own address on that device.
                if address and address not in own:
                    yield address, User(f"Node({name})", "node", name)

    def _of_pods(self) -> Iterator[tuple[str, User]]:
        for name, pod in self.pods.items():
            spec: Mapping[str, Any] = pod.get("spec") or {}
            if spec.get("hostNetwork") or not spec.get("nodeName"):
                continue
            namespace, _, short = name.partition("/")
            label = f"Workload({namespace}/{_escaped(spec['nodeName'])}-k8s-{_escaped(short)}-eth0)"
            # CNI empties its annotation when it takes a pod's network down, also to make it anew.
            torn_down = _annotations(pod).get("cni.projectcalico.org/podIP") == ""
            leaving = bool(pod["metadata"].get("deletionTimestamp")) or torn_down
            for address in describe.addresses(pod):
                yield _plain(address) or address, User(label, "pod", name, leaving)

    def _of_services(self) -> Iterator[tuple[str, User]]:
        """Load balancers whose address is of Calico's IPAM: others have their own."""
        for service in self.state.all("services"):
            name = describe.pod_name(service)
            given = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
            for one in given:
                address = _plain(one.get("ip") or "")
                if address in self.allocations:
                    yield address, User(f"Service({name})", "service", name)

    def _other_ipam(self) -> bool:
        """Pods here get their addresses from another IPAM than Calico's: host-local, or that of a cloud."""
        kinds = {one.kind for some in self.allocations.values() for one in some}
        handles = [one for one in self.state.all("ipamhandles") if not _tunnel_of_handle(_handle_id(one))]
        return "pod" not in kinds and "machine" not in kinds and not handles

    # -- allocated, and not in use ----------------------------------------------------------------------------------

    def leaked(self) -> Iterator[Problem]:
        if not self.sighted:
            return
        pods = list(self.pods.values())
        unused = [held for address, some in self.allocations.items() if address not in self.users for held in some]
        of_pods = {held.address: held.attribute for held in unused if held.kind == "pod"}
        elsewhere = {
            str(address)
            for pod in (pods if of_pods else ())
            if not describe.finished(pod)
            for key in NETWORK_STATUS
            if (text := _annotations(pod).get(key))
            for address in addresses_in(text)
        }
        gone = upkeep.forsaken(of_pods, pods, list(self.nodes.values()))
        for held in sorted(unused, key=lambda one: (ip_address(one.address).version, ip_address(one.address))):
            if held.kind == "pod":
                yield from self._of_pod(held, held.address in gone and held.address not in elsewhere)
            elif held.kind == "tunnel":
                if reason := self._no_longer(held):
                    yield _leak(held, f" ({reason})")
            else:
                self.left_out[held.kind] += 1
                if held.kind not in ("windows", "cooldown"):
                    self._remark("unjudged", held.address, f"{held.address} is {self._said(held)}", held)

    def _of_pod(self, held: Held, gone: bool) -> Iterator[Problem]:
        if not gone:
            self.left_out["waiting"] += 1
            return
        age = upkeep.age(held.attribute, self.state.taken)
        if 0 <= age < YOUNG_S:
            self.left_out["young"] += 1
            text = f"{held.address} was allocated {age} s ago to {held.pod}, which is not there: it may just have ended"
            self._remark("passing", held.address, f"{text}.", held)
            return
        self.leaks[held.address] = upkeep.leak(held.address, held.attribute)
        yield _leak(held)

    def _no_longer(self, held: Held) -> str:
        """Why the node has not this address for its tunnel, "" where that is not known."""
        kind, node = tunnel_of(held)
        if not kind or not node:
            return ""
        if node not in self.nodes:
            return f"node {node} is gone"
        annotation = next(one.annotation for one in TUNNELS if one.kind == kind)
        other = _annotations(self.nodes[node]).get(annotation, "")
        return f"{node} says {annotation} is {other}" if other else f"{node} has no annotation {annotation}"

    def _said(self, held: Held) -> str:
        """What is known of an address that has no user and is no leak that anybody here could tell."""
        if held.kind != "service":
            return f"used by nobody known here, and what it is for is not known either; attrs {held.attributes}"
        service = str(held.about.get("service") or "")
        name = service if "/" in service else f"{held.about.get('namespace', '')}/{service}"
        there = any(describe.pod_name(one) == name for one in self.state.all("services"))
        if there or not service or self.state.unread("services"):
            return f"a load balancer's, and its service does not show it; attrs {held.attributes}"
        return f"a load balancer's whose service is gone: kube-controllers give it back; attrs {held.attributes}"

    # -- in use, and not as allocated -------------------------------------------------------------------------------

    def used(self) -> Iterator[Problem]:
        if not self.sighted:
            return
        networks = [ip_network(pool.cidr) for pool, _ in self.pools]
        strangers = 0
        for address, users in self.users.items():
            lasting = [one for one in users if not one.leaving]
            if len({(one.kind, one.name) for one in lasting}) > 1 and not self._one_machine(address, lasting):
                names = ", ".join(one.label for one in lasting)
                yield Problem(
                    kind="several_owners",
                    about=address,
                    address=address,
                    text=f"{address} has multiple owners: {names}",
                    pod=",".join(sorted(one.name for one in lasting)),
                )
            held = [one for one in self.allocations.get(address, ()) if one.kind != "cooldown"]
            if held:
                yield from self._for_another(address, held, lasting)
                continue
            inside = any(ip_address(address) in one for one in networks if one.version == ip_address(address).version)
            for user in lasting:
                if self.other_ipam:
                    strangers += user.kind == "pod"
                elif user.kind == "pod" and (reason := self._not_of_ipam(self.pods[user.name])):
                    text = f"{address} in use by {user.label} is not of Calico's IPAM: {reason}."
                    self.remarks.append(Problem(kind="other_ipam", about=address, text=text, address=address))
                else:
                    yield _unallocated(address, user, inside)
        if strangers:
            text = f"{strangers} pods have addresses Calico's IPAM did not give: it gives none here."
            self.remarks.append(Problem(kind="other_ipam", about="pods", text=text))

    def _not_of_ipam(self, pod: Object) -> str:
        """Why IPAM need not know of the pod's addresses, "" where it should."""
        if _annotations(pod).get(NOT_OF_IPAM):
            return f"the pod asked for it ({NOT_OF_IPAM})"
        node = str(pod["spec"]["nodeName"])
        written = _annotations(self.nodes[node]) if node in self.nodes else {}
        if any(written.get(f"projectcalico.org/IPv{family}Address") for family in (4, 6)):
            return ""
        return f"no Calico runs on {node}"

    def _one_machine(self, address: str, users: Sequence[User]) -> bool:
        """A virtual machine that moves is two pods for a while."""
        pods = [self.pods[one.name] for one in users if one.kind == "pod"]
        return len(pods) == len(users) and bool(describe.address_holders(address, pods).machine)

    def _for_another(self, address: str, held: Sequence[Held], users: Sequence[User]) -> Iterator[Problem]:
        for user in users:
            if any(one.kind not in ("pod", "tunnel", "service") or self._is_of(one, user) for one in held):
                continue
            first = held[0]
            text = f"{address} in use by {user.label} is allocated to somebody else; attrs {first.attributes}"
            yield _problem("held_for_another", address, text, first, pod=user.name)

    def _is_of(self, held: Held, user: User) -> bool:
        if user.kind == "node":
            return held.kind == "tunnel" and tunnel_of(held)[1] == user.name
        if user.kind == "service":
            return held.kind == "service"
        container = _annotations(self.pods[user.name]).get("cni.projectcalico.org/containerID", "")
        return held.kind == "pod" and (held.pod == user.name or (bool(container) and held.handle.endswith(container)))

    # -- handles ----------------------------------------------------------------------------------------------------

    def counted(self) -> Iterator[Problem]:
        if self.state.unread("ipamhandles"):
            return
        held: dict[str, Counter[str]] = {}
        for one in (one for some in self.allocations.values() for one in some):
            if one.handle and one.kind != "cooldown" and one.handle.lower() != WINDOWS_RESERVED:
                held.setdefault(one.handle, Counter())[one.block] += 1
        handles = {_handle_id(one): one for one in self.state.all("ipamhandles") if not _deleted(one["spec"])}
        for name, handle in handles.items():
            if name in held:
                self.matched += 1
                yield from self._counts(name, handle["spec"].get("block") or {}, held[name])
            else:
                self.unused_handles.append(handle)
                yield Problem(
                    kind="leaked_handle", about=name, handle=name, text=f"{name} doesn't have any active IPs."
                )
        for name, blocks in held.items():
            if name not in handles:
                yield Problem(
                    kind="missing_handle",
                    about=name,
                    handle=name,
                    block=",".join(blocks),
                    text=f"{name} is in use in a block but doesn't exist.",
                )

    def _counts(self, name: str, counts: Mapping[str, Any], held: Counter[str]) -> Iterator[Problem]:
        for block in sorted({*counts, *held}):
            said, there = int(counts.get(block) or 0), held[block]
            text = f"{name} counts {said} addresses of block {block}, which holds {there} for it."
            if said > there:
                self.remarks.append(Problem(kind="handle_counts_more", about=name, handle=name, block=block, text=text))
            elif said < there:
                yield Problem(kind="handle_counts_less", about=name, handle=name, block=block, text=text)

    # -- blocks and affinities --------------------------------------------------------------------------------------

    def shaped(self) -> Iterator[Problem]:
        """Whether each block is as a block should be, in a pool, and alone."""
        pools = [ip_network(pool.cidr) for pool, _ in self.pools]
        networks: list[tuple[Network, str]] = []
        for one in self.blocks:
            cidr = str(one["spec"]["cidr"])
            network = ip_network(cidr)
            networks.append((network, cidr))
            if reason := wrong(one["spec"]):
                text = f"IPAMBlock {cidr} is not as a block should be: {reason}."
                yield Problem(kind="invalid_block", about=cidr, block=cidr, text=text)
            taken = sum(index is not None for index in one["spec"].get("allocations") or ())
            if taken and not any(pool.version == network.version and pool.overlaps(network) for pool in pools):
                text = f"IPAMBlock {cidr} has {taken} allocations, and no IP pool contains it."
                yield Problem(kind="block_in_no_pool", about=cidr, block=cidr, text=text)
        networks.sort(key=lambda one: (one[0].version, int(one[0].network_address), one[0].prefixlen))
        for (before, first), (after, second) in itertools.pairwise(networks):
            if before.version == after.version and before.overlaps(after):
                text = f"IPAMBlocks {first} and {second} overlap: one address can be given twice."
                yield Problem(kind="overlapping_blocks", about=second, block=first, text=text)

    def claimed(self) -> Iterator[Problem]:
        if self.state.unread("blockaffinities"):
            return
        affinities = [one["spec"] for one in self.state.all("blockaffinities")]
        blocks = {str(ip_network(one["spec"]["cidr"])): one["spec"] for one in self.blocks}
        owners = {cidr: ipam.node_of(spec) for cidr, spec in blocks.items()}
        lasting, there = list[Object](), Counter[tuple[str, str]]()
        for spec in affinities:
            whose = f"{spec.get('type') or 'host'}:{spec.get('node', '')}"
            cidr, state = str(spec.get("cidr", "")), str(spec.get("state") or "confirmed")
            there[whose, cidr] += 1
            if not whose.startswith("host:"):
                continue  # of kube-controllers alone, which look after it themselves
            if state != "confirmed" or _deleted(spec):
                said = "is being deleted" if _deleted(spec) else f"is {state}"
                text = f"The affinity of {whose} for block {cidr} {said}."
                self.remarks.append(Problem(kind="affinity_in_passing", about=cidr, block=cidr, text=text))
                continue
            lasting.append({"spec": spec})
            if cidr not in blocks:
                text = f"{whose} has an affinity for block {cidr}, which doesn't exist."
                yield Problem(kind="affinity_without_block", about=cidr, block=cidr, node=whose, text=text)
        for claim in upkeep.claims(lasting, owners):
            owner = str(blocks[claim.block].get("affinity") or "<none>")
            text = f"host:{claim.node} has an affinity for block {claim.block}, whose own affinity is {owner}."
            yield Problem(kind="claimed_by_another", about=claim.block, block=claim.block, node=claim.node, text=text)
        for (whose, cidr), count in there.items():
            if count > 1:
                text = f"{whose} has {count} affinities for block {cidr}."
                yield Problem(kind="affinity_twice", about=cidr, block=cidr, node=whose, text=text)
        for cidr, spec in blocks.items():
            affinity = str(spec.get("affinity") or "")
            if affinity.startswith("host:") and (affinity, cidr) not in there:
                text = f"Block {cidr} is of {affinity}, which has no affinity for it: it does not find its own block."
                yield Problem(kind="block_without_affinity", about=cidr, block=cidr, node=affinity, text=text)
        if not self.state.unread("nodes"):
            self._gone_nodes(owners)

    def _gone_nodes(self, owners: Mapping[str, str]) -> None:
        gone = Counter(node for node in owners.values() if node and node not in self.nodes)
        for node, count in gone.items():
            text = f"{count} blocks are of node {node}, which is gone; kube-controllers give back those that are empty."
            self.remarks.append(Problem(kind="node_gone", about=node, node=node, text=text))

    # -- tunnels ----------------------------------------------------------------------------------------------------

    def tunnelled(self) -> Iterator[Problem]:
        """Nodes that should have a tunnel address and have none (calico_truth.md 1.3). calicoctl does not look."""
        if self.state.unread("nodes") or self.other_ipam:
            return
        for name, node in self.nodes.items():
            wanted = [(one, lacking) for one, lacking in self._wanted(node)]
            self.tunnel_nodes += bool(wanted)
            for device, lacking in wanted:
                if lacking:
                    text = f"{name} has no {device} tunnel address, and an IP pool that uses {device} selects it."
                    yield Problem(kind="no_tunnel_address", about=name, node=name, handle=device, text=text)

    def _wanted(self, node: Object) -> Iterator[tuple[str, bool]]:
        """Which tunnels the node should have, and whether its address is lacking."""
        for one in describe.calico_nodes(node, self.pools, {}):
            if not one.address or one.system != "linux":
                continue
            if one.vxlan_expected:
                yield ("VXLAN" if one.family == 4 else "IPv6 VXLAN"), not one.tunnel_address
            if one.family == 4 and any(_by_ipip(pool, resource, node) for pool, resource in self.pools):
                yield "IPIP", not one.ipip_address

    def _remark(self, kind: str, about: str, text: str, held: Held) -> None:
        self.remarks.append(_problem(kind, about, text, held))


def tunnel_of(held: Held) -> tuple[str, str]:
    """The type of a tunnel's allocation and its node; "" for what is not said."""
    kind, node = _tunnel_of_handle(held.handle)
    written = str(held.about.get("type") or "")
    return (written if any(one.kind == written for one in TUNNELS) else kind), str(held.about.get("node") or node)


def _tunnel_of_handle(handle: str) -> tuple[str, str]:
    for one in TUNNELS:
        if handle.startswith(one.handle):
            return one.kind, handle.removeprefix(one.handle)
    return "", ""


def _held(spec: Object) -> Iterator[Held]:
    cidr, affinity = ip_network(spec["cidr"]), str(spec.get("affinity") or "")
    attributes: Sequence[Object] = spec.get("attributes") or ()
    numbers: Mapping[str, Any] = spec.get("sequenceNumberForAllocation") or {}
    for ordinal, index in enumerate(spec.get("allocations") or ()):
        if index is None or ordinal >= cidr.num_addresses:
            continue
        attribute = attributes[index] if 0 <= index < len(attributes) else {}
        more = {"sequence": numbers.get(str(ordinal), 0), "block": spec["cidr"]}
        yield Held(str(cidr[ordinal]), str(spec["cidr"]), affinity, kind_of(attribute, affinity), {**attribute, **more})


def _leak(held: Held, reason: str = "") -> Problem:
    return _problem("leaked", held.address, f"{held.address} leaked; attrs {held.attributes}{reason}", held)


def _problem(kind: str, about: str, text: str, held: Held, *, pod: str = "") -> Problem:
    own = {key: value for key, value in held.attribute.items() if key not in ("sequence", "block")}
    return Problem(
        kind=kind,
        about=about,
        text=text,
        address=held.address,
        block=held.block,
        handle=held.handle,
        sequence=str(held.attribute["sequence"]),
        owner=fingerprint(own),
        pod=pod or held.pod,
        node=held.node,
        since=str(held.about.get("timestamp") or ""),
    )


def _unallocated(address: str, user: User, inside: bool) -> Problem:
    """In calicoctl's words."""
    said = "and in active IPAM pool but has no IPAM allocation." if inside else "is not in any active IP pool."
    return Problem(
        kind="not_allocated" if inside else "outside_pools",
        about=address,
        address=address,
        text=f"{address} in use by {user.label} {said}",
        pod=user.name if user.kind == "pod" else "",
        node=user.name if user.kind == "node" else "",
    )


def _by_ipip(pool: Pool, resource: Object, node: Object) -> bool:
    return (
        not pool.disabled
        and pool.ipip_mode != "Never"
        and describe.allows(resource, "Tunnel")
        and describe.selects(pool.node_selector, node)
    )


def _handle_id(handle: Object) -> str:
    return str(handle["spec"].get("handleID") or handle["metadata"]["name"]).split("\r")[0]


def _deleted(spec: Mapping[str, Any]) -> bool:
    """Of a BlockAffinity it is a string in crd.projectcalico.org (calico.md 1.3)."""
    return str(spec.get("deleted") or "").lower() == "true"


def _annotations(one: Object) -> Mapping[str, str]:
    return one["metadata"].get("annotations") or {}


def _escaped(name: str) -> str:
    return name.replace("-", "--")


def _plain(text: str) -> str:
    """An address as everybody writes it, "" for what is none."""
    try:
        return str(ip_address(str(text)))
    except ValueError:
        return ""


def _network(text: object) -> Network | None:
    try:
        return ip_network(str(text))
    except ValueError:
        return None


def unseen(blind: Iterable[Blind]) -> list[str]:
    """What could not be read, as sentences."""
    return [say("{look} could not be read: {reason}.", look=one.look, reason=one.reason) for one in blind]
