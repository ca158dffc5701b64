"""All that says whose addresses are whose, as one value; without it each report would read another moment's cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from bot.errors import COULD_NOT_JUDGE, UserError
from bot.sources.kubernetes import Cluster
from bot.sources.resources import everything
from facts import Blind
from fixes.resources.kinds import Object

NEEDED = ("ippools", "ipamblocks")  # without these nothing can be said at all
READ = (
    *NEEDED,
    "blockaffinities",
    "ipamhandles",
    "ipamconfigs",
    "ipreservations",
    "clusterinformations",
    "kubecontrollersconfigurations",
    "nodes",
    "pods",
    "services",
    "namespaces",
)


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Resources by their plural of crd.projectcalico.org/v1, as the API gave them; None for what could not be read,
    of which `blind` says why. taken: when it was read, UTC."""

    resources: Mapping[str, list[Object] | None]
    group: str  # where Calico keeps its objects
    blind: tuple[Blind, ...] = ()
    taken: datetime

    def all(self, plural: str) -> list[Object]:
        """Of one kind; [] also for what could not be read, which `unread` tells apart."""
        return list(self.resources.get(plural) or ())

    def unread(self, plural: str) -> bool:
        return self.resources.get(plural) is None

    def spec(self, plural: str, name: str = "default") -> Mapping[str, Any]:
        """Of the one object of this name; {} where there is none."""
        for one in self.all(plural):
            if one["metadata"]["name"] == name:
                return dict(one.get("spec") or {})
        return {}


async def read(cluster: Cluster, plurals: Sequence[str] = READ) -> State:
    """All of it at once, or of these kinds only. Raises UserError where pools or blocks cannot be read."""
    blind: list[Blind] = []
    resources = await everything(cluster, plurals, blind)
    for plural in NEEDED:
        if resources[plural] is None:
            why = next(one.reason for one in blind if one.look == plural)
            raise UserError(
                f"The {plural} of {cluster.name} cannot be read ({why}), so nothing can be said of its addresses. "
                "See whether this user may list them: kubectl auth can-i list "
                f"{plural}.{(await cluster.group()).split('/')[0]}",
                status=COULD_NOT_JUDGE,
            )
    return State(resources=resources, group=await cluster.group(), blind=tuple(blind), taken=datetime.now(UTC))
