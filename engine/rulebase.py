"""The one door to durable_rules: without it every quirk of that engine would be every rule author's problem.

What goes in and out, and why so little of the engine is used: docs/decisions/001-durable-rules-has-one-door.md.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, cast

import durable_rules_engine
import msgspec

from engine.rule import CauseRule, Deduction, Pattern, Ref, Rule, as_text
from facts import Blind, Cause, Checked, Fact, say

# The engine's own ceilings (durable_rules 2.0.28), and what we allow.
MOST_CONDITIONS = 14  # of one rule; the engine keeps 16 messages in a match
MOST_JOINS = 26  # of one condition; the engine keeps 32 expressions
MOST_SHARING = 200  # conditions without joins with the same constants; above 256 error 108, or memory overwritten
MOST_PENDING = 60  # tests that one fact may have to wait for; error 303 above 64
MOST_SIBLINGS = 400  # different constants for one field; the engine hangs at 512
MOST_FACTS = 20_000  # "f0" .. "f19999" have 20,000 different 32-bit hashes, which is how the engine tells facts apart
MOST_MATCHES = 100_000

RULESET = "rules"
WARM_UP = {"id": "w", "kind": "warm-up"}
PLACES = tuple(f"p{place}" for place in range(MOST_CONDITIONS))  # what the engine calls the facts of a match
KIND = "kind"  # what a fact's attribute says that is called like its kind
HANDLED, NOT_HANDLED = 0, 1  # what the engine says of a message; anything else is a mistake of ours


class EngineFault(Exception):
    """The rules could not be run, or gave a match that is none. Whatever was found so far must not be believed."""


@dataclass(frozen=True)
class Evaluation:
    """What the rules make of the facts. The same facts in any order give an equal Evaluation."""

    facts: tuple[Fact, ...]  # observed ones by id, then derived ones as they came
    causes: tuple[Cause, ...]
    checked: tuple[Checked, ...]  # had everything they need and found nothing wrong
    unjudged: tuple[tuple[CauseRule, Fact], ...]  # should have said something about this Leg or Endpoint and could not
    proofs: Mapping[str, tuple[str, tuple[str, ...]]]  # id of a derived fact -> rule, ids of the facts it follows from
    blind: tuple[Blind, ...]  # rules whose body failed


@functools.cache
def load() -> Rulebase:
    """Every rule of engine/rules and every deduction of engine/deductions. Raises TypeError for a file without one."""
    return Rulebase([*_rules_in("engine.deductions", Deduction), *_rules_in("engine.rules", CauseRule)])


def _rules_in(package: str, wanted: type[Rule]) -> Iterator[Rule]:
    for found in pkgutil.iter_modules(importlib.import_module(package).__path__):
        yield rule_of(importlib.import_module(f"{package}.{found.name}"), wanted)


def rule_of(module: ModuleType, wanted: type[Rule]) -> Rule:
    """The one rule a module holds. Raises TypeError when it holds another number, sort or name of rules."""
    name = module.__name__.rpartition(".")[2]
    rules = [value for value in vars(module).values() if isinstance(value, Rule)]
    if [(type(rule), rule.name) for rule in rules] != [(wanted, name)]:
        held = ", ".join(f"{type(rule).__name__} {rule.name}" for rule in rules) or "no rule"
        raise TypeError(f"{module.__name__} must hold exactly one {wanted.__name__} called {name}; it holds {held}")
    return rules[0]


class Rulebase:
    """Rules, compiled once. Safe to use from several threads: no two evaluations share a ruleset of the engine."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        """Raises TypeError for a rule the engine could not bear, naming it."""
        self.rules = tuple(sorted(rules, key=lambda rule: rule.name))
        for one, other in zip(self.rules, self.rules[1:], strict=False):
            if one.name == other.name:
                raise TypeError(f"two rules are called {one.name}")
        self._tokens = _Tokens()
        self._fields: dict[type[Fact], dict[str, dict[str, str]]] = {}  # kind -> field -> role -> attribute
        self.chunks = [_Chunk()]
        for rule in self.rules:
            compiled = self._compile(rule)
            if not self.chunks[-1].takes(compiled):
                self.chunks.append(_Chunk())
            self.chunks[-1].add(compiled)
        self._anchored = [(rule, rule.patterns[0][1].kind) for rule in self.rules if isinstance(rule, CauseRule)]
        self._idle: list[list[Ruleset]] = []  # one of each chunk, without facts; a list's own methods are atomic
        of_facts = [attribute for of in self._fields.values() for roles in of.values() for attribute in roles.values()]
        kinds = [kind.__name__ for kind in self._fields]
        _refuse_equal_hashes({"kind", "id", "sid", "$s", *kinds, *of_facts})

    def evaluate(self, facts: Sequence[Fact]) -> Evaluation:
        """Everything that follows from `facts`. Raises EngineFault when that could not be found out."""
        try:
            return self._evaluate(facts)
        except EngineFault:
            raise
        except Exception as error:
            raise EngineFault(f"the rule engine failed: {type(error).__name__}: {error}") from error

    def _evaluate(self, facts: Sequence[Fact]) -> Evaluation:
        known: dict[str, Fact] = {}
        proofs: dict[str, tuple[str, tuple[str, ...]]] = {}
        failed: dict[str, Blind] = {}
        suspects: list[tuple[CauseRule, tuple[str, ...]]] = []
        names: dict[str, str] = {}  # id in the engine -> Fact.id
        tokens = _Tokens(self._tokens)
        with self._rulesets() as rulesets:
            fresh = dict(sorted((fact.id, fact) for fact in facts))
            while fresh:
                known |= fresh
                if len(known) > MOST_FACTS:
                    raise EngineFault(f"more than {MOST_FACTS} facts")
                matches: list[tuple[Rule, tuple[str, ...]]] = []
                for match in self._matches(fresh, names, tokens, rulesets):
                    matches.append(match)
                    if len(matches) > MOST_MATCHES:
                        raise EngineFault(f"more than {MOST_MATCHES} matches")
                fresh = {}
                # The engine's order is not ours: a proof is the first match by name, whatever order the facts came in.
                for rule, ids in sorted(matches, key=lambda match: (match[0].name, match[1])):
                    verify(rule, [known[i] for i in ids])
                    if isinstance(rule, CauseRule):
                        suspects.append((rule, ids))
                        continue
                    for fact in _deduce(rule, [known[i] for i in ids], failed):
                        if fact.id not in known and fact.id not in fresh:
                            fresh[fact.id] = fact
                            proofs[fact.id] = (rule.name, ids)
        suspects.sort(key=lambda suspect: (suspect[0].name, suspect[1]))
        return self._judge(known, suspects, proofs, failed)

    def _matches(
        self, fresh: Mapping[str, Fact], names: dict[str, str], tokens: _Tokens, rulesets: Sequence[Ruleset]
    ) -> Iterator[tuple[Rule, tuple[str, ...]]]:
        """Each rule that the engine finds to hold, with the ids of its facts, while it is told the fresh ones."""
        for fact_id, fact in fresh.items():
            names[f"f{len(names)}"] = fact_id
            message = msgspec.json.encode(self._message(f"f{len(names) - 1}", fact, tokens)).decode()
            for chunk, ruleset in zip(self.chunks, rulesets, strict=True):
                if type(fact) in chunk.kinds:
                    for name, found in ruleset.put(message):
                        yield chunk.rules[int(name[1:])], _ids(found, names)

    @contextmanager
    def _rulesets(self) -> Iterator[list[Ruleset]]:
        """Compiled once and kept: compiling is most of the work. Dropped where anything failed."""
        try:
            rulesets = self._idle.pop()
        except IndexError:
            rulesets = [Ruleset(chunk.rulesets_definition()) for chunk in self.chunks]
        with ExitStack() as states:
            for ruleset in rulesets:
                if [rule for rule, _ in ruleset.put(_WARM_UP_MESSAGE)] != ["warm-up"]:
                    raise EngineFault("the rule engine runs no rule")
                states.callback(ruleset.delete_state)
            yield rulesets
        self._idle.append(rulesets)

    def _judge(
        self,
        known: dict[str, Fact],
        suspects: list[tuple[CauseRule, tuple[str, ...]]],
        proofs: Mapping[str, tuple[str, tuple[str, ...]]],
        failed: dict[str, Blind],
    ) -> Evaluation:
        causes: dict[Cause, None] = {}
        well: dict[tuple[str, str, str, str], str] = {}  # rule, node, flow, leg -> id of the anchor
        accused: set[tuple[str, str, str, str]] = set()
        judged: set[tuple[str, str]] = set()  # rule and the id of its anchor
        broken: set[tuple[str, str]] = set()
        for rule, ids in suspects:
            bound = dict(zip(rule.aliases, [known[i] for i in ids], strict=True))
            leg = rule.leg_of(bound)
            try:
                cause = rule.judge(bound, ids)
            except Exception as error:
                failed.setdefault(rule.name, _failure(rule, error))
                broken.add((rule.name, ids[0]))
                continue
            judged.add((rule.name, ids[0]))
            node = as_text(getattr(bound[rule.at.alias], rule.at.field)) if rule.at else ""
            flow, direction = (leg.flow, leg.direction) if leg else ("", "")
            checked = rule.name, node, flow, direction
            if cause is None:
                well[checked] = ids[0]
            else:
                causes[cause] = None
                accused.add(checked)
        done = judged - broken
        anchors = _by_kind(known)
        return Evaluation(
            facts=tuple(known.values()),
            causes=tuple(causes),
            checked=tuple(
                Checked(rule=checked[0], node=checked[1], flow=checked[2], leg=checked[3])
                for checked, anchor in well.items()
                if checked not in accused and (checked[0], anchor) not in broken
            ),
            unjudged=tuple(
                (rule, fact)
                for rule, kind in self._anchored
                for fact_id, fact in anchors.get(kind, ())
                if (rule.name, fact_id) not in done and concerns(rule, fact)
            ),
            proofs=proofs,
            blind=tuple(failed[name] for name in sorted(failed)),
        )

    def _message(self, engine_id: str, fact: Fact, tokens: _Tokens) -> dict[str, str]:
        """The engine is only asked what is equal, so it gets tokens, not text: no quoting, length or type misleads it.

        A field a fact could not know gets a token of its own on each side of a join, so that it equals nothing.
        """
        message = {"id": engine_id, type(fact).__name__: KIND}
        for name, attributes in self._fields.get(type(fact), {}).items():
            value = getattr(fact, name)
            lacking = unknown(value)
            token = tokens[value if type(value) is str else as_text(value)]
            for role, attribute in attributes.items():
                message[attribute] = f"unknown {engine_id} {attribute}" if lacking and role != "is" else token
        return message

    def _compile(self, rule: Rule) -> _Compiled:
        if not 1 <= len(rule.patterns) <= MOST_CONDITIONS:
            raise TypeError(f"{rule.name} has {len(rule.patterns)} conditions; a rule has 1 to {MOST_CONDITIONS}")
        places = {alias: place for place, (alias, _) in enumerate(rule.patterns)}
        conditions = []
        for alias, pattern in rule.patterns:
            constants, joins = [], []
            for name, value in sorted(pattern.terms, key=lambda term: term[0]):
                if isinstance(value, Ref):
                    other = rule.patterns[places[value.alias]][1].kind
                    join = {f"p{places[value.alias]}": self._attribute(rule, other, value.field, "of")}
                    joins.append((self._attribute(rule, pattern.kind, name, "to"), join))
                else:
                    constants.append((self._attribute(rule, pattern.kind, name, "is"), self._tokens[value]))
            if len(joins) > MOST_JOINS:
                raise TypeError(f"{rule.name}: {alias} has {len(joins)} joins; a condition has at most {MOST_JOINS}")
            self._fields.setdefault(pattern.kind, {})
            conditions.append(_Condition(pattern.kind, ((pattern.kind.__name__, KIND), *constants), tuple(joins)))
        return _Compiled(rule, tuple(conditions))

    def _attribute(self, rule: Rule, kind: type[Fact], name: str, role: str) -> str:
        if _types(kind).get(name) not in (str, int, bool):
            raise TypeError(
                f"{rule.name} compares {kind.__name__}.{name}; only text, numbers and booleans can be compared"
            )
        return self._fields.setdefault(kind, {}).setdefault(name, {}).setdefault(role, f"{role}_{name}")


class _Tokens(dict[str, str]):
    """Text -> what stands for it in the engine."""

    def __missing__(self, text: str) -> str:
        token = self[text] = f"t{len(self)}"
        return token


@functools.cache
def _types(kind: type[Fact]) -> dict[str, Any]:
    return {"id": str} | {one.name: one.type for one in msgspec.structs.fields(kind)}


@dataclass(frozen=True)
class _Condition:
    """One pattern as the engine reads it: constants first, because tests are shared from the left; joins last.

    The first constant is the kind, as an attribute of its own: the engine finds attributes by their hash, and tries the
    values of one attribute in turn.
    """

    kind: type[Fact]
    constants: tuple[tuple[str, str], ...]
    joins: tuple[tuple[str, dict[str, str]], ...]


@dataclass(frozen=True)
class _Compiled:
    rule: Rule
    conditions: tuple[_Condition, ...]

    def definition(self) -> dict[str, Any]:
        """dist 0: one fact may stand in several conditions of a rule (both ends of a flow can be on one node)."""
        rows = [
            {f"p{place}": {"$and": [{name: value} for name, value in (*one.constants, *one.joins)]}}
            for place, one in enumerate(self.conditions)
        ]
        return {"all": rows, "dist": 0}


@dataclass
class _Chunk:
    """As many rules as one ruleset of the engine can bear. Counts what would end in its errors 108 and 303, or hang it.

    The engine shares equal tests from the left, but never joins; a fact waits on a stack of 64 for all tests below
    one it has passed.
    """

    rules: list[Rule] = field(default_factory=list)
    definitions: list[dict[str, Any]] = field(default_factory=list)
    kinds: set[type[Fact]] = field(default_factory=set)
    below: dict[tuple[Any, ...], set[tuple[str, str]]] = field(default_factory=dict)  # tests passed -> next constants
    sharing: dict[tuple[Any, ...], int] = field(default_factory=dict)  # tests passed -> conditions complete there
    joining: dict[tuple[Any, ...], int] = field(default_factory=dict)  # tests passed -> conditions that join from there

    def add(self, compiled: _Compiled) -> None:
        self.rules.append(compiled.rule)
        self.definitions.append(compiled.definition())
        for one in compiled.conditions:
            self.kinds.add(one.kind)
            for length, constant in enumerate(one.constants):
                self.below.setdefault(one.constants[:length], set()).add(constant)
            count = self.joining if one.joins else self.sharing
            count[one.constants] = count.get(one.constants, 0) + 1

    def rulesets_definition(self) -> dict[str, Any]:
        """As the engine reads it, its rules called r0, r1 and so on.

        A state on which no action has ever run crashes when it is deleted, so there is one that always runs first. The
        engine may read past the end of a condition up to the next one's end mark, so a rule that never matches is last.
        """
        never: dict[str, Any] = {"$and": [{"kind": "never"}, {"a": {"p0": "a"}}, {"b": {"p0": "b"}}]}
        return {
            "warm-up": {"all": [{"p0": {"kind": WARM_UP["kind"]}}]},
            **{f"r{place}": definition for place, definition in enumerate(self.definitions)},
            "sentinel": {"all": [{"p0": {"kind": "never"}}, {"p1": never}]},
        }

    def takes(self, compiled: _Compiled) -> bool:
        """Would it still be safe with this rule? An empty chunk takes any rule."""
        after = _Chunk(
            below={passed: set(constants) for passed, constants in self.below.items()},
            sharing=dict(self.sharing),
            joining=dict(self.joining),
        )
        after.add(compiled)
        return (
            max(after.sharing.values(), default=0) <= MOST_SHARING
            and max(len(constants) for constants in after.below.values()) <= MOST_SIBLINGS
            and max(after.pending((kind,)) for kind in after.below[()]) <= MOST_PENDING
        )

    def pending(self, passed: tuple[Any, ...]) -> int:
        """Most tests a fact may be waiting for once it has passed these; of a field's constants it passes only one, and
        of the kinds."""
        constants = self.below.get(passed, set())
        here = len({name for name, _ in constants}) + self.joining.get(passed, 0)
        return max([here, *(here - 1 + self.pending((*passed, constant)) for constant in constants)])


class _Named(msgspec.Struct):
    """A fact of a match, as far as it matters here."""

    id: str


_WARM_UP_MESSAGE = msgspec.json.encode(WARM_UP).decode()
_MATCH = msgspec.json.Decoder(dict[str, dict[str, _Named]])  # rule -> "p0", "p1", ... -> fact


class Ruleset:
    """A private ruleset of the engine: its compiled part, without the Python around it, which starts two endless
    threads, copies every fact of every match, and swallows what goes wrong while a match is told."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        """Raises what the engine raises for definitions it cannot bear."""
        text = msgspec.json.encode(definitions).decode()
        self._handle = durable_rules_engine.create_ruleset(RULESET, text)
        weakref.finalize(self, durable_rules_engine.delete_ruleset, self._handle)

    def put(self, message: str) -> list[tuple[str, dict[str, _Named]]]:
        """A fact as JSON. The matches that follow: the rule's name, and its facts as "p0", "p1" and so on.

        Raises EngineFault.
        """
        outcome, state = durable_rules_engine.assert_fact(self._handle, message)
        if outcome == NOT_HANDLED:
            return []
        if outcome != HANDLED:
            name = msgspec.json.decode(message)["id"]
            raise EngineFault(f"the rule engine takes {name} for a fact it had before, or for none")
        found: list[tuple[str, dict[str, _Named]]] = []
        started = durable_rules_engine.start_action_for_state(self._handle, state)
        told = started[1] if started else None
        while told:
            found += _MATCH.decode(told).items()
            told = durable_rules_engine.complete_and_start_action(self._handle, state)
        return found

    def delete_state(self) -> None:
        """Forget all facts; what is compiled stays. Aborts before any match was told."""
        durable_rules_engine.delete_state(self._handle, None)


def _ids(found: Mapping[str, _Named], names: Mapping[str, str]) -> tuple[str, ...]:
    return tuple([names[found[place].id] for place in PLACES[: len(found)]])


def verify(rule: Rule, matched: Sequence[Fact]) -> None:
    """Is this match one? `matched` has one fact per condition. Raises EngineFault when it is not."""
    for fact, (alias, pattern), joins in zip(matched, rule.patterns, rule.joins, strict=True):
        if not _holds(pattern, fact, joins, matched):
            raise EngineFault(f"the rule engine matched {rule.name} with {fact.id} as {alias}, which it is not")


def unknown(value: object) -> bool:
    """Could the fact not say? Such a field joins nothing."""
    return value == "" or (value == -1 and type(value) is int)


def _holds(pattern: Pattern, fact: Fact, joins: Sequence[tuple[str, int, str]], matched: Sequence[Fact]) -> bool:
    if type(fact) is not pattern.kind:
        return False
    for name, wanted in pattern.constants:
        value = getattr(fact, name)
        if (value if type(value) is str else as_text(value)) != wanted:
            return False
    for name, place, field_there in joins:
        value, other = getattr(fact, name), getattr(matched[place], field_there)
        if type(value) is type(other):
            if value != other or value == "" or value == -1:
                return False
        elif as_text(value) != as_text(other) or unknown(value) or unknown(other):
            return False
    return True


def concerns(rule: CauseRule, fact: Fact) -> bool:
    """Is this a fact the rule's first condition is about? Only constants count: better one rule too many."""
    for name, wanted in rule.patterns[0][1].constants:
        value = getattr(fact, name)
        if (value if type(value) is str else as_text(value)) != wanted:
            return False
    return True


def _by_kind(facts: Mapping[str, Fact]) -> dict[type[Fact], list[tuple[str, Fact]]]:
    found: dict[type[Fact], list[tuple[str, Fact]]] = {}
    for fact_id, fact in facts.items():
        found.setdefault(type(fact), []).append((fact_id, fact))
    return found


def _deduce(rule: Rule, matched: Sequence[Fact], failed: dict[str, Blind]) -> list[Fact]:
    """What a deduction's body yields; a body that fails yields nothing and is told."""
    try:
        made = rule.body(**dict(zip(rule.aliases, matched, strict=True)))
        follows = [made] if isinstance(made, Fact) else list(made or ())
        for fact in follows:
            if not isinstance(fact, Fact):
                raise TypeError(f"it yields {fact!r}, which is no fact")
    except Exception as error:
        failed.setdefault(rule.name, _failure(rule, error))
        return []
    return cast(list[Fact], follows)


def _failure(rule: Rule, error: Exception) -> Blind:
    reason = say("the rule itself failed: {error}", error=f"{type(error).__name__}: {error}")
    return Blind(look=rule.name, reason=reason)


def _refuse_equal_hashes(names: Iterable[str]) -> None:
    """The engine tells attributes apart by a 32-bit hash of their names."""
    seen: dict[int, str] = {}
    for name in sorted(names):
        other = seen.setdefault(fnv1a_32(name), name)
        if other != name:
            raise TypeError(f"rename a field: the rule engine cannot tell {other} from {name}")


def fnv1a_32(text: str) -> int:
    """The engine's hash of ids and attribute names."""
    digest = 0x811C9DC5
    for byte in text.encode():
        digest = ((digest ^ byte) * 16777619) & 0xFFFFFFFF
    return digest
