"""Frees an address that IPAM holds for a pod that is gone; done wrongly, two pods would have one address.

The recipe is calico.md 2.3, with its preconditions P1 to P7. What the API server can tell (P1 to P4, P6, P7) is looked
up here, again before each write. That no node has a route to the address (P5) only the probes can tell: the question
that found the leak asks all of them, the answers are evidence of the request, and `no_route_on` says which nodes were
asked. One that came since then was not.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple

from facts import Cause, Fact, Leak, LeakedAddresses, say
from fixes import evidence
from fixes.calico import ApiError, Calico, Conflict, Object, difference
from fixes.kind import ClusterKind, EvidenceChanged, TooSoon
from fixes.release import Holding, counted_down, fingerprint, holding, kind_of, released, wrong
from fixes.request import moment

log = logging.getLogger(__name__)

ATTEMPTS = 20
GRACE_S = 900  # leakGracePeriod where it is not set
NOT_A_PODS = {
    "tunnel": "a tunnel's address",
    "windows": "reserved for Windows",
    "service": "a load balancer's",
    "machine": "a virtual machine's",
    "shared": "one with two owners",
}
NETWORK_STATUS = ("k8s.v1.cni.cncf.io/network-status", "k8s.v1.cni.cncf.io/networks-status")
POD_IP = ("cni.projectcalico.org/podIP", "cni.projectcalico.org/podIPs")
DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


class _Wanted(NamedTuple):
    address: str
    block: str
    handle: str
    sequence: int
    owner: str  # fingerprint of the whole attribute
    namespace: str
    pod: str
    seen_at: datetime
    again_after_s: int
    no_route_on: str


def title(arguments: Mapping[str, str], node: str) -> str:
    return say("Release {address}, which IPAM holds for {pod}", address=arguments["address"], pod=arguments["pod"])


def blast_radius(arguments: Mapping[str, str], node: str) -> str:
    return say(
        "One address of block {block}: any new pod may get it. No pod, node or route is touched.",
        block=arguments["block"],
    )


def undo(arguments: Mapping[str, str], node: str) -> str:
    return say(
        "None: once the address is given to another pod it cannot be had back. That is why it is looked at twice."
    )


def nodes_asked(names: Iterable[str]) -> str:
    """The nodes whose probe found no route to the address, short enough for an argument however many they are."""
    sorted_names = sorted(names)
    return f"{len(sorted_names)} sha256:{hashlib.sha256(chr(10).join(sorted_names).encode()).hexdigest()}"


def propose(cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    """The first of the cause's leaked addresses to which every node was asked for a route and none has one.

    `seen_at`, the first of the two looks (P1), is when the request is made.
    """
    return next(iter(_all(cause, facts)), None)


def more(cause: Cause, facts: Sequence[Fact]) -> Sequence[dict[str, str]]:
    """The others of the first few: each is released by itself, or not."""
    return _all(cause, facts)[1:]


def _all(cause: Cause, facts: Sequence[Fact]) -> list[dict[str, str]]:
    leaked = evidence.first(LeakedAddresses, cause, facts)
    if leaked is None:
        return []
    found: list[LeakedAddresses | Leak] = [leaked] if leaked.address and leaked.no_route_on else []
    found += [one for one in leaked.others if one.unrouted]
    asked = nodes_asked(leaked.no_route_on or leaked.asked)
    return [
        {
            "address": one.address,
            "block": one.block,
            "handle": one.handle,
            "sequence": one.sequence,
            "owner": one.owner,
            "pod": one.pod,
            "again_after_s": str(leaked.grace_s or GRACE_S),
            "no_route_on": asked,
        }
        for one in found
    ]


async def holds(calico: Calico, arguments: Mapping[str, str]) -> None:
    wanted = _wanted(arguments)
    blocks = [one for one in await calico.list("ipamblocks") if _contains(one, wanted.address)]
    if [one["spec"]["cidr"] for one in blocks] != [wanted.block]:
        found = ", ".join(one["spec"]["cidr"] for one in blocks) or "none"
        raise EvidenceChanged(f"{wanted.address} should be of block {wanted.block} alone; the blocks with it: {found}.")
    _, held = await _block(calico, wanted)
    await _nobody_uses_it(calico, wanted)
    now = calico.now()
    since = _allocated_at(held)
    if wanted.seen_at > now or (since is not None and since > wanted.seen_at):
        raise EvidenceChanged(f"{wanted.address} cannot have been seen leaked at {arguments['seen_at']}.")
    due = wanted.seen_at + timedelta(seconds=max(wanted.again_after_s, await _grace_s(calico)))
    if now < due:
        wait_s = (due - now).total_seconds()
        raise TooSoon(f"{wanted.address} is looked at again at {due:%H:%M:%S} UTC, before it is released.", wait_s)


async def preview(calico: Calico, arguments: Mapping[str, str]) -> list[str]:
    wanted = _wanted(arguments)
    block, _ = await _block(calico, wanted)
    lines = difference(f"ipamblocks {block['metadata']['name']}", block, await _after(calico, wanted, block))
    handle = await _handle(calico, wanted)
    fewer = counted_down(handle, wanted.block) if handle else None
    if handle is not None and fewer is not None:
        name = f"ipamhandles {handle['metadata']['name']}"
        lines += difference(name, handle, None if fewer["spec"].get("deleted") else fewer)
    return lines


async def execute(calico: Calico, arguments: Mapping[str, str]) -> None:
    """Two writes. Ended between them, the handle counts one address too many, which no pod notices (calico.md 1.4)."""
    wanted = _wanted(arguments)
    await _release(calico, wanted)
    try:
        await _count_down(calico, wanted)
    except ApiError as error:  # the address is free, and that is what was asked for; `verify` tells of the handle
        log.warning("The handle of %s was not counted down: %s", wanted.address, error)


async def verify(calico: Calico, arguments: Mapping[str, str]) -> tuple[bool, str]:
    wanted = _wanted(arguments)
    block = await calico.get("ipamblocks", _name(wanted.block))
    if block is None or block["spec"].get("deleted"):
        return True, f"{wanted.address} is free; block {wanted.block} itself is gone."
    held = holding(block["spec"], wanted.address)
    if _same(held, wanted):
        return False, f"{wanted.address} is still held by {wanted.namespace}/{wanted.pod}."
    if held.attribute is None:
        said = f"{wanted.address} is free now."
    elif held.in_cooldown:
        said = f"{wanted.address} is released; Calico keeps it back until its cooldown is over."
    else:
        said = f"{wanted.address} was released and is held anew, under handle {held.handle}."
    handle = await _handle(calico, wanted)
    if handle is None or not _counts_too_many(block["spec"], wanted.handle, handle):
        return True, said
    return True, f"{said} Its handle counts more addresses than the block has; that costs nothing but an object."


async def _release(calico: Calico, wanted: _Wanted) -> None:
    for _ in range(ATTEMPTS):
        # The block is read first: whoever takes an address of it after that makes the write below a conflict.
        block, _ = await _block(calico, wanted)
        after = await _after(calico, wanted, block)
        await _nobody_uses_it(calico, wanted)
        try:
            await calico.replace("ipamblocks", after)
            return
        except Conflict:
            continue
    raise ApiError(f"Block {wanted.block} is being changed by others all the time; nothing was released. Try again.")


async def _count_down(calico: Calico, wanted: _Wanted) -> None:
    for _ in range(ATTEMPTS):
        handle = await _handle(calico, wanted)
        fewer = counted_down(handle, wanted.block) if handle else None
        if fewer is None:
            return
        try:
            written = await calico.replace("ipamhandles", fewer)
        except Conflict:
            continue
        if written["spec"].get("deleted"):
            # Whoever took it up again meanwhile has seen that it was to be deleted: it is theirs to keep or to end.
            with contextlib.suppress(Conflict):
                await calico.delete("ipamhandles", written)
        return
    raise ApiError(f"{wanted.handle} is being changed by others all the time.")


async def _after(calico: Calico, wanted: _Wanted, block: Object) -> Object:
    configuration = await calico.get("ipamconfigs", "default")
    cooldown_s = int(_spec(configuration).get("ipCooldownSeconds") or 0)
    return released(block, wanted.address, now=calico.now(), cooldown_s=cooldown_s)


async def _block(calico: Calico, wanted: _Wanted) -> tuple[Object, Holding]:
    """The block as it is now. Raises EvidenceChanged unless it holds the address exactly as was approved (P1, P2)."""
    block = await calico.get("ipamblocks", _name(wanted.block))
    if block is None or block["spec"].get("cidr") != wanted.block:
        raise EvidenceChanged(f"There is no block {wanted.block} any more.")
    spec = block["spec"]
    if spec.get("deleted"):
        raise EvidenceChanged(f"Block {wanted.block} is being deleted.")
    if broken := wrong(spec):
        raise EvidenceChanged(f"Block {wanted.block} is not as a block should be, and is left alone: {broken}.")
    held = holding(spec, wanted.address)
    if held.attribute is None:
        raise EvidenceChanged(f"{wanted.address} is free already.")
    if held.in_cooldown:
        raise EvidenceChanged(f"{wanted.address} is released already and in its cooldown.")
    if not _same(held, wanted):
        raise EvidenceChanged(f"{wanted.address} is held by another allocation than was seen: it was given away again.")
    if other := _not_a_pods(spec, held, wanted):
        raise EvidenceChanged(f"{wanted.address} is {other}, and never released from here.")
    return block, held


def _same(held: Holding, wanted: _Wanted) -> bool:
    return (
        held.attribute is not None
        and (held.handle, held.sequence) == (wanted.handle, wanted.sequence)
        and fingerprint(held.attribute) == wanted.owner
    )


def _not_a_pods(spec: Object, held: Holding, wanted: _Wanted) -> str:
    """What the address is instead, "" where a pod's it is (P2)."""
    attribute = held.attribute or {}
    kind = kind_of(attribute, str(spec.get("affinity") or ""))
    if kind in NOT_A_PODS:
        return NOT_A_PODS[kind]
    about: Object = attribute.get("secondary") or {}
    if kind != "pod" or (about["namespace"], about["pod"]) != (wanted.namespace, wanted.pod):
        return f"not {wanted.namespace}/{wanted.pod}'s"
    return ""


async def _nobody_uses_it(calico: Calico, wanted: _Wanted) -> None:
    """Raises EvidenceChanged when anything the API server knows may use the address (P3 to P7)."""
    information = await calico.get("clusterinformations", "default")
    if information is None or _spec(information).get("datastoreReady") is False:
        raise EvidenceChanged("Calico's datastore is locked: somebody is migrating or repairing it.")
    address = wanted.address
    for reservation in await calico.list("ipreservations"):
        if any(_within(address, str(cidr)) for cidr in _spec(reservation).get("reservedCIDRs") or ()):
            raise EvidenceChanged(f"{address} is reserved by IPReservation {reservation['metadata']['name']}.")
    nodes = await calico.list("nodes")
    for node in nodes:
        name = node["metadata"]["name"]
        if (node["metadata"].get("labels") or {}).get("kubernetes.io/os") == "windows":
            raise EvidenceChanged(f"{name} runs Windows; in such a cluster no address is released from here.")
        said = [str(one.get("address")) for one in (node.get("status") or {}).get("addresses") or ()]
        if any(_mentions(text, address) for text in (*_annotations(node).values(), *said)):
            raise EvidenceChanged(f"{address} is an address of node {name}.")
    if nodes_asked(node["metadata"]["name"] for node in nodes) != wanted.no_route_on:
        raise EvidenceChanged(f"The nodes are not those that were asked for a route to {address}.")
    for service in await calico.list("services"):
        if address in _service_addresses(service):
            raise EvidenceChanged(f"{address} is an address of service {_called(service)}.")
    pod = await calico.get("pods", wanted.pod, wanted.namespace)
    if pod is not None and (why := _may_own(pod, wanted)):
        raise EvidenceChanged(f"{wanted.namespace}/{wanted.pod} {why}.")
    for pod in await calico.list("pods"):
        if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed") and _uses(pod, address):
            raise EvidenceChanged(f"{address} is in use by pod {_called(pod)}.")


def _may_own(pod: Object, wanted: _Wanted) -> str:
    """Why the pod of that name may still be the one the address was given to, "" when it cannot (P3)."""
    status: Object = pod.get("status") or {}
    if (status.get("phase"), status.get("reason")) == ("Failed", "Evicted"):
        return ""
    if not (status.get("podIPs") or status.get("podIP")):
        return "has no address yet: it may be starting"
    container = _annotations(pod).get("cni.projectcalico.org/containerID", "")
    if not container or wanted.handle.endswith(f".{container}"):
        return "exists, and may be the one the address was given to"
    return f"has {wanted.address}" if _uses(pod, wanted.address) else ""


def _uses(pod: Object, address: str) -> bool:
    status: Object = pod.get("status") or {}
    own = [str(one.get("ip")) for one in status.get("podIPs") or ()] + [str(status.get("podIP") or "")]
    annotations = _annotations(pod)
    return any(
        _mentions(text, address) for text in (*own, *(annotations.get(key, "") for key in POD_IP + NETWORK_STATUS))
    )


def _service_addresses(service: Object) -> set[str]:
    spec, status = service.get("spec") or {}, service.get("status") or {}
    ingress = (status.get("loadBalancer") or {}).get("ingress") or ()
    given = [one.get("ip") for one in ingress]
    return {str(one) for one in (*given, *(spec.get("externalIPs") or ()), spec.get("loadBalancerIP")) if one}


async def _grace_s(calico: Calico) -> int:
    """How long kube-controllers themselves would look on before they release it; 15 minutes where they never do."""
    settings = await calico.get("kubecontrollersconfigurations", "default")
    node = (_spec(settings).get("controllers") or {}).get("node") or {}
    parts = DURATION.fullmatch(str(node.get("leakGracePeriod") or ""))
    hours, minutes, seconds = (int(part or 0) for part in parts.groups()) if parts else (0, 0, 0)
    return hours * 3600 + minutes * 60 + seconds or GRACE_S


async def _handle(calico: Calico, wanted: _Wanted) -> Object | None:
    """None also when it is another one, with the same name but for its case, or one that is being deleted."""
    handle = await calico.get("ipamhandles", wanted.handle.lower())
    if handle is None or handle["spec"].get("handleID") != wanted.handle or handle["spec"].get("deleted"):
        return None
    return handle


def _counts_too_many(spec: Object, handle: str, counted: Object) -> bool:
    """The handle counts more addresses of the block than the block gives it."""
    places = [spec["attributes"][index] for index in spec["allocations"] if index is not None]
    there = sum(str(one.get("handle_id") or "").split("\r")[0] == handle for one in places)
    return int((counted["spec"].get("block") or {}).get(spec["cidr"], 0)) > there


def _allocated_at(held: Holding) -> datetime | None:
    """As the allocation itself says: `2026-11-22 20:26:45.120391 +0000 UTC`."""
    text = str(((held.attribute or {}).get("secondary") or {}).get("timestamp") or "")[:19]
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        return None


def _contains(block: Object, address: str) -> bool:
    return not block["spec"].get("deleted") and _within(address, str(block["spec"].get("cidr")))


def _within(address: str, cidr: str) -> bool:
    try:
        return ip_address(address) in ip_network(cidr, strict=False)
    except ValueError:
        return False


def _mentions(text: str, address: str) -> bool:
    """The address stands in the text, however it is written."""
    return ip_address(address) in addresses_in(text)


def addresses_in(text: str) -> set[IPv4Address | IPv6Address]:
    """All that stand in the text: alone, with a prefix length, in a list, in JSON."""
    found = set()
    for word in re.split(r"[^0-9A-Fa-f.:]+", text):
        with contextlib.suppress(ValueError):
            found.add(ip_address(word))
    return found


def _annotations(one: Object) -> dict[str, str]:
    return one["metadata"].get("annotations") or {}


def _spec(one: Object | None) -> Object:
    return (one or {}).get("spec") or {}


def _called(one: Object) -> str:
    return f"{one['metadata'].get('namespace', '')}/{one['metadata']['name']}"


def _name(cidr: str) -> str:
    """How Calico names the object of a block."""
    return re.sub(r"[.:/]", "-", cidr)


def _wanted(arguments: Mapping[str, str]) -> _Wanted:
    """Raises ValueError: what is not of its own form never reaches the API server."""
    missing = [name for name in ("handle", "owner", "no_route_on") if not arguments.get(name)]
    if missing:
        raise ValueError(f"the request does not say {missing[0]}")
    address, block = arguments.get("address", ""), arguments.get("block", "")
    if str(ip_address(address)) != address or ip_address(address) not in ip_network(block):
        raise ValueError(f"{address} is not an address of block {block}")
    namespace, _, pod = arguments.get("pod", "").partition("/")
    if not namespace or not pod:
        raise ValueError(f"{arguments.get('pod')!r} is not the name of a pod")
    return _Wanted(
        address=address,
        block=block,
        handle=arguments["handle"],
        sequence=int(arguments.get("sequence", "")),
        owner=arguments["owner"],
        namespace=namespace,
        pod=pod,
        seen_at=moment(arguments.get("seen_at", "")),
        again_after_s=int(arguments.get("again_after_s", "")),
        no_route_on=arguments["no_route_on"],
    )


KIND = ClusterKind(
    name="release_ip",
    title=title,
    blast_radius=blast_radius,
    undo=undo,
    propose=propose,
    more=more,
    holds=holds,
    preview=preview,
    execute=execute,
    verify=verify,
)
