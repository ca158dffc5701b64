"""The first command a newcomer types: it works without a person, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.client import Lab

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 60.0


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Path]:
    """A place of its own for the demo's files, short enough for a socket; whoever names it belongs to the demo."""
    directory = Path(f"/tmp/demo-{os.getpid()}-{tmp_path.name[-8:]}")
    directory.mkdir(mode=0o700)
    Lab.up(workers=False).down()
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def demo(runtime: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "bot.cli", "demo", *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def wait_until(true: Callable[[], bool], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


def left_behind(runtime: Path) -> list[str]:
    """Processes that belong to this demo (they carry its directory in their environment) and its files."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(runtime).encode() in (process / "environ").read_bytes() and int(process.name) != os.getpid():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found + [str(path) for path in runtime.iterdir()]


def test_once_names_the_fault_repairs_it_and_leaves_nothing(runtime: Path) -> None:
    process = demo(runtime, "--once")
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, output
    assert "neighbor_wrong_mac" in output and "66:00:00:00:00:99" in output
    told = [output.index(words) for words in ("neighbor_wrong_mac", "verified: ", "ok shop/cart reaches shop/db")]
    assert told == sorted(told)
    assert left_behind(runtime) == []


def test_another_fault_without_a_fix_to_approve(runtime: Path) -> None:
    process = demo(runtime, "--once", "--fault", "fdb_entry_wrong_node", "--where", "target")
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, output
    assert "fdb_entry_wrong_node" in output


def test_an_unknown_fault_is_told_in_a_sentence(runtime: Path) -> None:
    process = demo(runtime, "--once", "--fault", "gremlins")
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert "gremlins" in output and "Traceback" not in output
    assert left_behind(runtime) == []


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_stays_until_it_is_ended_and_leaves_nothing(runtime: Path, end: signal.Signals) -> None:
    process = demo(runtime)
    assert process.stdout
    for line in process.stdout:
        if "Ctrl-C ends everything" in line:
            break
    assert process.poll() is None
    process.send_signal(end)
    process.wait(PATIENCE_S)
    process.stdout.close()
    wait_until(lambda: left_behind(runtime) == [], lambda: "\n".join(left_behind(runtime)))
