"""A diagnosis in a process of its own: without it a crash or an endless loop in the C engine would take the bot along.

Parent and child send each other messages of four bytes of length and JSON. The child says first that it is ready, then
answers each list of facts with a Diagnosis. After any failure the child is replaced: what it knows is not trusted.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import logging
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import msgspec

from facts import Blind, Diagnosis, Fact, Question, decode, encode, from_builtins, say

log = logging.getLogger(__name__)

DIAGNOSE = "engine.diagnosis:diagnose"
EVALUATIONS = 200  # of one child; the C engine is not trusted with its memory for longer
START_S = 30.0  # a child may take to import the rules on a busy machine; not counted as part of a question
MOST_MEMORY = 2 * 1024**3  # bytes of address space of a child: a runaway join must not starve its neighbours
PR_SET_PDEATHSIG = 1
NICE = 5  # who asks is to be heard at once; the answer may be a little later


class _Fault(Exception):
    """Why there is no diagnosis; the rest of the sentence "could not judge: ..."."""


class Worker:
    """Diagnoses in a child process that is kept warm. Usable from several threads; questions are judged one by one.

    One thread does all work on the child, because Linux ends a child together with the thread that started it.
    """

    def __init__(self, deadline_s: float = 10.0, function: str = DIAGNOSE) -> None:
        """deadline_s: seconds one diagnosis may take, not counting its wait. function: "module:name" the child runs."""
        self.judged: Callable[[bool, float], None] = lambda *_: None  # is told whether it failed, and seconds
        self.restarted: Callable[[], None] = lambda: None
        self._deadline_s = deadline_s
        self._function = function
        self._child: _Child | None = None
        self._closed = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine-worker")
        self._thread.submit(self._replace)

    @property
    def pid(self) -> int | None:
        """Process id of the child; None while there is none."""
        child = self._child
        return child.process.pid if child else None

    def diagnose(self, facts: Sequence[Fact]) -> Diagnosis:
        """Blocks until there is an answer. Never raises: whatever goes wrong is told in a Diagnosis of `unknown`."""
        began = time.monotonic()
        try:
            answer, failed = self._thread.submit(self._ask, facts).result()
        except Exception as error:
            reason = "the engine has been stopped" if self._closed else _told(error)
            answer, failed = could_not_judge(facts, reason), True
        self.judged(failed, time.monotonic() - began)
        return answer

    def close(self) -> None:
        """Leaves no process behind. A diagnosis under way becomes `unknown`. May be called twice."""
        self._closed = True
        child = self._child
        if child:
            child.process.kill()
        self._thread.shutdown()
        self._end()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, facts: Sequence[Fact]) -> tuple[Diagnosis, bool]:
        """The answer, and whether it is that there is none."""
        try:
            question = encode(facts)
            if self._child is None or not self._child.alive:
                self._restart()
            if self._child is None:
                raise _Fault("the engine has been stopped")
            answer = self._child.ask(question, self._deadline_s)
        except Exception as error:
            reason = str(error) if isinstance(error, _Fault) else _told(error)
            log.error("no diagnosis: %s", reason)
            self._restart()
            return could_not_judge(facts, reason), True
        if self._child.answered >= EVALUATIONS:
            self._replace()
        return answer, False

    def _restart(self) -> None:
        self.restarted()
        self._replace()

    def _replace(self) -> None:
        """A fresh child, not waited for. Without one (no memory, no more processes) the next question tries again."""
        self._end()
        if self._closed:
            return
        try:
            self._child = _Child(self._function)
        except OSError as error:
            log.error("the engine's process cannot be started: %s", error)
            return
        if self._closed:  # close() may have looked before there was a child to kill
            self._end()

    def _end(self) -> None:
        child, self._child = self._child, None
        if child:
            child.end()


class _Child:
    """One process and its pipes."""

    def __init__(self, function: str) -> None:
        command = [sys.executable, "-P", "-m", "engine.worker", function, str(os.getpid())]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        pipe = subprocess.PIPE
        # A session of its own: Ctrl-C in a terminal is the parent's to handle.
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, start_new_session=True
        )
        self.answered = 0
        self._ready = False
        threading.Thread(target=self._log_errors, name="engine-worker-stderr", daemon=True).start()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def ask(self, question: bytes, deadline_s: float) -> Diagnosis:
        """Raises _Fault."""
        if not self._ready:
            with self._killed_after(START_S, f"its process was not ready after {START_S:g} s"):
                self._receive()
            self._ready = True
        with self._killed_after(deadline_s, f"no answer within {deadline_s:g} s"):
            assert self.process.stdin is not None
            _write(self.process.stdin, question)
            answer = self._receive()
        self.answered += 1
        facts = answer.pop("facts")
        diagnosis = msgspec.convert(answer, Diagnosis)
        return msgspec.structs.replace(diagnosis, facts=tuple(from_builtins(fact) for fact in facts))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):  # a question nobody read any more
                stream.close()

    def _receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        message = _read(self.process.stdout)
        if message is None:
            raise BrokenPipeError
        answer = msgspec.json.decode(message, type=dict[str, Any])
        if "fault" in answer:
            raise _Fault(answer["fault"])
        return answer

    @contextlib.contextmanager
    def _killed_after(self, seconds: float, late: str) -> Iterator[None]:
        """Ends the child when the time is up, which ends any wait for its pipes. Raises _Fault in its words."""
        expired = threading.Event()

        def kill() -> None:
            expired.set()
            self.process.kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        except OSError as error:
            if expired.is_set():
                raise _Fault(late) from error
            raise _Fault(f"its process died ({_status(self.process.wait())})") from error
        finally:
            timer.cancel()

    def _log_errors(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                log.warning("engine[%d]: %s", self.process.pid, line.decode(errors="replace").rstrip())


def could_not_judge(facts: Sequence[Fact], reason: str) -> Diagnosis:
    """The verdict of an engine that failed: `unknown`, with everything that was seen."""
    return Diagnosis(
        verdict="unknown",
        question=next((fact for fact in facts if isinstance(fact, Question)), None),
        summary=say("could not judge: {reason}", reason=reason),
        blind=(Blind(look="engine", reason=reason),),
        facts=tuple(facts),
    )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _status(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"status {code}"


def _write(stream: IO[bytes], message: bytes) -> None:
    stream.write(struct.pack("!I", len(message)) + message)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes | None:
    """The next message; None at the end of the stream, also when it ends within a message."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    (length,) = struct.unpack("!I", head)
    message = stream.read(length)
    return message if len(message) == length else None


def _die_with(parent: int) -> None:
    """A killed parent closes no pipe it shared with others, so the kernel is asked as well."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we could ask
        sys.exit("the bot is gone")


def main(function: str, parent: int) -> int:
    """The child: answers lists of facts from standard input until it ends."""
    _die_with(parent)
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    logging.basicConfig(format="%(message)s")
    questions = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a rule prints must not be read as an answer
    sys.stdout = sys.stderr
    try:
        module, _, name = function.partition(":")
        diagnose = getattr(importlib.import_module(module), name)
        if function == DIAGNOSE:
            importlib.import_module("engine.rulebase").load()
        _write(answers, b"{}")
        while (question := _read(questions)) is not None:
            _write(answers, msgspec.json.encode(diagnose(decode(question))))
    except Exception as error:
        log.exception("no diagnosis")
        reason = str(error) if type(error).__name__ == "EngineFault" else _told(error)
        _write(answers, msgspec.json.encode({"fault": reason}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
