"""What stands in the cluster beside a resource that is to be written; without it a pool could be made over another."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from fixes.calico import Calico
from fixes.resources.form import shown, tier_of, tiered
from fixes.resources.kinds import KINDS, TIERED, Object
from fixes.resources.rules import Beside


async def beside(calico: Calico, plural: str) -> Beside:
    """As far as it matters for a resource of this kind. Raises fixes.calico.ApiError."""
    if plural == "ippools":
        pools = [shown(one, plural) for one in await calico.list(plural)]
        blocks = [str(one["spec"].get("cidr")) for one in await calico.list("ipamblocks") if not _gone(one)]
        return Beside(pools=pools, blocks=blocks)
    if plural in TIERED:
        return Beside(tiers=[str(one["metadata"]["name"]) for one in await calico.list("tiers")])
    return Beside()


async def version_of(calico: Calico) -> str:
    """Calico's version, "" where the cluster does not say. Raises ApiError."""
    found = await calico.get("clusterinformations", "default")
    return str(((found or {}).get("spec") or {}).get("calicoVersion") or "")


async def find(calico: Calico, plural: str, name: str, namespace: str, version: str) -> Object | None:
    """The stored object that people know by this name. Raises ApiError."""
    names = [name]
    if plural in TIERED:
        names = list(dict.fromkeys((name, tiered(name))))
    for one in names:
        found = await calico.get(plural, one, namespace)
        if found is not None and shown(found, plural, version)["metadata"]["name"] == name:
            return found
    return None


async def in_use(calico: Calico, cidr: str) -> int:
    """How many addresses of this pool are allocated. Raises ApiError."""
    return used(await calico.list("ipamblocks"), cidr)


def used(blocks: Iterable[Object], cidr: str) -> int:
    """The same of blocks as they are stored; an address that waits for its cooldown is used by nobody."""
    pool = ipaddress.ip_network(cidr, strict=False)
    count = 0
    for one in blocks:
        spec: Object = one["spec"]
        block = ipaddress.ip_network(str(spec.get("cidr")))
        if _gone(one) or block.version != pool.version or not pool.overlaps(block):
            continue
        attributes = spec.get("attributes") or []
        for index in spec.get("allocations") or ():
            released = index is not None and index < len(attributes) and attributes[index].get("releasedAt")
            count += index is not None and not released
    return count


async def in_tier(calico: Calico, tier: str) -> list[str]:
    """The policies of a tier, each as KIND NAME. Raises ApiError."""
    found = []
    for plural in sorted(TIERED):
        for one in await calico.list(plural):
            own = str(one["metadata"]["name"])
            if str((one.get("spec") or {}).get("tier") or tier_of(own)) == tier:
                found.append(f"{KINDS[plural].shown} {own}")
    return found


def _gone(block: Object) -> bool:
    return (block.get("spec") or {}).get("deleted") in (True, "true")
