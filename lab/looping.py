"""A program of calico-node that dies and is started again for ever; without it no crash loop could be looked at."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from lab.namespaces import Namespace

# Started as calico-node starts its parts: one binary and a word that says which part it is, below a `runsv PART`.
SUPERVISOR = """
import os, subprocess, sys, time
directory, part = os.path.split(sys.argv[0])
while True:
    subprocess.run([directory + "/calico-node", "-c", "import time; time.sleep(0.5)", "-" + part])
    time.sleep(0.3)
"""


def start(namespace: Namespace, part: str, directory: Path) -> subprocess.Popen[bytes]:
    """`calico-node -PART` that lives half a second, again and again. Its service is a file in `directory`.

    Raises OSError.
    """
    directory.mkdir(exist_ok=True)
    for name in ("runsv", "calico-node"):  # whole paths: an interpreter looks for its library where it was called
        with contextlib.suppress(FileExistsError):
            (directory / name).symlink_to(Path(sys.executable).resolve())
    service = directory / part
    service.write_text(SUPERVISOR)
    with namespace.entered():
        return subprocess.Popen(
            [directory / "runsv", service],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def stop(supervisor: subprocess.Popen[bytes]) -> None:
    """It and what it has started: they are one process group."""
    os.killpg(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
