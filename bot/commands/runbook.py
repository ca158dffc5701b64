"""`calico-why runbook`: the decision tree as a page, made of the rules; one kept by hand would lag behind."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterable, Iterator, Sequence

from engine import rulebase
from engine.order import depths, place
from engine.rule import HEALS_NEVER, NOT_FELIX, CauseRule, Deduction, Pattern, Ref
from facts import Fact

HELP = "the decision tree: every failure mode, how it is told, what to do"

TOP = """\
# Why can pod A not reach pod B? The runbook

`calico-why runbook` writes this page from the rules that judge every answer; whoever changes a rule runs it again.

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
    "breaks": "the flow does not work",
    "degrades": "the flow works, but not as it should",
    "warns": "a warning, the flow works",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Prints the decision tree in Markdown; docs/runbook.md is this output."


def run(args: argparse.Namespace) -> int:
    """Always 0."""
    sys.stdout.write(page(rulebase.load().rules))
    return 0


def page(rules: Iterable[object]) -> str:
    """The whole runbook in Markdown."""
    rules = list(rules)
    modes = in_order([rule for rule in rules if isinstance(rule, CauseRule)])
    depth = depths(modes)
    steps = [[mode for mode in modes if depth[mode.name] == step] for step in sorted(set(depth.values()))]
    parts = [TOP, *_contents(steps), DIAGRAM, diagram(modes)]
    for step, found in enumerate(steps):
        parts += [f"## Step {step}\n", *(_mode(mode) for mode in found)]
    parts += ["## What is looked at\n", *_nouns([*modes, *(rule for rule in rules if isinstance(rule, Deduction))])]
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


def _contents(steps: Sequence[Sequence[CauseRule]]) -> Iterator[str]:
    yield "## Order of work\n"
    for step, modes in enumerate(steps):
        yield f"**Step {step}**\n"
        yield "\n".join(f"* [{mode.title}](#{mode.name})" for mode in modes) + "\n"


def _mode(mode: CauseRule) -> str:
    rows = [
        ("Judged by", "<br>".join(_conditions(mode))),
        ("Means", _meaning(mode)),
        ("Told on", f"the node `{mode.at.alias}.{mode.at.field}`" if mode.at else "no node"),
        ("What to do", mode.remedy),
        ("Felix", felix(mode)),
    ]
    if mode.stage:
        rows.insert(2, ("Lost at", mode.stage + (", and on the way back too" if mode.both_ways else "")))
    if mode.fix:
        rows.append(("Fix to approve", f"`{mode.fix}`"))
    if mode.after:
        rows.append(("Silent after, on this node", _links(mode.after)))
    if mode.after_peer:
        rows.append(("Silent after, on the other node", _links(mode.after_peer)))
    table = "\n".join(f"| {name} | {' '.join(text.replace('|', '/').split())} |" for name, text in rows)
    return f"### {mode.name}\n\n**{mode.title}.** {mode.doc}\n\n| | |\n|---|---|\n{table}\n"


def _meaning(mode: CauseRule) -> str:
    unless = "; only a warning where packets pass or something else explains their loss" if mode.last_resort else ""
    return f"{mode.severity}: {SEVERITY[mode.severity]}{unless}"


def felix(mode: CauseRule) -> str:
    """What Felix does about it, and when."""
    if mode.heals_within_s == NOT_FELIX:
        return "has nothing to do with it"
    if mode.heals_within_s == HEALS_NEVER:
        return "never repairs it"
    return f"repairs it within {mode.heals_within_s} s where it is alive; still wrong after that: look at Felix"


def _conditions(mode: CauseRule) -> Iterator[str]:
    for alias, pattern in mode.patterns:
        yield f"`{alias}`: {_a(pattern.kind)}" + (f" with {', '.join(_terms(pattern))}" if pattern.terms else "")


def _terms(pattern: Pattern) -> Iterator[str]:
    for name, value in pattern.terms:
        if isinstance(value, Ref):
            yield f"{name} = `{value.alias}.{value.field}`"
        else:
            yield f"{name} " + (f"= {value}" if value else "empty")


def _a(kind: type[Fact]) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} [{kind.__name__}](#{kind.__name__.lower()})"


def _links(names: Iterable[str]) -> str:
    return ", ".join(f"[{name}](#{name})" for name in names)


def _nouns(rules: Iterable[CauseRule | Deduction]) -> Iterator[str]:
    """Every kind of fact that a condition speaks of, in its own words."""
    kinds = {pattern.kind.__name__: pattern.kind for rule in rules for _, pattern in rule.patterns}
    for name in sorted(kinds):
        yield f"### {name}\n\n{inspect.getdoc(kinds[name])}\n"
