"""Calico's kinds of resources and how to read all of one; without it each command would know its own names for them."""

from __future__ import annotations

from collections.abc import Sequence

from bot.sources.api import name
from bot.sources.kubernetes import NATIVE, Cluster
from bot.sources.reader import together
from facts import Blind
from fixes.resources.kinds import KINDS, Object


def path(group: str, plural: str, namespace: str = "", called: str = "") -> str:
    """Of a list, or of one object, in the API; group as `Cluster.group` gives it."""
    kind = KINDS[plural]
    base = "/api/v1" if kind.core else f"/apis/{group}"
    within = f"/namespaces/{name(namespace)}" if namespace else ""
    own = kind.native if kind.native and group == NATIVE else plural
    return f"{base}{within}/{own}" + (f"/{name(called)}" if called else "")


async def everything(cluster: Cluster, plurals: Sequence[str], blind: list[Blind]) -> dict[str, list[Object] | None]:
    """All objects of each kind, read at once; None (with a Blind added) for a kind that could not be read."""
    group = await cluster.group()
    found = await together(*(cluster.reader.everything(path(group, plural), plural, blind) for plural in plurals))
    return dict(zip(plurals, found, strict=True))
