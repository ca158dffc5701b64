"""How many injected faults are named right and how many healthy clusters are left alone: the product's promise in
numbers. Without it a right answer could be lost and nobody would notice.

usage: python -m benchmarks.score [--check] [--only WORD] [--quick] [--rest]

Everything is asked through the real product in labs, two side by side. The answers are written into docs/scorecard.json
(what was not asked keeps its old one) and docs/scorecard.md; --check compares with the committed ones instead, and
fails when a right answer is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from bot.investigate import Investigation
from engine import rulebase
from engine.rule import CauseRule
from engine.rulebase import concerns
from facts import Leg
from lab.client import Lab
from lab.errors import LabError, NamespacesForbidden
from lab.faults import beside, families, load, names, needs
from lab.variants import VARIANTS, Variant
from tests.asking import ask, told, words_for
from tests.test_answers_iptables import MODES as OF_PACKET_FILTERS
from tests.test_variants import answers, questions
from tests.two_wounds import Wounded, expected, pairs

DOCS = Path(__file__).parents[1] / "docs"
LABS = 2
AT_ONCE = 24  # tasks of one lab, until another one takes its turn
TOGETHER = 8  # variants of one healthy cluster
GOOD = ("right", "harmless", "open", "healthy")
RULES = {rule.name: rule for rule in rulebase.load().rules if isinstance(rule, CauseRule)}


@dataclass(frozen=True)
class Place:
    """In which cluster a fault is injected, between which pods, and in which address family."""

    name: str
    variant: str = ""
    source: str = "shop/cart"
    target: str = "shop/db"
    family: int = 4
    modes: tuple[str, ...] = ()  # what is inflicted there; () for everything


PLACES = (
    Place("two nodes"),
    Place("one node", target="shop/web"),
    Place("one subnet of CrossSubnet", "crosssubnet+two-subnets"),
    Place("no encapsulation", "bgp"),
    Place("IPIP", "ipip"),
    Place("addresses by host-local", "host-local+ipip+calico-3.33"),
    Place("iptables-legacy", "iptables-legacy", modes=OF_PACKET_FILTERS),
    Place("iptables-nft", "iptables-nft", modes=OF_PACKET_FILTERS),
    Place("IPv6", "ipv6", family=6),
    Place("IPv6 of dual stack", "dualstack", family=6),
    Place(
        "everything by hand",
        "custom-vni+custom-port+custom-refresh+uplink-ens192+device-route-protocol+busy-host+second-network"
        "+failed-neighbors+loose-filters+wide-subnet+calico-3.30",
    ),
)

# (fault, place) -> what the same wound is called there.
ELSEWHERE = {
    ("foreign_route_to_pod", "one node"): "pod_route_wrong_device",  # it hides the pod's own route
    (
        "tunnel_mtu_too_large",
        "no encapsulation",
    ): "pod_mtu_too_large",  # the uplink is too small for pods
    ("route_blackholed", "one node"): "pod_route_wrong_device",  # what is swallowed is the pod's own address
    ("route_shadowed", "one node"): "pod_route_wrong_device",
    ("route_wrong_device", "one subnet of CrossSubnet"): "route_wrong_next_hop",  # the uplink is right there
    ("tunnel_mtu_too_large", "one subnet of CrossSubnet"): "pod_mtu_too_large",
} | {
    # Where there is no other family, nobody forgot one.
    ("policy_forgets_address_family", place.name): "policy_denies_ingress"
    for place in PLACES
    if "dualstack" not in place.variant
}

# (fault, place) -> what else is true there once the fault is injected.
BESIDES = {  # VXLAN for pods made for another way
    ("cross_subnet_asymmetric", "no encapsulation"): "pod_mtu_too_large",
    ("cross_subnet_asymmetric", "IPIP"): "pod_mtu_too_large",
}
# (fault, place) -> why nobody can see it there.
UNSEEN = {
    ("uplink_ipv6_disabled", "IPv6"): "without IPv6 the node's own probe cannot be reached in a cluster of IPv6 only"
}


@dataclass(frozen=True)
class Task:
    """One fault, two faults, or none and all pairs of pods."""

    variant: str
    key: str  # what the scorecard calls it
    place: Place = PLACES[0]
    wounds: tuple[Wounded, ...] = ()


@dataclass
class Result:
    """state: right | harmless (the flow does not suffer, which fresh packets of all sizes prove) | open (the verdict is
    "unknown", and the failure mode has nothing to say about such a flow) | healthy | wrong | unknown | not here (the
    reason is in `said`)."""

    task: Task
    state: str
    said: str = ""  # what was told instead
    accused: int = 0  # failure modes named that are not there
    ms: int = 0  # of one question


# ---- what is asked


def tasks() -> list[Task]:
    return [*_faults(), *_twos(), *_healthy()]


def _faults() -> Iterator[Task]:
    for place in PLACES:
        for mode in names():
            if needs(mode) or place.family not in families(mode) or (place.modes and mode not in place.modes):
                continue
            for where in load(mode).WHERE:
                yield Task(place.variant, f"{mode} at {where}, {place.name}", place, (Wounded(mode, where),))


def _twos() -> Iterator[Task]:
    """Every two modes once, now this way round and now that: the tests judge both ways by recordings."""
    for number, (_, ways) in enumerate(groupby(pairs(), lambda pair: {pair[0].mode, pair[1].mode})):
        both = list(ways)
        one, two = both[number % len(both)]
        yield Task("", f"{one} and {two}", wounds=(one, two))


def _healthy() -> Iterator[Task]:
    for pack in covering(list(VARIANTS.values())):
        yield Task(pack, f"healthy {pack}")


def covering(variants: Sequence[Variant], together: int = TOGETHER) -> list[str]:
    """Clusters of some variants each, so that every two that can be true of one cluster are in one of them, and every
    variant is alone in one."""
    apart = {(a, b) for a, one in enumerate(variants) for b, two in enumerate(variants[:a]) if one.combines_with(two)}
    packs = ["", *(one.name for one in variants)]
    while apart:
        pack = list(max(apart))
        while len(pack) < together:
            fitting = [
                n for n, one in enumerate(variants) if all(n != m and one.combines_with(variants[m]) for m in pack)
            ]
            new = {n: sum((max(n, m), min(n, m)) in apart for m in pack) for n in fitting}
            best = max(new, key=lambda n: (new[n], n), default=None)
            if best is None or not new[best]:
                break
            pack.append(best)
        apart -= {(max(a, b), min(a, b)) for a in pack for b in pack}
        packs.append("+".join(variants[n].name for n in sorted(pack)))
    return packs


# ---- one lab


def run(variant: str, chunk: Sequence[Task]) -> list[Result]:
    """Answers of one lab, healed before each fault. Raises NamespacesForbidden where there is no lab at all."""
    try:
        lab = Lab.up(variant=variant, fixers=False)
    except NamespacesForbidden as error:
        if not variant:
            raise
        return [Result(task, "not here", error.sentence) for task in chunk]
    except LabError as error:
        return [Result(task, "wrong", f"there is no such lab: {error.sentence}") for task in chunk]
    with lab:
        return [_asked(lab, task) for task in chunk]


def _asked(lab: Lab, task: Task) -> Result:
    if not task.wounds:
        return _all_pairs(lab, task)
    result = _wounded(lab, task)
    # A busy machine may cut a look short; what was not seen then is seen now, what is wrong stays wrong.
    return _wounded(lab, task) if result.state == "unknown" else result


def _wounded(lab: Lab, task: Task) -> Result:
    try:
        asked = _inflicted(lab, task.place, task.wounds)
    except LabError as error:
        if len(task.wounds) == 1:
            return Result(task, "not here", error.sentence)
        # One may take away what the other needs in order to be made.
        asked = _inflicted(lab, task.place, task.wounds[::-1])[::-1]
    answer = asyncio.run(ask(lab.environment(), words_for(asked[-1])))
    if len(task.wounds) == 1:
        return _judged(task, asked[0]["node"], answer)
    found = {cause.rule for cause in (*answer.diagnosis.causes, *answer.diagnosis.warnings)}
    wanted = expected(*task.wounds)
    state = "right" if found == wanted else answer.diagnosis.verdict if not found else "wrong"
    return Result(task, state, _said(answer, wanted), len(found - wanted), answer.elapsed_ms)


def _inflicted(lab: Lab, place: Place, wounds: Sequence[Wounded]) -> list[dict[str, str]]:
    """Raises LabError where there is nothing of the kind to wound."""
    lab.heal()
    return [lab.inflict(one.mode, place.source, place.target, where=one.where, family=place.family) for one in wounds]


def _judged(task: Task, node: str, answer: Investigation) -> Result:
    diagnosis = answer.diagnosis
    mode = ELSEWHERE.get((task.wounds[0].mode, task.place.name), task.wounds[0].mode)
    found = told(diagnosis, mode)
    true = {mode, beside(mode), BESIDES.get((mode, task.place.name), "")}
    others = {cause.rule for cause in (*diagnosis.causes, *diagnosis.warnings)} - true
    if found and (found[0].rule, found[0].node) == (mode, "" if RULES[mode].at is None else node):
        state = "right"
    elif found:
        state = "wrong"
    elif diagnosis.verdict == "healthy":
        state = "harmless"
    else:
        seen = (mode, task.place.name) not in UNSEEN
        state = "unknown" if seen and _concerned(mode, answer) else "open"
    return Result(task, state, _said(answer, {mode}), len(others), answer.elapsed_ms)


def _concerned(mode: str, answer: Investigation) -> bool:
    """Has the failure mode anything to say about these legs? A missing route has not where any route may be right."""
    rule = RULES[mode]
    anchors = [fact for fact in answer.diagnosis.facts if type(fact) is rule.patterns[0][1].kind]
    return rule.patterns[0][1].kind is not Leg or any(concerns(rule, fact) for fact in anchors)


def _said(answer: Investigation, wanted: set[str]) -> str:
    found = [*answer.diagnosis.causes, *answer.diagnosis.warnings]
    if {cause.rule for cause in found} == wanted:
        return ""
    return ", ".join(f"{cause.rule} at {cause.node}" for cause in found) or str(answer.diagnosis.summary)


def _all_pairs(lab: Lab, task: Task) -> Result:
    """A verdict "unknown" is no accusation, but nothing a healthy cluster should get."""
    asked = questions(lab)
    began = time.monotonic()
    found = asyncio.run(answers(lab, asked))
    took = int((time.monotonic() - began) * 1000 / len(asked))
    odd = {words: one for words, one in zip(asked, found, strict=True) if one.verdict != "healthy" or one.warnings}
    accusing = {words: [*one.causes, *one.warnings] for words, one in odd.items() if one.causes or one.warnings}
    said = "; ".join(f"{words}: {one.verdict} {one.summary}" for words, one in list(odd.items())[:3])
    if accusing:
        said = "; ".join(f"{words}: {', '.join(one.rule for one in named)}" for words, named in accusing.items())
    state = "wrong" if accusing else "unknown" if odd else "healthy"
    return Result(task, state, said, sum(map(len, accusing.values())), took)


# ---- all labs


def score(wanted: Sequence[Task]) -> list[Result]:
    """All answers, as many labs side by side as LABS; each is printed when its lab is done."""
    of_labs: dict[tuple[str, bool], list[Task]] = defaultdict(list)  # healthy is what nobody has wounded before
    for task in wanted:
        of_labs[task.variant, bool(task.wounds)].append(task)
    jobs = [
        (variant, group[start : start + AT_ONCE])
        for (variant, _), group in of_labs.items()
        for start in range(0, len(group), AT_ONCE)
    ]
    found: list[Result] = []
    print(f"{'':>9} {'':8} {'ms':>6}  {'what':100}  said instead")
    with ProcessPoolExecutor(LABS, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            for job in as_completed([pool.submit(run, variant, chunk) for variant, chunk in jobs]):
                for result in job.result():
                    found.append(result)
                    progress = f"{len(found)}/{len(wanted)}"
                    line = f"{progress:>9} {result.state:8} {result.ms:6}  {result.task.key:100}  {result.said}"
                    print(line.rstrip(), flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


# ---- the card


def as_data(results: Sequence[Result]) -> dict[str, Any]:
    """docs/scorecard.json"""
    answers = {
        one.task.key: {"state": one.state, "accused": one.accused, "ms": one.ms, "said": one.said} for one in results
    }
    return {"totals": totals(results), "answers": answers}


def together(committed: dict[str, Any], results: Sequence[Result]) -> list[Result]:
    """The new answers and, for what was not asked now, the committed ones; in the order of the tasks."""
    new = {one.task.key: one for one in results}
    return [
        new[task.key] if task.key in new else Result(task, **committed[task.key])
        for task in tasks()
        if task.key in new or task.key in committed
    ]


def totals(results: Sequence[Result]) -> dict[str, int]:
    one, two, none = (
        [result for result in results if len(result.task.wounds) == count and result.state != "not here"]
        for count in (1, 2, 0)
    )
    hurting = [result for result in one if result.state not in ("harmless", "open")]
    return {
        "faults injected": len(hurting),
        "right at first place": sum(result.state == "right" for result in hurting),
        "failure modes injected": len({result.task.wounds[0].mode for result in hurting}),
        "faults that the asked flow does not suffer from": sum(result.state == "harmless" for result in one),
        "faults that nothing can prove, and nobody is accused of": sum(result.state == "open" for result in one),
        "two faults at once": len(two),
        "both named": sum(result.state == "right" for result in two),
        "healthy clusters": len(none),
        "called healthy": sum(result.state == "healthy" for result in none),
        "false accusations": sum(result.accused for result in results),
        "unknown": sum(result.state == "unknown" for result in results),
    }


def as_page(results: Sequence[Result]) -> str:
    """docs/scorecard.md"""
    lines = [
        "# Scorecard",
        "",
        "Every failure mode of [the runbook](runbook.md) is injected into a lab on a real kernel, and the question is "
        "asked as a person asks it. Written by `make score`; CI runs `make score CHECK=1` and fails when an answer "
        "that is right here is lost.",
        "",
        "| | |",
        "|---|---:|",
        *(f"| {name} | {number} |" for name, number in totals(results).items()),
        "",
        "## One fault",
        "",
        "Right: the failure mode is the first one told, on its node. Harmless: the flow does not use what is broken, "
        "fresh packets of all sizes pass, and it is called healthy. Open: packets are lost, and nothing says how they "
        "should travel (any route may be right where BGP writes them), or "
        + "; ".join(UNSEEN.values())
        + "; the answer is "
        "`unknown` and accuses nobody.",
        "",
        "| failure mode | injected | right | harmless | open | false accusations | unknown | ms |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    of_mode: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        if len(result.task.wounds) == 1 and result.state != "not here":
            of_mode[result.task.wounds[0].mode].append(result)
    for mode, group in sorted(of_mode.items()):
        counted = [sum(one.state == state for one in group) for state in ("right", "harmless", "open", "unknown")]
        times = int(statistics.median(one.ms for one in group))
        accused = sum(one.accused for one in group)
        right, harmless, open_, unknown = counted
        lines.append(f"| {mode} | {len(group)} | {right} | {harmless} | {open_} | {accused} | {unknown} | {times} |")
    lines += [
        "",
        "Where: " + "; ".join(f"{place.name} ({place.variant or 'VXLAN'})" for place in PLACES) + ".",
        "",
        "Not injected, since no lab has it (their cases are written by hand): "
        + "; ".join(f"{mode} needs {needs(mode).rstrip(',')}" for mode in names() if needs(mode))
        + ".",
    ]
    lines += ["", "## Not right", ""]
    odd = [one for one in results if one.state in ("wrong", "unknown")]
    lines += [f"* {one.task.key}: {one.state}: {one.said}" for one in odd] or ["Nothing."]
    return "\n".join(lines) + "\n"


def lost(results: Sequence[Result], committed: dict[str, Any]) -> list[Result]:
    """What was right in the committed card and is not now, and every healthy cluster that is accused."""
    found = []
    for one in results:
        before = committed.get(one.task.key, {}).get("state")
        good = {"right": ("right",), "open": (*GOOD, "not here")}.get(
            before, ("right", "harmless", "healthy", "not here")
        )
        if one.state not in good and (before in GOOD or (not one.task.wounds and one.accused)):
            found.append(one)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with docs/scorecard.json, and write nothing")
    parser.add_argument("--only", metavar="WORD", default="", help="only what has this in its name")
    parser.add_argument("--rest", action="store_true", help="only what is not on the card, or not right there")
    parser.add_argument("--quick", action="store_true", help="only single faults between two nodes")
    args = parser.parse_args()
    wanted = [task for task in tasks() if args.only in task.key]
    if args.quick:
        wanted = [task for task in wanted if len(task.wounds) == 1 and task.place == PLACES[0]]
    card = DOCS / "scorecard.json"
    committed = json.loads(card.read_text())["answers"] if card.exists() else {}
    if args.rest:
        done = {key for key, answer in committed.items() if answer["state"] in (*GOOD, "not here")}
        wanted = [task for task in wanted if task.key not in done]
    if args.check:  # each variant is in some cluster of several
        wanted = [task for task in wanted if task.wounds or "+" in task.variant]
    began = time.monotonic()
    try:
        results = score(wanted)
        if args.check and (missed := lost(results, committed)):
            # A busy machine may cut one look short; what is lost is lost in a fresh lab, too.
            print(f"{len(missed)} asked again")
            again = {one.task.key: one for one in score([one.task for one in missed])}
            results = [again.get(one.task.key, one) for one in results]
    except NamespacesForbidden as error:
        print(error.sentence, file=sys.stderr)
        return 3
    print(f"\n{time.monotonic() - began:.0f} s")
    for name, number in totals(results).items():
        print(f"{number:6} {name}")
    if args.check:
        missed = lost(results, committed)
    else:
        missed = [one for one in results if one.state not in (*GOOD, "not here")]
        whole = together(committed, results)
        card.write_text(json.dumps(as_data(whole), indent=1) + "\n")
        (DOCS / "scorecard.md").write_text(as_page(whole))
    for one in missed:
        print(f"{'lost' if args.check else 'not right'}: {one.task.key}: {one.state}: {one.said}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
