"""As much of Prometheus' query language as the alerts use, over two looks at a bot; without it an alert could be
well-formed and never fire."""

from __future__ import annotations

import math
import operator
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import promql_parser as promql
from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
Look = dict[str, Vector]  # name -> its series

COMPARED: dict[str, Callable[[float, float], bool]] = {">": operator.gt, "<": operator.lt, "==": operator.eq}
COUNTED: dict[str, Callable[[float, float], float]] = {
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda one, other: one / other if other else math.nan,
}


def look(text: str, instance: str = "bot-1") -> Look:
    """What was scraped from one bot."""
    found: Look = defaultdict(dict)
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            found[name][frozenset({**labels, "instance": instance}.items())] = value
    return found


def selectors(expression: Any) -> Iterator[Any]:
    """Every selector in it."""
    if isinstance(expression, promql.VectorSelector):
        yield expression
    elif isinstance(expression, promql.MatrixSelector):
        yield expression.vector_selector
    elif isinstance(expression, promql.BinaryExpr):
        yield from selectors(expression.lhs)
        yield from selectors(expression.rhs)
    elif isinstance(expression, promql.Call):
        for one in expression.args:
            yield from selectors(one)
    elif isinstance(expression, promql.AggregateExpr | promql.ParenExpr):
        yield from selectors(expression.expr)


class Query:
    """Answers over a look before and one after, so many seconds apart: every range is what lies between them."""

    def __init__(self, before: Look, after: Look, seconds: float = 600) -> None:
        self._before = before
        self._after = after
        self._seconds = seconds

    def __call__(self, text: str) -> Vector:
        found = self._value(promql.parse(text))
        assert isinstance(found, dict)
        return found

    def _value(self, one: Any) -> Any:
        if isinstance(one, promql.NumberLiteral):
            return one.val
        if isinstance(one, promql.ParenExpr):
            return self._value(one.expr)
        if isinstance(one, promql.VectorSelector):
            return _selected(self._after, one)
        if isinstance(one, promql.AggregateExpr):
            return self._aggregated(one)
        if isinstance(one, promql.Call):
            return self._called(one)
        assert isinstance(one, promql.BinaryExpr), one
        return self._joined(one)

    def _called(self, one: Any) -> Any:
        name = one.func.name
        if name in ("increase", "rate"):
            selector = one.args[0].vector_selector
            before, after = _selected(self._before, selector), _selected(self._after, selector)
            # One sample alone is no increase: a series that was not there before tells none.
            per = 1 if name == "increase" else self._seconds
            return {labels: (after[labels] - before[labels]) / per for labels in after if labels in before}
        if name == "time":
            return time.time()
        if name == "absent":
            return {} if self._value(one.args[0]) else {frozenset(): 1.0}
        assert name == "histogram_quantile", name
        return _quantile(self._value(one.args[0]), self._value(one.args[1]))

    def _aggregated(self, one: Any) -> Vector:
        by = set(one.modifier.labels) if one.modifier else set()
        groups: defaultdict[Labels, list[float]] = defaultdict(list)
        for labels, value in self._value(one.expr).items():
            groups[frozenset(pair for pair in labels if pair[0] in by)].append(value)
        how: dict[str, Callable[[list[float]], float]] = {"sum": sum, "max": max, "min": min, "count": len}
        return {labels: float(how[str(one.op)](values)) for labels, values in groups.items()}

    def _joined(self, one: Any) -> Any:
        left, right, op = self._value(one.lhs), self._value(one.rhs), str(one.op)
        if isinstance(left, float):
            return COUNTED[op](left, right)
        if op == "and":
            return {labels: value for labels, value in left.items() if labels in right}
        if op in COMPARED:
            return {labels: value for labels, value in left.items() if COMPARED[op](value, right)}
        on = set(one.modifier.matching.labels) if one.modifier and one.modifier.matching else None
        if isinstance(right, float):
            return {labels: COUNTED[op](value, right) for labels, value in left.items()}
        others = {_on(labels, on): value for labels, value in right.items()}
        return {
            labels: COUNTED[op](value, others[_on(labels, on)])
            for labels, value in left.items()
            if _on(labels, on) in others
        }


def _on(labels: Labels, on: set[str] | None) -> Labels:
    return labels if on is None else frozenset(pair for pair in labels if pair[0] in on)


def _selected(seen: Look, selector: Any) -> Vector:
    return {
        labels: value
        for labels, value in seen.get(selector.name, {}).items()
        if all(_matches(dict(labels).get(one.name, ""), one) for one in selector.matchers.matchers)
    }


def _matches(value: str, matcher: Any) -> bool:
    is_it = value == matcher.value if matcher.op in (promql.MatchOp.Equal, promql.MatchOp.NotEqual) else None
    if is_it is None:
        is_it = re.fullmatch(matcher.value, value) is not None
    return is_it == (matcher.op in (promql.MatchOp.Equal, promql.MatchOp.Re))


def _quantile(wanted: float, buckets: Vector) -> Vector:
    series: defaultdict[Labels, list[tuple[float, float]]] = defaultdict(list)
    for labels, count in buckets.items():
        bound = float(dict(labels)["le"])
        series[frozenset(pair for pair in labels if pair[0] != "le")].append((bound, count))
    found: Vector = {}
    for labels, counts in series.items():
        counts.sort()
        rank = wanted * counts[-1][1]
        low, below = 0.0, 0.0
        for bound, count in counts:
            if count >= rank and count:
                found[labels] = low if math.isinf(bound) else low + (bound - low) * (rank - below) / (count - below)
                break
            low, below = bound, count
        else:
            found[labels] = math.nan
    return found
