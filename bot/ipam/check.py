"""`ipam check`: what of IPAM does not belong together, as calicoctl says it and without its false alarms; without it a
leak would be looked for by hand, and a live node's tunnel address released for one."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from bot import told
from bot.errors import COULD_NOT_JUDGE, UserError
from bot.ipam import release, state
from bot.ipam.report import Held, Problem, Report, unseen
from bot.told import Context, Told
from facts import joined, say

HELP = "leaked and contradicting addresses, handles and affinities, for example: ipam check --show-problem-ips"

EVERY_S = 15.0  # between the reports of a watch
LEAST_WATCH_S, MOST_WATCH_S = 10, 7200
LARGEST = 64 << 20  # bytes of a saved report
TOP = 20  # nodes that are listed by their allocations, as calicoctl does

WORDS = {  # a kind of problem in the first line
    "leaked": say("leaked addresses"),
    "outside_pools": say("addresses in use outside all pools"),
    "not_allocated": say("addresses in use that are not allocated"),
    "several_owners": say("addresses with several owners"),
    "held_for_another": say("addresses in use that are allocated to somebody else"),
    "leaked_handle": say("handles without addresses"),
    "missing_handle": say("handles that are missing"),
    "handle_counts_less": say("handles that count too few addresses"),
    "invalid_block": say("invalid blocks"),
    "block_in_no_pool": say("blocks in no pool"),
    "overlapping_blocks": say("blocks that overlap"),
    "claimed_by_another": say("affinities for another node's block"),
    "affinity_without_block": say("affinities without a block"),
    "block_without_affinity": say("blocks whose node has no affinity for them"),
    "affinity_twice": say("affinities that are there twice"),
    "no_tunnel_address": say("nodes without a tunnel address"),
}
_AFFINITIES = ("claimed_by_another", "affinity_without_block", "block_without_affinity", "affinity_twice")
_SHAPES = ("block_in_no_pool", "overlapping_blocks")
_LEFT_OUT = {  # allocations nobody uses that are no leak, in the order they are told
    "waiting": "of pods that are starting or have finished",
    "young": "of pods that ended just now",
    "cooldown": "in cooldown",
    "windows": "reserved for Windows",
    "machine": "of virtual machines",
    "service": "of load balancers",
    "shared": "with two owners",
    "": "of nobody known here",
}


def add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--show-all-ips", action="store_true", help="print all addresses that are checked")
    parser.add_argument("--show-problem-ips", action="store_true", help="print those with problems")
    parser.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=0.0,
        metavar="SECONDS",
        help="go on until a leak may be released (15 min by default), and tell what stayed and what changed",
    )
    parser.add_argument(
        "--since", metavar="FILE", help="a report of before (-o json --to FILE): the first of two looks"
    )
    parser.add_argument(
        "--release",
        type=lambda said: said if said == "all" else release.parsed(said),
        metavar="IP[,IP]|all",
        help="ask for the release of these leaked addresses; all: those that stand in the report of --since, too",
    )
    told.output(parser, "text", "json", "csv")


def check_words(args: argparse.Namespace, written: str) -> None:
    """args.earlier is the report of --since then. Raises UserError."""
    args.earlier = _earlier(args.since, written) if args.since else None
    if args.watch and not LEAST_WATCH_S <= args.watch <= MOST_WATCH_S:
        raise UserError(
            f"--watch {args.watch:g}: give the seconds to go on, from {LEAST_WATCH_S} to {MOST_WATCH_S}, or none."
        )


async def answer(args: argparse.Namespace, context: Context) -> Told:
    """Raises UserError."""
    wanted = [] if args.release in (None, "all") else args.release
    earlier = args.earlier
    now, found = await release.look(context)
    if earlier is not None:
        _of_one_cluster(earlier, found)
    looks = Looks(found, earlier)
    if args.watch is not None:
        await _watch(looks, args.watch or found.grace_s + EVERY_S, context)
    outcomes: list[release.Outcome] = []
    listed = sorted(looks.now.leaks, key=release.in_order)
    if args.release == "all" and earlier is not None:
        before = {one.key for one in earlier.problems}
        wanted = [one.address for one in looks.now.of("leaked") if one.key in before and one.address in listed]
    if wanted:
        await context.progress(say("asking every node for a route to {count} addresses", count=len(wanted)))
        now = await state.read(context.cluster)
        outcomes = await release.request(wanted, looks.now, now, context, seen=looks.seen())
    return _told(args, looks, outcomes, context.cluster.name)


class Earlier(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed of a report that was saved (docs/json.md)."""

    clusterGUID: str  # as calicoctl's reports have it
    taken: datetime
    problems: tuple[Problem, ...]


class Looks:
    """Reports one after the other, and since when each problem is there without a gap."""

    def __init__(self, first: Report, earlier: Earlier | None = None) -> None:
        self.began = earlier.taken if earlier else first.taken
        self.count = 0
        self.gone: dict[tuple[str, ...], Problem] = {}
        self._since = {one.key: earlier.taken for one in earlier.problems} if earlier else {}
        self._known = {one.key: one for one in earlier.problems} if earlier else {}
        self.repeated = earlier is not None
        self.add(first)

    def add(self, now: Report) -> None:
        self.repeated = self.repeated or self.count > 0
        self.count += 1
        self.now = now
        there = {one.key: one for one in now.problems}
        self.gone |= {key: one for key, one in self._known.items() if key not in there}
        self.gone = {key: one for key, one in self.gone.items() if key not in there}
        self._since = {key: self._since.get(key, now.taken) for key in there}
        self._known = there

    def since(self, problem: Problem) -> datetime:
        return self._since[problem.key]

    def seen(self) -> dict[str, datetime]:
        """Leaked addresses, with the first look that showed exactly this allocation."""
        return {one.address: self.since(one) for one in self.now.of("leaked")}

    def sure(self) -> list[Problem]:
        """All but addresses that look leaked and were not yet seen so twice, long enough apart."""
        due = self.now.taken - timedelta(seconds=self.now.grace_s)
        return [one for one in self.now.problems if one.kind != "leaked" or self.since(one) <= due]

    def lasting(self) -> list[Problem]:
        """There since the first look."""
        return [one for one in self.now.problems if self.since(one) == self.began]

    def new(self) -> list[Problem]:
        return [one for one in self.now.problems if self.since(one) != self.began]

    def ripe(self) -> list[str]:
        """Leaked addresses that were seen long enough ago, and now."""
        return [one.address for one in self.sure() if one.kind == "leaked" and one.address in self.now.leaks]


async def _watch(looks: Looks, seconds_: float, context: Context) -> None:
    """Looks on for so long; in a terminal Ctrl-C ends it early."""
    began = time.monotonic()
    pause = max(release.SETTLE_S, min(EVERY_S, seconds_ / 5))
    try:
        while (passed := time.monotonic() - began) < seconds_:
            await context.progress(
                say(
                    "watching, {passed} of {seconds} s: {lasting} problems stayed, {gone} went, {new} are new",
                    passed=f"{passed:.0f}",
                    seconds=f"{seconds_:.0f}",
                    lasting=len(looks.lasting()),
                    gone=len(looks.gone),
                    new=len(looks.new()),
                )
            )
            await asyncio.sleep(min(pause, max(seconds_ - passed, 0.0)))
            looks.add((await release.look(context))[1])
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if context.written or task is None:
            raise  # the bot itself is being stopped
        task.uncancel()


def _earlier(path: str, written: str) -> Earlier:
    if written:
        raise UserError(
            "--since reads a file, and there is none in Slack. Write: ipam check --watch, which looks twice."
        )
    try:
        content = Path(path).read_bytes()[: LARGEST + 1]
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}). A report is written by: ipam check -o json --to FILE"
        ) from error
    try:
        if len(content) > LARGEST:
            raise ValueError("it is larger than any report")
        earlier = msgspec.json.decode(content, type=Earlier)
    except (ValueError, msgspec.DecodeError) as error:
        raise UserError(
            f"{path} is no report of `ipam check` that tells when it was made ({error}); calicoctl's do not. "
            "Write one: ipam check -o json --to FILE"
        ) from error
    if earlier.taken.tzinfo is None or earlier.taken > datetime.now(UTC):
        raise UserError(f"{path} says it was made at {earlier.taken}, which is not in the past, so it proves nothing.")
    return earlier


def _of_one_cluster(earlier: Earlier, now: Report) -> None:
    if not now.guid or earlier.clusterGUID != now.guid:
        raise UserError(
            f"The report is of the cluster with GUID {earlier.clusterGUID or 'unknown'}, and this one has "
            f"{now.guid or 'none that can be read'}. Give a report of this cluster."
        )


# -- the answer ----------------------------------------------------------------------------------------------------


def _told(args: argparse.Namespace, looks: Looks, outcomes: Sequence[release.Outcome], cluster: str) -> Told:
    now = looks.now
    elsewhere = not now.allocations and bool(now.of("other_ipam"))
    unsure = bool(now.blind) or elsewhere or any(one.unsure for one in outcomes)
    whole = text(now, show_all=args.show_all_ips, show_problems=args.show_problem_ips)
    return Told(
        headline=headline(looks),
        text=f"{whole}\n\n{changes(looks)}" if looks.repeated else whole,
        notes=(*_of_outcomes(outcomes), *_notes(args, looks, asked=bool(outcomes)), *unseen(now.blind)),
        data=data(looks, outcomes, cluster),
        rows=rows(now, show_all=args.show_all_ips),
        requests=tuple(one.request for one in outcomes if one.request),
        mark="cause" if looks.sure() else "unknown" if now.problems or now.blind or elsewhere else "healthy",
        status=COULD_NOT_JUDGE if unsure else int(any(one.why for one in outcomes)),
    )


def headline(looks: Looks) -> str:
    """One sentence; never that all is well where something was not seen, nor that an address leaked after one look."""
    now, sure = looks.now, looks.sure()
    counts = Counter(one.kind for one in sure)
    count = sum(map(len, now.allocations.values()))
    if now.problems:
        kinds = [say("{kind} ({count})", count=counts[one], kind=WORDS[one]) for one in WORDS if counts[one]]
        if suspected := len(now.problems) - len(sure):
            kinds.append(say("addresses that look leaked ({count})", count=suspected))
        return say("IPAM has problems: {kinds}.", kinds=joined(kinds))
    if now.blind:
        return say("Nothing wrong was found in IPAM, but not all of it could be read.")
    if not count and now.of("other_ipam"):
        return say("Calico's IPAM gives no pod of this cluster an address, so there is nothing to compare.")
    blocks = len(now.blocks)
    return say("{count} allocations in {blocks} blocks, and all of it belongs together.", count=count, blocks=blocks)


def _notes(args: argparse.Namespace, looks: Looks, *, asked: bool) -> Iterator[str]:
    now, leaks = looks.now, sorted(looks.now.leaks, key=release.in_order)
    if now.problems and not (args.show_problem_ips or args.show_all_ips):
        yield say("Which these are: {command}", command="ipam check --show-problem-ips")
    if leaks:
        yield from _frees(now)
    if leaks and not asked:
        yield from _what_to_release(args, looks, leaks)
    if now.of("leaked_handle"):
        yield say("A handle without addresses costs nothing but an object, and nothing in Calico deletes it.")
    if now.information.get("datastoreReady") is False:
        yield say("The datastore is locked: somebody is migrating or repairing it, and nothing is released meanwhile.")
    tunnels = sum(":" in address and any(one.kind == "node" for one in some) for address, some in now.users.items())
    if tunnels:
        yield say("calicoctl calls the {count} IPv6 addresses of tunnels leaked. They are in use.", count=tunnels)


def _what_to_release(args: argparse.Namespace, looks: Looks, leaks: Sequence[str]) -> Iterator[str]:
    minutes = looks.now.grace_s // 60
    if args.release == "all" and not args.since:
        first = ",".join(leaks[: release.MOST])
        yield say(
            "all stands for what a report lists that somebody has read (--since FILE). These look leaked now: look at "
            "them, and write those that are to go: {command}",
            command=f"ipam check --release {first}",
        )
        return
    ripe = sorted(looks.ripe(), key=release.in_order)
    if ripe:
        named = "all" if args.since and not args.watch else ",".join(ripe[: release.MOST])
        since = f"--since {args.since} " if args.since else ""
        yield say(
            "{count} of them were leaked {minutes} min ago as well, and may be released as soon as somebody approves: "
            "{command}",
            count=len(ripe),
            minutes=minutes,
            command=f"ipam check {since}--release {named}",
        )
        return
    yield say(
        "One look is not enough to release an address: a pod that was just deleted by force looks the same. Look again "
        "after {minutes} min ({watch}), or keep this report ({keep}) and compare with it ({since}). A release that is "
        "asked for now waits as long: {release}",
        minutes=minutes,
        watch="ipam check --watch",
        keep="ipam check -o json --to FILE",
        since="ipam check --since FILE",
        release=f"ipam check --release {','.join(leaks[:2])}",
    )


def _frees(now: Report) -> Iterator[str]:
    """Who frees leaked addresses without anybody's doing."""
    collector = now.collector
    if collector is None:
        return
    if not collector.running:
        yield say("No pod of calico-kube-controllers runs here, so nobody frees leaked addresses.")
    elif not collector.grace_s:
        yield say("leakGracePeriod is 0, so {name} frees no leaked addresses.", name=collector.name)
    else:
        yield say(
            "{name} frees leaked addresses by itself, about {minutes} min after it first saw them.",
            name=collector.name,
            minutes=(collector.grace_s * 3 // 2) // 60,
        )


def _of_outcomes(outcomes: Sequence[release.Outcome]) -> list[str]:
    return [one.sentence for one in outcomes]


def text(now: Report, *, show_all: bool = False, show_problems: bool = False) -> str:
    """As calicoctl prints it, with what it does not look at after that. No newline at its end."""
    return "\n".join(_lines(now, show_all, show_all or show_problems))


def _lines(now: Report, show_all: bool, show: bool) -> Iterator[str]:
    yield from ("Checking IPAM for inconsistencies...", "", "Loading all IPAM blocks...")
    yield f"Found {len(now.blocks)} IPAM blocks."
    held: dict[str, list[str]] = {}
    for some in now.allocations.values() if show_all else ():
        for one in some:
            held.setdefault(one.block, []).append(f"  {one.address} allocated; attrs {one.attributes}")
    for cidr, affinity in now.blocks.items():
        yield f" IPAM block {cidr} affinity={affinity or '<none>'}:"
        yield from held.get(cidr, ())
    yield f"IPAM blocks record {sum(map(len, now.allocations.values()))} allocations."
    yield from ("", "Loading all IPAM pools...")
    yield from (f"  {cidr}" for cidr in now.active_pools)
    yield from (f"Found {len(now.active_pools)} active IP pools.", "", "Loading all nodes.")
    yield from _belonging(now, "node") if show_all else ()
    yield from (f"Found {now.tunnels} node tunnel IPs.", "", "Loading all service load balancer IPs.")
    yield from _belonging(now, "service") if show_all else ()
    yield from (f"Found {now.services} service load balancer(s).", "", "Loading all workload endpoints.")
    yield from _belonging(now, "pod") if show_all else ()
    yield f"Found {now.workloads} workload IPs."
    yield from (f"Workloads and nodes are using {len(now.users)} IPs.", "", "Loading all handles")
    yield from _top(now)
    yield from _scanned(now, show)


def _belonging(now: Report, kind: str) -> Iterator[str]:
    for address, some in now.users.items():
        yield from (f"  {address} belongs to {one.label}" for one in some if one.kind == kind)


def _top(now: Report) -> Iterator[str]:
    counts = Counter(one.node for some in now.allocations.values() for one in some if one.node)
    yield f"Looking for top (up to {TOP}) nodes by allocations..."
    for node, count in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:TOP]:
        yield f"  {node} has {count} allocations"
    if counts:
        median = statistics.median_low(counts.values())
        yield f"Node with most allocations has {max(counts.values())}; median is {median}"
    yield ""


def _scanned(now: Report, show: bool) -> Iterator[str]:
    def section(title: str, found: str, *kinds: str) -> Iterator[str]:
        yield title
        yield from (f"  {one.text}" for one in now.of(*kinds) if show)
        yield found

    unread = {one.look for one in now.blind}
    if unread & {"pods", "nodes"}:
        yield "Which IPs are in use could not be seen, so nothing is said of leaked ones."
    else:
        leaked = len(now.of("leaked"))
        yield from section(
            "Scanning for IPs that are allocated but not actually in use...",
            f"Found {leaked} IPs that are allocated in IPAM but not actually in use.",
            *("leaked", "passing", "unjudged"),
        )
        if left := [f"{now.left_out[kind]} {words}" for kind, words in _LEFT_OUT.items() if now.left_out.get(kind)]:
            yield f"Not counted among these: {', '.join(left)}."
        yield "Scanning for IPs that are in use by a workload or node but not allocated in IPAM..."
        kinds = ("several_owners", "held_for_another", "outside_pools", "not_allocated", "other_ipam")
        yield from (f"  {one.text}" for one in now.of(*kinds) if show)
        yield f"Found {len(now.of('outside_pools'))} in-use IPs that are not in active IP pools."
        yield (
            f"Found {len(now.of('not_allocated'))} in-use IPs that are in active IP pools but have no corresponding "
            "IPAM allocation."
        )
        yield f"Found {len(now.of('several_owners'))} IPs with multiple owners."
        yield f"Found {len(now.of('held_for_another'))} in-use IPs that are allocated to somebody else."
    yield ""
    if "ipamhandles" in unread:
        yield "The handles could not be read, so nothing is said of them."
    else:
        yield from section(
            "Scanning for IPAM handles with no matching IPs...",
            f"Found {len(now.handles)} handles with no matching IPs (and {now.matched} handles with matches).",
            "leaked_handle",
        )
        missing = len(now.of("missing_handle"))
        yield from section(
            "Scanning for IPs with missing handle...",
            f"Found {missing} handles mentioned in blocks with no matching handle resource.",
            "missing_handle",
        )
        less, more = len(now.of("handle_counts_less")), len(now.of("handle_counts_more"))
        yield from section(
            "Comparing what handles count with their blocks...",
            f"Found {less} handles that count too few IPs, and {more} that count too many, which costs nothing.",
            *("handle_counts_less", "handle_counts_more"),
        )
    invalid = len(now.of("invalid_block"))
    yield from section("Validating IPAMBlock structures...", f"Found {invalid} invalid IPAMBlocks.", "invalid_block")
    shapes = len(now.of(*_SHAPES))
    yield from section(
        "Comparing blocks with pools...", f"Found {shapes} blocks that are in no pool or overlap.", *_SHAPES
    )
    if "blockaffinities" in unread:
        yield "The affinities could not be read, so nothing is said of them."
    else:
        yield from section(
            "Comparing affinities with blocks...",
            f"Found {len(now.of(*_AFFINITIES))} contradictions between {now.affinities} affinities and their blocks.",
            *(*_AFFINITIES, "affinity_in_passing", "node_gone"),
        )
    if "nodes" not in unread:
        lacking = len(now.of("no_tunnel_address"))
        yield from section(
            "Looking for nodes without tunnel addresses...",
            f"Found {lacking} tunnel addresses lacking, on {now.tunnel_nodes} nodes that should have some.",
            "no_tunnel_address",
        )
    seen = "Check complete" if not unread else "Check complete as far as could be seen"
    yield f"{seen}; found {len(now.problems)} problems."


def changes(looks: Looks) -> str:
    """What stayed the same between the looks, and what did not."""
    began, ended = f"{looks.began:%Y-%m-%d %H:%M:%S}", f"{looks.now.taken:%H:%M:%S}"
    found = [f"Looked from {began} to {ended} UTC."]
    for title, some in (
        ("Stayed the same", looks.lasting()),
        ("Came meanwhile", looks.new()),
        ("Gone meanwhile", list(looks.gone.values())),
    ):
        found += [f"{title}: {len(some)}", *(f"  {one.text}" for one in some)]
    return "\n".join(found)


def rows(now: Report, *, show_all: bool) -> tuple[tuple[str, ...], ...]:
    """A head, and a row for each problem and remark; with show_all one for each address that is well, too."""
    head = ("kind", "about", "address", "block", "handle", "pod", "node", "since", "text")
    found = [
        (one.kind, one.about, one.address, one.block, one.handle, one.pod, one.node, one.since, one.text)
        for one in (*now.problems, *now.remarks)
    ]
    told_of = {one.address for one in (*now.problems, *now.remarks)}
    for some in now.allocations.values() if show_all else ():
        found += [
            ("allocated", one.address, one.address, one.block, one.handle, one.pod, one.node, _since(one.about), "")
            for one in some
            if one.address not in told_of
        ]
    return (head, *found)


def data(looks: Looks, outcomes: Sequence[release.Outcome], cluster: str) -> dict[str, Any]:
    """calicoctl's own report (`ipam check -o FILE`), with what it does not look at beside it. docs/json.md"""
    now = looks.now
    about = now.information
    found: dict[str, Any] = {
        "version": str(about.get("calicoVersion") or ""),
        "clusterGUID": now.guid,
        "datastoreLocked": about.get("datastoreReady") is False,
        "clusterInformationRevision": now.revision,
        "clusterType": str(about.get("clusterType") or ""),
        "allocations": {address: [_allocation(one, now) for one in some] for address, some in now.allocations.items()},
        "leakedHandles": [
            {
                "ID": str(one["spec"].get("handleID") or ""),
                "UID": now.uid(one),
                "Revision": str(one["metadata"].get("resourceVersion") or ""),
            }
            for one in now.handles
        ],
        "cluster": cluster,
        "taken": now.taken,
        "leakGracePeriodSeconds": now.grace_s,
        "problems": now.problems,
        "remarks": now.remarks,
        "unseen": [{"look": one.look, "reason": str(one.reason)} for one in now.blind],
    }
    if looks.repeated:
        found["since"] = {
            "first": looks.began,
            "same": [one.about for one in looks.lasting()],
            "new": [one.about for one in looks.new()],
            "gone": [msgspec.to_builtins(one) for one in looks.gone.values()],
        }
    if outcomes:
        found["releases"] = [
            {"address": one.address, "request": one.request, "refused": str(one.why)} for one in outcomes
        ]
    return found


def _allocation(one: Held, now: Report) -> dict[str, Any]:
    """As calicoctl writes it: what is not there is left out."""
    users = [user.label for user in now.users.get(one.address, ())]
    found: dict[str, Any] = {"ip": one.address}
    if one.handle:
        found["handle"] = one.handle
    found["sequenceNumber"] = one.attribute["sequence"]
    for name, value in (
        ("pod", one.about.get("pod")),
        ("namespace", one.about.get("namespace")),
        ("node", one.node),
        ("type", one.about.get("type")),
        ("creationTimestamp", _since(one.about)),
    ):
        if value:
            found[name] = str(value)
    found["inUse"] = bool(users)
    if one.kind == "cooldown":
        found["coolingDown"] = True
    if one.node != one.affinity.removeprefix("host:") and one.kind != "cooldown":
        found["borrowed"] = True
    found["owners"] = users or None
    return found


def _since(about: Mapping[str, Any]) -> str:
    return str(about.get("timestamp") or "")
