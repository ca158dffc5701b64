"""Who would get an address next: each node's next pod and its tunnels, why not, and what would help; without it a full
pool, strict affinity and a limit of blocks are one and the same event of the kubelet.

Pure over a State.
"""

from __future__ import annotations

import contextlib
import difflib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_network
from typing import Any, NamedTuple

import msgspec

from bot.errors import COULD_NOT_JUDGE, UserError
from bot.ipam import arithmetic
from bot.ipam.arithmetic import PoolUse, shown
from bot.ipam.state import State
from bot.ipam.tunnels import PREFIX, TUNNELS
from bot.sources import describe, ipam, upkeep
from facts import Pool, PoolUsage, Text, say
from facts.message import listed
from fixes.resources.kinds import Object

DECIDING = ("ipamconfigs", "nodes")  # without these nobody can say who would get an address
NAMED = 5  # nodes, pools and namespaces that are named in a sentence
ASKING = {4: "cni.projectcalico.org/ipv4pools", 6: "cni.projectcalico.org/ipv6pools"}  # of pods and namespaces
MISSING = "missing"
NOT_ASKED = "annotation"  # why a pool is not for pods whose namespace asks for others


class Group(NamedTuple):
    """Namespaces whose pods may use the same pools."""

    names: tuple[str, ...] = ()  # () for all there are
    resource: Object | None = None  # one of them
    asked: Mapping[int, tuple[str, ...]] = {}  # family -> names or CIDRs of the pools they ask for by annotation


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """The next address of one kind that one node asks for."""

    kind: str  # "pod" | "vxlan" | "ipip" | "wireguard"
    how: str  # "own" | "new" | "reclaimed" | "borrowed": how it would get one; "" when it would get none
    why: str  # "" | "no_pool" | "full" | "block_limit" | "auto_allocate" | "strict_affinity" | "windows": why none
    pools: tuple[str, ...]  # that it may use
    refused: dict[str, str] = {}  # pool -> why it is not for this node: a field of its spec
    address: str = ""  # of a tunnel: what the node has now
    held: bool = True  # IPAM holds it for this node
    lender: str = ""  # node whose block it lies in, when that is another one; "nobody" for nobody's


class NodeOutlook(msgspec.Struct, frozen=True, kw_only=True):
    """One node and family, for pods of these namespaces; () for all of them."""

    node: str
    family: int
    namespaces: tuple[str, ...]
    blocks: int  # of the pools its pods may use
    free: int  # addresses in those
    pod: Outlook
    tunnels: tuple[Outlook, ...]


class PoolOutlook(msgspec.Struct, frozen=True, kw_only=True):
    """The runbook's arithmetic for one pool."""

    name: str
    cidr: str
    block_size: int
    disabled: bool
    addresses: int
    in_use: int
    free: int
    cooling: int
    withheld: int  # free, and kept back by IPReservations
    leaked: int  # allocations to pods that are gone, by one look: an upper bound; -1 when pods could not be read
    blocks_possible: int
    blocks_taken: int
    blocks_left: int  # that a node could take
    empty: int  # blocks of nodes without any address in use
    nodes: int  # that may use it
    without_block: tuple[str, ...]  # of those, without a block of it


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, as of one moment."""

    pools: tuple[PoolOutlook, ...]
    nodes: tuple[NodeOutlook, ...]
    help: tuple[Text, ...]
    strict_affinity: bool
    block_limit: int
    cooldown_s: int
    foreign: bool  # pods here have addresses that are not of Calico's IPAM


def explain(found: State, nodes: Sequence[str] = (), namespace: str = "") -> Explanation:
    """Raises UserError for a node or namespace there is not, and where nothing can be said."""
    for plural in DECIDING:
        if found.unread(plural):
            why = next((one.reason for one in found.blind if one.look == plural), "")
            raise UserError(
                f"The {plural} cannot be read ({why}), so nobody can say who would get an address. "
                f"Ask somebody who may list {plural}.",
                status=COULD_NOT_JUDGE,
            )
    every = {str(one["metadata"]["name"]): one for one in found.all("nodes")}
    chosen = [_known(one, every, "node") for one in dict.fromkeys(nodes)] or sorted(every)
    return _Explaining(found, every, namespace).all(chosen)


def _known(word: str, known: Iterable[str], what: str) -> str:
    names = sorted(known)
    if word in names:
        return word
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(names[:NAMED]) or 'none'}."
    raise UserError(f"There is no {what} {word!r}; {hint}")


class _Explaining:
    def __init__(self, found: State, nodes: Mapping[str, Object], namespace: str) -> None:
        self.found = found
        self.nodes = nodes
        self.pools = sorted(
            [(pool, one) for one in found.all("ippools") if (pool := describe.pool(one))], key=lambda one: one[0].name
        )
        reserved = ipam.reservations(found.all("ipreservations"))
        self.specs = arithmetic.blocks_of(found)
        self.blocks = [block for spec in self.specs if (block := ipam.block(spec, reserved))]
        self.rooms = {pool.name: ipam.room(pool, self.blocks, reserved) for pool, _ in self.pools}
        self.limits = ipam.limits(
            found.spec("ipamconfigs"),
            nodes=len(nodes),
            version=str(found.spec("clusterinformations").get("calicoVersion") or ""),
        )
        self.groups = self._groups(namespace)
        self.owned: dict[tuple[str, ...], Counter[str]] = {}
        self.holders = {
            str(ip_network(spec["cidr"])[ordinal]): (attribute, ipam.node_of(spec))
            for spec in self.specs
            for ordinal, attribute in ipam.held(spec)
            if (attribute.get("secondary") or {}).get("type")
        }

    def _groups(self, namespace: str) -> list[Group]:
        """Of all namespaces, or of this one."""
        selectors = [
            text for _, one in self.pools if (text := str((one.get("spec") or {}).get("namespaceSelector") or ""))
        ]
        known = {str(one["metadata"]["name"]): one for one in self.found.all("namespaces")}
        chosen = [_known(namespace, known, "namespace")] if namespace else sorted(known)
        groups: dict[tuple[Any, ...], list[str]] = {}
        for name in chosen:
            asked = tuple(sorted(_asked_pools(known[name]).items()))
            matched = tuple(describe.selects(selector, known[name]) for selector in selectors)
            groups.setdefault((matched, asked), []).append(name)
        if not namespace and len(groups) < 2 and not selectors and not any(asked for _, asked in groups):
            return [Group()]
        return [Group(tuple(names), known[names[0]], dict(asked)) for (_, asked), names in groups.items()] or [Group()]

    def all(self, chosen: Sequence[str]) -> Explanation:
        outlooks = [
            outlook
            for family in (4, 6)
            if any(ip_network(pool.cidr).version == family for pool, _ in self.pools)
            for group in self.groups
            for name in chosen
            for outlook in [self._node(self.nodes[name], family, group)]
        ]
        pools = tuple(self._pool(pool, one) for pool, one in _with_use(self.found, self.pools))
        return Explanation(
            pools=pools,
            nodes=tuple(outlooks),
            help=tuple(_help(pools, outlooks, self.limits, self.rooms)),
            strict_affinity=self.limits.strict_affinity,
            block_limit=self.limits.block_limit,
            cooldown_s=self.limits.cooldown_s,
            foreign=self._foreign(),
        )

    def _foreign(self) -> bool:
        """Pods have addresses, and none of them is in a block: host-local IPAM, or that of a cloud."""
        own = [
            pod
            for pod in self.found.all("pods")
            if not (pod.get("spec") or {}).get("hostNetwork") and describe.addresses(pod) and not describe.finished(pod)
        ]
        of_pods = any((one.get("secondary") or {}).get("pod") for spec in self.specs for _, one in ipam.held(spec))
        return bool(own) and not of_pods

    def _node(self, node: Object, family: int, group: Group) -> NodeOutlook:
        name = str(node["metadata"]["name"])
        windows = describe.node_labels(node).get("kubernetes.io/os") == "windows"
        refused = {
            pool.name: self._refusal(pool, one, node, group) for pool, one in self.pools if _family(pool) == family
        }
        usages = self._usages([one for one in refused if not refused[one]], name)
        how, why = ipam.next_address(usages)
        there = {word for pool, _ in self.pools if not pool.disabled for word in (pool.name, pool.cidr)}
        if missing := sorted(set(group.asked.get(family, ())) - there):  # then Calico refuses all of what is asked
            refused |= {one: refused.get(one) or MISSING for one in missing}
            how, why = "", "no_pool"
        if windows and how and not self.limits.strict_affinity:
            how, why = "", "windows"
        return NodeOutlook(
            node=name,
            family=family,
            namespaces=group.names,
            blocks=usages[0].blocks_on_node if usages else 0,
            free=sum(one.free_on_node for one in usages),
            pod=Outlook(
                kind="pod",
                how=how,
                why=why,
                pools=tuple(one.pool for one in usages),
                refused={pool: reason for pool, reason in refused.items() if reason},
            ),
            tunnels=() if windows else tuple(self._tunnels(node, family)),
        )

    def _refusal(self, pool: Pool, resource: Object, node: Object, group: Group) -> str:
        """As ipam.refusal; pools that are asked for by annotation are not asked after selectors and assignment mode."""
        asked = group.asked.get(_family(pool))
        if not asked:
            return ipam.refusal(pool, resource, node, [group.resource] if group.resource else None)
        if not {pool.name, pool.cidr} & set(asked):
            return NOT_ASKED
        why = ipam.refusal(pool, resource, node)
        return why if why in (ipam.DISABLED, ipam.DELETING, ipam.USES) else ""

    def _tunnels(self, node: Object, family: int) -> Iterable[Outlook]:
        name = str(node["metadata"]["name"])
        annotations: Mapping[str, Any] = node["metadata"].get("annotations") or {}
        if not any(annotations.get(f"{PREFIX}IPv{one}Address") for one in (4, 6)):
            return  # no calico-node has ever started there
        for one in TUNNELS:
            if one.family != family or (one.key and not annotations.get(one.key)):
                continue
            asked = [
                (pool, resource)
                for pool, resource in self.pools
                if _family(pool) == family
                and (not one.modes or any(getattr(pool, mode) in ("Always", "CrossSubnet") for mode in one.modes))
                and not ipam.refusal(pool, resource, node, use="Tunnel")
            ]
            if not asked:
                continue
            usages = self._usages([pool.name for pool, _ in asked], name)
            how, why = ipam.next_address(usages)
            address = str(annotations.get(one.annotation) or "").split("/")[0]
            attribute, owner = self.holders.get(address, ({}, name))
            about: Mapping[str, Any] = attribute.get("secondary") or {}
            held = about.get("type") == one.kind and about.get("node") == name
            yield Outlook(
                kind=one.name,
                how=how,
                why=why,
                pools=tuple(one.pool for one in usages),
                address=address,
                held=held or not address,
                lender=(owner or "nobody") if held and owner != name else "",
            )

    def _usages(self, names: Sequence[str], node: str) -> list[PoolUsage]:
        """Of these pools, for one node."""
        key = tuple(names)
        if key not in self.owned:
            among = [self.rooms[one].pool for one in names]
            self.owned[key] = ipam.owned(self.blocks, _family(among[0]), among) if among else Counter()
        return [ipam.used_by(self.rooms[one], node, self.owned[key][node], self.limits) for one in names]

    def _pool(self, use: PoolUse, resource: Object) -> PoolOutlook:
        room = self.rooms[use.name]
        users = [
            name
            for name, node in self.nodes.items()
            if ipam.refusal(room.pool, resource, node, use="Tunnel") in ("", ipam.USES)
        ]
        owners = ipam.owned(self.blocks, _family(room.pool), [room.pool])
        pods = self.found.unread("pods")
        leaks = upkeep.leaked(
            room.pool, "", self.specs, self.specs, self.found.all("pods"), self.found.all("nodes"), now=self.found.taken
        )
        return PoolOutlook(
            name=use.name,
            cidr=use.cidr,
            block_size=use.block_size,
            disabled=use.disabled,
            addresses=use.counts.addresses,
            in_use=use.counts.in_use,
            free=use.counts.free,
            cooling=use.counts.cooling,
            withheld=room.withheld,
            leaked=-1 if pods else leaks.count,
            blocks_possible=room.possible,
            blocks_taken=room.taken,
            blocks_left=room.claimable,
            empty=room.empty.total(),
            nodes=len(users),
            without_block=tuple(sorted(one for one in users if not owners[one])),
        )


def _asked_pools(namespace: Object) -> dict[int, tuple[str, ...]]:
    """Family -> the pools that a namespace's annotations ask for, by names or CIDRs; what is no list is passed over."""
    annotations: Mapping[str, Any] = namespace["metadata"].get("annotations") or {}
    found: dict[int, tuple[str, ...]] = {}
    for family, name in ASKING.items():
        with contextlib.suppress(ValueError):
            asked = json.loads(annotations.get(name) or "[]")
            if isinstance(asked, list) and asked:
                found[family] = tuple(map(str, asked))
    return found


def _with_use(found: State, pools: Sequence[tuple[Pool, Object]]) -> list[tuple[PoolUse, Object]]:
    """How full each pool is, with its resource."""
    uses = {one.name: one for one in arithmetic.utilization(found).pools}
    return [(uses[pool.name], one) for pool, one in pools]


def _family(pool: Pool) -> int:
    return ip_network(pool.cidr).version


# -- what would help --------------------------------------------------------------------------------------------------

REASONS = {
    ipam.DISABLED: say("it is disabled"),
    ipam.DELETING: say("it is being deleted"),
    ipam.USES: say("its allowedUses do not have Workload"),
    ipam.MANUAL: say("its assignmentMode is Manual"),
    ipam.NODES: say("its nodeSelector does not select them"),
    ipam.NAMESPACES: say("its namespaceSelector does not select the namespace"),
    MISSING: say("their namespace asks for it by annotation, and there is no such pool"),
    NOT_ASKED: say("their namespace asks for other pools by annotation"),
}


def _help(
    pools: Sequence[PoolOutlook], nodes: Sequence[NodeOutlook], limits: ipam.Limits, rooms: Mapping[str, ipam.Room]
) -> Iterable[Text]:
    """What to do, with numbers, the cheapest first; nothing where every node gets its addresses."""
    lacking: dict[str, list[tuple[str, Outlook]]] = {}
    for node in nodes:
        for one in (node.pod, *(tunnel for tunnel in node.tunnels if not tunnel.address)):
            if one.why:
                lacking.setdefault(one.why, []).append((node.node, one))
    known = {one.name: one for one in pools}
    for why, outlooks in lacking.items():
        names = some(list(dict.fromkeys(name for name, _ in outlooks)))
        used = [known[name] for name in dict.fromkeys(name for _, one in outlooks for name in one.pools)]
        if why == "no_pool":
            yield from _not_for(outlooks)
            continue
        yield from _coming_back(used, limits)
        left = sum(one.blocks_left for one in used)
        lendable = sum(rooms[one.name].lendable.total() for one in used)
        if why == "block_limit":
            yield say(
                "Raise maxBlocksPerHost above {limit}: {nodes} could then take one of {left} blocks that are left.",
                limit=limits.block_limit,
                nodes=names,
                left=shown(left),
            )
        elif why == "auto_allocate":
            yield say(
                "Set autoAllocateBlocks to true: {nodes} could then take one of {left} blocks that are left.",
                nodes=names,
                left=shown(left),
            )
        elif why == "windows":
            yield say(
                "Set strictAffinity to true: without it Windows nodes such as {nodes} get no address.", nodes=names
            )
        elif why == "strict_affinity":
            yield say(
                "Set strictAffinity to false (not where Windows nodes are): {nodes} could then borrow {count} "
                "addresses that blocks of other nodes have left.",
                nodes=names,
                count=lendable,
            )
            if empty := sum(one.empty for one in used):
                yield say(
                    "{count} blocks of other nodes are empty. Calico gives such blocks to others from 3.32 on; before "
                    "that kube-controllers frees them where their node has another block.",
                    count=empty,
                )
        if why in ("full", "strict_affinity"):
            yield from _more(used, pools, names)


def _not_for(outlooks: Sequence[tuple[str, Outlook]]) -> Iterable[Text]:
    """Each pool with the nodes it is not for, and why."""
    told: dict[tuple[str, str], list[str]] = {}
    for name, one in outlooks:
        for pool, reason in one.refused.items():
            told.setdefault((pool, reason), []).append(name)
    for (pool, reason), names in told.items():
        yield say("{pool} is not for {nodes}: {reason}.", pool=pool, nodes=some(names), reason=REASONS[reason])


def _coming_back(pools: Sequence[PoolOutlook], limits: ipam.Limits) -> Iterable[Text]:
    """Addresses that are neither free nor of use to anybody."""
    for one in pools:
        if one.cooling:
            yield say(
                "{count} addresses of {pool} were released and come back by themselves within {seconds} s.",
                count=one.cooling,
                pool=one.name,
                seconds=limits.cooldown_s,
            )
        if one.leaked > 0:
            yield say(
                "{count} addresses of {pool} look leaked: `ipam check` says which, and how they are released.",
                count=one.leaked,
                pool=one.name,
            )
        if one.withheld:
            yield say(
                "IPReservations keep back {count} addresses of {pool} that nobody has.",
                count=one.withheld,
                pool=one.name,
            )


def _more(used: Sequence[PoolOutlook], pools: Sequence[PoolOutlook], nodes: str) -> Iterable[Text]:
    """Another pool, or one that is there and disabled."""
    families = {":" in one.cidr for one in used}
    for one in pools:
        if one.disabled and one.free and (":" in one.cidr) in families:
            yield say("{pool} is disabled and has {count} free addresses.", pool=one.name, count=shown(one.free))
    for one in used[:1]:
        bits = 128 if ":" in one.cidr else 32
        yield say(
            "Add an IPPool for {nodes}: each block of /{size} gives a node {count} addresses; `ipam plan` reckons how "
            "large it has to be.",
            nodes=nodes,
            size=one.block_size,
            count=1 << (bits - one.block_size),
        )


def some(names: Sequence[str]) -> str:
    """These, or the first of them: a value for `say`; "" for none."""
    if len(names) > NAMED:
        return say("{names} and {count} more", names=", ".join(names[:NAMED]), count=len(names) - NAMED)
    return listed(names) if names else ""
