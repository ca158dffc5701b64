"""Looks up the policies about both ends of a question; without it a packet a policy drops would only be a lost one.

It reads whole lists, so it is made while others look at the nodes, and in threads, for their answers are timed. What it
keeps is small: policies that select one of the ends, and network sets that hold one of their addresses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from bot.sources.api import Api, Missing, Refused, Unreachable, name
from bot.sources.kubernetes import Cluster
from engine import policy
from facts import (
    Blind,
    CalicoNode,
    CalicoSettings,
    Endpoint,
    Fact,
    LabelledEndpoint,
    NetworkSet,
    PoliciesRead,
    Policy,
    PolicyPeer,
    PolicyRule,
    policy_kinds,
    say,
)
from facts.version import since

T = TypeVar("T")
Object = dict[str, Any]

KUBERNETES = "/apis/networking.k8s.io/v1"
CLUSTER_WIDE = "/apis/policy.networking.k8s.io/v1alpha2"
ADMIN = "/apis/policy.networking.k8s.io/v1alpha1"
SLICES = "/apis/discovery.k8s.io/v1"
NAMES_FIRST_SINCE = (3, 32)  # from here on a policy's kind and namespace are no part of its name
# What Felix programmed of the whole cluster's policies before there were ClusterNetworkPolicies.
ADMIN_SINCE, ADMIN_UNTIL = (3, 29), (3, 32)
ADMIN_KINDS = ("adminnetworkpolicies", "baselineadminnetworkpolicies")


class _Ends(NamedTuple):
    """Whose policies are asked for."""

    pods: tuple[str, ...]  # namespace/name, of those with a network of their own
    nodes: tuple[str, ...]
    addresses: frozenset[str]  # of all of them


async def policies(cluster: Cluster, known: Sequence[Fact]) -> list[Fact]:
    """Policies, tiers, network sets and labelled endpoints for the Endpoint facts of `known`, and a PoliciesRead.

    A kind the cluster does not have counts as read; one that is refused is named in PoliciesRead, with a minor Blind.
    Raises UserError when these credentials are not accepted any more.
    """
    ends, reader = _ends(known), _Reader(cluster.api)
    base = f"/apis/{await cluster.group()}"
    endpoints, sets, of_namespaces, of_all, tiers = await asyncio.gather(
        _endpoints(reader, base, ends),
        _sets(reader, base, ends),
        asyncio.gather(*(_of_namespace(reader, base, one) for one in _namespaces(ends.pods))),
        _of_all(reader, base),
        reader.listed(f"{base}/tiers", "tiers"),
    )
    about = await asyncio.to_thread(_about, [*(one for found in of_namespaces for one in found), *of_all], endpoints)
    version = next((one.version for one in known if isinstance(one, CalicoSettings)), "")
    if since(version, ADMIN_SINCE, unknown=False) and not since(version, ADMIN_UNTIL, unknown=True):
        await asyncio.gather(*(_unjudged(reader, kind) for kind in ADMIN_KINDS))
    told = [
        *await _with_services(reader, about, ends),
        *reader.told(policy_kinds.tier, tiers, "tiers"),
        *sets,
        *endpoints,
    ]
    found = list(dict.fromkeys(told))
    missing = tuple(sorted(reader.refused))
    names_first = since(version, NAMES_FIRST_SINCE, unknown=True)
    read = PoliciesRead(
        missing=missing, names_first=names_first, told=len(found), staged_read=not reader.staged_refused
    )
    return [*found, read, *(_blind(look, why) for look, why in reader.refused.items())]


def _about(found: Iterable[Policy], endpoints: Sequence[LabelledEndpoint]) -> list[Policy]:
    return [one for one in found if any(policy.about(one, endpoint) for endpoint in endpoints)]


async def _unjudged(reader: _Reader, kind: str) -> None:
    """Policies that Felix programs and nobody judges here count as not read, where there are any."""
    if await reader.listed(f"{ADMIN}/{kind}", kind):
        reader.refused.setdefault(kind, say("{kind} are not judged", kind=kind))


def _blind(look: str, why: str) -> Blind:
    reason = say("{why}: what the policies allow is not known without it", why=why)
    return Blind(look=look, reason=reason, minor=True)


def _ends(known: Sequence[Fact]) -> _Ends:
    ends = [one for one in known if isinstance(one, Endpoint)]
    nodes = {one.node for one in ends if one.node}
    told = [one for one in known if isinstance(one, CalicoNode) and one.name in nodes]
    addresses = {address for one in ends for address in one.addresses}
    addresses |= {address for one in told for address in (one.address, one.internal_address, one.tunnel_address)}
    return _Ends(
        tuple(one.name for one in ends if one.kind == "pod" and not one.host_network),
        tuple(sorted(nodes)),
        frozenset(addresses - {""}),
    )


def _namespaces(names: Iterable[str]) -> list[str]:
    """Of namespace/name, each once."""
    return list(dict.fromkeys(one.partition("/")[0] for one in names))


class _Reader:
    """GETs that remember what was refused: kind -> why."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._objects: dict[str, asyncio.Future[Object | None]] = {}
        self.refused: dict[str, str] = {}
        self.staged_refused = False  # nothing depends on it but what is said of them

    async def listed(self, path: str, look: str, **query: str | int) -> list[Object]:
        """A whole list; nothing where the cluster does not have this kind."""
        try:
            return await self._api.pages(path, **query)
        except Missing:
            return []
        except (Refused, Unreachable) as error:
            if not (isinstance(error, Refused) and error.status == 404):
                self.refused.setdefault(look, error.reason)
            return []

    def told(self, translate: Callable[[Object], T], resources: Iterable[Object], look: str) -> list[T]:
        """Each as a fact. One that has not the form its kind should have counts as not read."""
        found: list[T] = []
        for one in resources:
            try:
                found.append(translate(one))
            except (AttributeError, KeyError, TypeError, ValueError):
                shown = str((one.get("metadata") or {}).get("name"))
                self.refused.setdefault(look, say("{name} has a form that is not known", name=shown))
        return found

    def aside(self) -> _Reader:
        """Another one, whose refusals are nobody's loss or told in another way."""
        return _Reader(self._api)

    async def one(self, path: str, look: str) -> Object | None:
        """One object, read once."""
        if path not in self._objects:
            self._objects[path] = asyncio.ensure_future(self._get(path, look))
        return await self._objects[path]

    async def _get(self, path: str, look: str) -> Object | None:
        try:
            return await self._api.get(path)
        except Missing:
            return None
        except (Refused, Unreachable) as error:
            self.refused.setdefault(look, error.reason)
            return None


# -- policies ----------------------------------------------------------------------------------------------------------


async def _of_namespace(reader: _Reader, base: str, namespace: str) -> list[Policy]:
    within = f"namespaces/{name(namespace)}"
    return await _translated(
        reader,
        (f"{KUBERNETES}/{within}/networkpolicies", "networkpolicies", policy_kinds.kubernetes),
        (f"{base}/{within}/networkpolicies", "networkpolicies of Calico", policy_kinds.calico),
        (f"{base}/{within}/stagednetworkpolicies", "", _staged(policy_kinds.calico)),
        (f"{base}/{within}/stagedkubernetesnetworkpolicies", "", _staged(policy_kinds.kubernetes)),
    )


async def _of_all(reader: _Reader, base: str) -> list[Policy]:
    return await _translated(
        reader,
        (f"{base}/globalnetworkpolicies", "globalnetworkpolicies", policy_kinds.calico),
        (f"{base}/stagedglobalnetworkpolicies", "", _staged(policy_kinds.calico)),
        (f"{CLUSTER_WIDE}/clusternetworkpolicies", "clusternetworkpolicies", policy_kinds.cluster_wide),
    )


_Translation = Callable[[Object], Policy | None]


def _staged(translate: Callable[..., Policy | None]) -> _Translation:
    return lambda resource: translate(resource, staged=True)


async def _translated(reader: _Reader, *looks: tuple[str, str, _Translation]) -> list[Policy]:
    """A look without a name is one that nothing depends on: staged policies are not programmed."""
    aside = reader.aside()
    found = await asyncio.gather(*((reader if look else aside).listed(path, look) for path, look, _ in looks))
    told = [
        await asyncio.to_thread((reader if look else aside).told, translate, listed, look)
        for (_, look, translate), listed in zip(looks, found, strict=True)
    ]
    reader.staged_refused |= bool(aside.refused)
    return [one for translated in told for one in translated if one is not None]


async def _with_services(reader: _Reader, about: Sequence[Policy], ends: _Ends) -> list[Policy]:
    """The same, with those of the asked addresses that are endpoints of Services their rules name."""
    peers = [peer for one in about for rule in (*one.ingress, *one.egress) for peer in (rule.source, rule.destination)]
    services = list(dict.fromkeys(peer.service for peer in peers if peer.service))
    if not services:
        return list(about)
    found = dict(zip(services, await asyncio.gather(*(_behind(reader, one, ends) for one in services)), strict=True))

    def filled(peer: PolicyPeer) -> PolicyPeer:
        if not peer.service:
            return peer
        behind = found[peer.service]
        return msgspec.structs.replace(peer, service_endpoints=behind or (), service_read=behind is not None)

    def rule(one: PolicyRule) -> PolicyRule:
        return msgspec.structs.replace(one, source=filled(one.source), destination=filled(one.destination))

    return [
        msgspec.structs.replace(one, ingress=tuple(map(rule, one.ingress)), egress=tuple(map(rule, one.egress)))
        for one in about
    ]


async def _behind(reader: _Reader, service: str, ends: _Ends) -> tuple[str, ...] | None:
    """ "10.244.0.5" and "10.244.0.5 5432/tcp" of each asked address; None where they could not be read."""
    namespace, _, short = service.partition("/")
    aside = reader.aside()
    path = f"{SLICES}/namespaces/{name(namespace)}/endpointslices"
    slices = await aside.listed(path, "endpointslices", labelSelector=f"kubernetes.io/service-name={short}")
    if aside.refused:
        return None
    found: dict[str, None] = {}
    for one in slices:
        for address in (to for end in one.get("endpoints") or () for to in end.get("addresses") or ()):
            if address in ends.addresses:
                found[address] = None
                for port in one.get("ports") or ():
                    found[f"{address} {port.get('port')}/{str(port.get('protocol') or 'TCP').lower()}"] = None
    return tuple(found)


# -- who is selected ---------------------------------------------------------------------------------------------------


async def _endpoints(reader: _Reader, base: str, ends: _Ends) -> list[LabelledEndpoint]:
    hosts, pods = await asyncio.gather(
        _hosts(reader, base, ends), asyncio.gather(*(_pod(reader, one) for one in ends.pods))
    )
    return [*(one for one in pods if one is not None), *hosts]


async def _pod(reader: _Reader, pod_name: str) -> LabelledEndpoint | None:
    namespace, _, short = pod_name.partition("/")
    pod = await reader.one(f"/api/v1/namespaces/{name(namespace)}/pods/{name(short)}", "pods")
    if pod is None:
        return None
    account = str((pod.get("spec") or {}).get("serviceAccountName") or "")
    of_namespace = f"/api/v1/namespaces/{name(namespace)}"
    both: list[Awaitable[Object | None]] = [reader.one(of_namespace, "namespaces")]
    if account:
        both.append(reader.one(f"{of_namespace}/serviceaccounts/{name(account)}", "serviceaccounts"))
    labelled = await asyncio.gather(*both)
    return policy_kinds.pod_endpoint(pod, labelled[0], labelled[1] if account else None)


async def _hosts(reader: _Reader, base: str, ends: _Ends) -> list[LabelledEndpoint]:
    """HostEndpoints of the asked nodes, and those that expect one of the asked addresses."""
    listed = await reader.listed(f"{base}/hostendpoints", "hostendpoints")
    mine = [one for one in listed if _is_about(one.get("spec") or {}, ends)]
    if not mine:
        return []
    felix = f"{base}/felixconfigurations"
    nodes = list(dict.fromkeys(str(one["spec"].get("node") or "") for one in mine))
    common, *own = await asyncio.gather(
        reader.one(f"{felix}/default", "felixconfigurations"),
        *(reader.one(f"{felix}/node.{name(one)}", "felixconfigurations") for one in nodes),
    )
    settings = {node: {**_spec(common), **_spec(one)} for node, one in zip(nodes, own, strict=True)}

    def host(resource: Object) -> LabelledEndpoint:
        return policy_kinds.host_endpoint(resource, settings[str(resource["spec"].get("node") or "")])

    return reader.told(host, mine, "hostendpoints")


def _is_about(spec: Object, ends: _Ends) -> bool:
    return spec.get("node") in ends.nodes or bool(ends.addresses.intersection(spec.get("expectedIPs") or ()))


async def _sets(reader: _Reader, base: str, ends: _Ends) -> list[NetworkSet]:
    """Those that hold one of the asked addresses."""
    of_all, of_namespaces = await asyncio.gather(
        reader.listed(f"{base}/globalnetworksets", "globalnetworksets"),
        reader.listed(f"{base}/networksets", "networksets"),
    )
    found: list[NetworkSet] = []
    for look, listed in (("globalnetworksets", of_all), ("networksets", of_namespaces)):
        for one in await asyncio.to_thread(_holding, reader, listed, look, ends):
            found.append(await _with_namespace(reader, one))
    return found


def _holding(reader: _Reader, listed: Sequence[Object], look: str, ends: _Ends) -> list[NetworkSet]:
    """Those that hold one of the asked addresses, of what may be thousands of networks."""
    told = reader.told(policy_kinds.network_set, listed, look)
    return [one for one in told if any(policy.contains(one, address) for address in ends.addresses)]


async def _with_namespace(reader: _Reader, one: NetworkSet) -> NetworkSet:
    if not one.namespace:
        return one
    namespace = await reader.one(f"/api/v1/namespaces/{name(one.namespace)}", "namespaces")
    return msgspec.structs.replace(one, namespace_labels=policy_kinds.with_name(namespace))


def _spec(resource: Object | None) -> Object:
    return dict((resource or {}).get("spec") or {})
