"""What `make test` leaves out of a matrix is told, is no row and no column, and is run by who wants everything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import exhaustive
from tests.exhaustive import Cells, matrix, one_in, one_of_each

ROOT = Path(__file__).parents[1]
FILE = """
import pytest
from tests.exhaustive import Cells, matrix

CELLS = Cells(every=3)

@pytest.mark.parametrize(("a", "b"), matrix(2, "xyz", (1, 2)))
def test_matrix(a, b):
    pass

@pytest.mark.parametrize("row", ["one", "two"])
def test_row(row):
    assert len(CELLS.of(row, range(9), str)) >= 3
"""


def chosen(params: list[Any]) -> list[tuple[Any, ...]]:
    return [one.values for one in params if not one.marks]


@pytest.fixture(autouse=True)
def some(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `make test`, and without adding to what this very run says at its end."""
    monkeypatch.delenv(exhaustive.ALL, raising=False)
    monkeypatch.setattr(Cells, "left_out", 0)


def test_each_value_of_each_axis_is_met_and_a_choice_that_would_not_is_refused() -> None:
    found = matrix(2, "abc", [(1, "one"), (2, "two")])
    assert [one.values for one in found] == [(a, *b) for a in "abc" for b in ((1, "one"), (2, "two"))]
    assert chosen(found) == [("a", 1, "one"), ("b", 2, "two"), ("c", 1, "one")]
    with pytest.raises(ValueError, match="leaves out"):
        matrix(3, "abc", (1, 2))


def test_of_rows_of_any_length_each_is_met_once_in_another_column() -> None:
    assert chosen(one_of_each([[("a", 1), ("a", 2)], [("b", 1), ("b", 2)], [("c", 1)]])) == [
        ("a", 1),
        ("b", 2),
        ("c", 1),
    ]
    assert chosen(one_in(2, [("a", 1), ("b", 1), ("c", 1)])) == [("a", 1), ("c", 1)]


def test_of_rows_that_come_one_by_one_each_meets_its_share_and_each_column_is_met() -> None:
    cells, met = Cells(every=4), list[str]()
    for row, columns in (("first", "abcdefgh"), ("second", "abcdefgh"), ("short", "a"), ("last", "abcdefgz")):
        found = cells.of(row, columns, str)
        assert found == Cells(every=4).of(row, columns, str) or row != "first"
        assert len(found) >= max(len(columns) // 4, 1), row
        met += found
    assert set(met) == set("abcdefghz")
    assert Cells.left_out > 0


@pytest.mark.parametrize(
    ("everything", "tests", "told"),
    [("", "5 passed", "Left out: 3 tests, and 6 cases within tests"), ("1", "8 passed", "")],
)
@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_was_left_out_is_told_with_how_to_run_it(
    everything: str, tests: str, told: str, workers: str, tmp_path: Path
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_configure")
    (tmp_path / "test_one.py").write_text(FILE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", workers, "--dist", "loadfile"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), exhaustive.ALL: everything},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert tests in done.stdout and told in done.stdout
    assert ("make test ALL=1" in done.stdout) == bool(told), done.stdout
