"""`calico-why runbook`: the decision tree as a page, made of the rules; one kept by hand would lag behind."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterable, Iterator, Sequence

from bot import language as languages
from bot import settings as connection
from bot.language import ENGLISH, Language
from bot.reply import wording
from engine import rulebase
from engine.order import depths, place
from engine.rule import HEALS_NEVER, NOT_FELIX, CauseRule, Deduction, Pattern, Ref
from facts import joined, say

HELP = "the decision tree: every failure mode, how it is told, what to do"

TOP = """\
# Why can pod A not reach pod B? The runbook

`{command}` writes this page from the rules that judge every answer; whoever changes a rule runs it again.

Each question is judged in both directions: a flow has a forward and a reverse **leg**, and a failure mode is looked for
on each. All that the modes below speak of is looked at together; a person works through what was found from step 0
downwards, because what stands in a later step may be the echo of what stands in an earlier one.
"""
DIAGRAM = """\
## What can be the echo of what

An arrow leads from a failure mode to one that it may bring about: when both are found, only the first is told. A dotted
arrow leads from one node to the other node of the leg, a plain one stays on the same node. Arrows that follow from two
others are not drawn; modes without any arrow always speak for themselves.
"""
SEVERITY = {
    "breaks": "breaks: the flow does not work",
    "degrades": "degrades: the flow works, but not as it should",
    "warns": "warns: a warning, the flow works",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Prints the decision tree in Markdown; docs/runbook.md is this output."
    languages.add_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Always 0. Raises UserError for a language there is not."""
    sys.stdout.write(page(rulebase.load().rules, connection.language(args)))
    return 0


def page(rules: Iterable[object], language: Language = ENGLISH) -> str:
    """The whole runbook in Markdown."""
    rules = list(rules)
    modes = in_order([rule for rule in rules if isinstance(rule, CauseRule)])
    depth = depths(modes)
    steps = [[mode for mode in modes if depth[mode.name] == step] for step in sorted(set(depth.values()))]
    command = "calico-why runbook" + (f" --lang {language.name}" if language is not ENGLISH else "")
    parts = [language(say(TOP, command=command)), *_contents(steps, language), language(say(DIAGRAM)), diagram(modes)]
    for step, found in enumerate(steps):
        parts += [f"## {language(say('Step {number}', number=step))}\n", *(_mode(mode, language) for mode in found)]
    nouns = _nouns([*modes, *(rule for rule in rules if isinstance(rule, Deduction))], language)
    parts += [f"## {language(say('What is looked at'))}\n", *nouns]
    return "\n".join(parts)


def in_order(modes: Sequence[CauseRule]) -> list[CauseRule]:
    """Order of work: what others can follow from comes first, then the place on the way of a packet."""
    depth = depths(modes)
    return sorted(modes, key=lambda mode: (depth[mode.name], place(mode.stage), mode.name))


def edges(modes: Sequence[CauseRule]) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """(root, echo) on the same node, and between the two nodes of a leg; both without what follows from others."""
    names = {mode.name for mode in modes}
    same = {(root, mode.name) for mode in modes for root in mode.after if root in names}
    other = {(root, mode.name) for mode in modes for root in mode.after_peer if root in names}
    return _reduced(same), _reduced(other)


def _reduced(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Without the pairs that a way over others leads to as well."""
    further: dict[str, set[str]] = {}
    for root, echo in pairs:
        further.setdefault(root, set()).add(echo)

    def reach(start: str, seen: set[str]) -> set[str]:
        for one in further.get(start, set()) - seen:
            seen.add(one)
            reach(one, seen)
        return seen

    return {
        (root, echo)
        for root, echo in pairs
        if not any(echo in reach(between, set()) for between in further[root] - {root, echo})
    }


def diagram(modes: Sequence[CauseRule]) -> str:
    """The `after` edges for mermaid."""
    same, other = edges(modes)
    lines = ["```mermaid", "flowchart LR"]
    lines += [f"    {root} --> {echo}" for root, echo in sorted(same)]
    lines += [f"    {root} -.-> {echo}" for root, echo in sorted(other)]
    return "\n".join([*lines, "```", ""])


def _contents(steps: Sequence[Sequence[CauseRule]], language: Language) -> Iterator[str]:
    yield f"## {language(say('Order of work'))}\n"
    for step, modes in enumerate(steps):
        yield f"**{language(say('Step {number}', number=step))}**\n"
        yield "\n".join(f"* [{language(mode.title)}](#{mode.name})" for mode in modes) + "\n"


def _mode(mode: CauseRule, language: Language) -> str:
    at = say("the node {field}", field=f"`{mode.at.alias}.{mode.at.field}`") if mode.at else say("no node")
    rows: list[tuple[str, str]] = [
        (say("Judged by"), "<br>".join(map(language, _conditions(mode)))),
        (say("Means"), _meaning(mode)),
        (say("Told on"), at),
        (say("What to do"), mode.remedy),
        (say("Felix"), felix(mode)),
    ]
    if mode.stage:
        stage = wording.place(mode.stage)
        both = say("{stage}, and on the way back too", stage=stage)
        rows.insert(2, (say("Lost at"), both if mode.both_ways else stage))
    if mode.fix:
        rows.append((say("Fix to approve"), ", ".join(f"`{name}`" for name in (mode.fix, *mode.other_fixes))))
    if mode.after:
        rows.append((say("Silent after, on this node"), _links(mode.after)))
    if mode.after_peer:
        rows.append((say("Silent after, on the other node"), _links(mode.after_peer)))
    table = "\n".join(
        f"| {language(name)} | {' '.join(language(text).replace('|', '/').split())} |" for name, text in rows
    )
    head = language(say("**{title}.** {doc}", title=language(mode.title), doc=language(mode.doc)))
    return f"### {mode.name}\n\n{head}\n\n| | |\n|---|---|\n{table}\n"


def _meaning(mode: CauseRule) -> str:
    meaning = say(SEVERITY[mode.severity])
    if not mode.last_resort:
        return meaning
    if mode.silent_while_well:
        return say(
            "{meaning}; not told where packets pass, only a warning where something else explains their loss",
            meaning=meaning,
        )
    if mode.silent_where_explained:
        return say(
            "{meaning}; only a warning where packets pass, not told where something else explains their loss",
            meaning=meaning,
        )
    return say("{meaning}; only a warning where packets pass or something else explains their loss", meaning=meaning)


def felix(mode: CauseRule) -> str:
    """What Felix does about it, and when."""
    if mode.heals_within_s == NOT_FELIX:
        return say("has nothing to do with it")
    if mode.heals_within_s == HEALS_NEVER:
        return say("never repairs it")
    if mode.healed_by_monitor:
        return say("leaves it to calico-node, which looks every {seconds} s", seconds=mode.heals_within_s)
    return say(
        "repairs it within {seconds} s where it is alive; still wrong after that: look at Felix",
        seconds=mode.heals_within_s,
    )


def _conditions(mode: CauseRule) -> Iterator[str]:
    for alias, pattern in mode.patterns:
        kind = pattern.kind.__name__
        fact = say("an {kind}" if kind[0] in "AEIOU" else "a {kind}", kind=f"[{kind}](#{kind.lower()})")
        terms = joined(_terms(pattern))
        yield say(
            "{name}: {fact} with {terms}" if terms else "{name}: {fact}", name=f"`{alias}`", fact=fact, terms=terms
        )


def _terms(pattern: Pattern) -> Iterator[str]:
    for name, value in pattern.terms:
        if isinstance(value, Ref):
            yield f"{name} = `{value.alias}.{value.field}`"
        else:
            yield f"{name} = {value}" if value else say("{name} empty", name=name)


def _links(names: Iterable[str]) -> str:
    return ", ".join(f"[{name}](#{name})" for name in names)


def _nouns(rules: Iterable[CauseRule | Deduction], language: Language) -> Iterator[str]:
    """Every kind of fact that a condition speaks of, in its own words."""
    kinds = {pattern.kind.__name__: pattern.kind for rule in rules for _, pattern in rule.patterns}
    for name in sorted(kinds):
        yield f"### {name}\n\n{language(inspect.getdoc(kinds[name]) or '')}\n"
