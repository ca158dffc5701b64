"""Takes back a node's claim on another node's block; over BGP both announce it, and half of its packets stray."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network

from facts import BlockClaim, Cause, Fact, say
from fixes.calico import CLASSIC, NATIVE, ApiError, Calico, Conflict, Object, difference
from fixes.kind import ClusterKind, EvidenceChanged

ATTEMPTS = 20
MARKS: dict[str, str | bool] = {CLASSIC: "true", NATIVE: True}  # what `deleted` is in each


def title(arguments: Mapping[str, str], node: str) -> str:
    return say(
        "Delete the BlockAffinity of {claimant} for block {block}",
        claimant=arguments["claimant"],
        block=arguments["block"],
    )


def blast_radius(arguments: Mapping[str, str], node: str) -> str:
    return say(
        "Block {block}, which stays {owner}'s: {claimant} announces it no more. No address of {claimant}'s pods is of "
        "this block.",
        block=arguments["block"],
        owner=arguments["owner"],
        claimant=arguments["claimant"],
    )


def undo(arguments: Mapping[str, str], node: str) -> str:
    return say("Not needed: the block itself is {owner}'s, and Calico goes by the block.", owner=arguments["owner"])


def propose(cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    """claimant, block, owner (whom the block itself names), state (of the claim)."""
    claim = next((fact for fact in facts if isinstance(fact, BlockClaim) and fact.id in cause.evidence), None)
    if claim is None or not claim.block_node or claim.node == claim.block_node:
        return None
    return {"claimant": claim.node, "block": claim.block, "owner": claim.block_node, "state": claim.state}


async def holds(calico: Calico, arguments: Mapping[str, str]) -> None:
    await _claim(calico, arguments)


async def preview(calico: Calico, arguments: Mapping[str, str]) -> list[str]:
    claim = await _claim(calico, arguments)
    return difference(f"blockaffinities {claim['metadata']['name']}", claim, None)


async def execute(calico: Calico, arguments: Mapping[str, str]) -> None:
    """As Calico itself deletes one: marked first, so that no reader takes it for a claim any more, then gone."""
    for _ in range(ATTEMPTS):
        claim = await _claim(calico, arguments)
        marked = {**claim, "spec": {**claim["spec"], "deleted": MARKS[await calico.group()]}}
        try:
            written = await calico.replace("blockaffinities", marked)
        except Conflict:
            continue
        # Whoever writes it in between has seen that it was to be deleted.
        with contextlib.suppress(Conflict):
            await calico.delete("blockaffinities", written)
        return
    raise ApiError("The BlockAffinity is being changed by others all the time; nothing was deleted. Try again.")


async def verify(calico: Calico, arguments: Mapping[str, str]) -> tuple[bool, str]:
    claims = [one for one in await calico.list("blockaffinities") if _is(one, arguments)]
    claimant, block = arguments["claimant"], arguments["block"]
    if not claims:
        return True, f"{claimant} has no BlockAffinity for {block} any more."
    if all(_marked(one) for one in claims):
        return True, f"{claimant}'s BlockAffinity for {block} is marked as deleted; Calico clears it away."
    return False, f"{claimant} still has a BlockAffinity for {block}."


async def _claim(calico: Calico, arguments: Mapping[str, str]) -> Object:
    """The BlockAffinity as it is now. Raises EvidenceChanged unless the claim is as wrong as it was."""
    claimant, cidr, owner = (arguments.get(name, "") for name in ("claimant", "block", "owner"))
    if not claimant or not owner or claimant == owner:
        raise ValueError("the request does not say whose claim it is, and whose the block is")
    network = ip_network(cidr)
    found = [one for one in await calico.list("blockaffinities") if _is(one, arguments) and not _marked(one)]
    if len(found) != 1 or found[0]["spec"].get("type") not in (None, "", "host"):
        raise EvidenceChanged(f"{claimant} has no BlockAffinity for {cidr} any more.")
    state = str(found[0]["spec"].get("state") or "")
    if state != arguments.get("state", ""):
        raise EvidenceChanged(f"The BlockAffinity of {claimant} for {cidr} is {state or 'confirmed'} now.")
    blocks = [one["spec"] for one in await calico.list("ipamblocks") if one["spec"].get("cidr") == cidr]
    if [one.get("affinity") for one in blocks if not one.get("deleted")] != [f"host:{owner}"]:
        raise EvidenceChanged(f"Block {cidr} is not {owner}'s any more.")
    for attribute in blocks[0].get("attributes") or ():
        if (attribute.get("secondary") or {}).get("node") == claimant:
            raise EvidenceChanged(f"Block {cidr} holds an address for {claimant}.")
    for pod in await calico.list("pods", fieldSelector=f"spec.nodeName={claimant}"):
        status: Object = pod.get("status") or {}
        own = [one.get("ip") for one in status.get("podIPs") or ()]
        if status.get("phase") not in ("Succeeded", "Failed") and any(
            one and ip_address(one) in network for one in own
        ):
            raise EvidenceChanged(f"Pod {pod['metadata']['name']} on {claimant} has an address of block {cidr}.")
    return found[0]


def _is(affinity: Object, arguments: Mapping[str, str]) -> bool:
    spec: Object = affinity["spec"]
    return (spec.get("node"), spec.get("cidr")) == (arguments["claimant"], arguments["block"])


def _marked(affinity: Object) -> bool:
    return affinity["spec"].get("deleted") in MARKS.values()


KIND = ClusterKind(
    name="delete_block_affinity",
    title=title,
    blast_radius=blast_radius,
    undo=undo,
    propose=propose,
    holds=holds,
    preview=preview,
    execute=execute,
    verify=verify,
)
