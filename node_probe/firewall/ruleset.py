"""A node's packet filters in one form, whatever tool wrote them; without it a drop could not be led to its rule."""

from __future__ import annotations

import os
import re
import selectors
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

import msgspec

from node_probe import nfnetlink
from node_probe.firewall.legacy import holds_tables

NFT = "nft"
IPTABLES_NFT = "iptables-nft"
IPTABLES_LEGACY = "iptables-legacy"
LIMIT = 64 << 20  # bytes of one listing; 22,000 rules are 4 MB
HOOKS = {  # of the chains iptables builds in
    "PREROUTING": "prerouting",
    "INPUT": "input",
    "FORWARD": "forward",
    "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}
RULE_TABLE, RULE_CHAIN, RULE_HANDLE = 1, 2, 3  # linux/netfilter/nf_tables.h
TABLES = ("raw", "mangle", "nat", "filter", "security")  # of iptables
CALICO_TABLE = "calico"  # of nftables
CALICO = re.compile(r"(?:^|-)cali-")
Key = tuple[str, str, str, str]  # of a chain: NFT or IPTABLES_LEGACY, family, table, name
Command = tuple[str, ...]
ENDS = {
    "DROP": "drop",
    "REJECT": "reject",
    "ACCEPT": "accept",
    "RETURN": "return",
    "QUEUE": "queue",
    "NFQUEUE": "queue",
}


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule, as its tool prints it, and what of that matters here."""

    backend: str  # whose tool prints `text`: NFT, IPTABLES_NFT or IPTABLES_LEGACY
    family: str  # of the table: "ip", "ip6", "inet"...
    table: str
    chain: str
    number: int  # 1 for the first of its chain
    handle: int = -1  # nft's
    text: str  # without counter values and handle
    comment: str = ""  # without Calico's hash
    digest: str = ""  # Calico's hash: another one is another rule
    verdict: str = ""  # drop | reject | accept | return | queue | jump | goto; "": none, or told by a map
    targets: tuple[str, ...] = ()  # chains it leads to: of its jump or goto, or of its verdict map where that was read
    packets: int = -1  # counted; -1: this rule does not count


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """A chain and its rules in order."""

    backend: str
    family: str
    table: str
    name: str
    hook: str = ""  # of a base chain
    policy: str = ""  # of a base chain: "accept" | "drop"
    packets: int = -1  # that met the policy, where that is counted (iptables)
    rules: tuple[Rule, ...] = ()

    @property
    def key(self) -> Key:
        return layer(self.backend), self.family, self.table, self.name


def layer(backend: str) -> str:
    """Where in the kernel it lives: iptables-nft's rules are nft's, and an nft trace tells of them."""
    return IPTABLES_LEGACY if backend == IPTABLES_LEGACY else NFT


class Ruleset:
    """All chains that were read, and why others were not."""

    def __init__(self, chains: Iterable[Chain], unread: Sequence[str] = ()) -> None:
        """unread: one sentence for each listing that could not be had; it is not "no rules"."""
        self.chains = {chain.key: chain for chain in chains}
        self.unread = tuple(unread)
        self._by_handle = {
            (*chain.key, rule.handle): rule
            for chain in self.chains.values()
            for rule in chain.rules
            if rule.handle >= 0
        }

    def chain(self, backend: str, family: str, table: str, name: str) -> Chain | None:
        """The chain an event tells of; None: it was not listed."""
        return self.chains.get((layer(backend), family, table, name))

    def rule(self, chain: Chain, *, handle: int = -1, number: int = 0) -> Rule | None:
        """By handle where there is one, else by number; None: it was not listed."""
        if handle >= 0:
            return self._by_handle.get((*chain.key, handle))
        return chain.rules[number - 1] if 0 < number <= len(chain.rules) else None


# --- what the tools print ---

_TABLE = re.compile(r"table (\S+) (\S+) \{")
_CHAIN = re.compile(r"\tchain (\S+) \{")
_MAP = re.compile(r"\tmap (\S+) \{")
_LOOKUP = re.compile(r"\bvmap (?:@(\S+)|\{)")
_ELEMENT = re.compile(r" : (?:jump|goto) ([^\s,}]+)")
_BASE = re.compile(r"\t\ttype \S+ hook (\S+) ")
_POLICY = re.compile(r"; policy (\S+);")
_HANDLE = re.compile(r" # handle (\d+)\s*$")
_COUNTER = re.compile(r"\bcounter packets (\d+) bytes \d+")
_NFT_COMMENT = re.compile(r'\bcomment "([^"]*)"')
_NFT_END = re.compile(r"(?:^|\s)(?:(drop|accept|return|queue)|(reject)\b.*|(jump|goto) (\S+))$")
_CALI = re.compile(r"cali:([\w-]{16}); ?")


def from_nft(text: str) -> list[Chain]:
    """Chains of `nft -a list ruleset` (with -n or -t, too), in its order."""
    found: list[Chain] = []
    maps: dict[tuple[str, str, str], list[str]] = {}
    head = {"family": "", "table": "", "name": ""}
    base: dict[str, str] = {}
    rules: list[Rule] = []
    inside, pending, targets = "", "", []
    for line in text.splitlines():
        if not inside:
            if match := _TABLE.match(line):
                head["family"], head["table"] = match.groups()
            elif match := _CHAIN.match(line):
                inside, head["name"], base, rules, pending = "chain", match[1], {}, [], ""
            elif match := _MAP.match(line):
                inside, targets = "map", maps.setdefault((head["family"], head["table"], match[1]), [])
        elif line.rstrip() == "\t}":
            if inside == "chain":
                found.append(_nft_chain(head, base, rules))
            inside = ""
        elif inside == "map":
            targets += _ELEMENT.findall(line)
        elif match := _BASE.match(line):
            base["hook"] = match[1]
            if match := _POLICY.search(line):
                base["policy"] = match[1]
        else:
            pending = f"{pending} {line.strip()}".strip()
            if match := _HANDLE.search(pending):
                rules.append(_nft_rule(pending[: match.start()], int(match[1]), len(rules) + 1, head))
                pending = ""
    return [_with_maps(chain, maps) for chain in found]


def _nft_chain(head: dict[str, str], base: dict[str, str], rules: list[Rule]) -> Chain:
    return Chain(
        backend=NFT,
        family=head["family"],
        table=head["table"],
        name=head["name"],
        hook=base.get("hook", ""),
        policy=base.get("policy", ""),
        rules=tuple(rules),
    )


def _with_maps(chain: Chain, maps: dict[tuple[str, str, str], list[str]]) -> Chain:
    if not any("vmap @" in rule.text for rule in chain.rules):
        return chain
    rules = []
    for rule in chain.rules:
        match = _LOOKUP.search(rule.text)
        targets = maps.get((chain.family, chain.table, match[1] or ""), []) if match else []
        rules.append(msgspec.structs.replace(rule, targets=tuple(dict.fromkeys(targets))) if targets else rule)
    return msgspec.structs.replace(chain, rules=tuple(rules))


def _nft_rule(text: str, handle: int, number: int, head: dict[str, str]) -> Rule:
    counted = _COUNTER.search(text)
    text = " ".join(_COUNTER.sub("counter", text).split())
    said = _NFT_COMMENT.search(text)
    plain = _NFT_COMMENT.sub("", text).rstrip()
    end = _NFT_END.search(plain)
    digest, comment = _calico(said[1] if said else "")
    return Rule(
        backend=NFT,
        family=head["family"],
        table=head["table"],
        chain=head["name"],
        number=number,
        handle=handle,
        text=text,
        comment=comment,
        digest=digest,
        verdict=(end[1] or end[2] or end[3]) if end else "",
        targets=(end[4],) if end and end[4] else tuple(_ELEMENT.findall(plain)),
        packets=int(counted[1]) if counted else -1,
    )


def _calico(comment: str) -> tuple[str, str]:
    match = _CALI.match(f"{comment}; ")
    return (match[1], comment[match.end() :].strip()) if match else ("", comment)


_SAVED_CHAIN = re.compile(r":(\S+) (\S+) \[(\d+):\d+\]")
_SAVED_RULE = re.compile(r"\[(\d+):\d+\] (-A (\S+).*)")
_SAVED_COMMENT = re.compile(r' -m comment --comment (?:"((?:[^"\\]|\\.)*)"|(\S+))')
_SAVED_END = re.compile(r" -([jg]) (\S+)")


def from_save(text: str, *, backend: str, family: str, only: Collection[tuple[str, str]] | None = None) -> list[Chain]:
    """Chains of `iptables-save -c` or its kin. backend: IPTABLES_NFT or IPTABLES_LEGACY; family: "ip" or "ip6".

    only: (table, chain) whose rules are wanted; Calico's are always, all others have none then.
    """
    found: dict[tuple[str, str], Chain] = {}
    rules: dict[tuple[str, str], list[Rule]] = defaultdict(list)
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":") and (match := _SAVED_CHAIN.match(line)):
            name, policy, packets = match.groups()
            chain = Chain(backend=backend, family=family, table=table, name=name)
            if policy != "-":
                chain = msgspec.structs.replace(
                    chain, hook=HOOKS.get(name, ""), policy=policy.lower(), packets=int(packets)
                )
            found[table, name] = chain
        elif match := _SAVED_RULE.match(line):
            where = (table, match[3])
            if only is not None and where not in only and not CALICO.search(match[3]):
                continue
            rule = _saved_rule(match, found.get(where), len(rules[where]) + 1)
            # What is neither one of iptables' verdicts nor a chain is an extension's target: MARK, DNAT, LOG...
            if rule.targets and (table, rule.targets[0]) not in found:
                rule = msgspec.structs.replace(rule, verdict="", targets=())
            rules[where].append(rule)
    return [msgspec.structs.replace(chain, rules=tuple(rules[key])) for key, chain in found.items()]


def _saved_rule(match: re.Match[str], chain: Chain | None, number: int) -> Rule:
    if chain is None:
        raise ValueError(f"a rule of a chain that was not listed: {match[2]}")
    packets, text, _ = match.groups()
    # Between the comments' parts, quoted or not: what else the rule says.
    plain, *said = _SAVED_COMMENT.split(text)
    digest, comments = "", []
    for quoted, word, more in zip(said[::3], said[1::3], said[2::3], strict=True):
        found, comment = _calico(_unquoted(quoted) if word is None else word)
        digest = found or digest
        comments += [comment] if comment else []
        plain += more
    end = _SAVED_END.search(plain)
    verdict = ENDS.get(end[2], {"j": "jump", "g": "goto"}[end[1]]) if end else ""
    return Rule(
        backend=chain.backend,
        family=chain.family,
        table=chain.table,
        chain=chain.name,
        number=number,
        text=text,
        comment="; ".join(comments),
        digest=digest,
        verdict=verdict,
        targets=(end[2],) if end and verdict in ("jump", "goto") else (),
        packets=int(packets),
    )


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text) if "\\" in text else text


def with_handles(chain: Chain, handles: Sequence[int]) -> Chain:
    """An iptables-nft chain with nft's handles: the n-th rule of one is the n-th of the other, if there are as many."""
    if len(handles) != len(chain.rules):
        return chain
    rules = tuple(msgspec.structs.replace(rule, handle=h) for rule, h in zip(chain.rules, handles, strict=True))
    return msgspec.structs.replace(chain, rules=rules)


# --- asking the tools ---


def read(family: int, deadline: float, *, wanted: Iterable[Key] | None = None) -> Ruleset:
    """The rules a packet of this family (4 or 6) can meet in this network namespace, as they are now.

    deadline: time.monotonic, s. wanted: keys of the chains whose rules matter; all others have none then, but Calico's.
    None: all rules, with their counters and where maps lead, which takes seconds where there are thousands; rules of
    iptables-nft have no handles then. What cannot be read is a sentence in `unread`. Blocks; for a thread of its own.
    """
    ip = "ip6" if family == 6 else "ip"
    legacy: list[Command] = [(f"{ip}tables-legacy-save", "-c")] if holds_tables(family) else []
    if wanted is None:
        return _everything(ip, legacy, deadline)
    keys = list(dict.fromkeys(wanted))
    only = {(table, name) for _, _, table, name in keys}
    nft = [(of, table, name) for where, of, table, name in keys if where == NFT]
    own = [one for one in nft if one[0] == ip and one[1] in TABLES]  # iptables-nft's
    before = _handles(own)
    save = f"{ip}tables-nft-save"
    commands = [*legacy, ("nft", "list", "chains"), *((save, "-c", "-t", table) for _, table, _ in own)]
    commands += [_listing(*one) for one in nft if one not in own]
    told, unread = _run(list(dict.fromkeys(commands)), deadline)
    found = _parsed(told, ip, only)
    after = _handles(own)
    unlike: list[Command] = []
    for one in own:
        chain, handles = found.get((NFT, *one)), after[one]
        if chain and chain.backend == IPTABLES_NFT and before[one] == handles and len(handles) == len(chain.rules):
            found[chain.key] = with_handles(chain, handles)
        else:
            unlike.append(_listing(*one))
    if unlike:  # changed meanwhile, or not iptables-nft's after all: nft's own words, without comments
        told, more = _run(unlike, deadline)
        found |= _parsed(told, ip, only)
        unread += more
    return Ruleset(found.values(), unread)


def _listing(family: str, table: str, chain: str) -> Command:
    if table == CALICO_TABLE:  # whose policies were consulted stands in chains that no event told of
        return ("nft", "-a", "-t", "list", "table", family, table)
    return ("nft", "-a", "-t", "list", "chain", family, table, chain)


def _everything(ip: str, legacy: list[Command], deadline: float) -> Ruleset:
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
    return Ruleset(_parsed(told, ip, None).values(), [*unread, *more])


def _parsed(told: dict[Command, str], ip: str, only: Collection[tuple[str, str]] | None) -> dict[Key, Chain]:
    """Chains of what the tools printed; where two told of one, that with rules, and iptables' words before nft's."""
    found: dict[Key, Chain] = {}
    for command, text in sorted(told.items(), key=lambda one: (one[0][0] != "nft", one[0][1:] != ("list", "chains"))):
        if command[0] == "nft":
            chains = from_nft(text)
        else:
            backend = IPTABLES_LEGACY if "legacy" in command[0] else IPTABLES_NFT
            chains = from_save(text, backend=backend, family=ip, only=only)
        found |= {chain.key: chain for chain in chains}
    return found


def _handles(chains: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str, str], list[int]]:
    """By chain (family, table, name) its rules' handles in order, as the kernel has them. Raises OSError."""
    found: dict[tuple[str, str, str], list[int]] = {}
    with nfnetlink.netfilter() as wire:
        for number, (family, table, name) in enumerate(chains, 1):
            asked = nfnetlink.text(RULE_TABLE, table) + nfnetlink.text(RULE_CHAIN, name)
            number_of_family = nfnetlink.FAMILIES[6 if family == "ip6" else 4]
            wire.send(
                nfnetlink.message(
                    nfnetlink.NFTABLES << 8 | nfnetlink.GET_RULE, nfnetlink.DUMP, number, asked, number_of_family
                )
            )
            found[family, table, name] = [
                int.from_bytes(has[RULE_HANDLE], "big")
                for _, body in nfnetlink.dumped(wire, nfnetlink.NFTABLES << 8 | nfnetlink.NEW_RULE)
                if (has := nfnetlink.attributes(body)).get(RULE_CHAIN, b"").rstrip(b"\0") == name.encode()
                and has.get(RULE_TABLE, b"").rstrip(b"\0") == table.encode()
            ]
    return found


def _run(commands: Sequence[Command], deadline: float) -> tuple[dict[Command, str], list[str]]:
    """What each command printed; a sentence for each tool that could not be run to its end. All at once."""
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
    return told, list(unread.values())


def _printed(running: dict[Command, subprocess.Popen[bytes]], deadline: float) -> dict[Command, tuple[str, str, bool]]:
    """What each printed, its last complaint, and whether that is all."""
    heard: dict[tuple[Command, str], bytearray] = defaultdict(bytearray)
    open_pipes = dict.fromkeys(running, 2)
    with selectors.DefaultSelector() as selector:
        for name, process in running.items():
            for kind, pipe in (("out", process.stdout), ("err", process.stderr)):
                if pipe is not None:
                    selector.register(pipe, selectors.EVENT_READ, (name, kind))
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                name, kind = key.data
                data = os.read(key.fd, 1 << 16)
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
