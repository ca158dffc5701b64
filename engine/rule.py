"""How a rule is written: facts in, one more fact out. Without it the runbook's knowledge would have no form."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from facts import Cause, Fact, Leg, Text, joined, listed, say
from facts.flow import STAGES, mirrored
from facts.verdict import SEVERITIES

__all__ = [
    "HEALS_CHAIN",
    "HEALS_DEVICE",
    "HEALS_ENTRY",
    "HEALS_NEVER",
    "NOT_FELIX",
    "CauseRule",
    "Deduction",
    "Finding",
    "Pattern",
    "Ref",
    "Rule",
    "Text",
    "as_text",
    "cause",
    "derive",
    "joined",
    "listed",
    "say",
    "some",
    "the",
]

# How long a living Felix takes to repair a wound of each kind, in seconds; observed (calico_truth.md 2).
HEALS_DEVICE = 10
HEALS_ENTRY = 95
HEALS_CHAIN = 180
HEALS_NEVER = 0
NOT_FELIX = -1


@dataclass(frozen=True)
class Ref:
    """A field of an earlier fact of the same rule: `the.leg.source_node`."""

    alias: str
    field: str


class _Alias:
    def __init__(self, alias: str) -> None:
        self._alias = alias

    def __getattr__(self, name: str) -> Ref:
        return Ref(self._alias, name)


class _The:
    def __getattr__(self, name: str) -> _Alias:
        return _Alias(name)


the = _The()


@dataclass(frozen=True)
class Pattern:
    """One fact of `kind` whose fields equal constants or fields of earlier facts. Unknown ("") joins nothing."""

    kind: type[Fact]
    terms: tuple[tuple[str, str | Ref], ...]

    @functools.cached_property
    def constants(self) -> tuple[tuple[str, str], ...]:
        """Fields that equal a text, as `as_text` writes it."""
        return tuple((name, value) for name, value in self.terms if not isinstance(value, Ref))


def some(kind: type[Fact], /, **fields: str | bool | int | Ref) -> Pattern:
    """A condition: there is such a fact. Raises TypeError for a field the fact does not have. Each fact has an `id`."""
    known = _fields(kind)
    for name in fields:
        if name not in known:
            raise TypeError(f"{kind.__name__} has no field {name!r}; it has {', '.join(known)}")
    return Pattern(kind, tuple((name, v if isinstance(v, Ref) else as_text(v)) for name, v in fields.items()))


def _fields(kind: type[Fact]) -> tuple[str, ...]:
    return ("id", *kind.__struct_fields__)


def as_text(value: object) -> str:
    """A field's value in the only type the engine gets: text. Numbers and booleans as JSON writes them."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    raise TypeError(f"a condition compares text, numbers and booleans, not {type(value).__name__}")


@dataclass(frozen=True)
class Finding:
    """What a rule's body returns when a plain sentence is not enough."""

    text: Text
    severity: str = ""  # overrides the rule's
    stage: str = ""  # overrides the rule's
    heals_within_s: int | None = None  # overrides the rule's
    other_leg: bool = False  # packets of the other leg are lost; the stage is counted from that leg's source


Body = Callable[..., Any]
Judgement = Callable[..., "Text | Finding | None"]


@dataclass(frozen=True)
class Rule:
    """Conditions and a body; `cause` and `derive` make them, `engine.rulebase` finds and runs them."""

    name: str
    doc: str
    patterns: tuple[tuple[str, Pattern], ...]  # alias -> condition, in order
    body: Body

    @functools.cached_property
    def aliases(self) -> tuple[str, ...]:
        return tuple(alias for alias, _ in self.patterns)

    @functools.cached_property
    def joins(self) -> tuple[tuple[tuple[str, int, str], ...], ...]:
        """Of each condition the fields that equal one of an earlier fact: name here, place of the other, name there."""
        places = {alias: place for place, alias in enumerate(self.aliases)}
        return tuple(
            tuple((name, places[to.alias], to.field) for name, to in pattern.terms if isinstance(to, Ref))
            for _, pattern in self.patterns
        )


@dataclass(frozen=True)
class Deduction(Rule):
    """A rule whose body yields further facts."""


@dataclass(frozen=True)
class CauseRule(Rule):
    """A failure mode. Its first condition is its anchor, a Leg or an Endpoint: it has something to say about each."""

    title: str = ""
    severity: str = "breaks"
    after: tuple[str, ...] = ()
    after_peer: tuple[str, ...] = ()
    remedy: str = ""
    fix: str = ""
    other_fixes: tuple[str, ...] = ()
    at: Ref | None = None  # the node it is about
    stage: str = ""  # where on its leg a packet is lost
    both_ways: bool = False  # it breaks the other leg as well
    last_resort: bool = False  # it breaks a flow only where packets are lost and nothing else explains that
    silent_while_well: bool = False  # where no packet is lost it is not even a warning
    silent_where_explained: bool = False  # nor where something else breaks the flow
    one_family_suffices: bool = False  # a warning where the same two ends speak over the other family
    heals_within_s: int = NOT_FELIX
    healed_by_monitor: bool = False  # it is calico-node's monitor of addresses that repairs it, not Felix

    @functools.cached_property
    def _leg(self) -> str:
        """The alias of its first condition on a Leg."""
        return next((alias for alias, pattern in self.patterns if issubclass(pattern.kind, Leg)), "")

    def leg_of(self, facts: Mapping[str, Fact]) -> Leg | None:
        """The Leg that a match of this rule is about."""
        leg = facts.get(self._leg)
        return leg if isinstance(leg, Leg) else None

    def judge(self, facts: dict[str, Fact], evidence: tuple[str, ...]) -> Cause | None:
        """Run the body on one match. None: all well."""
        found = self.body(**facts)
        if found is None:
            return None
        if not isinstance(found, Finding):
            found = Finding(found)
        if not isinstance(found.text, Text):
            raise TypeError(f"{self.name}: what a body returns is made by say(), not {found.text!r}")
        leg = self.leg_of(facts)
        flow, direction = (leg.flow, leg.direction) if leg else ("", "")
        if found.other_leg:
            direction = "reverse" if direction == "forward" else "forward"
        stage = found.stage or self.stage
        if leg and self.both_ways and leg.direction == "reverse":
            stage = mirrored(stage)
        return Cause(
            rule=self.name,
            title=self.title,
            text=found.text,
            node=str(getattr(facts[self.at.alias], self.at.field)) if self.at else "",
            flow=flow,
            leg="both" if leg and self.both_ways else direction,
            stage=stage,
            severity=found.severity or self.severity,
            evidence=evidence,
            remedy=self.remedy,
            fix=self.fix,
            other_fixes=self.other_fixes,
            heals_within_s=self.heals_within_s if found.heals_within_s is None else found.heals_within_s,
        )


def cause(
    *,
    title: str,
    severity: str,
    remedy: str,
    fix: str = "",
    other_fixes: Iterable[str] = (),
    at: Ref | None = None,
    stage: str = "",
    after: Iterable[str] = (),
    after_peer: Iterable[str] = (),
    both_ways: bool = False,
    last_resort: bool = False,
    silent_while_well: bool = False,
    silent_where_explained: bool = False,
    one_family_suffices: bool = False,
    heals_within_s: int = NOT_FELIX,
    healed_by_monitor: bool = False,
    **patterns: Pattern,
) -> Callable[[Judgement], CauseRule]:
    """A failure mode. The body gets one fact per pattern by name and returns None, what `say` made, or a `Finding`.

    title: what a person reads first. remedy: a sentence for a person.
    fix: a kind of fix (fixes/kinds) that people can approve. other_fixes: kinds for what that one cannot mend.
    after: failure modes of the same node whose echo this one may be; after_peer: those of the leg's other node.
    last_resort: told as a warning where fresh packets pass, or where something else explains why they do not.
    silent_while_well: not told at all where fresh packets pass.
    silent_where_explained: not told at all where something else breaks the flow.
    one_family_suffices: told as a warning of a flow whose ends speak over the other address family.
    heals_within_s: HEALS_DEVICE, HEALS_ENTRY, HEALS_CHAIN, HEALS_NEVER, or NOT_FELIX when it is not Felix's.
    healed_by_monitor: calico-node itself repairs it within that time, beside Felix.
    """
    if severity not in SEVERITIES:
        raise TypeError(f"severity {severity!r} is not one of {SEVERITIES}")
    if stage and stage not in STAGES:
        raise TypeError(f"stage {stage!r} is not one of {STAGES}")

    def make(body: Judgement) -> CauseRule:
        _check(body, patterns)
        if at is not None:
            _resolve(at, patterns, body)
        return CauseRule(
            name=body.__name__,
            doc=inspect.getdoc(inspect.getmodule(body)) or "",
            patterns=tuple(patterns.items()),
            body=body,
            title=title,
            severity=severity,
            after=tuple(after),
            after_peer=tuple(after_peer),
            remedy=remedy,
            fix=fix,
            other_fixes=tuple(other_fixes),
            at=at,
            stage=stage,
            both_ways=both_ways,
            last_resort=last_resort,
            silent_while_well=silent_while_well,
            silent_where_explained=silent_where_explained,
            one_family_suffices=one_family_suffices,
            heals_within_s=heals_within_s,
            healed_by_monitor=healed_by_monitor,
        )

    return make


def derive(**patterns: Pattern) -> Callable[[Body], Deduction]:
    """A deduction. The body gets one fact per pattern by name and returns the facts that follow (or none)."""

    def make(body: Body) -> Deduction:
        _check(body, patterns)
        return Deduction(body.__name__, inspect.getdoc(inspect.getmodule(body)) or "", tuple(patterns.items()), body)

    return make


def _check(body: Body, patterns: dict[str, Pattern]) -> None:
    arguments = list(inspect.signature(body).parameters)
    if arguments != list(patterns):
        raise TypeError(f"{body.__name__}: arguments {arguments} are not the conditions {list(patterns)}")
    seen: dict[str, Pattern] = {}
    for alias, pattern in patterns.items():
        for name, value in pattern.terms:
            if isinstance(value, Ref):
                if value.alias not in seen:
                    raise TypeError(f"{body.__name__}: {alias}.{name} joins {value.alias}, not an earlier condition")
                _resolve(value, seen, body)
        seen[alias] = pattern


def _resolve(ref: Ref, patterns: dict[str, Pattern], body: Body) -> None:
    if ref.alias not in patterns or ref.field not in _fields(patterns[ref.alias].kind):
        raise TypeError(f"{body.__name__}: the.{ref.alias}.{ref.field} does not exist")
