"""How a variant is written; without it each would have to know the whole lab."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from lab.drawing import Drawing
from lab.sketch import Sketch
from lab.topology import Topology


def _as_it_is(sketch: Sketch) -> Sketch:
    return sketch


def _nothing(_: object) -> None:
    return


@dataclass(frozen=True)
class Variant:
    """A small change of a healthy cluster that leaves it healthy. Most make one of the three kinds of change."""

    name: str
    text: str  # what is different, in one sentence
    kind: str = ""  # of two variants of one kind only one can be true of a cluster
    conflicts: frozenset[str] = frozenset()  # names of variants it cannot be together with
    sketch: Callable[[Sketch], Sketch] = _as_it_is  # what is to be invented
    objects: Callable[[Drawing], None] = _nothing  # the invented API objects
    machines: Callable[[Topology], None] = _nothing  # once Calico has programmed the nodes, and after each healing

    def combines_with(self, other: Variant) -> bool:
        """Can a cluster be both?"""
        same_kind = bool(self.kind) and self.kind == other.kind
        return not (
            self.name == other.name or same_kind or other.name in self.conflicts or self.name in other.conflicts
        )


def sketched(*, kind: str = "", conflicts: str = "") -> Callable[[Callable[[Sketch], Sketch]], Variant]:
    """A variant by what is to be invented. `conflicts`: names, with spaces between."""
    return lambda change: Variant(*_called(change), kind, frozenset(conflicts.split()), sketch=change)


def drawn(*, kind: str = "", conflicts: str = "") -> Callable[[Callable[[Drawing], None]], Variant]:
    """A variant by its API objects."""
    return lambda change: Variant(*_called(change), kind, frozenset(conflicts.split()), objects=change)


def furnished(*, kind: str = "", conflicts: str = "") -> Callable[[Callable[[Topology], None]], Variant]:
    """A variant by what is on its nodes. The change must bear being made twice."""
    return lambda change: Variant(*_called(change), kind, frozenset(conflicts.split()), machines=change)


def _called(change: Callable[..., object]) -> tuple[str, str]:
    """(name, text): the function's name with dashes and its docstring."""
    return change.__name__.strip("_").replace("_", "-"), inspect.getdoc(change) or ""
