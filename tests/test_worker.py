"""The bot survives its engine: whatever the child does, there is an answer, and the next question works."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine import worker
from engine.diagnosis import diagnose
from engine.worker import Worker
from facts import Blind, Diagnosis, Endpoint, Question, say
from tests.scene import CART, DB, healthy

OBEYS, ANSWERS = "tests.worker_functions:obeys", "tests.worker_functions:answers"


def order(words: str) -> list[Endpoint]:
    return [Endpoint(name=words, kind="pod")]


def until(true: Callable[[], bool]) -> None:
    """Waits for a state that must come; the limit is only for a test that fails."""
    limit = time.monotonic() + 30
    while not true():
        assert time.monotonic() < limit, "it never came"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """Ended and reaped, or waiting for a reaper that is not us."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture
def obedient() -> Iterator[Worker]:
    with Worker(deadline_s=20, function=OBEYS) as child:
        yield child


def assert_works(child: Worker) -> None:
    answer = child.diagnose(order("answer"))
    assert (answer.verdict, answer.summary) == ("healthy", str(child.pid))


def assert_unknown(answer: Diagnosis, words: str, reason: str) -> None:
    assert answer == Diagnosis(
        verdict="unknown",
        summary=say("could not judge: {reason}", reason=reason),
        blind=(Blind(look="engine", reason=reason),),
        facts=tuple(order(words)),
    )


def test_it_answers_what_diagnose_answers() -> None:
    facts = healthy(CART, DB, port=5432)
    with Worker() as child:
        assert child.diagnose(facts) == diagnose(facts)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("crash", "its process died (SIGABRT)"),
        ("quit", "its process died (status 3)"),
        ("fail", "KeyError: 'x'"),
        ("exhaust", "MemoryError"),
    ],
)
def test_after_any_failure_the_next_question_works(obedient: Worker, words: str, reason: str) -> None:
    assert_unknown(obedient.diagnose(order(words)), words, reason)
    assert_works(obedient)


def test_killed_while_it_thinks(obedient: Worker, tmp_path: Path) -> None:
    words = f"hang {tmp_path / 'pid'}"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(obedient.diagnose, order(words))
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() == str(obedient.pid))
        assert obedient.pid
        os.kill(obedient.pid, signal.SIGKILL)
        assert_unknown(asked.result(), words, "its process died (SIGKILL)")
    assert_works(obedient)


def test_killed_while_idle(obedient: Worker) -> None:
    assert_works(obedient)
    killed = obedient.pid
    assert killed
    os.kill(killed, signal.SIGKILL)
    until(lambda: gone(killed))
    assert_works(obedient)  # nothing was lost, so nothing is told
    assert obedient.pid != killed


def test_the_deadline(tmp_path: Path) -> None:
    words = f"hang {tmp_path / 'pid'}"
    with Worker(deadline_s=1.5, function=OBEYS) as child:
        assert_unknown(child.diagnose(order(words)), words, "no answer within 1.5 s")
        assert gone(int((tmp_path / "pid").read_text()))
        assert_works(child)


def test_a_question_larger_than_a_pipe_meets_the_deadline_too() -> None:
    """Nobody reads while the child hangs: the writing end must not wait for ever."""
    with Worker(deadline_s=1.5, function=OBEYS) as child:
        assert child.diagnose(order("answer")).verdict == "healthy"
        assert child.pid
        os.kill(child.pid, signal.SIGSTOP)
        words = "x" * 1_000_000
        assert_unknown(child.diagnose(order(words)), words, "no answer within 1.5 s")


def test_a_child_that_never_gets_ready(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(worker, "START_S", 0.3)
    (tmp_path / "never_imported.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with Worker(function="never_imported:nothing") as child:
        assert_unknown(child.diagnose(order("answer")), "answer", "its process was not ready after 0.3 s")


def test_rules_that_cannot_be_loaded_are_told() -> None:
    with Worker(function="tests.no_such_module:nothing") as child:
        reason = "ModuleNotFoundError: No module named 'tests.no_such_module'"
        assert_unknown(child.diagnose(order("answer")), "answer", reason)


def test_a_process_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/nonexistent/python")
        child = Worker(function=OBEYS)
        assert child.diagnose(order("answer")).verdict == "unknown"
    assert_works(child)
    child.close()


def test_what_the_child_says_is_logged_and_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "engine.worker"), Worker(function=ANSWERS) as child:
        assert child.diagnose(order("x")).facts == tuple(order("x"))
        pid = child.pid
        until(lambda: f"engine[{pid}]: told on stderr" in caplog.messages)
        until(lambda: f"engine[{pid}]: this is no answer" in caplog.messages)


def test_the_question_is_kept() -> None:
    asked = Question(source="shop/cart", target="shop/db")
    with Worker(function="tests.worker_functions:obeys") as child:
        answer = child.diagnose([asked])
    assert (answer.verdict, answer.question, answer.facts) == ("unknown", asked, (asked,))


def test_many_threads_get_their_own_answers() -> None:
    with Worker(function=ANSWERS) as child, ThreadPoolExecutor(8) as pool:
        questions = [order(str(number)) for number in range(100)]
        answers = list(pool.map(child.diagnose, questions))
        assert [list(answer.facts) for answer in answers] == questions
        assert {answer.summary for answer in answers} == {str(child.pid)}


def test_it_outlives_the_thread_that_asked_first() -> None:
    """Linux ends a child with the thread that started it, when the child asked to die with its parent."""
    with Worker(function=ANSWERS) as child:
        first = threading.Thread(target=child.diagnose, args=(order("x"),))
        first.start()
        first.join()
        pid = child.pid
        assert child.diagnose(order("x")).summary == str(pid) == str(child.pid)


def test_a_child_is_replaced_after_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "EVALUATIONS", 3)
    with Worker(function=ANSWERS) as child:
        served = [child.diagnose(order("x")).summary for _ in range(7)]
    assert [len(set(served[:3])), len(set(served[3:6])), len(set(served))] == [1, 1, 3]
    until(lambda: all(gone(int(pid)) for pid in served))


def test_stopped_means_no_process_and_an_answer_all_the_same() -> None:
    child = Worker(function=ANSWERS)
    pid = int(child.diagnose(order("x")).summary)
    child.close()
    child.close()
    assert child.pid is None
    assert not Path(f"/proc/{pid}").exists()
    assert_unknown(child.diagnose(order("x")), "x", "the engine has been stopped")


def test_stopping_does_not_wait_for_a_hanging_question(obedient: Worker, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(obedient.diagnose, order(f"hang {tmp_path / 'pid'}"))
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
        pid = int((tmp_path / "pid").read_text())
        obedient.close()
        assert asked.result(timeout=10).verdict == "unknown"
    assert gone(pid) and obedient.pid is None


@pytest.mark.parametrize("hanging", [False, True])
def test_it_dies_with_its_parent(hanging: bool, tmp_path: Path) -> None:
    """Killed, so that no code of ours runs: idle it sees the end of its pipe, hanging only the kernel can help."""
    words = f"hang {tmp_path / 'pid'}" if hanging else "answer"
    script = (
        "import sys, time; from engine.worker import Worker; from tests.test_worker import order\n"
        f"child = Worker(deadline_s=60, function={OBEYS!r})\n"
        f"print(child.diagnose(order({words!r})).summary, flush=True); time.sleep(60)"
    )
    path = os.pathsep.join(filter(None, sys.path))
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}
    )
    try:
        assert parent.stdout is not None
        if hanging:
            until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
            pid = int((tmp_path / "pid").read_text())
        else:
            pid = int(parent.stdout.readline())
        assert not gone(pid)
    finally:
        parent.kill()
        parent.communicate()
    until(lambda: gone(pid))
