"""Forty lines of brute force against the compiled rules: a match the C engine misses shows nowhere else."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine import rulebase
from engine.rule import CauseRule, Deduction, Pattern, Ref, Rule, Text, say
from engine.rulebase import EngineFault, Rulebase
from facts import Fact, FdbEntry, Link, Neighbor, Sysctl
from tests import exhaustive

RULE_BASES = int(os.environ.get("CALICO_WHY_FUZZ", "0")) or exhaustive.times(20_000, every=4)

Match = tuple[str, tuple[str, ...]]  # rule, ids of its facts


# --- the oracle: every combination of facts, tried ------------------------------------------------------------------


def oracle(rules: Iterable[Rule], facts: Iterable[Fact]) -> tuple[set[Match], set[str]]:
    """All matches of CauseRules and the ids of all facts, by definition instead of by algorithm."""
    known = {fact.id: fact for fact in facts}
    while True:
        matches = {(rule.name, ids) for rule in rules for ids in combinations(rule, known)}
        bodies = {rule.name: rule for rule in rules if isinstance(rule, Deduction)}
        derived = [
            fact
            for name, ids in matches
            if name in bodies
            for fact in bodies[name].body(
                **dict(zip(dict(bodies[name].patterns), (known[i] for i in ids), strict=True))
            )
        ]
        if all(fact.id in known for fact in derived):
            return {match for match in matches if match[0] not in bodies}, set(known)
        known |= {fact.id: fact for fact in derived}


def combinations(rule: Rule, known: Mapping[str, Fact]) -> Iterable[tuple[str, ...]]:
    kinds = [[i for i, fact in known.items() if isinstance(fact, pattern.kind)] for _, pattern in rule.patterns]
    for ids in itertools.product(*kinds):
        bound = {alias: known[i] for (alias, _), i in zip(rule.patterns, ids, strict=True)}
        if all(agrees(bound[alias], name, v, bound) for alias, p in rule.patterns for name, v in p.terms):
            yield ids


def agrees(fact: Fact, name: str, wanted: str | Ref, bound: Mapping[str, Fact]) -> bool:
    mine = getattr(fact, name)
    if isinstance(wanted, str):
        return {"True": "true", "False": "false"}.get(str(mine), str(mine)) == wanted
    theirs = getattr(bound[wanted.alias], wanted.field)
    if mine in ("", -1) or theirs in ("", -1):
        return False
    return str(mine).lower() == str(theirs).lower()


# --- random rule bases ----------------------------------------------------------------------------------------------

FIELDS: dict[type[Fact], tuple[str, ...]] = {
    Neighbor: ("node", "device", "address", "found", "mac"),
    FdbEntry: ("node", "device", "mac", "found", "peer"),
    Link: ("node", "device", "found", "mac", "mtu", "vni"),
    Sysctl: ("node", "name", "value"),
}
NUMBERS, SWITCHES = ("mtu", "vni"), ("found",)
ALIASES = ("leg", "m", "s", "id", "sid", "seen", "p0", "p1", "first", "b", "all", "kind")  # engine words among them
TEXTS = ("", "u", "u", "v")
ODD_TEXTS = ("", "u", 'quo"te\\', "new\nline\0nul", "fe80::1%eth0", "ü{}$m", "-1")


def value(dice: random.Random, name: str, texts: Sequence[str]) -> Any:
    if name in NUMBERS:
        return dice.choice((-1, 0, 1, 1))
    return dice.random() < 0.8 if name in SWITCHES else dice.choice(texts)


def some_fact(dice: random.Random, texts: Sequence[str]) -> Fact:
    kind = dice.choice((Neighbor, Neighbor, FdbEntry, Link))
    return kind(**{name: value(dice, name, texts) for name in FIELDS[kind]})


def some_rule(dice: random.Random, number: int, texts: Sequence[str]) -> Rule:
    patterns: list[tuple[str, Pattern]] = []
    for alias in dice.sample(ALIASES, dice.choice((1, 2, 2, 2, 3, 3, 3, 4))):
        kind = dice.choice(tuple(FIELDS))
        terms: list[tuple[str, str | Ref]] = []
        for name in FIELDS[kind]:
            luck = dice.random()
            if luck < 0.12:
                chosen = value(dice, name, texts)
                terms.append((name, str(chosen).lower() if name in NUMBERS + SWITCHES else chosen))
            elif luck < 0.4 and patterns:
                other, pattern = dice.choice(patterns)
                fields = FIELDS[pattern.kind]
                terms.append((name, Ref(other, name if name in fields and luck < 0.3 else dice.choice(fields))))
        dice.shuffle(terms)
        patterns.append((alias, Pattern(kind, tuple(terms))))
    if dice.random() < 0.4:
        return Deduction(f"r{number}", "", tuple(patterns), deduces(patterns[-1][0], FIELDS[patterns[-1][1].kind]))
    return CauseRule(f"r{number}", "", tuple(patterns), accuses)


def accuses(**matched: Fact) -> Text:
    return say("always")


def deduces(alias: str, fields: tuple[str, ...]) -> Callable[..., list[Fact]]:
    """A new Sysctl out of a matched fact, rotating its values so that chains end."""

    def body(**matched: Fact) -> list[Fact]:
        taken = [getattr(matched[alias], name) for name in fields]
        node, name, last = taken[0], taken[1], taken[2]
        return [Sysctl(node=str(name), name=str(node), found=True, value=str(last).lower())]

    return body


def compared(rules: Sequence[Rule], facts: Sequence[Fact], base: Rulebase) -> tuple[int, int]:
    """Number of matches and of derived facts. Fails when engine and oracle disagree."""
    expected, ids = oracle(rules, facts)
    evaluation = base.evaluate(facts)
    assert [(cause.rule, cause.evidence) for cause in evaluation.causes] == sorted(expected)
    assert {fact.id for fact in evaluation.facts} == ids
    assert set(evaluation.proofs) == ids - {fact.id for fact in facts}
    return len(expected), len(evaluation.proofs)


def draw(seed: int) -> tuple[random.Random, list[Rule], list[Fact]]:
    dice = random.Random(seed)
    texts = ODD_TEXTS if seed % 10 == 0 else TEXTS
    rules = [some_rule(dice, number, texts) for number in range(dice.randint(1, 6))]
    return dice, rules, [some_fact(dice, texts) for _ in range(dice.randint(1, 12))]


def test_engine_and_oracle_agree(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    first = random.SystemRandom().randrange(2**40)
    started, matches, derived, split = time.monotonic(), 0, 0, 0
    for seed in range(first, first + RULE_BASES):
        dice, rules, facts = draw(seed)
        monkeypatch.setattr(rulebase, "MOST_SHARING", 1 if seed % 4 == 0 else 200)
        try:
            base = rulebase.Rulebase(rules)
            if seed % 2 == 0:  # a question before must leave nothing behind
                compared(rules, draw(seed + RULE_BASES)[2], base)
            counts = compared(rules, facts, base)
            if seed % 5 == 0:
                assert base.evaluate(dice.sample(facts, len(facts))) == base.evaluate(facts)
        except BaseException:
            print(f"draw({seed}) shows it")
            raise
        matches += counts[0]
        derived += counts[1] > 0
        split += len(base.chunks) > 1
    took = time.monotonic() - started
    with capsys.disabled():
        print(
            f"\n{RULE_BASES} random rule bases from {first}: {matches} matches, {derived} with derived facts, ", end=""
        )
        print(f"{split} in several rulesets, no difference, {took:.0f} s")
    # The dice must not be so loaded that there is nothing to compare.
    # Dice: 0.95 to 1.15 matches a rule base were seen. That there are many is what counts.
    assert matches > RULE_BASES * 3 // 4 and derived > RULE_BASES // 20 and split > RULE_BASES // 20


# --- would it be seen? ----------------------------------------------------------------------------------------------


def loses_a_join(definition: dict[str, Any]) -> None:
    for row in definition["all"]:
        for condition in row.values():
            if isinstance(next(iter(condition["$and"][-1].values())), dict):
                condition["$and"].pop()


def loses_a_constant(definition: dict[str, Any]) -> None:
    for row in definition["all"]:
        for condition in row.values():
            condition["$and"] = [term for term in condition["$and"] if not next(iter(term)).startswith("is_")]


def wants_more(definition: dict[str, Any]) -> None:
    for condition in definition["all"][-1].values():
        condition["$and"].insert(0, {"kind": "Nothing"})


def forbids_one_fact_in_two_places(definition: dict[str, Any]) -> None:
    definition["dist"] = 1


@pytest.mark.parametrize(
    ("plant", "seen"),
    [
        (loses_a_join, EngineFault),
        (loses_a_constant, EngineFault),
        (wants_more, AssertionError),
        (forbids_one_fact_in_two_places, AssertionError),
    ],
)
def test_a_bug_in_the_compiler_would_be_seen(
    plant: Callable[[dict[str, Any]], None], seen: type[BaseException]
) -> None:
    """Too many matches are seen by the verification at run time, too few by the oracle."""
    met = []
    for seed in range(300):
        _, rules, facts = draw(seed)
        base = Rulebase(rules)
        for definition in base.chunks[0].definitions:
            plant(definition)
        try:
            compared(rules, facts, base)
        except (AssertionError, EngineFault) as error:
            met.append(type(error))
    assert met and set(met) == {seen}


def test_memory_stays_flat() -> None:
    """The engine leaks 0.1 to 4 MB an evaluation where a state is not deleted, or not before its ruleset is."""

    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    cases = [(Rulebase(rules), facts) for _, rules, facts in map(draw, range(20))]
    for base, facts in cases * 3:
        base.evaluate(facts)
    before = resident_mb()
    for base, facts in cases * 25:
        base.evaluate(facts)
    assert resident_mb() - before < 10  # 500 evaluations; 0.02 MB each
