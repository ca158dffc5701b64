"""Deletes a resource of Calico's that somebody named; a pool with addresses in use goes by its typed name only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from facts import Cause, Fact, say
from fixes.beside import in_tier, in_use, version_of
from fixes.calico import Calico, Conflict, Object, difference
from fixes.kind import ClusterKind, EvidenceChanged
from fixes.kinds.write_resource import blast_radius, named
from fixes.resources.form import plain, shown
from fixes.resources.kinds import KINDS

KEPT_TIERS = ("default", "adminnetworkpolicy", "baselineadminnetworkpolicy", "kube-admin", "kube-baseline")


def title(arguments: Mapping[str, str], node: str) -> str:
    return say("Delete {resource}", resource=named(arguments))


def undo(arguments: Mapping[str, str], node: str) -> str:
    return say("Create it again: the request keeps it as evidence, and `fixes show` prints it.")


def propose(cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    """Nothing: people name what is to go, no diagnosis does."""
    return None


async def holds(calico: Calico, arguments: Mapping[str, str]) -> None:
    await _as_asked(calico, arguments)


async def preview(calico: Calico, arguments: Mapping[str, str]) -> list[str]:
    found = await _as_asked(calico, arguments)
    version = await version_of(calico)
    return difference(named(arguments), plain(shown(found, arguments["plural"], version)), None)


async def execute(calico: Calico, arguments: Mapping[str, str]) -> None:
    """As Calico itself deletes a pool: disabled first, so that no address is given out of it any more."""
    found = await _as_asked(calico, arguments)
    pool = arguments["plural"] == "ippools" and not found["spec"].get("disabled")
    try:
        if pool:
            found = await calico.replace("ippools", {**found, "spec": {**found["spec"], "disabled": True}})
        else:
            await calico.delete(arguments["plural"], found)
    except Conflict as conflict:
        raise EvidenceChanged(str(conflict)) from conflict
    if pool:  # something is written by now: that it was changed meanwhile is an error
        await calico.delete("ippools", found)


async def verify(calico: Calico, arguments: Mapping[str, str]) -> tuple[bool, str]:
    found = await calico.get(arguments["plural"], arguments["stored"], arguments.get("namespace", ""))
    if found is None:
        return True, f"There is no {named(arguments)} any more."
    if found["metadata"].get("uid") != arguments.get("uid"):
        return True, f"{named(arguments)} is gone, and somebody made another one of this name."
    if found["metadata"].get("deletionTimestamp"):
        return True, f"{named(arguments)} is being deleted; Calico ends that."
    if arguments["plural"] == "ippools" and found["spec"].get("disabled"):
        return False, f"{named(arguments)} is disabled, and still there."
    return False, f"{named(arguments)} is still there."


async def _as_asked(calico: Calico, arguments: Mapping[str, str]) -> Object:
    """The object as it is now. Raises EvidenceChanged unless it is the one that was seen, ValueError for what is never
    deleted."""
    plural, kind = arguments.get("plural", ""), KINDS.get(arguments.get("plural", ""))
    if kind is None or not kind.written or not arguments.get("stored"):
        raise ValueError(f"{plural!r} is no kind of resource that is deleted")
    if plural == "tiers" and arguments["name"] in KEPT_TIERS:
        raise ValueError(f"the tier {arguments['name']} is Calico's own")
    found = await calico.get(plural, arguments["stored"], arguments.get("namespace", ""))
    if found is None:
        raise EvidenceChanged(f"There is no {named(arguments)} any more.")
    seen = (arguments.get("uid"), arguments.get("resource_version"))
    if seen != (found["metadata"]["uid"], found["metadata"]["resourceVersion"]):
        raise EvidenceChanged(f"{named(arguments)} was changed since it was asked for.")
    if plural == "tiers" and (policies := await in_tier(calico, arguments["name"])):
        raise EvidenceChanged(f"The tier has policies: {', '.join(policies[:5])}.")
    if plural == "ippools":
        count, told = await in_use(calico, str(found["spec"].get("cidr"))), int(arguments.get("in_use", "0"))
        if count > told:
            raise EvidenceChanged(f"{count} of its addresses are in use by now, and {told} were.")
        if count and arguments.get("confirm") != arguments["name"]:
            raise ValueError(f"{count} of its addresses are in use, and its name was not typed")
    return found


KIND = ClusterKind(
    name="delete_resource",
    title=title,
    blast_radius=blast_radius,
    undo=undo,
    propose=propose,
    holds=holds,
    preview=preview,
    execute=execute,
    verify=verify,
)
