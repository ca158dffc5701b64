"""Calico's selector language; without it nobody knows whom a policy or a pool is about."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping

Labels = Mapping[str, str]
Selector = Callable[[Labels], bool]

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>"[^"]*"|'[^']*')
      | (?P<operator>==|!=|&&|\|\||[!(){},])
      | (?P<word>[A-Za-z0-9_./-]+)
    )""",
    re.VERBOSE,
)
_DEPTH = 64


class SelectorError(ValueError):
    """The text is not a selector; the message names the place."""


def _everything(labels: Labels) -> bool:
    return True


def _nothing(labels: Labels) -> bool:
    return False


@functools.lru_cache(maxsize=4096)
def parse(text: str, every: Selector = _everything, outside: Selector = _nothing) -> Selector:
    """A predicate over labels. "" selects everything, as in Calico. Raises SelectorError.

    `!=` and `not in` are true for a label that is absent; every other comparison is false for it.
    every, outside: what all() and global() mean where this selector stands.
    """
    if not text.strip():
        return _everything
    parser = _Parser(text, {"all": every, "global": outside})
    selector = parser.any_of(0)
    parser.expect_end()
    return selector


def matches(text: str, labels: Labels) -> bool:
    """Does the selector select these labels? Raises SelectorError."""
    return parse(text)(labels)


class _Parser:
    """Recursive descent: `||` of `&&` of operands."""

    def __init__(self, text: str, functions: Mapping[str, Selector]) -> None:
        self._text = text
        self._functions = functions
        self._tokens: list[tuple[str, str]] = []
        self._next = 0
        position, end = 0, len(text.rstrip())
        while position < end:
            found = _TOKEN.match(text, position)
            if not found:
                raise SelectorError(
                    f"{text!r} is not a selector: nothing is known to begin with {text[position:].strip()[:20]!r}"
                )
            kind = found.lastgroup or ""
            self._tokens.append((kind, found[kind]))
            position = found.end()

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._next] if self._next < len(self._tokens) else ("end", "")

    def _take(self, *wanted: str) -> str | None:
        """The next token when it is one of these operators or words."""
        kind, value = self._peek()
        if kind in ("operator", "word") and value in wanted:
            self._next += 1
            return value
        return None

    def _need(self, wanted: str) -> str:
        if self._take(wanted) is None:
            raise self._error(f"{wanted!r} was expected")
        return wanted

    def _error(self, what: str) -> SelectorError:
        kind, value = self._peek()
        return SelectorError(
            f"{self._text!r} is not a selector: {what} {'at its end' if kind == 'end' else f'at {value!r}'}"
        )

    def expect_end(self) -> None:
        if self._peek()[0] != "end":
            raise self._error("its end was expected")

    def any_of(self, depth: int) -> Selector:
        if depth > _DEPTH:
            raise SelectorError(f"{self._text[:40]!r}… is nested deeper than {_DEPTH}")
        options = [self._all_of(depth)]
        while self._take("||"):
            options.append(self._all_of(depth))
        return options[0] if len(options) == 1 else lambda labels: any(option(labels) for option in options)

    def _all_of(self, depth: int) -> Selector:
        conditions = [self._operand(depth)]
        while self._take("&&"):
            conditions.append(self._operand(depth))
        return (
            conditions[0] if len(conditions) == 1 else lambda labels: all(condition(labels) for condition in conditions)
        )

    def _operand(self, depth: int) -> Selector:
        negated = False
        while self._take("!"):
            negated = not negated
        inner = self._positive(depth)
        return (lambda labels: not inner(labels)) if negated else inner

    def _positive(self, depth: int) -> Selector:
        if self._take("("):
            inner = self.any_of(depth + 1)
            self._need(")")
            return inner
        kind, name = self._peek()
        if kind != "word":
            raise self._error("a label, all(), has(LABEL) or a parenthesis was expected")
        self._next += 1
        if self._take("("):
            return self._call(name)
        return self._comparison(name)

    def _call(self, name: str) -> Selector:
        if name in self._functions:
            self._need(")")
            return self._functions[name]
        if name == "has":
            kind, label = self._peek()
            if kind != "word":
                raise self._error("the name of a label was expected")
            self._next += 1
            self._need(")")
            return lambda labels: label in labels
        raise self._error(f"{name}() is not known, only all(), has(LABEL) and global()")

    def _comparison(self, label: str) -> Selector:
        if operator := self._take("==", "!="):
            value = self._string()
            if operator == "==":
                return lambda labels: labels.get(label) == value
            return lambda labels: labels.get(label) != value
        if self._take("in"):
            values = self._set()
            return lambda labels: label in labels and labels[label] in values
        if self._take("notin") or (self._take("not") and self._need("in")):
            values = self._set()
            return lambda labels: label not in labels or labels[label] not in values
        if self._take("contains"):
            value = self._string()
            return lambda labels: label in labels and value in labels[label]
        if self._take("starts"):
            self._need("with")
            value = self._string()
            return lambda labels: label in labels and labels[label].startswith(value)
        if self._take("ends"):
            self._need("with")
            value = self._string()
            return lambda labels: label in labels and labels[label].endswith(value)
        raise self._error("a comparison was expected")

    def _string(self) -> str:
        kind, value = self._peek()
        if kind != "string":
            raise self._error("a quoted text was expected")
        self._next += 1
        return value[1:-1]

    def _set(self) -> frozenset[str]:
        """Quoted texts between commas; one more comma at the end is allowed."""
        self._need("{")
        values: list[str] = []
        while not self._take("}"):
            values.append(self._string())
            if not self._take(","):
                self._need("}")
                break
        return frozenset(values)
