"""How a kind of fix is written, and the closed list of them; without it any text could become a change."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import fixes.kinds
from facts import Cause, Fact
from fixes.kernel import Kernel

if TYPE_CHECKING:
    from fixes.calico import Calico

Arguments = Mapping[str, str]


class EvidenceChanged(Exception):
    """The world is no longer what the request rests on. Its text says what was found instead.

    Nothing was written then: no kind raises it once it has written.
    """


class TooSoon(Exception):
    """The evidence must still be there at a second look, which is not due yet. Its text says when it is."""

    def __init__(self, sentence: str, wait_s: float) -> None:
        super().__init__(sentence)
        self.wait_s = wait_s


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of fix: what is told of it. All arguments are text.

    propose   cause, the diagnosis' facts -> arguments, or None when the evidence does not carry this fix
    more      the arguments of further fixes of this kind for the same cause, each a request of its own
    by_hand   the same change as commands that a person types, where the arguments alone tell them; else none
    """

    name: str
    title: Callable[[Arguments, str], str]  # arguments, node
    blast_radius: Callable[[Arguments, str], str]
    undo: Callable[[Arguments, str], str]
    propose: Callable[[Cause, Sequence[Fact]], dict[str, str] | None]
    more: Callable[[Cause, Sequence[Fact]], Sequence[dict[str, str]]] = lambda cause, facts: ()
    by_hand: Callable[[Arguments], list[str]] = lambda arguments: []
    may_hurry: bool = False  # a person may ask for it before the second look is due (fixes.looks)


@dataclass(frozen=True, kw_only=True)
class NodeKind(Kind):
    """A fix in a node's kernel, which that node's fixer does; everything it does is in these four functions.

    holds     raises EvidenceChanged when the live kernel no longer shows what the request rests on, TooSoon
    preview   exactly what would be written, a line each, as iproute2 and sysctl write it
    execute   does it; raises OSError or ValueError when it could not
    verify    reads the kernel again -> (is it right now, one sentence with what was read)
    """

    holds: Callable[[Kernel, Arguments], None]
    preview: Callable[[Kernel, Arguments], list[str]]
    execute: Callable[[Kernel, Arguments], None]
    verify: Callable[[Kernel, Arguments], tuple[bool, str]]


@dataclass(frozen=True, kw_only=True)
class ClusterKind(Kind):
    """A fix in the cluster's objects, which the one cluster fixer does; the same four, of the API server.

    holds     raises EvidenceChanged, TooSoon, or fixes.calico.ApiError when it could not be read
    preview   exactly what would be written: the objects before and after, as a unified diff of YAML
    execute   does it, each write a compare-and-swap; raises EvidenceChanged when another writer came first
    verify    reads the objects again -> (is it right now, one sentence with what was read)
    """

    holds: Callable[[Calico, Arguments], Awaitable[None]]
    preview: Callable[[Calico, Arguments], Awaitable[list[str]]]
    execute: Callable[[Calico, Arguments], Awaitable[None]]
    verify: Callable[[Calico, Arguments], Awaitable[tuple[bool, str]]]


@functools.cache
def kinds() -> Mapping[str, Kind]:
    """Every kind of fix there is, by name: one module of `fixes.kinds` each."""
    found = {}
    for module in pkgutil.iter_modules(fixes.kinds.__path__):
        kind: Kind = importlib.import_module(f"fixes.kinds.{module.name}").KIND
        if kind.name != module.name:
            raise TypeError(f"fixes/kinds/{module.name}.py calls its kind {kind.name!r}")
        found[kind.name] = kind
    return found
