"""Starts programs by forking a process that has them loaded; else most of a trial would be Python reading modules."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

import bot.app
import bot.cli
import bot.commands.serve
import fixes.command
from benchmarks.trial import bot as trial_bot
from fixes.kind import kinds
from lab.namespaces import die_with_parent, setns

LONGEST = 1 << 16
BOT = "bot"


class _Wanted(msgspec.Struct):
    words: list[str]
    environment: dict[str, str]
    log: str
    namespace: str  # a file under /run/netns, "" for the nursery's own


class Nursery:
    """Its children are processes like any others: each with its own memory, descriptors and end.

    Make it while this process has one thread and no event loop.
    """

    def __init__(self) -> None:
        bot.app, bot.commands.serve, fixes.command, kinds()  # loaded, that is all
        parent = os.getpid()
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            self._ours.close()
            die_with_parent(parent, signal.SIGKILL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended: a pidfd tells that they did
            _serve(theirs)
        theirs.close()

    def start(self, words: Sequence[str], environment: Mapping[str, str], log: Path, namespace: str) -> int:
        """A pidfd of `calico-why WORDS`, or of the trial's own bot for the words `bot DIRECTORY`."""
        wanted = _Wanted(list(words), dict(environment), str(log), namespace)
        self._ours.send(msgspec.json.encode(wanted))
        _, descriptors, _, _ = socket.recv_fds(self._ours, 16, 1)
        return descriptors[0]


def _serve(requests: socket.socket) -> None:
    while data := requests.recv(LONGEST):
        wanted, here = msgspec.json.decode(data, type=_Wanted), os.getpid()
        pid = os.fork()
        if pid == 0:
            requests.close()
            os._exit(_live(wanted, here))
        descriptor = os.pidfd_open(pid)
        socket.send_fds(requests, [b"started"], [descriptor])
        os.close(descriptor)
    os._exit(0)


def _live(wanted: _Wanted, parent: int) -> int:
    try:
        die_with_parent(parent, signal.SIGKILL)
        for number in (signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        log = os.open(wanted.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for standard in (1, 2):
            os.dup2(log, standard)
        if wanted.namespace:
            setns(os.open(wanted.namespace, os.O_RDONLY))
        os.environ.clear()
        os.environ.update(wanted.environment)
        if wanted.words[0] != BOT:
            return bot.cli.main(wanted.words)
        trial_bot.log()
        asyncio.run(trial_bot.main(Path(wanted.words[1])))
    except BaseException:
        traceback.print_exc(file=sys.stderr)
        return 1
    return 0
