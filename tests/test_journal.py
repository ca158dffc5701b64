"""An accepted question is on disk before anybody hears so, is answered once, and survives what happens to the bot."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.journal import KEPT_S, Job, Journal

JOB = Job(id="Ev1", words="shop/cart shop/db 5432/tcp", user="U0ANA", channel="C1", thread="1.0")


def test_a_question_is_resumed_until_it_is_finished(tmp_path: Path) -> None:
    assert Journal(tmp_path).accept(JOB)
    assert Journal(tmp_path).unfinished() == [JOB]
    further = msgspec.structs.replace(JOB, answer="2.0")
    Journal(tmp_path).update(further)
    assert Journal(tmp_path).unfinished() == [further]
    Journal(tmp_path).finish(further)
    assert Journal(tmp_path).unfinished() == []


def test_a_second_delivery_is_known_before_and_after_the_answer(tmp_path: Path) -> None:
    assert Journal(tmp_path).accept(JOB)
    assert not Journal(tmp_path).accept(JOB)
    Journal(tmp_path).finish(JOB)
    assert not Journal(tmp_path).accept(JOB)
    assert Journal(tmp_path).first("Ev2")
    assert not Journal(tmp_path).first("Ev2")


def test_what_is_done_is_forgotten_after_a_day(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.accept(JOB)
    journal.finish(JOB)
    (done,) = (tmp_path / "journal" / "done").iterdir()
    os.utime(done, times=(time.time() - KEPT_S - 1,) * 2)
    journal.forget()
    assert journal.accept(JOB)


def test_what_is_done_takes_no_room(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.accept(JOB)
    journal.finish(JOB)
    (done,) = (tmp_path / "journal" / "done").iterdir()
    assert done.stat().st_blocks == 0, "a day has many questions, and beyond its limit the bot is evicted"


def test_a_question_nobody_waits_for_any_more_is_dropped(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.accept(JOB)
    os.utime(tmp_path / "journal" / "jobs" / "Ev1.json", times=(time.time() - KEPT_S - 1,) * 2)
    assert journal.unfinished() == []


def test_oldest_first_and_half_written_or_broken_files_cost_only_themselves(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    now = time.time() - 100
    for number in (3, 1, 2):
        journal.accept(msgspec.structs.replace(JOB, id=f"Ev{number}"))
        path = tmp_path / "journal" / "jobs" / f"Ev{number}.json"
        os.utime(path, times=(now + number, now + number))
    (tmp_path / "journal" / "jobs" / "cut.part").write_text('{"id"')
    (tmp_path / "journal" / "jobs" / "bad.json").write_text("{}")
    assert [job.id for job in journal.unfinished()] == ["Ev1", "Ev2", "Ev3"]
    assert [job.id for job in journal.unfinished()] == ["Ev1", "Ev2", "Ev3"]


def test_a_disk_that_refuses_accepts_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    jobs = tmp_path / "journal" / "jobs"
    jobs.rmdir()
    jobs.write_text("not a directory any more")
    with pytest.raises(OSError, match="Not a directory"):
        journal.accept(JOB)


@given(identity=st.text(min_size=1, max_size=300))
def test_ids_from_outside_stay_inside(identity: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("state")
    journal = Journal(directory)
    job = msgspec.structs.replace(JOB, id=identity.encode(errors="replace").decode())
    assert journal.accept(job)
    assert [path.parent.name for path in directory.rglob("*.json")] == ["jobs"]
    assert journal.unfinished() == [job]


def test_a_journal_is_known_again_after_a_restart_and_by_no_other_replica(tmp_path: Path) -> None:
    first = Journal(tmp_path / "a").identity
    assert Journal(tmp_path / "a").identity == first
    assert len({first, Journal(tmp_path / "b").identity, Journal(None).identity, Journal(None).identity}) == 4
