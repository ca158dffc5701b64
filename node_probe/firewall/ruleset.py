"""A node's packet filters in one form, whatever tool wrote them; without it a drop could not be led to its rule."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

NFT = "nft"
IPTABLES_NFT = "iptables-nft"
IPTABLES_LEGACY = "iptables-legacy"
HOOKS = {  # of the chains iptables builds in
    "PREROUTING": "prerouting",
    "INPUT": "input",
    "FORWARD": "forward",
    "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}
TABLES = ("raw", "mangle", "nat", "filter", "security")  # of iptables
CALICO_TABLE = "calico"  # of nftables
CALICO = re.compile(r"(?:^|-)cali-")
Key = tuple[str, str, str, str]  # of a chain: NFT or IPTABLES_LEGACY, family, table, name
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


class Element(msgspec.Struct, frozen=True, kw_only=True):
    """One of a map that decides on packets."""

    key: tuple[str, ...]  # its fields; a protocol as a number
    comment: str = ""


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

    def with_rules(self, rules: Iterable[Rule]) -> Chain:
        return msgspec.structs.replace(self, rules=tuple(rules))


def layer(backend: str) -> str:
    """Where in the kernel it lives: iptables-nft's rules are nft's, and an nft trace tells of them."""
    return IPTABLES_LEGACY if backend == IPTABLES_LEGACY else NFT


class Ruleset:
    """All chains that were read, and why others were not."""

    def __init__(
        self,
        chains: Iterable[Chain],
        unread: Sequence[str] = (),
        elements: Mapping[tuple[str, str, str], Sequence[Element]] | None = None,
    ) -> None:
        """unread: one sentence for each listing that could not be had; it is not "no rules". elements: by family, table
        and name of their map, of those maps that were read."""
        self.chains = {chain.key: chain for chain in chains}
        self.unread = tuple(unread)
        self.elements = elements or {}
        self._elements = {(*named, one.key): one for named, ones in self.elements.items() for one in ones}
        self._by_handle = {
            (*chain.key, rule.handle): rule
            for chain in self.chains.values()
            for rule in chain.rules
            if rule.handle >= 0
        }

    def chain(self, backend: str, family: str, table: str, name: str) -> Chain | None:
        """The chain an event tells of; None: it was not listed."""
        return self.chains.get((layer(backend), family, table, name))

    def besides(self, chains: Iterable[Chain]) -> Ruleset:
        """The same with these chains, too."""
        return Ruleset([*self.chains.values(), *chains], self.unread, self.elements)

    def element(self, chain: Chain, name: str, key: tuple[str, ...]) -> Element | None:
        """Of the map of that name that a rule of this chain looks into; None: there is none, or it was not read."""
        return self._elements.get((chain.family, chain.table, name, key))

    def rule(self, chain: Chain, *, handle: int = -1, number: int = 0) -> Rule | None:
        """By handle where there is one, else by number; None: it was not listed."""
        if handle >= 0:
            return self._by_handle.get((*chain.key, handle))
        return chain.rules[number - 1] if 0 < number <= len(chain.rules) else None


# --- what the tools print ---

_TABLE = re.compile(r"table (\S+) (\S+) \{")
_CHAIN = re.compile(r"\tchain (\S+) \{")
_MAP = re.compile(r"\tmap (\S+) \{")
LOOKUP = re.compile(r"\bvmap (?:@(\S+)|\{)")
_ELEMENT = re.compile(r" : (?:jump|goto) ([^\s,}]+)")
_BASE = re.compile(r"\t\ttype \S+ hook (\S+) ")
_POLICY = re.compile(r"; policy (\S+);")
_HANDLE = re.compile(r" # handle (\d+)\s*$")
_COUNTER = re.compile(r"\bcounter packets (\d+) bytes \d+")
_NFT_COMMENT = re.compile(r'\bcomment "([^"]*)"')
_VERDICTS = {"drop", "accept", "return", "queue"}
_REJECT = re.compile(r"(?:^| )reject\b")
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
            pending = f"{pending} {line.strip()}" if pending else line.strip()
            if " # handle " in line and (match := _HANDLE.search(pending)):
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
        match = LOOKUP.search(rule.text)
        targets = maps.get((chain.family, chain.table, match[1] or ""), []) if match else []
        rules.append(msgspec.structs.replace(rule, targets=tuple(dict.fromkeys(targets))) if targets else rule)
    return msgspec.structs.replace(chain, rules=tuple(rules))


def _nft_rule(text: str, handle: int, number: int, head: dict[str, str]) -> Rule:
    # There may be tens of thousands of rules: what one has not is not looked for.
    counted = _COUNTER.search(text) if "counter packets " in text else None
    text = " ".join((_COUNTER.sub("counter", text) if counted else text).split())
    said = _NFT_COMMENT.search(text) if 'comment "' in text else None
    plain = _NFT_COMMENT.sub("", text).rstrip() if said else text
    verdict, target = _nft_end(plain)
    digest, comment = calico_comment(said[1]) if said else ("", "")
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
        verdict=verdict,
        targets=(target,) if target else tuple(_ELEMENT.findall(plain)) if "vmap" in plain else (),
        packets=int(counted[1]) if counted else -1,
    )


def _nft_end(plain: str) -> tuple[str, str]:
    """Verdict, and the chain of a jump or goto."""
    *_, before, last = ("", "", *plain.rsplit(None, 2)[-2:])
    if last in _VERDICTS:
        return last, ""
    if before in ("jump", "goto"):
        return before, last
    return ("reject", "") if _REJECT.search(plain) else ("", "")


def calico_comment(comment: str) -> tuple[str, str]:
    """Calico's hash of the rule, "" where it has none, and what else its comment says."""
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
        found, comment = calico_comment(_unquoted(quoted) if word is None else word)
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
