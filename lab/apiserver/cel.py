"""Evaluates the CEL of CRDs and admission policies; without it "immutable" would be a word in a schema.

A small part of the language, honestly: what it cannot read or does not know is refused when the CRD or policy is
created (`CelError` from `compile_rule`), never passed over. Known are literals, lists, maps, member and index access,
`has()`, `size()`, arithmetic on numbers and strings, comparisons, `in`, `&&`, `||`, `!`, `? :`, the string methods
startsWith, endsWith, contains, matches, the macros all, exists, exists_one, map and filter, and the methods of a
policy's `authorizer`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Values = Mapping[str, Any]
Node = Callable[[Values], Any]


class CelError(Exception):
    """A rule that cannot be read, or (while evaluating) a value that is not there or of the wrong type."""


class Answering:
    """A value that an expression calls methods of, such as a policy's `authorizer`."""

    def call(self, name: str, arguments: list[Any]) -> Any:
        """Raises CelError for a method that it does not have."""
        raise NotImplementedError


class Rule(NamedTuple):
    """A compiled expression. `names` are the variables it speaks of."""

    evaluate: Node
    names: frozenset[str]


_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>\d+\.\d+(?:[eE][+-]?\d+)?|\d+)
      | (?P<raw>r'[^']*'|r"[^"]*")
      | (?P<string>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<symbol>&&|\|\||==|!=|<=|>=|[-+*/%!<>?:.,()\[\]{}])
    )""",
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"'}
_METHODS = {"startsWith": 1, "endsWith": 1, "contains": 1, "matches": 1, "size": 0}
_METHODS_OF_AUTHORIZERS = {
    "group": 1,
    "resource": 1,
    "subresource": 1,
    "namespace": 1,
    "name": 1,
    "check": 1,
    "allowed": 0,
}
_MACROS = frozenset({"all", "exists", "exists_one", "map", "filter"})


def compile_rule(text: str, variables: frozenset[str] = frozenset({"self", "oldSelf"})) -> Rule:
    """Reads an expression over `variables`. Raises CelError for whatever is beyond this evaluator."""
    parser = _Parser(text, variables)
    node = parser.ternary()
    parser.end()
    return Rule(node, frozenset(parser.used))


class _Parser:
    def __init__(self, text: str, variables: frozenset[str]) -> None:
        self.text = text
        self.variables = set(variables)
        self.used: set[str] = set()
        self.tokens: list[tuple[str, str]] = []
        self.position = 0
        at = 0
        stripped = text.rstrip()
        while at < len(stripped):
            found = _TOKEN.match(stripped, at)
            if found is None or found.lastgroup is None:
                raise CelError(f"cannot read {stripped[at:]!r} in the rule {text!r}")
            self.tokens.append((found.lastgroup, found[found.lastgroup]))
            at = found.end()

    # ---- tokens

    def peek(self) -> str:
        if self.position < len(self.tokens) and self.tokens[self.position][0] in ("symbol", "name"):
            return self.tokens[self.position][1]
        return ""

    def accept(self, *words: str) -> str:
        word = self.peek()
        if word and word in words:
            self.position += 1
            return word
        return ""

    def expect(self, word: str) -> None:
        if not self.accept(word):
            raise CelError(f"{word!r} expected in the rule {self.text!r}")

    def end(self) -> None:
        if self.position != len(self.tokens):
            raise CelError(f"cannot read {self.tokens[self.position][1]!r} in the rule {self.text!r}")

    def name(self) -> str:
        if self.position < len(self.tokens) and self.tokens[self.position][0] == "name":
            self.position += 1
            return self.tokens[self.position - 1][1]
        raise CelError(f"a name expected in the rule {self.text!r}")

    # ---- grammar, loosest first

    def ternary(self) -> Node:
        condition = self.either()
        if not self.accept("?"):
            return condition
        then = self.ternary()
        self.expect(":")
        otherwise = self.ternary()
        return lambda values: then(values) if _truth(condition(values)) else otherwise(values)

    def either(self) -> Node:
        node = self.both()
        while self.accept("||"):
            node = _logical(node, self.both(), decisive=True)
        return node

    def both(self) -> Node:
        node = self.relation()
        while self.accept("&&"):
            node = _logical(node, self.relation(), decisive=False)
        return node

    def relation(self) -> Node:
        node = self.sum()
        while operator := self.accept("==", "!=", "<=", ">=", "<", ">", "in"):
            node = _binary(operator, node, self.sum())
        return node

    def sum(self) -> Node:
        node = self.product()
        while operator := self.accept("+", "-"):
            node = _binary(operator, node, self.product())
        return node

    def product(self) -> Node:
        node = self.unary()
        while operator := self.accept("*", "/", "%"):
            node = _binary(operator, node, self.unary())
        return node

    def unary(self) -> Node:
        if self.accept("!"):
            negated = self.unary()
            return lambda values: not _truth(negated(values))
        if self.accept("-"):
            number = self.unary()
            return lambda values: -_number(number(values))
        return self.member()

    def member(self) -> Node:
        node = self.primary()
        while True:
            if self.accept("."):
                node = self.call_or_field(node)
            elif self.accept("["):
                index = self.ternary()
                self.expect("]")
                node = _index(node, index)
            else:
                return node

    def call_or_field(self, target: Node) -> Node:
        name = self.name()
        if not self.accept("("):
            return _field(target, name)
        if name in _MACROS:
            return self.macro(target, name)
        wanted = (_METHODS | _METHODS_OF_AUTHORIZERS).get(name)
        if wanted is None:
            raise CelError(f"the method {name}() is unknown here, in the rule {self.text!r}")
        arguments = self.arguments()
        if len(arguments) != wanted:
            raise CelError(f"{name}() takes {wanted} argument(s), in the rule {self.text!r}")
        return _method(target, name, arguments)

    def macro(self, target: Node, name: str) -> Node:
        variable = self.name()
        self.expect(",")
        hidden = variable in self.variables
        self.variables.add(variable)
        body = self.ternary()
        if not hidden:
            self.variables.discard(variable)
            self.used.discard(variable)
        self.expect(")")
        return _macro(target, name, variable, body)

    def arguments(self) -> list[Node]:
        found: list[Node] = []
        while not self.accept(")"):
            if found:
                self.expect(",")
            found.append(self.ternary())
        return found

    def primary(self) -> Node:
        if self.accept("("):
            node = self.ternary()
            self.expect(")")
            return node
        if self.accept("["):
            entries: list[Node] = []
            while not self.accept("]"):
                if entries:
                    self.expect(",")
                entries.append(self.ternary())
            return lambda values: [entry(values) for entry in entries]
        if self.accept("{"):
            return self.map()
        if self.position >= len(self.tokens):
            raise CelError(f"the rule {self.text!r} ends too early")
        kind, word = self.tokens[self.position]
        self.position += 1
        if kind == "number":
            return _constant(float(word) if "." in word or "e" in word.lower() else int(word))
        if kind == "raw":
            return _constant(word[2:-1])
        if kind == "string":
            return _constant(_unescape(word[1:-1]))
        if kind == "name":
            return self.named(word)
        raise CelError(f"cannot read {word!r} in the rule {self.text!r}")

    def map(self) -> Node:
        pairs: list[tuple[Node, Node]] = []
        while not self.accept("}"):
            if pairs:
                self.expect(",")
            key = self.ternary()
            self.expect(":")
            pairs.append((key, self.ternary()))
        return lambda values: {key(values): value(values) for key, value in pairs}

    def named(self, word: str) -> Node:
        if word in ("true", "false", "null"):
            return _constant({"true": True, "false": False, "null": None}[word])
        if word in ("has", "size") and self.accept("("):
            if word == "size":
                counted = self.ternary()
                self.expect(")")
                return _method(counted, "size", [])
            return self.has()
        if word not in self.variables:
            raise CelError(f"{word!r} is unknown here, in the rule {self.text!r}")
        self.used.add(word)
        return lambda values: values[word]

    def has(self) -> Node:
        """has(a.b.c): a.b is evaluated, whether it has c is the answer."""
        target = self.primary()
        steps: list[str] = []
        while self.accept("."):
            steps.append(self.name())
        if not steps:
            raise CelError(f"has() takes a field, in the rule {self.text!r}")
        self.expect(")")
        for step in steps[:-1]:
            target = _field(target, step)
        last = steps[-1]
        holder = target
        return lambda values: isinstance(found := holder(values), dict) and last in found


def _constant(value: Any) -> Node:
    return lambda values: value


def _unescape(text: str) -> str:
    def replace(found: re.Match[str]) -> str:
        if found[1] not in _ESCAPES:
            raise CelError(f"the escape \\{found[1]} is unknown here")
        return _ESCAPES[found[1]]

    return re.sub(r"\\(.)", replace, text)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise CelError("no such overload: a bool expected")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CelError("no such overload: a number expected")
    return value


def _logical(left: Node, right: Node, *, decisive: bool) -> Node:
    """&& and ||: an error on one side does not count where the other side decides."""

    def evaluate(values: Values) -> bool:
        try:
            if _truth(left(values)) is decisive:
                return decisive
        except CelError:
            if _truth(right(values)) is decisive:
                return decisive
            raise
        return _truth(right(values))

    return evaluate


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    return bool(left == right)


def _binary(operator: str, left: Node, right: Node) -> Node:
    def evaluate(values: Values) -> Any:
        a, b = left(values), right(values)
        if operator == "==":
            return _same(a, b)
        if operator == "!=":
            return not _same(a, b)
        if operator == "in":
            if isinstance(b, dict):
                return a in b
            if isinstance(b, list):
                return any(_same(a, entry) for entry in b)
            raise CelError("no such overload: `in` takes a list or a map")
        if operator == "+" and isinstance(a, str) and isinstance(b, str):
            return a + b
        if operator == "+" and isinstance(a, list) and isinstance(b, list):
            return a + b
        if operator in ("<", "<=", ">", ">=") and isinstance(a, str) and isinstance(b, str):
            return _ordered(operator, a, b)
        return _arithmetic(operator, _number(a), _number(b))

    return evaluate


def _ordered(operator: str, a: Any, b: Any) -> bool:
    return bool({"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[operator])


def _arithmetic(operator: str, a: Any, b: Any) -> Any:
    if operator in ("<", "<=", ">", ">="):
        return _ordered(operator, a, b)
    if operator == "+":
        return a + b
    if operator == "-":
        return a - b
    if operator == "*":
        return a * b
    if b == 0:
        raise CelError("division by zero")
    if isinstance(a, float) or isinstance(b, float):
        return a / b
    # CEL divides towards zero, Python towards minus infinity.
    quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return quotient if operator == "/" else a - quotient * b


def _field(target: Node, name: str) -> Node:
    def evaluate(values: Values) -> Any:
        found = target(values)
        if not isinstance(found, dict) or name not in found:
            raise CelError(f"no such key: {name}")
        return found[name]

    return evaluate


def _index(target: Node, index: Node) -> Node:
    def evaluate(values: Values) -> Any:
        found, key = target(values), index(values)
        if isinstance(found, dict) and key in found:
            return found[key]
        if isinstance(found, list) and isinstance(key, int) and 0 <= key < len(found):
            return found[key]
        raise CelError(f"no such key: {key}" if isinstance(found, dict) else f"index out of bounds: {key}")

    return evaluate


def _method(target: Node, name: str, arguments: list[Node]) -> Node:
    def evaluate(values: Values) -> Any:
        found = target(values)
        if isinstance(found, Answering):
            return found.call(name, [argument(values) for argument in arguments])
        if name == "size":
            if not isinstance(found, str | list | dict):
                raise CelError("no such overload: size()")
            return len(found)
        word = arguments[0](values) if name in _METHODS else None
        if not isinstance(found, str) or not isinstance(word, str):
            raise CelError(f"no such overload: {name}()")
        if name == "startsWith":
            return found.startswith(word)
        if name == "endsWith":
            return found.endswith(word)
        if name == "contains":
            return word in found
        return re.search(word, found) is not None

    return evaluate


def _macro(target: Node, name: str, variable: str, body: Node) -> Node:
    def evaluate(values: Values) -> Any:
        found = target(values)
        if not isinstance(found, list | dict):
            raise CelError(f"no such overload: {name}()")
        results = [(entry, body({**values, variable: entry})) for entry in found]
        if name == "map":
            return [result for _, result in results]
        held = [entry for entry, result in results if _truth(result)]
        if name == "filter":
            return held
        return {"all": len(held) == len(results), "exists": bool(held), "exists_one": len(held) == 1}[name]

    return evaluate
