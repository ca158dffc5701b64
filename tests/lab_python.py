"""Python on a node or in a pod of a lab, forked from one that has loaded what such scripts need; without it each of
some hundreds would take a third of a second of a processor to import the same.

Runs there as `python -m tests.lab_python`: a line {"script": ...} brings {"status": number, "out": ..., "err": ...}.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from lab.client import Lab

LOADED = ("pyroute2", "fixes.kernel", "tests.lab_state")
_running: dict[tuple[Path, str], _Python] = {}


def python(lab: Lab, place: str, script: str) -> subprocess.CompletedProcess[str]:
    """`python -c SCRIPT` at a node or pod, as `lab.exec`. Raises LabError."""
    key = lab.directory, place
    if key not in _running:
        _running[key] = _Python(lab, place)
    return _running[key].run(script)


class _Python:
    """Ends with its lab."""

    def __init__(self, lab: Lab, place: str) -> None:
        self._wire, there = socket.socketpair()
        self._answers = self._wire.makefile("rb")
        threading.Thread(target=self._keep, args=(lab, place, there), daemon=True).start()

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        self._wire.sendall(json.dumps({"script": script}).encode() + b"\n")
        said = json.loads(self._answers.readline())
        return subprocess.CompletedProcess(script, said["status"], said["out"], said["err"])

    @staticmethod
    def _keep(lab: Lab, place: str, there: socket.socket) -> None:
        from lab.errors import LabError

        root = Path(__file__).resolve().parents[1]
        path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
        argv = ["env", f"PYTHONPATH={path}", sys.executable, "-m", "tests.lab_python"]
        with there, there.makefile("rb") as stdin, there.makefile("wb") as stdout, contextlib.suppress(LabError):
            lab.run(place, argv, stdin, stdout, sys.__stderr__.buffer)  # type: ignore[union-attr]


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    for module in LOADED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    for line in requests:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            pid = os.fork()
            if pid == 0:
                _become(json.loads(line)["script"], out, err)
            _, how = os.waitpid(pid, 0)
            for file in (out, err):
                file.seek(0)
            said = {"status": os.waitstatus_to_exitcode(how), "out": out.read().decode(), "err": err.read().decode()}
        answers.write(json.dumps(said).encode() + b"\n")
        answers.flush()


def _become(script: str, out: IO[bytes], err: IO[bytes]) -> NoReturn:
    status: object = 1
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (out.fileno(), 1), (err.fileno(), 2)):
            os.dup2(source, target)
        exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})
        status = 0
    except SystemExit as end:
        status = end.code
        if isinstance(status, str):
            sys.stderr.write(f"{status}\n")
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 0 if status is None else 1)


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
