"""Makes fix requests of resources that somebody wants written or deleted; all is checked first, so that nobody is asked
to approve what Calico or the API server would refuse."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from bot.errors import COULD_NOT_JUDGE, UserError
from bot.fix_requests import specified
from bot.resources.manifest import Wanted
from bot.resources.names import kind_of, namespaced
from bot.resources.patch import patched
from bot.resources.reach import NEEDS, World, reach
from bot.resources.reading import named
from bot.sources.api import Missing, Refused, Unreachable
from bot.sources.resources import path
from bot.told import Context, Told
from facts import Text, say
from fixes.beside import beside, find, in_tier, used, version_of
from fixes.calico import ApiError, Calico, Denied, Object, difference
from fixes.kind import kinds
from fixes.kinds.delete_resource import KEPT_TIERS
from fixes.request import Evidence, Person, Spec, stamp
from fixes.resources import fields, rules, schema
from fixes.resources.form import plain, shown, stored
from fixes.resources.kinds import KINDS

LONGEST = 60_000  # characters of a resource; a request is an object of the cluster, too


class Prepared(NamedTuple):
    """A request that is to be made. kind: of fix. before: what is there now, in the form of projectcalico.org/v3."""

    kind: str
    arguments: dict[str, str]
    lines: list[str]  # the difference
    before: Object | None


class _Here(NamedTuple):
    calico: Calico
    group: str
    version: str  # Calico's
    context: Context


async def written(verb: str, wanted: Sequence[Wanted], context: Context) -> Told:
    """Requests to create, apply or replace these. Raises UserError before any of them is made."""
    here = await _here(context)
    prepared: list[Prepared] = []
    same: list[str] = []
    wrong: list[str] = []
    tiers = [one.name for one in wanted if one.plural == "tiers"]
    pools = [one.found for one in wanted if one.plural == "ippools"]
    for one in wanted:
        try:
            made = await _written(verb, one, here, tiers, pools)
        except UserError as error:
            wrong.append(f"{one.place}: {error.sentence}" if one.place else error.sentence)
            continue
        if made is None:
            same.append(_called(one))
        else:
            prepared.append(made)
    if wrong:
        raise UserError(" ".join(wrong))
    return await _requested(prepared, same, context)


async def patch(plural: str, name: str, namespace: str, said: Any, kind: str, context: Context) -> Told:
    """A request to patch one. Raises UserError."""
    here = await _here(context)
    before = await _there(here, plural, name, namespace)
    found = patched(plain_with(before, here.version, plural), said, kind)
    made = await _written("patch", Wanted(plural, found), here, [], [])
    return await _requested([made] if made else [], [] if made else [_called(Wanted(plural, found))], context)


async def deleted(plural: str, name: str, namespace: str, confirm: str, context: Context) -> Told:
    """A request to delete one. Raises UserError."""
    here = await _here(context)
    there = await _there(here, plural, name, namespace)
    before = shown(there, plural, here.version)
    world = await _world(plural, context)
    arguments = _arguments("delete", plural, before, there)
    try:
        if plural == "tiers":
            if name in KEPT_TIERS:
                raise UserError(f"The tier {name} is Calico's own, and is not deleted.")
            if policies := await in_tier(here.calico, name):
                more = f" and {len(policies) - 5} more" if len(policies) > 5 else ""
                raise UserError(f"The tier {name} has policies: {', '.join(policies[:5])}{more}. Delete them first.")
        if plural == "ippools":
            count = used(await here.calico.list("ipamblocks"), str(before["spec"].get("cidr")))
            arguments["in_use"] = str(count)
            if confirm and confirm != name:
                raise UserError(f"--confirm {confirm} is not the name of the pool, {name}.")
            if count and not confirm:
                raise UserError(
                    f"{count} addresses of IPPool {name} are in use; pods that have them may lose their path to other "
                    f"nodes. If that is meant, type its name: delete ippool {name} --confirm {name}. To give no more "
                    f'addresses out of it: patch ippool {name} -p \'{{"spec": {{"disabled": true}}}}\''
                )
            arguments["confirm"] = confirm
    except ApiError as error:
        raise _unread(error) from error
    arguments["reach"] = reach(plural, None, before, world)
    lines = difference(_called(Wanted(plural, before)), plain(before), None)
    return await _requested([Prepared("delete_resource", arguments, lines, before)], [], context)


def plain_with(found: Object, version: str, plural: str) -> Object:
    """The stored object as people write it, to be patched."""
    return copy.deepcopy(plain(shown(found, plural, version)))


async def _written(
    verb: str, wanted: Wanted, here: _Here, tiers: Sequence[str], pools: Sequence[Object]
) -> Prepared | None:
    """None where it is like that already. Raises UserError.

    tiers, pools: what is to be made together with it.
    """
    plural, called = wanted.plural, _called(wanted)
    found = wanted.found
    published = await _schema(here, plural)
    try:
        there = await find(here.calico, plural, wanted.name, wanted.namespace, here.version)
        near = await beside(here.calico, plural)
        before = shown(there, plural, here.version) if there else None
        problems = _problems(found, before, plural, here.version, published)
        if problems:
            raise UserError(f"Calico refuses {called}. {' '.join(problems)}")
        _may(verb, wanted, before, called)
        if before is not None:
            found = _over(found, before, plural, merged=verb != "patch")
            problems = rules.changed(found, before, plural)
        found = rules.completed(found, plural)
        near = near._replace(
            tiers=None if near.tiers is None else [*near.tiers, *tiers],
            pools=None if near.pools is None else [*near.pools, *pools],
        )
        problems += rules.clashes(found, plural, near, new=before is None)
        if problems:
            raise UserError(f"Calico refuses {called}. {' '.join(problems)}")
        raw = stored(found, plural, here.group, there, version=here.version, now=stamp(here.context.store.now()))
        after = await _tried(here.calico, plural, raw, found, called)
    except ApiError as error:
        raise _unread(error) from error
    old = plain(before) if before else None
    lines = difference(called, old, plain(shown(after, plural, here.version)))
    if not lines:
        return None
    manifest = json.dumps(raw, separators=(",", ":"), ensure_ascii=False)
    if len(manifest) > LONGEST:
        raise UserError(
            f"{called} has {len(manifest)} characters, and a request takes {LONGEST}. Divide it, or write it with "
            "calicoctl."
        )
    arguments = _arguments(verb, plural, found, there)
    arguments["stored"] = str(raw["metadata"]["name"])
    arguments["manifest"] = manifest
    arguments["reach"] = reach(plural, shown(after, plural, here.version), before, await _world(plural, here.context))
    return Prepared("write_resource", arguments, lines, before)


def _problems(found: Object, before: Object | None, plural: str, version: str, published: Object | None) -> list[str]:
    """What the cluster's schema, or else our own list of fields, and Calico's rules refuse. What is stored like that is
    no field of ours to refuse."""
    spec = found.get("spec")
    if isinstance(spec, dict):
        old = (before or {}).get("spec") or {}
        new = {name: value for name, value in spec.items() if name not in old or old[name] != value}
        if wrong := schema.wrong(new, published) if published else fields.wrong(new, plural):
            return wrong
    return rules.refused(found, plural, version=version)


def _may(verb: str, wanted: Wanted, before: Object | None, called: str) -> None:
    """Raises UserError where the word does not go with what is there."""
    if before is not None and verb == "create":
        raise UserError(f"{called} is there already. To change it: apply, replace or patch.")
    if before is None and verb == "replace":
        raise UserError(f"{called} is not there to be replaced. To make it: create or apply.")
    said = str(wanted.found["metadata"].get("resourceVersion") or "")
    if said and before is None:
        raise UserError(f"There is no {called} any more, of which this is resourceVersion {said}.")
    if said and before is not None and said != before["metadata"]["resourceVersion"]:
        raise UserError(
            f"{called} was changed since you read it: this is resourceVersion {said}, and it has "
            f"{before['metadata']['resourceVersion']}. Take your change over into what `get` shows now."
        )


def _over(found: Object, before: Object, plural: str, *, merged: bool) -> Object:
    """Over what is there: all but labels, annotations and `spec` stays. merged: as calicoctl does it, labels and
    annotations beside those that are there."""
    old, new = before["metadata"], found["metadata"]
    metadata = {name: value for name, value in old.items() if name not in ("labels", "annotations")}
    for name in ("labels", "annotations"):
        if own := {**((old.get(name) or {}) if merged else {}), **(new.get(name) or {})}:
            metadata[name] = own
    spec = dict(found["spec"])
    if plural == "ippools" and "blockSize" not in found["spec"]:
        spec["blockSize"] = before["spec"]["blockSize"]
    return {**before, "metadata": metadata, "spec": spec}


async def _tried(calico: Calico, plural: str, raw: Object, found: Object, called: str) -> Object:
    """What the API server would make of it; where this account may not even try that, what we would write."""
    try:
        return await calico.try_out(plural, raw)
    except Denied:
        return raw  # the fixer tries it before anybody decides, and shows what comes of it
    except ApiError as error:
        raise UserError(f"The API server refuses {called}. {error}") from error


async def _there(here: _Here, plural: str, name: str, namespace: str) -> Object:
    """The stored object of this name. Raises UserError with the nearest one."""
    if not namespaced(plural) and namespace:
        raise UserError(f"{kind_of(plural)} is a kind of no namespace; leave -n out.")
    within = namespace or ("default" if namespaced(plural) else "")
    try:
        found = await find(here.calico, plural, name, within, here.version)
    except ApiError as error:
        raise _unread(error) from error
    if found is None:
        (near,) = await named(here.context.cluster, plural, [name], within)
        raise UserError(f"There is no {kind_of(plural)} {name}; did you mean {near['metadata']['name']}?")
    return found


async def _here(context: Context) -> _Here:
    calico = Calico(context.store.api)
    try:
        return _Here(calico, await calico.group(), await version_of(calico), context)
    except ApiError as error:
        raise _unread(error) from error


async def _schema(here: _Here, plural: str) -> Object | None:
    """What the cluster publishes of this kind's `spec`; None where it does not tell."""
    kind = KINDS[plural].kind if here.group.startswith("crd.") else KINDS[plural].shown
    try:
        document = await here.context.cluster.api.get(f"/openapi/v3/apis/{here.group}")
    except (Missing, Refused, Unreachable):
        return None
    return schema.of_kind(document, kind)


async def _world(plural: str, context: Context) -> World:
    """As far as it can be read: what cannot is said to be not counted."""
    found: dict[str, list[Object] | None] = {}
    group = await context.cluster.group()
    for need in NEEDS.get(plural, ()):
        try:
            found[need] = await context.cluster.api.pages(path(group, need))
        except (Missing, Refused, Unreachable):
            found[need] = None
    return World(
        pods=found.get("pods"),
        namespaces=found.get("namespaces"),
        accounts=found.get("serviceaccounts"),
        nodes=found.get("nodes"),
        hosts=found.get("hostendpoints"),
        blocks=found.get("ipamblocks"),
    )


def _arguments(verb: str, plural: str, found: Object, there: Object | None) -> dict[str, str]:
    own: Object = (there or {}).get("metadata") or {}
    return {
        "verb": verb,
        "plural": plural,
        "kind": kind_of(plural),
        "name": str(found["metadata"]["name"]),
        "namespace": str(found["metadata"].get("namespace") or ""),
        "stored": str(own.get("name") or found["metadata"]["name"]),
        "resource_version": str(own.get("resourceVersion") or ""),
        "uid": str(own.get("uid") or ""),
    }


async def _requested(prepared: Sequence[Prepared], same: Sequence[str], context: Context) -> Told:
    """Make them, and tell of them. Raises fixes.store.StoreError."""
    person = await context.whoami()
    made = [await context.store.create(_spec(one, person, context)) for one in prepared]
    names = [request.name for request in made]
    notes: list[Text | str] = [
        say("{resource} is like that already; nothing is asked for.", resource=one) for one in same
    ]
    if made:
        commands = "; ".join(f"calico-why approve {name}" for name in names)
        notes.append(say("Somebody else approves it: {command}", command=commands))
    if not made:
        headline = say("Nothing is to be changed.")
    elif len(made) == 1:
        headline = say("{request}: {title}", request=names[0], title=made[0].spec.title)
    else:
        headline = say("{count} requests, each to be approved by itself.", count=len(made))
    text = "\n\n".join(
        "\n".join([f"{request.name}: {request.spec.title}", f"  {request.spec.blast_radius}", *one.lines])
        for request, one in zip(made, prepared, strict=True)
    )
    data = [
        {
            "name": request.name,
            "title": request.spec.title,
            "blast_radius": request.spec.blast_radius,
            "undo": request.spec.undo,
            "expires_at": request.spec.expires_at,
            "difference": one.lines,
        }
        for request, one in zip(made, prepared, strict=True)
    ]
    return Told(
        headline=headline,
        text=text,
        notes=tuple(notes),
        data={"requests": data, "unchanged": list(same)},
        requests=tuple(names),
        mark="waits" if made else "healthy",
    )


def _spec(one: Prepared, person: Person, context: Context) -> Spec:
    kind = kinds()[one.kind]
    fact: Object = {
        "fact": "Resource",
        "kind": one.arguments["kind"],
        "name": one.arguments["name"],
        "namespace": one.arguments["namespace"],
        "resource_version": one.arguments["resource_version"],
        "uid": one.arguments["uid"],
        "before": plain(one.before) if one.before else None,
    }
    return specified(
        kind,
        one.arguments,
        evidence=(Evidence(id="resource", fact=fact),),
        question="",
        cluster=context.settings.cluster or context.cluster.api.context,
        requested_by=person,
        now=context.store.now(),
    )


def _called(one: Wanted) -> str:
    within = f"{one.namespace}/" if one.namespace else ""
    return f"{kind_of(one.plural)} {within}{one.name}"


def _unread(error: ApiError) -> UserError:
    return UserError(str(error), status=COULD_NOT_JUDGE)
