"""Writes a node's iptables and IP sets by their own tools, of either backend; without it no node of a lab could be one
whose Calico is in iptables mode.

Everything acts in the network namespace of the calling thread.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping

from lab.errors import NamespacesForbidden

LEGACY, NFT = "legacy", "nft"
HOOKS = {  # of each table
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
}
PATH = ":".join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])  # where an ordinary user does not look
IPSET = "ipset"
PATIENCE_S = 10
APPENDED = re.compile(r"-A (\S+) (.*)")


class Tools:
    """Of one backend and address family."""

    def __init__(self, backend: str, family: int) -> None:
        """Raises NamespacesForbidden where a tool is missing."""
        self.name = f"ip{'6' if family == 6 else ''}tables-{backend}"
        self._environment = {**os.environ, "PATH": PATH}
        for name in (self.name, f"{self.name}-restore", f"{self.name}-save", IPSET):
            if shutil.which(name, path=PATH) is None:
                raise NamespacesForbidden(
                    f"A lab whose Calico uses {self.name} needs the programs {self.name} and ipset, and this machine "
                    f"has no {name}; on Debian: apt install iptables ipset."
                )

    def demand(self) -> None:
        """Raises NamespacesForbidden where the kernel does not give this user such tables or sets."""
        for table in HOOKS:
            self._demand(self.name, "-t", table, "-S")
        self._demand(IPSET, "list", "-n")
        self._demand(self.name, "-m", "set", "--help")

    def _demand(self, *words: str) -> None:
        done = self._run(*words)
        if done.returncode:
            raise NamespacesForbidden(
                f"A lab whose Calico uses {self.name} needs a kernel that gives this user its tables and IP sets; here "
                f"`{' '.join(words)}` says: {done.stderr.strip()}"
            )

    def restore(self, lines: Mapping[str, Iterable[str]]) -> None:
        """By table, lines as `iptables-restore --noflush` reads them. Raises OSError, and that table is as it was."""
        self._feed(_text(lines), f"{self.name}-restore", "--noflush", "-w", str(PATIENCE_S))

    def empty(self) -> None:
        """No rule and no chain but the kernel's own, which accept."""
        lines = {table: [f":{chain} ACCEPT [0:0]" for chain in chains] for table, chains in HOOKS.items()}
        self._feed(_text(lines), f"{self.name}-restore", "-w", str(PATIENCE_S))

    def listed(self) -> dict[str, dict[str, list[str]]]:
        """Rules as `iptables-save` prints them behind `-A CHAIN`, by table and chain. Raises OSError."""
        found: dict[str, dict[str, list[str]]] = {}
        chains: dict[str, list[str]] = {}
        for line in self._feed("", f"{self.name}-save").splitlines():
            if line.startswith("*"):
                chains = found.setdefault(line[1:], {})
            elif line.startswith(":"):
                chains.setdefault(line[1:].split()[0], [])
            elif appended := APPENDED.match(line):
                chains.setdefault(appended[1], []).append(appended[2])
        return found

    def sets(self, lines: Iterable[str]) -> None:
        """Lines as `ipset restore` reads them. Raises OSError."""
        self._feed("".join(f"{line}\n" for line in lines), IPSET, "restore", "-exist")

    def names_of_sets(self) -> list[str]:
        """Raises OSError."""
        return self._feed("", IPSET, "list", "-n").split()

    def _feed(self, text: str, *words: str) -> str:
        done = self._run(*words, given=text)
        if done.returncode:
            raise OSError(0, f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def _run(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        program = shutil.which(words[0], path=PATH) or words[0]
        return subprocess.run(
            [program, *words[1:]], input=given, capture_output=True, text=True, env=self._environment, check=False
        )


def _text(lines: Mapping[str, Iterable[str]]) -> str:
    return "".join(f"{line}\n" for table, told in lines.items() for line in (f"*{table}", *told, "COMMIT"))
