"""Asks the tools of a node's packet filters for their rules; without it a rule would be named by a number alone.

Tools print rules in the words in which people wrote them. What they cannot be asked is read from the kernel itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from node_probe.firewall import kernel, legacy_tables
from node_probe.firewall.legacy import holds_tables
from node_probe.firewall.ruleset import (
    CALICO_TABLE,
    IPTABLES_LEGACY,
    IPTABLES_NFT,
    LOOKUP,
    NFT,
    TABLES,
    Chain,
    Element,
    Key,
    Ruleset,
    from_nft,
    from_save,
    with_handles,
)

PIPE, GATHER_S = 1 << 20, 0.002
LIMIT = 64 << 20  # bytes of one listing; 22,000 rules are 4 MB
KERNEL_S = 0.1  # before the deadline tools are waited for no more; the kernel needs some milliseconds for a few chains
Command = tuple[str, ...]


def read(family: int, deadline: float, *, wanted: Iterable[Key] | None = None, legacy_only: bool = False) -> Ruleset:
    """The rules a packet of this family (4 or 6) can meet in this network namespace, as they are now.

    deadline: time.monotonic, s. wanted: keys of the chains whose rules matter; all others have none then, but those of
    policies they lead to. None: all rules, with their counters and where maps lead, which takes seconds where there are
    thousands; rules of iptables-nft have no handles then. legacy_only: those of iptables-legacy, and no others. What
    cannot be read is a sentence in `unread`. Blocks; for a thread of its own.
    """
    ip = "ip6" if family == 6 else "ip"
    legacy: list[Command] = [(f"{ip}tables-legacy-save", "-c")] if holds_tables(family) else []
    if legacy_only:
        told, unread = _run(legacy, deadline)
        return Ruleset([*_parsed(told, ip, None).values(), *_untold(family, unread, None)], list(unread.values()))
    if wanted is None:
        return _everything(family, ip, legacy, deadline)
    keys = list(dict.fromkeys(wanted))
    only = {(table, name) for _, _, table, name in keys}
    nft = [(of, table, name) for where, of, table, name in keys if where == NFT]
    own = [one for one in nft if one[0] == ip and one[1] in TABLES]  # iptables-nft's
    # Whose policies were consulted stands in chains that no event told of: their comments are the same in any words.
    by_kernel = {chain.key: chain for chain in kernel.listed(keys)}
    soon = deadline - KERNEL_S
    before = kernel.handles(own)
    commands = [*legacy, *((f"{ip}tables-nft-save", "-c", "-t", table) for _, table, _ in own)]
    commands += [_listing(*one) for one in nft if one not in own]
    told, unread = _run(list(dict.fromkeys(commands)), soon)
    found = _parsed(told, ip, only) | {chain.key: chain for chain in _untold(family, unread, only)}
    after = kernel.handles(own)
    as_nft = [one for one in nft if one not in own]
    for one in own:
        chain, handles = found.get((NFT, *one)), after[one]
        if chain and chain.backend == IPTABLES_NFT and before[one] == handles and len(handles) == len(chain.rules):
            found[chain.key] = with_handles(chain, handles)
        else:  # changed meanwhile, or not iptables-nft's after all: nft's own words, without comments
            as_nft.append(one)
    again, more = _run([_listing(*one) for one in as_nft if one in own], soon)
    found |= {key: _commented(chain, by_kernel.get(key)) for key, chain in _parsed(again, ip, only).items()}
    unread |= more
    untold = [(NFT, *one) for one in as_nft if (NFT, *one) not in found or (one in own and not again)]
    if untold:
        by_kernel |= {chain.key: chain for chain in kernel.listed(untold)}
        if all(by_kernel[key].rules for key in untold if key in by_kernel) and by_kernel.keys() >= set(untold):
            unread = {name: why for name, why in unread.items() if "legacy" in name}
    chains = by_kernel | found | {key: by_kernel[key] for key in untold if key in by_kernel}
    return Ruleset(chains.values(), list(unread.values()), _elements(keys, chains))


def _untold(family: int, unread: dict[str, str], only: Collection[tuple[str, str]] | None) -> list[Chain]:
    """Chains of iptables-legacy as the kernel has them, where `unread` tells why its tool did not. Takes that out."""
    tool = next((name for name in unread if "legacy" in name), "")
    if not tool:
        return []
    try:
        found = legacy_tables.listed(family, only)
    except OSError:
        return []
    del unread[tool]
    return found


def _commented(chain: Chain, known: Chain | None) -> Chain:
    """A chain of iptables in nft's words, which may leave out comments: with those that the kernel has."""
    said = {rule.handle: rule for rule in known.rules} if known else {}
    return chain.with_rules(
        msgspec.structs.replace(rule, comment=said[rule.handle].comment, digest=said[rule.handle].digest)
        if rule.handle in said and not rule.comment
        else rule
        for rule in chain.rules
    )


def _elements(keys: Collection[Key], chains: Mapping[Key, Chain]) -> dict[tuple[str, str, str], list[Element]]:
    """Of the maps that rules of these chains look into, where such a map may decide by what it holds, as kube-proxy's.
    Calico's lead to chains whose names tell the pod."""
    found: dict[tuple[str, str, str], list[Element]] = {}
    for key in keys:
        chain = chains.get(key)
        for rule in chain.rules if chain and chain.table != CALICO_TABLE else ():
            match = LOOKUP.search(rule.text)
            if match and match[1] and (chain_map := (rule.family, rule.table, match[1])) not in found:
                with contextlib.suppress(OSError):  # it is gone
                    found[chain_map] = kernel.elements(*chain_map)
    return found


def _listing(family: str, table: str, chain: str) -> Command:
    """A program for each chain: nft finds none of several that are asked of it at once (1.0.6)."""
    return ("nft", "-a", "-t", "list", "chain", family, table, chain)


def _everything(family: int, ip: str, legacy: list[Command], deadline: float) -> Ruleset:
    """nft needs five times as long as iptables-nft for rules of the latter, so it lists only what that cannot."""
    save = f"{ip}tables-nft-save"
    known, unread = _run([("nft", "list", "tables")], deadline)
    tables = [line.split()[1:3] for text in known.values() for line in text.splitlines()]
    mine = [table for table in tables if table[0] == ip and table[1] in TABLES and shutil.which(save)]
    commands: list[Command] = [*legacy, *([(save, "-c")] if mine or not known else [])]
    commands += [
        ("nft", "-a", "list", "table", *table)
        for table in tables
        if table not in mine and table[0] in (ip, "inet", "bridge", "netdev")
    ]
    told, more = _run(commands, deadline)
    unread |= more
    return Ruleset([*_parsed(told, ip, None).values(), *_untold(family, unread, None)], list(unread.values()))


def _parsed(told: dict[Command, str], ip: str, only: Collection[tuple[str, str]] | None) -> dict[Key, Chain]:
    """Chains of what the tools printed; where two told of one, that with rules, and iptables' words before nft's."""
    found: dict[Key, Chain] = {}
    for command, text in sorted(told.items(), key=lambda one: one[0][0] != "nft"):
        if command[0] == "nft":
            chains = from_nft(text)
        else:
            backend = IPTABLES_LEGACY if "legacy" in command[0] else IPTABLES_NFT
            chains = from_save(text, backend=backend, family=ip, only=only)
        found |= {chain.key: chain for chain in chains}
    return found


def _run(commands: Sequence[Command], deadline: float) -> tuple[dict[Command, str], dict[str, str]]:
    """What each command printed; by tool, a sentence for each that could not be run to its end. All at once."""
    told: dict[Command, str] = {}
    unread: dict[str, str] = {}
    running: dict[Command, subprocess.Popen[bytes]] = {}
    try:
        for command in commands:
            name, path = command[0], shutil.which(command[0])
            if path is None:
                unread[name] = f"{name} is not installed here, so its rules were not read"
                continue
            running[command] = subprocess.Popen(
                [path, *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "LC_ALL": "C"},
            )
        printed = _printed(running, deadline)
        for command, process in running.items():
            name, (text, complaint, whole) = command[0], printed[command]
            try:
                status = process.wait(max(0.0, deadline - time.monotonic())) if whole else -1
            except subprocess.TimeoutExpired:
                whole = False
            if not whole:
                unread[name] = f"{name} was not done in time or printed too much"
            elif status:
                unread[name] = f"{name} failed: {complaint or status}"
            else:
                told[command] = text
    finally:
        for process in running.values():
            if process.poll() is None:
                process.kill()
                process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
    return told, unread


def _printed(running: dict[Command, subprocess.Popen[bytes]], deadline: float) -> dict[Command, tuple[str, str, bool]]:
    """What each printed, its last complaint, and whether that is all."""
    heard: dict[tuple[Command, str], bytearray] = defaultdict(bytearray)
    open_pipes = dict.fromkeys(running, 2)
    with selectors.DefaultSelector() as selector:
        for name, process in running.items():
            for kind, pipe in (("out", process.stdout), ("err", process.stderr)):
                if pipe is not None:
                    selector.register(pipe, selectors.EVENT_READ, (name, kind))
                    with contextlib.suppress(OSError):  # so many pipes are too much for this user
                        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            ready = selector.select(left)
            time.sleep(min(GATHER_S, left))  # nft writes line by line: each would wake this program up
            for key, _ in ready:
                name, kind = key.data
                data = os.read(key.fd, PIPE)
                heard[name, kind] += data
                if not data or len(heard[name, kind]) > LIMIT:
                    selector.unregister(key.fileobj)
                    open_pipes[name] -= not data
    return {
        name: (
            heard[name, "out"].decode(errors="replace"),
            (heard[name, "err"].decode(errors="replace").strip().splitlines() or [""])[-1],
            not open_pipes[name],
        )
        for name in running
    }
