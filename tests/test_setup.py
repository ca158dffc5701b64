"""What a newcomer reads when something is missing on the machine: one line with the package to install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import LONGEST_FIRST

ROOT = Path(__file__).resolve().parents[1]
COREUTILS = ("dirname", "sh", "sed", "tee", "touch", "rm", "tail", "env")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A copy of the set-up script beside an empty .venv, and a PATH with nothing but what every Debian has."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "venv", tmp_path / ".ci" / "venv")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in COREUTILS:
        found = shutil.which(name)
        assert found
        (programs / name).symlink_to(found)
    return tmp_path


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def set_up(bare: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(bare / "bin"), "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        [str(bare / ".ci" / "venv"), "run"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def assert_one_line(done: subprocess.CompletedProcess[str], package: str) -> None:
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if "Python" not in line or "install" in line]
    assert len(lines) == 1 and f"apt install {package}" in lines[0], done.stderr


def test_without_python(bare: Path) -> None:
    assert_one_line(set_up(bare), "python3")


def test_with_a_python_too_old_or_too_new(bare: Path) -> None:
    script(bare / "bin" / "python3", 'case "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac')
    done = set_up(bare)
    assert done.returncode != 0 and "Python 3.9.2 is not supported" in done.stderr


def test_without_a_compiler(bare: Path) -> None:
    (bare / "bin" / "python3").symlink_to(sys.executable)
    assert_one_line(set_up(bare), "gcc")


def test_without_headers(bare: Path) -> None:
    header = Path(sysconfig.get_path("include")) / "Python.h"
    script(bare / "bin" / "cc", "exit 0")
    script(
        bare / "bin" / "python3",
        f'case "$2" in *sysconfig*) echo {header}.missing;; *) exec {sys.executable} "$@";; esac',
    )
    assert_one_line(set_up(bare), "python3-dev")


def test_without_the_venv_module(bare: Path) -> None:
    script(bare / "bin" / "cc", "exit 0")
    script(bare / "bin" / "python3", f'case "$2" in *ensurepip*) exit 1;; *) exec {sys.executable} "$@";; esac')
    assert_one_line(set_up(bare), "python3-venv")


def test_the_files_that_are_to_be_begun_first_are_there() -> None:
    """A long one that was renamed would come last, and everybody would wait for it."""
    assert [name for name in LONGEST_FIRST if not (ROOT / "tests" / f"{name}.py").exists()] == []
