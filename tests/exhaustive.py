"""Of matrices whose cells are machine-made variations `make test` runs a part that meets each row and each column, and
`make test ALL=1` all; without it either nobody would wait for the tests, or some cells would be tested nowhere.

Which part does not depend on chance or on the day: cells on diagonals (docs/decisions/048).
"""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import pytest

Cell = TypeVar("Cell")

ALL = "CALICO_WHY_TEST_ALL"  # set to anything: every cell
MARKER = "exhaustive"
_LEFT = getattr(pytest.mark, MARKER)
_TESTS, _CELLS = "exhaustive_tests", "exhaustive_cells"  # in what a worker of xdist hands back


def wanted() -> bool:
    return bool(os.environ.get(ALL))


def matrix(every: int, *axes: Collection[Any]) -> list[Any]:
    """Parameters of a test: all combinations, each the values of its axes one after the other (those of a tuple, too).
    All but one in `every` are exhaustive.

    Raises ValueError where some value of an axis would be met by none of the others.
    """
    found, met = [], [set[int]() for _ in axes]
    for places in itertools.product(*(range(len(axis)) for axis in axes)):
        values = [list(axis)[place] for axis, place in zip(axes, places, strict=True)]
        flat = [one for value in values for one in (value if isinstance(value, tuple) else (value,))]
        chosen = sum(places) % every == 0
        found.append(pytest.param(*flat, marks=() if chosen else (_LEFT,)))
        if chosen:
            for seen, place in zip(met, places, strict=True):
                seen.add(place)
    if [len(seen) for seen in met] != [len(axis) for axis in axes]:
        raise ValueError(f"one in {every} leaves out whole rows or columns: {[len(axis) for axis in axes]}")
    return found


def one_of_each(rows: Iterable[Sequence[tuple[Any, ...]]]) -> list[Any]:
    """Parameters of a test: all cells of all rows, of which each row may have others. All but one of a row are
    exhaustive; it stands in another column from row to row."""
    return [
        pytest.param(*cell, marks=() if place == number % len(row) else (_LEFT,))
        for number, row in enumerate(rows)
        for place, cell in enumerate(row)
    ]


def one_in(every: int, cells: Iterable[Any]) -> list[Any]:
    """The same where each row and each column is met elsewhere anyway."""
    return [
        pytest.param(*(cell if isinstance(cell, tuple) else (cell,)), marks=() if place % every == 0 else (_LEFT,))
        for place, cell in enumerate(cells)
    ]


def times(number: int, every: int) -> int:
    """How often to throw dice."""
    if wanted():
        return number
    Cells.left_out += number - number // every
    return number // every


class Cells:
    """Of a matrix with a test for each row, which goes through the cells of its own."""

    left_out = 0  # in this process, of all matrices

    def __init__(self, every: int) -> None:
        self._every = every
        self._met: set[Hashable] = set()

    def of(self, row: str, cells: Iterable[Cell], column: Callable[[Cell], Hashable]) -> list[Cell]:
        """At least one in `every`, and one of each column that no row has met before."""
        there = list(cells)
        if wanted():
            return there
        first = zlib.crc32(row.encode()) % min(self._every, max(len(there), 1))
        chosen = []
        for place, one in enumerate(there):
            if place % self._every == first or column(one) not in self._met:
                chosen.append(one)
                self._met.add(column(one))
        Cells.left_out += len(there) - len(chosen)
        return chosen


class LeftOut:
    """Takes part in each process of a session: leaves out marked tests, and says at the end how many."""

    def __init__(self) -> None:
        self._tests = 0  # all workers leave out the same
        self._cells = 0

    def pytest_configure(self, config: pytest.Config) -> None:
        config.addinivalue_line("markers", f"{MARKER}: one of many machine-made variations (tests/exhaustive.py)")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        if wanted():
            return
        out = [item for item in items if item.get_closest_marker(MARKER)]
        self._tests = len(out)
        items[:] = [item for item in items if not item.get_closest_marker(MARKER)]
        config.hook.pytest_deselected(items=out)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._cells += Cells.left_out
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output.update({_TESTS: self._tests, _CELLS: self._cells})

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        output = getattr(node, "workeroutput", {})  # one that crashed has none
        self._tests = max(self._tests, output.get(_TESTS, 0))
        self._cells += output.get(_CELLS, 0)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._tests or self._cells:
            terminalreporter.section("exhaustive tests", yellow=True)
            terminalreporter.line(
                f"Left out: {self._tests} tests, and {self._cells} cases within tests, machine-made variations of"
                " those that ran. `make test ALL=1` runs them too, as CI does."
            )
