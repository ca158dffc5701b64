"""Reads resources of one kind as Calico shows them; without it each word would read them in its own way."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import NamedTuple

from bot.errors import COULD_NOT_JUDGE, UserError
from bot.resources import core
from bot.resources.names import ENDPOINTS, NODES, PROFILES, kind_of, namespaced
from bot.sources.api import PAGE, Missing, Refused, Unreachable
from bot.sources.kubernetes import NATIVE, Cluster
from bot.sources.resources import path
from fixes.resources.form import shown, tiered
from fixes.resources.kinds import KINDS, TIERED, V3, Object

DEFAULT_ASN = 64512


class Found(NamedTuple):
    """Resources in the form of projectcalico.org/v3. version: resourceVersion of the list."""

    items: list[Object]
    version: str = ""

    def as_list(self, plural: str) -> Object:
        metadata = {"resourceVersion": self.version} if self.version else {}
        return {"kind": f"{kind_of(plural)}List", "apiVersion": V3, "metadata": metadata, "items": self.items}


async def resources(cluster: Cluster, plural: str, namespace: str = "") -> Found:
    """All of a kind, of one namespace or ("") of all. Raises UserError."""
    try:
        if plural == PROFILES:
            spaces, first = await _all(cluster, path("", "namespaces"))
            accounts, second = await _all(cluster, path("", "serviceaccounts"))
            return Found(core.profiles(spaces, accounts), f"{first}/{second}")
        if plural == ENDPOINTS:
            pods, version = await _all(cluster, path("", "pods", namespace))
            prefix = await _prefix(cluster)
            return Found([one for pod in pods if (one := core.endpoint(pod, prefix))], version)
        if plural == NODES:
            nodes, version = await _all(cluster, path("", NODES))
            return Found([core.node(one) for one in nodes], version)
        group = await cluster.group()
        stored, version = await _all(cluster, path(group, plural, namespace))
        calico = await calico_version(cluster) if plural in TIERED and group != NATIVE else ""
        found = [shown(one, plural, calico) for one in stored]
        if plural == "tiers":
            found.sort(key=lambda one: float(one["spec"]["order"]))
        return Found(found, version)
    except Refused as error:
        raise UserError(f"{kind_of(plural)} cannot be read: {error.reason}.", status=COULD_NOT_JUDGE) from error
    except Missing as error:  # of a namespace
        raise UserError(f"{kind_of(plural)} cannot be read: there is no {error}.", status=COULD_NOT_JUDGE) from error
    except Unreachable as error:
        raise cluster.api.unreachable(error) from error


async def named(cluster: Cluster, plural: str, names: Sequence[str], namespace: str = "") -> list[Object]:
    """Those of these names, in their order. Raises UserError, with the nearest name where there is none."""
    if namespaced(plural) and not namespace:
        raise UserError("Say of which namespace: -n NAMESPACE. -A lists all of them, without a name.")
    if len(names) == 1 and plural in KINDS and plural not in TIERED and plural != NODES:
        found = [await _one(cluster, plural, names[0], namespace)]
        if found[0] is not None:
            return [found[0]]
    listed = (await resources(cluster, plural, namespace)).items
    return [_pick(plural, name, namespace, listed) for name in names]


async def default_asn(cluster: Cluster) -> str:
    """The AS number of nodes that have none of their own."""
    try:
        found = await cluster.api.get(path(await cluster.group(), "bgpconfigurations", called="default"))
    except Missing:
        return str(DEFAULT_ASN)
    except (Refused, Unreachable):
        return "unknown"
    return str((found.get("spec") or {}).get("asNumber") or DEFAULT_ASN)


async def calico_version(cluster: Cluster) -> str:
    """ "" where the cluster does not say."""
    try:
        found = await cluster.api.get(path(await cluster.group(), "clusterinformations", called="default"))
    except (Missing, Refused):
        return ""
    return str((found.get("spec") or {}).get("calicoVersion") or "")


async def _one(cluster: Cluster, plural: str, name: str, namespace: str) -> Object | None:
    try:
        return shown(await cluster.api.get(path(await cluster.group(), plural, namespace, name)), plural)
    except Missing:
        return None
    except Refused as error:
        raise UserError(f"{kind_of(plural)} cannot be read: {error.reason}.", status=COULD_NOT_JUDGE) from error
    except Unreachable as error:
        raise cluster.api.unreachable(error) from error


def _pick(plural: str, name: str, namespace: str, listed: Sequence[Object]) -> Object:
    called = {str(one["metadata"]["name"]): one for one in listed}
    if found := called.get(name):
        return found
    if plural in TIERED:  # as who writes it without the tier means it, and the other way round
        for other in (tiered(name), name.removeprefix("default.")):
            if found := called.get(other):
                return found
    if plural == ENDPOINTS:
        pods = {str(one["spec"]["pod"]): one for one in listed}
        if found := pods.get(name):
            return found
    where = f" in namespace {namespace}" if namespaced(plural) else ""
    near = difflib.get_close_matches(name, called, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there is {', '.join(sorted(called)[:10])}."
    hint = hint if called else f"there is no {kind_of(plural)} at all."
    raise UserError(f"There is no {kind_of(plural)} {name}{where}; {hint}", word=name, choices=near)


async def _all(cluster: Cluster, where: str) -> tuple[list[Object], str]:
    """All items and the resourceVersion of the list. Raises as `Api.get`."""
    items: list[Object] = []
    more = ""
    while True:
        answer = await cluster.api.get(where, limit=PAGE, **({"continue": more} if more else {}))
        items += answer.get("items") or []
        metadata = answer.get("metadata") or {}
        more = str(metadata.get("continue") or "")
        if not more:
            return items, str(metadata.get("resourceVersion") or "")


async def _prefix(cluster: Cluster) -> str:
    """What the names of pods' interfaces begin with, as Felix is told."""
    try:
        felix = await cluster.api.get(path(await cluster.group(), "felixconfigurations", called="default"))
    except (Missing, Refused):
        return "cali"
    return str((felix.get("spec") or {}).get("interfacePrefix") or "cali").split(",")[0]
