"""`ipam release`: asks for the release of one address, or says why not; without it a live pod's address would be freed
as readily as a leaked one, which is what calicoctl does."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network

import msgspec

from bot import leaks, told
from bot.errors import COULD_NOT_JUDGE, UserError
from bot.fix_requests import made, specified
from bot.ipam import state
from bot.ipam.report import Held, Report, report, settled
from bot.ipam.state import State
from bot.sources import describe, upkeep
from bot.sources.ipam import pool_of
from bot.sources.names import block_of
from bot.told import Context, Told
from facts import Cause, Leak, LeakedAddresses, joined, say
from fixes.calico import ApiError, Calico, Object
from fixes.kind import EvidenceChanged, TooSoon
from fixes.kinds import release_ip
from fixes.request import Evidence, FixRequest, moment, stamp

HELP = "ask for the release of one leaked address, or say why not, for example: ipam release --ip 10.244.1.7"

MOST = 20  # releases that are asked for at once: each is a card that somebody reads
SETTLE_S = 3.0  # between the two looks of one report: what is being made or taken down is over, or has changed
SHOWN = 5  # nodes in a sentence

_KINDS = {  # what is never released from here (calico.md 2.3, P2)
    "tunnel": say("it is the address of a node's tunnel"),
    "windows": say("it is reserved for Windows"),
    "service": say("it is a load balancer's"),
    "machine": say("it is a virtual machine's, which keeps it while it does not run"),
    "shared": say("it has two owners: a virtual machine that moves"),
    "": say("no pod, node or service stands in its allocation, so nobody can say whether it is used"),
}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the wish to release an address."""

    address: str
    sentence: str
    request: str = ""  # the name of the request that was made, or was there
    why: str = ""  # why there is none
    unsure: bool = False  # because something could not be seen


def add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ip", type=_one, metavar="IP", required=True, help="the address that is to be free again")
    told.output(parser, "text", "json")


async def answer(args: argparse.Namespace, context: Context) -> Told:
    """Raises UserError."""
    address = args.ip
    now, found = await look(context)
    (outcome,) = await request([address], found, now, context, seen={})
    would = calicoctl_would(now, found, address)
    held, of = found.allocations.get(address, ()), [one.label for one in found.users.get(address, ())]
    return Told(
        headline=outcome.sentence,
        notes=(
            *map(_shown, held),
            *(say("{address} belongs to {user}.", address=address, user=one) for one in of),
            would,
        ),
        data={
            "address": address,
            "request": outcome.request,
            "refused": str(outcome.why),
            "calicoctl": str(would),
            "allocations": [
                {"block": one.block, "handle": one.handle, "pod": one.pod, "node": one.node, "kind": one.kind}
                for one in held
            ],
            "users": of,
        },
        requests=(outcome.request,) if outcome.request else (),
        mark="healthy" if outcome.request else "unknown",
        status=0 if outcome.request else COULD_NOT_JUDGE if outcome.unsure else 1,
    )


def _shown(one: Held) -> str:
    return say(
        "{address} is allocated in block {block} (affinity {affinity}); attrs {attributes}",
        address=one.address,
        block=one.block,
        affinity=one.affinity or "<none>",
        attributes=one.attributes,
    )


def parsed(words: str) -> list[str]:
    """Addresses between commas, each once. Raises UserError."""
    found = []
    for word in words.split(","):
        try:
            found.append(str(ip_address(word.strip())))
        except ValueError:
            raise UserError(
                f"{word.strip()[:40]!r} is no IP address. Write the whole address, several with commas between: "
                "10.244.1.7,10.244.1.8"
            ) from None
    return list(dict.fromkeys(found))


def _one(word: str) -> str:
    found = parsed(word)
    if len(found) > 1:
        raise UserError("One address is released at a time; of several: ipam check --release IP,IP")
    return found[0]


def in_order(address: str) -> tuple[int, int]:
    parsed_ = ip_address(address)
    return parsed_.version, int(parsed_)


async def look(context: Context) -> tuple[State, Report]:
    """A report, of two looks where the first finds something. Raises UserError."""
    first = await state.read(context.cluster)
    found = await asyncio.to_thread(report, first)  # of a large cluster it takes seconds
    if not found.problems:
        return first, found
    await context.progress(say("looking once more: what is just being made or taken down is no problem"))
    await asyncio.sleep(SETTLE_S)
    second = await state.read(context.cluster)
    return second, settled(found, await asyncio.to_thread(report, second))


async def request(
    addresses: Sequence[str], found: Report, now: State, context: Context, *, seen: Mapping[str, datetime]
) -> list[Outcome]:
    """Asks for the release of those that may be, at most MOST, and says of each other one why it may not.

    seen: since when an allocation is known to be leaked; without that the first of its two looks is `now` (P1).
    Raises StoreError, UserError.
    """
    ends = {one: refused(one, why) for one in addresses if (why := why_not(found, now, one))}
    wanted = [one for one in addresses if one not in ends]
    for one in wanted[MOST:]:
        ends[one] = refused(one, say("{count} are asked for at a time; ask again for the others", count=MOST))
    wanted = wanted[:MOST]
    if wanted:
        routes = await leaks.routes(context.cluster, context.probes, wanted)
        specs = []
        for one in wanted:
            leak = found.leaks[one]
            (held,) = found.allocations[one]
            made_of = await _arguments(leak, held, found, now, routes, seen.get(one, now.taken))
            if isinstance(made_of, Outcome):
                ends[one] = made_of
                continue
            fact, arguments = made_of
            specs.append(
                specified(
                    release_ip.KIND,
                    arguments,
                    evidence=(Evidence(id=fact.id, fact=msgspec.to_builtins(fact)),),
                    question=f"ipam release --ip {one}",
                    cluster=context.cluster.name,
                    requested_by=await context.whoami(),
                    now=context.store.now(),
                )
            )
        for open_ in await made(specs, context.store):
            ends[open_.spec.arguments["address"]] = _asked(open_, now)
    return [ends[one] for one in addresses]


async def _arguments(
    leak: Leak, held: Held, found: Report, now: State, routes: leaks.Routes | None, seen: datetime
) -> Outcome | tuple[LeakedAddresses, dict[str, str]]:
    address = leak.address
    if routes is None:
        return unsure(address, say("the nodes of the cluster could not be read, so none was asked for a route to it"))
    if routes.routed[address]:
        nodes = joined(routes.routed[address])
        return refused(address, say("{nodes} has a route to a pod that uses it", nodes=nodes))
    if silent := routes.silent[address]:
        nodes = joined(silent[:SHOWN]) if len(silent) <= SHOWN else f"{', '.join(silent[:SHOWN])} …"
        return unsure(address, say("{nodes} did not say whether it has a route to it", nodes=nodes))
    fact = _fact(leak, held, found, now, routes)
    cause = Cause(rule="ip_leaked", title="", text="", evidence=(fact.id,))
    arguments = release_ip.KIND.propose(cause, [fact])
    if arguments is None:
        raise AssertionError(f"{address} is leaked, and nothing would release it")
    arguments["seen_at"] = stamp(seen)
    try:
        await release_ip.KIND.holds(_Seen(now), arguments)
    except TooSoon:
        pass  # the fixer looks again when it is time
    except EvidenceChanged as error:
        return refused(address, str(error).rstrip("."))
    except ApiError as error:
        return unsure(address, str(error).rstrip("."))
    return fact, arguments


def _fact(leak: Leak, held: Held, found: Report, now: State, routes: leaks.Routes) -> LeakedAddresses:
    """The evidence of the request, as the question that finds a full pool would have it."""
    pools = [pool for one in now.all("ippools") if (pool := describe.pool(one))]
    pool = pool_of(ip_address(leak.address), pools)
    about = msgspec.structs.asdict(leak)
    about.pop("unrouted")
    return LeakedAddresses(
        pool=pool.name if pool else "",
        node=held.node,
        count=1,
        examined=sum(one.kind == "pod" for some in found.allocations.values() for one in some),
        oldest_s=upkeep.age(held.attribute, now.taken),
        examples=(f"{leak.address} ({leak.pod}, {held.node})",),
        grace_s=found.grace_s,
        no_route_on=routes.nodes,
        **about,
    )


def _asked(one: FixRequest, now: State) -> Outcome:
    arguments = one.spec.arguments
    seen = moment(arguments["seen_at"])
    due = seen + timedelta(seconds=int(arguments["again_after_s"]))
    about = {"address": arguments["address"], "request": one.name}
    if due <= now.taken:
        sentence = say(
            "{address}: {request} waits for somebody who approves it. It was leaked at {clock} UTC, too, so it is then "
            "released at once.",
            clock=f"{seen:%H:%M:%S}",
            **about,
        )
    else:
        sentence = say(
            "{address}: {request} waits for somebody who approves it. It is looked at again at {clock} UTC, and "
            "released if it still is leaked.",
            clock=f"{due:%H:%M:%S}",
            **about,
        )
    return Outcome(address=arguments["address"], sentence=sentence, request=one.name)


def refused(address: str, why: str) -> Outcome:
    return Outcome(
        address=address, why=why, sentence=say("{address} is not released: {why}.", address=address, why=why)
    )


def unsure(address: str, why: str) -> Outcome:
    return msgspec.structs.replace(refused(address, why), unsure=True)


def why_not(found: Report, now: State, address: str) -> str:
    """Why the address may not be released, by what the report knows; "" where it is a leaked one."""
    held, users = found.allocations.get(address, ()), joined(one.label for one in found.users.get(address, ()))
    if not held:
        if users:
            return say("it is in use by {users} and not allocated, so there is nothing to release", users=users)
        block = next((cidr for cidr in found.blocks if ip_address(address) in ip_network(cidr)), "")
        if block:
            return say("it is not assigned: block {block} has it free", block=block)
        return say("it is not assigned: no block contains it")
    if len(held) > 1:
        return say("{count} blocks hold it: {blocks}", count=len(held), blocks=joined(one.block for one in held))
    (one,) = held
    if one.kind == "cooldown":
        return say("it is released already and in its cooldown, since {since}", since=one.attribute["releasedAt"])
    if users:
        return say("it is in use by {users}", users=users)
    if one.kind != "pod":
        return _KINDS[one.kind]
    if address in found.leaks:
        return ""
    if now.unread("pods") or now.unread("nodes"):
        return say("pods or nodes could not be read, so nobody can say whether it is used")
    age = upkeep.age(one.attribute, now.taken)
    if any(remark.kind == "passing" and remark.address == address for remark in found.remarks):
        return say(
            "it was given to {pod} {age} s ago, which is not there: look again when that pod must have ended",
            pod=one.pod,
            age=age,
        )
    return say("it is allocated to {pod}, and that pod is there: it may be starting, or have just ended", pod=one.pod)


def calicoctl_would(now: State, found: Report, address: str) -> str:
    """What `calicoctl ipam release --ip` does with it (calico.md 2.1): it looks at one block, and at nothing else."""
    pools = sorted((pool for one in now.all("ippools") if (pool := describe.pool(one))), key=lambda one: one.name)
    parsed_ = ip_address(address)
    pool = next((one for one in pools if parsed_ in ip_network(one.cidr)), None)
    held = [one for one in found.allocations.get(address, ()) if one.kind != "cooldown"]
    if not held:
        return say("calicoctl would say the same: it is not assigned.")
    looked = str(block_of(parsed_, pool.block_size)) if pool else held[0].block
    if looked not in {one.block for one in held}:
        return say(
            "calicoctl would say that it is not assigned: it looks at block {looked} alone, and {block} holds it.",
            looked=looked,
            block=held[0].block,
        )
    if users := joined(one.label for one in found.users.get(address, ())):
        return say(
            "calicoctl would have released it without asking, and the next pod could have got the address of {users}.",
            users=users,
        )
    return say("calicoctl would have released it at once: it looks at no pod, no route, and only once.")


class _Seen(Calico):
    """A State, read as the fixer reads the cluster: what a release rests on stands in `release_ip.KIND.holds` alone."""

    def __init__(self, seen: State) -> None:
        self._state = seen
        self.now = lambda: seen.taken

    async def list(self, resource: str, **query: str) -> list[Object]:
        found = self._state.resources.get(resource)
        if found is None:
            raise ApiError(f"The {resource} could not be read.")
        return found

    async def get(self, resource: str, name: str, namespace: str = "") -> Object | None:
        for one in await self.list(resource):
            if (one["metadata"]["name"], one["metadata"].get("namespace", "")) == (name, namespace):
                return one
        return None
