"""How a kind of fix is written, and the closed list of them; without it any text could become a change."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import fixes.kinds
from facts import Cause, Fact
from fixes.kernel import Kernel


class EvidenceChanged(Exception):
    """The world is no longer what the request rests on. Its text says what was found instead."""


@dataclass(frozen=True)
class Kind:
    """One kind of fix. All arguments are text, and everything it does to a node is in its four functions.

    propose   cause, the diagnosis' facts -> arguments, or None when the evidence does not carry this fix
    holds     raises EvidenceChanged when the live kernel no longer shows what the request rests on
    execute   does it; raises OSError or ValueError when it could not
    verify    reads the kernel again -> (is it right now, one sentence with what was read)
    """

    name: str
    title: Callable[[Mapping[str, str], str], str]  # arguments, node
    blast_radius: Callable[[Mapping[str, str], str], str]
    undo: Callable[[Mapping[str, str], str], str]
    propose: Callable[[Cause, Sequence[Fact]], dict[str, str] | None]
    holds: Callable[[Kernel, Mapping[str, str]], None]
    execute: Callable[[Kernel, Mapping[str, str]], None]
    verify: Callable[[Kernel, Mapping[str, str]], tuple[bool, str]]
    executes_on: str = "node"


@functools.cache
def kinds() -> Mapping[str, Kind]:
    """Every kind of fix there is, by name: one module of `fixes.kinds` each."""
    found = {}
    for module in pkgutil.iter_modules(fixes.kinds.__path__):
        kind = importlib.import_module(f"fixes.kinds.{module.name}").KIND
        if kind.name != module.name:
            raise TypeError(f"fixes/kinds/{module.name}.py calls its kind {kind.name!r}")
        found[kind.name] = kind
    return found
