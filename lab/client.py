"""Drives a lab from the host's namespaces; without it tests, demo and command line would each speak to its socket."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

from lab.errors import LabError, NamespacesForbidden
from lab.settings import BOT, PERSON
from lab.state import read_environment, remove_base_when_empty

UP_TIMEOUT_S = 60.0


class Launcher(Protocol):
    """The process that keeps a lab, and ends after everything of it."""

    def wait(self) -> object: ...


def launch(words: Sequence[str], report: socket.socket, environment: Mapping[str, str]) -> Launcher:
    """`python -m lab WORDS --report-fd ...`; report: where it tells how it comes up, and ends when nobody listens."""
    return subprocess.Popen(
        [sys.executable, "-m", "lab", *words, "--report-fd", str(report.fileno())],
        pass_fds=[report.fileno()],
        stdin=subprocess.DEVNULL,
        env=environment,
    )


class Lab:
    """A lab that is up.

    with Lab.up() as lab:
        lab.inflict("neighbor_missing", "shop/cart", "shop/db")
    """

    def __init__(self, directory: Path, launcher: Launcher | None = None, wire: socket.socket | None = None) -> None:
        self.directory = directory
        self._launcher = launcher
        self._wire = wire

    @classmethod
    def up(
        cls,
        nodes: int = 3,
        pods_per_node: int = 2,
        variant: str = "",
        heal: bool = False,
        name: str | None = None,
        *,
        objects: Path | None = None,
        workers: bool = True,
        fixers: bool = True,
        rbac: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Lab:
        """Starts a lab and returns when it is ready: pods ping each other, probes listen. It ends with this process.

        `environment`: further variables for probes and fixers, such as CALICO_WHY_APPROVERS. With `objects` the nodes
        and pods of a recording are built instead of the invented ones. With `rbac`, a file of manifests, or a directory
        with one for each namespace in which Calico's own pods may be, the product's accounts have the rights that these
        give them; by default it is what the environment says.

        Raises LabError, with the sentence the launcher said; NamespacesForbidden where no lab is possible at all.
        """
        name = name or f"lab-{secrets.token_hex(4)}"
        here, there = socket.socketpair()
        words = ["up", "--name", name, "--nodes", str(nodes), "--variant", variant]
        words += ["--pods-per-node", str(pods_per_node)]
        words += ["--heal"] if heal else []
        words += ["--objects", str(objects)] if objects else []
        words += [] if workers else ["--no-workers"]
        words += [] if fixers else ["--no-fixers"]
        words += ["--rbac", str(rbac)] if rbac else []
        launcher = launch(words, there, {**os.environ, **(environment or {})})
        there.close()
        lab = cls(Path(), launcher, here)
        here.settimeout(UP_TIMEOUT_S)
        try:
            for message in _messages(here):
                if "error" in message:
                    kind = NamespacesForbidden if message.get("forbidden") else LabError
                    raise kind(message["error"], message.get("status", 3))
                if "ready" in message:
                    lab.directory = Path(message["ready"]["directory"])
                    here.settimeout(None)
                    return lab
            raise LabError("The lab's launcher ended without a word.")
        except TimeoutError:
            raise LabError(f"The lab was not ready after {UP_TIMEOUT_S:.0f} s.") from None
        finally:
            if lab.directory == Path():
                lab.down()

    @property
    def name(self) -> str:
        return self.directory.name

    def environment(self, *, account: str = BOT, denied: Collection[str] = ()) -> dict[str, str]:
        """What the product needs to reach this lab: KUBECONFIG, CALICO_WHY_CERTS, ...

        account: of deploy/, or PERSON, with whose rights, where the lab was told of rights; else with all.
        denied: plurals of resources that the API server is to refuse to this user, such as "ippools".
        """
        found = self.administrator()
        if denied:
            kubeconfig = str(self._ask({"do": "user", "account": account, "denied": list(denied)}))
            return found | {"KUBECONFIG": kubeconfig}
        admins = Path(found["KUBECONFIG"])
        own = admins.with_name(f"{admins.name}.{account}")
        return found | {"KUBECONFIG": str(own)} if own.exists() else found

    def person(self) -> dict[str, str]:
        """The same for a person at a terminal with `calico-why`: kubernetes-admin, with the rights that the manifests
        give to this name, where the lab was told of rights."""
        return self.environment(account=PERSON)

    def administrator(self) -> dict[str, str]:
        """The same for who may everything: whoever has kubectl, wounds, and looks on. No program of the product."""
        return dict(read_environment(self.directory / "env"))

    def account(self, name: str, node: str = "") -> str:
        """Path of a kubeconfig of a ServiceAccount, with the rights that the manifests of `up` give it. node: of the
        pod that its token is made for."""
        return str(self._ask({"do": "account", "name": name, "node": node}))

    def calls(self) -> list[list[str]]:
        """[verb, group, resource, subresource, user, namespace, name] of each request for a resource, oldest first."""
        found: list[list[str]] = self._ask({"do": "calls"})
        return found

    def status(self) -> dict[str, Any]:
        """{name, directory, nodes[], pods[], inflicted[], times, ...}"""
        found: dict[str, Any] = self._ask({"do": "status"})
        return found

    def inflict(
        self, fault: str, source: str = "shop/cart", target: str = "shop/db", where: str = "", family: int = 4
    ) -> dict[str, str]:
        """Wounds one node of the pair; `where` is "source" or "target", by default the first the fault allows.

        `family`: whose leg is wounded, where a wound is of one.

        Returns {fault, source, target, where, node}: the pair to ask about. Raises LabError.
        """
        told: dict[str, str] = self._ask(
            {"do": "inflict", "fault": fault, "source": source, "target": target, "where": where, "family": family}
        )
        return told

    def heal(self) -> None:
        """Everything as it was when the lab came up, but for the record of fix requests."""
        self._ask({"do": "heal"})

    def mesh(self) -> dict[str, Any]:
        """{"pairs": number, "unanswered": [[from, to], ...]}: every pod pings every other."""
        found: dict[str, Any] = self._ask({"do": "mesh"})
        return found

    def reaches(self, source: str, target: str) -> bool:
        """Does SOURCE get an answer to its ping from TARGET?"""
        return [source, target] not in self.mesh()["unanswered"]

    def faults(self) -> list[dict[str, Any]]:
        """[{name, where[], text}]"""
        found: list[dict[str, Any]] = self._ask({"do": "faults"})
        return found

    def exec(self, place: str, *argv: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a command inside a node or a pod namespace/name. Raises LabError for an unknown place or command."""
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            if input is not None:
                stdin.write(input.encode())
                stdin.seek(0)
            status = self.run(place, list(argv), stdin, stdout, stderr)
            return subprocess.CompletedProcess(list(argv), status, _content(stdout), _content(stderr))

    def run(self, place: str, argv: list[str], stdin: IO[bytes], stdout: IO[bytes], stderr: IO[bytes]) -> int:
        """The same on the caller's own files; returns the exit status. Ctrl-C is passed on to the command."""
        request = {
            "do": "exec",
            "place": place,
            "argv": argv,
            "directory": str(Path.cwd()),
            "environment": dict(os.environ),
        }
        with self._connect() as wire:
            descriptors = [stdin.fileno(), stdout.fileno(), stderr.fileno()]
            line = json.dumps(request).encode() + b"\n"
            sent = socket.send_fds(wire, [line], descriptors)
            if sent < len(line):  # an empty rest may meet a lab that has answered and hung up already
                wire.sendall(line[sent:])
            while True:
                try:
                    return int(_result(next(_messages(wire), {})))
                except KeyboardInterrupt:
                    wire.sendall(b'{"signal": 2}\n')

    def down(self) -> None:
        """Takes it down and waits until nothing of it is left."""
        if self._wire:
            self._wire.close()
        if self._launcher:
            self._launcher.wait()
            return
        with contextlib.suppress(LabError):
            self._ask({"do": "down"})
        wait_until_gone(self.directory)

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def _connect(self) -> socket.socket:
        wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            wire.connect(str(self.directory / "control.sock"))
        except OSError as error:
            wire.close()
            raise LabError(
                f"The lab {self.name} does not answer ({error.strerror}); it is going down or not up yet."
            ) from error
        return wire

    def _ask(self, request: dict[str, Any]) -> Any:
        with self._connect() as wire:
            wire.sendall(json.dumps(request).encode() + b"\n")
            return _result(next(_messages(wire), {}))


def wait_until_gone(directory: Path) -> None:
    """Returns when the last process of a lab let go of its lock, and removes what is left of its files."""
    import fcntl
    import shutil

    with contextlib.suppress(FileNotFoundError):
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)
    remove_base_when_empty(directory.parent)


def _messages(wire: socket.socket) -> Iterator[dict[str, Any]]:
    """JSON lines until the other end closes."""
    buffer = b""
    while chunk := wire.recv(65536):
        *lines, buffer = (buffer + chunk).split(b"\n")
        yield from map(json.loads, lines)


def _result(answer: dict[str, Any]) -> Any:
    if "ok" in answer:
        return answer["ok"]
    if "error" in answer:
        raise LabError(answer["error"], answer.get("status", 3))
    raise LabError("The lab hung up without an answer; it is going down.")


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
