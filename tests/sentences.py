"""Every sentence of the program that can be said in another language, read from its source, lest one be forgotten."""

from __future__ import annotations

import ast
import inspect
import re
import string
from collections.abc import Container, Iterator
from pathlib import Path

from bot.language import key
from engine import rulebase
from engine.rule import CauseRule

WORDS = re.compile(r"[A-Za-z]{2,}\s|\s[A-Za-z]{2,}")
ROOT = Path(__file__).resolve().parents[1]
FRAME = ("bot", "engine", "facts", "fixes")


def of_mode(rule: CauseRule) -> set[str]:
    """What a failure mode says: its title, remedy and explanation, and every template of its file."""
    return {key(rule.title), key(rule.remedy), key(rule.doc), *said_in(ROOT / f"engine/rules/{rule.name}.py")}


def of_frame() -> set[str]:
    """What everything else says: the engine, the answer's form, the runbook with its nouns."""
    kinds = {pattern.kind for rule in rulebase.load().rules for _, pattern in rule.patterns}
    found = {key(inspect.getdoc(kind) or "") for kind in kinds}
    for place in FRAME:
        for one in sorted((ROOT / place).rglob("*.py")):
            if one.parent.name != "rules":
                found.update(said_in(one))
    return found


def said_in(path: Path) -> set[str]:
    """The templates of all calls of `say` in a file. Raises TypeError for one that is not written there."""
    tree = ast.parse(path.read_text())
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say" and node.args:
            templates = list(_templates(node.args[0], constants))
            if not templates:
                raise TypeError(f"{path}:{node.lineno}: what is said here is not written here")
            found.update(map(key, templates))
    return found


def _templates(node: ast.expr, constants: dict[str, ast.expr]) -> Iterator[str]:
    """A text, a choice of texts, or a constant of the module that holds texts."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _templates(node.body, constants)
        yield from _templates(node.orelse, constants)
    elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        yield from _templates(constants.get(node.value.id, node.slice), constants)
    elif isinstance(node, ast.Name) and node.id in constants:
        yield from _templates(constants[node.id], constants)
    elif isinstance(node, ast.Dict):
        for value in node.values:
            yield from _templates(value, constants)
    elif isinstance(node, ast.Tuple):
        for value in node.elts:
            yield from _templates(value, constants)


def placeholders(template: str) -> set[str]:
    """The names in braces."""
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


def unsaid_in(path: Path, functions: Container[str] = ()) -> set[str]:
    """Words in the functions of a file that no `say` says: of a stage, an owner or a command, or English in the wrong
    place. functions: by name, where not all of them are told to people."""
    found: set[str] = set()

    def look(node: ast.AST) -> None:
        if isinstance(node, ast.keyword) and node.arg in ("stage", "severity", "command"):
            return
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say":
            for one in (*node.args[1:], *node.keywords):
                look(one)
            return
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and WORDS.search(node.value):
            found.add(node.value)
        for child in ast.iter_child_nodes(node):
            look(child)

    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef) and (not functions or function.name in functions):
            for statement in function.body[1 if ast.get_docstring(function) else 0 :]:
                look(statement)
    return found
