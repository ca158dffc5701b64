"""Writes a resource of Calico's as somebody wrote it down; without it who may edit one has no witness."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from facts import Cause, Fact, say
from fixes.beside import beside, find, version_of
from fixes.calico import Calico, Conflict, Object, difference
from fixes.kind import ClusterKind, EvidenceChanged
from fixes.resources import rules
from fixes.resources.form import plain, shown
from fixes.resources.kinds import KINDS

MOST = 200  # lines of a difference that a request keeps


def title(arguments: Mapping[str, str], node: str) -> str:
    if not arguments.get("resource_version"):
        return say("Create {resource}", resource=named(arguments))
    if arguments.get("verb") == "replace":
        return say("Replace {resource}", resource=named(arguments))
    return say("Change {resource}", resource=named(arguments))


def named(arguments: Mapping[str, str]) -> str:
    """KIND NAME, with its namespace before the name."""
    within = f"{arguments['namespace']}/" if arguments.get("namespace") else ""
    return f"{arguments['kind']} {within}{arguments['name']}"


def blast_radius(arguments: Mapping[str, str], node: str) -> str:
    if not arguments.get("reach"):
        return say("All that Calico does by {resource}; it was not counted.", resource=named(arguments))
    return say("As counted when it was asked for: {reach}", reach=arguments["reach"])


def undo(arguments: Mapping[str, str], node: str) -> str:
    if arguments.get("resource_version"):
        return say("Apply it as it was: the request keeps that as evidence, and `fixes show` prints it.")
    within = f" -n {arguments['namespace']}" if arguments.get("namespace") else ""
    return say(
        "Delete it: {command}", command=f"calico-why delete {arguments['kind'].lower()} {arguments['name']}{within}"
    )


def propose(cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    """Nothing: people write resources down, no diagnosis does."""
    return None


async def holds(calico: Calico, arguments: Mapping[str, str]) -> None:
    await _as_asked(calico, arguments)


async def preview(calico: Calico, arguments: Mapping[str, str]) -> list[str]:
    """As people write resources, not as the cluster stores them. The API server is asked what it would make of it."""
    wanted, before, version = await _as_asked(calico, arguments)
    plural = arguments["plural"]
    after = await calico.try_out(plural, wanted)
    lines = difference(
        named(arguments),
        plain(shown(before, plural, version)) if before else None,
        plain(shown(after, plural, version)),
    )
    if len(lines) > MOST:
        lines = [*lines[: MOST - 1], f"… {len(lines) - MOST + 1} more lines"]
    return lines or ["Nothing: it is like that already."]


async def execute(calico: Calico, arguments: Mapping[str, str]) -> None:
    wanted, before, _ = await _as_asked(calico, arguments)
    try:
        if before is None:
            await calico.create(arguments["plural"], wanted)
        else:
            await calico.replace(arguments["plural"], wanted)
    except Conflict as conflict:
        raise EvidenceChanged(str(conflict)) from conflict


async def verify(calico: Calico, arguments: Mapping[str, str]) -> tuple[bool, str]:
    wanted = _manifest(arguments)
    found = await calico.get(arguments["plural"], arguments["stored"], arguments.get("namespace", ""))
    if found is None:
        return False, f"There is no {named(arguments)}."
    if not _holds_all(found.get("spec"), wanted.get("spec")):
        return False, f"{named(arguments)} is not what was asked for."
    return True, f"{named(arguments)} is what was asked for (resourceVersion {found['metadata']['resourceVersion']})."


async def _as_asked(calico: Calico, arguments: Mapping[str, str]) -> tuple[Object, Object | None, str]:
    """What to write, what is there now, and Calico's version.

    Raises EvidenceChanged unless all is as it was when it was asked for, ValueError for what is never written.
    """
    wanted = _manifest(arguments)
    plural, stored, namespace = arguments["plural"], arguments["stored"], arguments.get("namespace", "")
    version = await version_of(calico)
    if wanted["apiVersion"] != await calico.group():
        raise ValueError(f"it is written for {wanted['apiVersion']}, and this cluster keeps {await calico.group()}")
    found = shown(wanted, plural, version)
    if found["metadata"]["name"] != arguments["name"]:
        raise ValueError("the request names another resource than it writes")
    if wrong := rules.refused(found, plural, version=version):
        raise ValueError(f"Calico refuses it: {' '.join(wrong)}")
    before = await calico.get(plural, stored, namespace)
    seen = arguments.get("resource_version", "")
    if not seen and (before or await find(calico, plural, arguments["name"], namespace, version)):
        raise EvidenceChanged(f"{named(arguments)} is there by now.")
    if seen and before is None:
        raise EvidenceChanged(f"There is no {named(arguments)} any more.")
    if before is not None and seen != before["metadata"]["resourceVersion"]:
        raise EvidenceChanged(f"{named(arguments)} was changed since it was asked for.")
    if before is not None and before["metadata"].get("deletionTimestamp"):
        raise EvidenceChanged(f"{named(arguments)} is being deleted.")
    if wrong := rules.clashes(found, plural, await beside(calico, plural), new=before is None):
        raise EvidenceChanged(f"It does not go with what is there now: {' '.join(wrong)}")
    if before is not None and (wrong := rules.changed(found, shown(before, plural, version), plural)):
        raise ValueError(f"Calico refuses it: {' '.join(wrong)}")
    return wanted, before, version


def _manifest(arguments: Mapping[str, str]) -> Object:
    """The object to write, as the cluster stores it. Raises ValueError for one that is none, or is never written."""
    kind = KINDS.get(arguments.get("plural", ""))
    if kind is None or not kind.written:
        raise ValueError(f"{arguments.get('plural')!r} is no kind of resource that is written")
    wanted = json.loads(arguments.get("manifest", ""))
    metadata = wanted.get("metadata") if isinstance(wanted, dict) else None
    if not isinstance(metadata, dict) or wanted.get("kind") not in (kind.kind, kind.shown):
        raise ValueError("the request does not hold the resource that it names")
    said = (metadata.get("name"), metadata.get("namespace", ""), metadata.get("resourceVersion", ""))
    if said != (arguments.get("stored"), arguments.get("namespace", ""), arguments.get("resource_version", "")):
        raise ValueError("the request does not hold the resource that it names")
    return dict(wanted)


def _holds_all(found: object, wanted: object) -> bool:
    """All of what was wanted is there; what the API server filled in may be there beside."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            value is None or _holds_all(found.get(name), value) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        same = isinstance(found, list) and len(found) == len(wanted)
        return same and all(map(_holds_all, found, wanted))  # type: ignore[call-overload]
    return found == wanted


KIND = ClusterKind(
    name="write_resource",
    title=title,
    blast_radius=blast_radius,
    undo=undo,
    propose=propose,
    holds=holds,
    preview=preview,
    execute=execute,
    verify=verify,
)
