"""A disk that is full is told, leaves nothing half-written that is read later, and is forgotten once there is room."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import resource
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from bot import files
from bot.journal import Job, Journal
from tests.namespaces import in_namespaces
from tests.own_faults import World, world
from tests.programs import Programs
from tests.test_bot_slack import ROOM, _all_text
from tests.test_own_faults_cluster import BOTH, a_card
from tests.test_own_faults_slack import WORDS, answered, replies

SMALL = b"size=512k,nr_inodes=200"


def small_disk(directory: Path) -> Path:
    """A file system of its own that is full soon."""
    directory.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(directory), b"tmpfs", 0, SMALL):
        raise OSError(ctypes.get_errno(), "mount")
    return directory


def loopback_up() -> None:
    with IPRoute() as kernel:
        kernel.link("set", index=1, state="up")


def fill(disk: Path) -> None:
    """To the last byte, and the last inode."""
    with (disk / "filler").open("ab", buffering=0) as file:
        for size in (4096, 1):
            while True:
                try:
                    file.write(b"x" * size)
                except OSError as error:
                    assert error.errno == errno.ENOSPC
                    break
    for number in range(1000):
        try:
            (disk / f"filler-{number}").touch()
        except OSError:
            return
    raise AssertionError("the disk does not become full")


def clear(disk: Path) -> None:
    for one in disk.glob("filler*"):
        one.unlink()


def half_written(disk: Path) -> list[Path]:
    """What somebody began to write, and what there is of no bytes."""
    found = [one for one in disk.rglob("*") if one.is_file() and not one.name.startswith("filler")]
    return [one for one in found if one.suffix == ".part" or (one.stat().st_size == 0 and one.parent.name != "done")]


async def told(here: World, user: str, text: str) -> None:
    """What only this user hears, the newest."""
    await here.slack.wait_for(lambda: any(text in one for one in here.room.told(user)))


@in_namespaces
async def test_a_bot_on_a_full_disk(tmp_path: Path) -> None:
    await asyncio.to_thread(loopback_up)
    disk = small_disk(tmp_path / "disk")
    programs = Programs()
    async with world(tmp_path, programs) as here:
        async with here.bot(CALICO_WHY_STATE=str(disk), TMPDIR=str(disk)) as bot:
            name, thread, ts = await a_card(here, "set-0")
            fill(disk)
            said = await here.slack.slash("ana", ROOM, f"/calico {WORDS}")
            assert "I cannot keep your question safe" in str(said.body)
            await here.slack.mention("ana", ROOM, f"@calico {WORDS}")
            await told(here, "ana", "I cannot keep your question safe")
            await here.slack.click("bo", ROOM, ts, "fix_approve")
            await here.room.whisper("bo", "I cannot keep your decision safe", thread)
            assert here.room.buttons(thread, ts) == BOTH
            assert str((await here.room.store.get(name)).status.phase) == "Pending"
            # What only reads needs no disk.
            known = len(here.slack.messages(ROOM))
            await here.slack.mention("ana", ROOM, "@calico ipam show")
            await here.slack.slash("cleo", ROOM, "/calico fixes")
            await here.room.whisper("cleo", name)
            threads = [one["ts"] for one in here.slack.messages(ROOM)]
            await here.slack.wait_for(
                lambda: any(
                    "addresses of default-ipv4-ippool are in use" in _all_text(one)
                    for thread in (None, *threads)
                    for one in here.slack.messages(ROOM, thread)
                )
            )
            assert half_written(disk) == []
            clear(disk)
            # Full again between the question and its answer: it is answered, once, and says that it is not saved.
            slow = here.cluster.slow()
            since = len(here.slack.messages(ROOM))
            await here.slack.slash("ana", ROOM, f"/calico {WORDS}")
            await here.slack.wait_for(lambda: len(here.slack.messages(ROOM)) > since)
            fill(disk)
            slow.go.set()
            shown = await answered(here, since=since)
            assert replies(here, shown) == [1, 1, 1]
            assert any("not saved: No space left" in _all_text(one) for one in here.slack.messages(ROOM, shown))
            assert half_written(disk) == []
            clear(disk)
            await here.slack.click("bo", ROOM, ts, "fix_approve")
            await here.slack.wait_for(lambda: here.room.posted("approved", thread))
            assert known and "Traceback" not in bot.text
        before = len(here.slack.messages(ROOM))
        async with here.bot(CALICO_WHY_STATE=str(disk), TMPDIR=str(disk)):
            await here.slack.slash("cleo", ROOM, f"/calico {WORDS}")
            await answered(here, since=before)
        assert len(here.slack.messages(ROOM)) == before + 1, "nothing is answered once more after a start"
    programs.close()


@in_namespaces
def test_what_is_written_on_a_full_disk_is_whole_or_not_there(tmp_path: Path) -> None:
    disk = small_disk(tmp_path / "disk")
    journal = Journal(disk)
    first = Job(id="first", words="a b", user="U0ANA", channel="C1")
    assert journal.accept(first)
    (disk / "capture.pcapng").write_bytes(b"older")
    fill(disk)
    for write in (
        lambda: journal.accept(Job(id="second", words="a b", user="U0ANA", channel="C1")),
        lambda: journal.update(Job(id="first", words="c d" * 5000, user="U0ANA", channel="C1")),
        lambda: journal.first("third"),
        lambda: files.write(disk / "capture.pcapng", b"x" * (1 << 20)),
    ):
        with pytest.raises(OSError, match="No space left"):
            write()
    assert half_written(disk) == []
    assert not (disk / "capture.pcapng").exists(), "half a capture would be taken for a whole one"
    journal.finish(first)
    clear(disk)
    assert Journal(disk).unfinished() == []
    assert journal.accept(Job(id="second", words="a b", user="U0ANA", channel="C1"))


async def test_a_bot_without_a_file_descriptor_left(tmp_path: Path) -> None:
    programs = Programs()
    async with world(tmp_path, programs) as here, here.bot() as bot:
        limits = resource.prlimit(bot.pid, resource.RLIMIT_NOFILE)
        used = bot.descriptors
        resource.prlimit(bot.pid, resource.RLIMIT_NOFILE, (used, limits[1]))
        said = await here.slack.slash("ana", ROOM, f"/calico {WORDS}")
        assert said.result == "ok"
        resource.prlimit(bot.pid, resource.RLIMIT_NOFILE, limits)
        since = len(here.slack.messages(ROOM))
        await here.slack.slash("bo", ROOM, f"/calico {WORDS}")
        await answered(here, since=since)
    programs.close()
