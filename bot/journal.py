"""What was accepted and not yet answered: questions, and clicks that decide; without it a restart would leave somebody
waiting for ever."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import time
import uuid
import weakref
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)

KEPT_S = 24 * 3600  # Slack delivers an event again for some minutes; a day is ample


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted question: everything needed to answer it later, in another process."""

    id: str  # the event's id where Slack gives one, so that a second delivery is known
    words: str  # what was asked, without "why"
    user: str
    channel: str
    thread: str = ""  # ts of the thread to answer in; "" begins a new one
    response_url: str = ""
    answer: str = ""  # ts of the message that is updated, once it was posted
    cluster: str = ""  # name of the one that is asked about; "" of a bot that knew only one
    event: bool = False  # Slack may deliver it again, to any replica
    elsewhere: bool = False  # another replica has claimed it: it is answered here only where that one is no more


class Click(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted click, form or word that decides on a fix: everything needed to decide later, in another process."""

    id: str
    request: str  # name of the FixRequest, as it was clicked or written
    to: str  # the fixes.request.Phase it is to be in
    user: str
    team: str  # whose member this user is
    channel: str
    thread: str = ""
    card: str = ""  # ts of the message that was clicked; "" for words
    reason: str = ""
    response_url: str = ""
    told: str = ""  # what came of it, once that is known: what has been told decides nothing any more
    refused: str = ""  # why, in English, where that still has to get into the audit trail
    cluster: str = ""  # name of the one whose request it is; "" while that is not known
    event: bool = False  # as of a Job
    elsewhere: bool = False  # as of a Job


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """A word that is being answered and is neither a question nor a decision. After a kill what only reads is answered
    anew; what may have done something is not done again, and who asked is told."""

    id: str
    text: str = ""  # all that was written; "" of a bot that kept the message alone
    asked: str = ""  # the words, as its message shows them
    user: str
    channel: str
    thread: str = ""  # as of a Job
    response_url: str = ""
    ts: str = ""  # of the message that says that it is looked at, where there is one
    cluster: str = ""
    event: bool = False  # as of a Job
    elsewhere: bool = False  # as of a Job
    again: bool = False  # answered anew after a kill: what kills its bot must not kill each one that comes after it


Kept = Job | Click | Begun
_DIRECTORIES: dict[type[Kept], str] = {Job: "jobs", Click: "clicks", Begun: "begun"}


class Journal:
    """A file each, in `jobs`, `clicks` or `begun` until it is answered, then for a day in `done`. Methods block for a
    disk. lasts: whether any of it is there after this process. identity: no other journal's, and the same after a
    restart."""

    def __init__(self, state: Path | None) -> None:
        self.lasts = state is not None
        if state is None:
            state = Path(tempfile.mkdtemp(prefix="calico-why-"))
            weakref.finalize(self, shutil.rmtree, state, ignore_errors=True)  # nobody asked to keep anything
        self._directory = state / "journal"
        self._open = {kind: self._directory / name for kind, name in _DIRECTORIES.items()}
        self._done = self._directory / "done"
        for directory in (*self._open.values(), self._done):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.identity = self._identity()

    def accept(self, job: Kept) -> bool:
        """True once it is on disk; False when it had been accepted before. Raises OSError."""
        path = self._open[type(job)] / _file(job.id)
        if (self._done / path.name).exists():
            return False
        whole = self._write(job)
        try:
            os.link(whole, path)
        except FileExistsError:
            return False
        finally:
            whole.unlink()
        try:
            _sync(path.parent)
        except OSError:
            path.unlink()  # who is told that it was not taken gets no answer from the next bot
            raise
        return True

    def first(self, identity: str) -> bool:
        """True once for each id: for deliveries that need no answer later, only no second one. Raises OSError."""
        try:
            (self._done / _file(identity)).touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            return False
        return True

    def update(self, job: Kept) -> None:
        """The same with more known about it. Raises OSError."""
        directory = self._open[type(job)]
        self._write(job).replace(directory / _file(job.id))
        _sync(directory)

    def finish(self, job: Kept) -> None:
        """Answered: it will not be resumed, and a second delivery of it is still known, where the disk lets it. Raises
        OSError where it will be resumed."""
        path = self._open[type(job)] / _file(job.id)
        try:
            path.replace(self._done / path.name)
            os.truncate(self._done / path.name, 0)  # nobody reads it again, and a response_url is as good as a token
            os.utime(self._done / path.name)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("%s is answered, and a second delivery of it would not be known: %s", job.id, error)
            path.unlink(missing_ok=True)

    def unfinished(self) -> list[Kept]:
        """What to resume, oldest first. A file that cannot be read is set aside and logged.

        What is older than a day goes: nobody waits for that answer any more.
        """
        for directory in self._open.values():
            _drop_the_old(directory)
        self.forget()
        kept = [(path, kind) for kind, directory in self._open.items() for path in directory.glob("*.json")]
        found = []
        for path, kind in sorted(kept, key=lambda one: one[0].stat().st_mtime):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=kind))
            except msgspec.MsgspecError as error:
                log.warning("what was accepted cannot be read and is set aside: %s: %s", path, error)
                path.replace(path.with_suffix(".broken"))
        return found

    def forget(self) -> None:
        """What was done more than a day ago: nothing is delivered a second time that late. To be called now and then,
        also while nobody restarts the bot."""
        _drop_the_old(self._done)

    def depth(self, kind: type[Kept]) -> int:
        """How many of them are not answered yet."""
        return sum(1 for _ in self._open[kind].glob("*.json"))

    def refuses(self) -> str:
        """Why nothing could be accepted now, "" where it could."""
        try:
            descriptor, name = tempfile.mkstemp(dir=self._open[Job], suffix=".part")
            try:
                os.write(descriptor, b"?")
            finally:
                os.close(descriptor)
                Path(name).unlink()
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def _identity(self) -> str:
        """Where a link leads to: one is there whole or not at all."""
        link, new = self._directory / "identity", uuid.uuid4().hex
        try:
            link.symlink_to(new)
        except FileExistsError:
            return str(link.readlink())
        except OSError as error:
            log.warning("after a restart this journal would not be known again: %s", error)
        return new

    def _write(self, job: Kept) -> Path:
        descriptor, name = tempfile.mkstemp(dir=self._open[type(job)], suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(job))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            Path(name).unlink()
            raise
        return Path(name)


def _file(identity: str) -> str:
    """A file name for an id that came from outside."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in identity)[:100] + ".json"


def _drop_the_old(directory: Path) -> None:
    with os.scandir(directory) as found:  # one after the other: there may be thousands
        for one in found:
            with contextlib.suppress(FileNotFoundError):  # it was finished meanwhile
                if time.time() - one.stat().st_mtime > KEPT_S:
                    Path(one).unlink()


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
