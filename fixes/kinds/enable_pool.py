"""Enables a pool again; with its only VXLAN pool disabled a node has no tunnel address, and no path to other nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from facts import Cause, Fact, Pool, say
from fixes.calico import ApiError, Calico, Conflict, Object, difference
from fixes.kind import ClusterKind, EvidenceChanged

ATTEMPTS = 20


def title(arguments: Mapping[str, str], node: str) -> str:
    return say("Enable pool {pool} ({cidr}) again", pool=arguments["pool"], cidr=arguments["cidr"])


def blast_radius(arguments: Mapping[str, str], node: str) -> str:
    return say(
        "The whole cluster: nodes that pool {pool} selects get tunnel addresses and routes in seconds, and new pods "
        "may get addresses of it. Pods that run keep theirs.",
        pool=arguments["pool"],
    )


def undo(arguments: Mapping[str, str], node: str) -> str:
    return say("Set disabled: true on IPPool {pool}, which cuts the paths between nodes again.", pool=arguments["pool"])


def propose(cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    """pool, cidr."""
    pool = next((fact for fact in facts if isinstance(fact, Pool) and fact.id in cause.evidence), None)
    if pool is None or not pool.disabled or pool.deleting:
        return None
    return {"pool": pool.name, "cidr": pool.cidr}


async def holds(calico: Calico, arguments: Mapping[str, str]) -> None:
    await _pool(calico, arguments)


def by_hand(arguments: Mapping[str, str]) -> list[str]:
    return [f"""calicoctl patch ippool {arguments["pool"]} --patch '{{"spec": {{"disabled": false}}}}'"""]


async def preview(calico: Calico, arguments: Mapping[str, str]) -> list[str]:
    pool = await _pool(calico, arguments)
    return difference(f"ippools {arguments['pool']}", pool, _enabled(pool))


async def execute(calico: Calico, arguments: Mapping[str, str]) -> None:
    for _ in range(ATTEMPTS):
        pool = await _pool(calico, arguments)
        try:
            await calico.replace("ippools", _enabled(pool))
            return
        except Conflict:
            continue
    raise ApiError("The IPPool is being changed by others all the time; nothing was changed here. Try again.")


async def verify(calico: Calico, arguments: Mapping[str, str]) -> tuple[bool, str]:
    pool = await calico.get("ippools", arguments["pool"])
    if pool is None:
        return False, f"There is no pool {arguments['pool']}."
    if pool["spec"].get("disabled"):
        return False, f"Pool {arguments['pool']} is disabled."
    return True, f"Pool {arguments['pool']} is enabled; tunnel addresses and routes follow within seconds."


async def _pool(calico: Calico, arguments: Mapping[str, str]) -> Object:
    """The pool as it is now. Raises EvidenceChanged unless it is the disabled one that was seen."""
    name = arguments.get("pool", "")
    if not name:
        raise ValueError("the request does not say which pool")
    pool = await calico.get("ippools", name)
    if pool is None or pool["spec"].get("cidr") != arguments.get("cidr"):
        raise EvidenceChanged(f"There is no pool {name} of {arguments.get('cidr')} any more.")
    if pool["metadata"].get("deletionTimestamp"):
        raise EvidenceChanged(f"Pool {name} is being deleted.")
    if not pool["spec"].get("disabled"):
        raise EvidenceChanged(f"Pool {name} is enabled already; there is nothing left to do.")
    return pool


def _enabled(pool: Object) -> Object:
    return {**pool, "spec": {**pool["spec"], "disabled": False}}


KIND = ClusterKind(
    name="enable_pool",
    title=title,
    blast_radius=blast_radius,
    undo=undo,
    propose=propose,
    holds=holds,
    preview=preview,
    by_hand=by_hand,
    execute=execute,
    verify=verify,
)
