"""From a packet's way through the rules to the rule that ended it; without it a trace would be lines and no answer."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from itertools import combinations
from typing import NamedTuple

from facts import Blind
from facts.ask import Trace
from facts.firewall import FirewallTrace, RuleDrop
from node_probe.firewall.event import Event
from node_probe.firewall.ruleset import CALICO, IPTABLES_LEGACY, LOOKUP, Chain, Key, Rule, Ruleset, layer
from node_probe.ours import PROTOCOLS

ENDS_PACKETS = ("drop", "reject")
TAKES_PACKETS = ("queue", "stolen")  # for a program that may give it back, or for another device
# How far along a hook is: what was seen at a later one has left the earlier ones behind.
ORDER = {"ingress": 0, "prerouting": 1, "output": 1, "input": 2, "forward": 2, "postrouting": 3, "egress": 4}
AT_DEVICES = ("ingress", "egress")
STARTS = re.compile(r"Start of (?:tier (\S+)|policies)")
ENDS_TIER = re.compile(r"no policies passed packet")
NAMES_A_POLICY = re.compile(  # behind a rule's annotations, where it has any
    r"(?:^|[; ])((?:Policy|Profile|NetworkPolicy|GlobalNetworkPolicy|Kubernetes\w*NetworkPolicy|\w*AdminNetworkPolicy)"
    r" \S+(?: ingress| egress)?)$"
)
LOOKS_FOR_A_MARK = re.compile(r"\bmark\b.*?0x[0-9a-f]+")
SETS_A_MARK = re.compile(r"-j MARK --set|\bmark set\b")
GROUP = re.compile(r"(?:^|-)cali-g[io]-")
PODS = re.compile(r"(?:^|-)cali-[tf]w-(.+)$")
SOURCE = re.compile(r"(?:^|(?<!!) )(?:-s|ip6? saddr) ([0-9a-f.:]+(?:/\d+)?)(?= |$)")
TARGET = re.compile(r"(?:^|(?<!!) )(?:-d|ip6? daddr) ([0-9a-f.:]+(?:/\d+)?)(?= |$)")
PROTOCOL = re.compile(r"(?<!!) -p (tcp|udp|icmp|icmpv6|ipv6-icmp)\b")
NAMED_PROTOCOL = re.compile(r"\b(tcp|udp|sctp|icmp|icmpv6|ipv6-icmp)\b")
NAMED_PORT = {False: re.compile(r"\bdports? (\d+)(?= |$)"), True: re.compile(r"\bsports? (\d+)(?= |$)")}  # by reply
LETS_SO_MANY = re.compile(r"\blimit rate (?!over\b)|\bct count (?!over\b)|--limit\b|--(?:hashlimit|connlimit)-upto\b")
MAX_DEPTH = 16  # the kernel's own


@dataclass(frozen=True)
class _End:
    """The rule or policy that ended a packet, and how the packet came there."""

    chain: Chain
    number: int  # 0: the chain's policy; -1: a rule that was not listed
    rule: Rule | None
    path: tuple[tuple[Chain, int], ...]  # the chains that led there, and the rule of each that did; base chain first
    device: str = ""  # whose packets the base chain is about
    taken: str = ""  # one of TAKES_PACKETS, where it was not dropped

    @property
    def verdict(self) -> str:
        if self.taken:
            return self.taken
        return self.rule.verdict if self.rule and self.rule.verdict in ENDS_PACKETS else "drop"


@dataclass
class _Way:
    """One packet's way through one backend."""

    packet: str
    events: list[Event] = field(default_factory=list)
    base: tuple[str, str, str] | None = None  # the base chain it is in
    left: set[tuple[str, str, str]] = field(default_factory=set)  # base chains it is done with
    end: _End | None = None
    hook: str = ""  # the last one that is not a device's own


def drops(
    node: str, asked: Trace, events: Iterable[Event], ruleset: Ruleset, *, outer: bool = False
) -> list[RuleDrop | FirewallTrace]:
    """One FirewallTrace of these packets, and a RuleDrop for each rule that ended some of them.

    events: of packets of `asked` alone; of one packet in the order met, packets and backends may be mixed.
    ruleset: as it was listed while the trace was armed: handles are used again. outer: the packets are the tunnel's.
    """
    ways: dict[str, list[_Way]] = defaultdict(list)
    for where, way in _ways(events, ruleset):
        _walk(way, where, ruleset)
        ways[where].append(way)
    ended = [way.end for found in ways.values() for way in found if way.end]
    trace = FirewallTrace(
        node=node,
        source_address=asked.source,
        target_address=asked.target,
        protocol=asked.protocol,
        port=asked.port,
        outer=outer,
        how="trace",
        seen=max(_packets(ways), len(ended)),
        dropped=len(ended),
        last_hook=_last_hook(ways, ruleset),
    )
    return [trace, *_told(node, asked, ended, ruleset, outer=outer)]


def wanted(events: Iterable[Event]) -> list[Key]:
    """Keys of the chains that `read` must list for `drops` to name what ended these packets.

    For each packet and backend those since the last base chain that let it pass: a node's firewall can be large.
    """
    since: dict[tuple[str, str], dict[Key, None]] = defaultdict(dict)
    for event in events:
        where = layer(event.backend)
        met = since[event.packet, where]
        met[where, event.family, event.table, event.chain] = None
        if event.kind == "policy" and event.verdict not in ENDS_PACKETS and where != IPTABLES_LEGACY:
            met.clear()
    return list(dict.fromkeys(key for met in since.values() for key in met))


def _ways(events: Iterable[Event], ruleset: Ruleset) -> Iterator[tuple[str, _Way]]:
    """Each packet's events, by backend. Kernels give a packet's number again: no packet enters a base chain twice."""
    current: dict[tuple[str, str], _Way] = {}
    found: list[tuple[str, _Way]] = []
    for event in events:
        where = layer(event.backend)
        chain = ruleset.chain(event.backend, event.family, event.table, event.chain)
        base = (event.family, event.table, event.chain) if event.kind == "policy" or (chain and chain.hook) else None
        way = current.get((where, event.packet))
        if way is None or way.events[-1].verdict in ENDS_PACKETS or (base and base in way.left):
            way = current[where, event.packet] = _Way(event.packet)
            found.append((where, way))
        if base and way.base != base:
            way.left |= {way.base} if way.base else set()
            way.base = base
        if base and (event.kind == "policy" or event.verdict == "accept"):
            way.left.add(base)
        way.events.append(event)
    yield from found


def _walk(way: _Way, where: str, ruleset: Ruleset) -> None:
    path: list[tuple[Chain, int]] = []
    for event in way.events:
        chain = ruleset.chain(event.backend, event.family, event.table, event.chain) or Chain(
            backend=event.backend, family=event.family, table=event.table, name=event.chain
        )
        rule = ruleset.rule(chain, handle=event.handle, number=event.number) if event.kind == "rule" else None
        at = next((i for i, (one, _) in enumerate(path) if one.key == chain.key), len(path))
        path = [] if chain.hook or event.kind == "policy" else path[:at]
        path.append((chain, rule.number if rule else 0))
        hook = path[0][0].hook
        way.hook = hook if hook and hook not in AT_DEVICES else way.hook
        verdict = event.verdict or (chain.policy if event.kind == "policy" else "")
        if where == IPTABLES_LEGACY and event is way.events[-1]:
            # The kernel tells no verdict here; but after a rule that drops it tells nothing more.
            verdict = rule.verdict if rule else verdict
        # What was given back is met again by our own chains, of nftables, behind all others.
        taken = verdict in TAKES_PACKETS and event is way.events[-1] and where != IPTABLES_LEGACY
        if verdict in ENDS_PACKETS or taken:
            # A listing of another moment has other rules under the same handles; what cannot drop did not.
            if rule and rule.verdict not in ("", *ENDS_PACKETS, *TAKES_PACKETS):
                rule = None
            number = 0 if event.kind == "policy" else rule.number if rule else -1
            # By now a packet that was stolen may have been met at the device it was given to.
            device = event.device if hook in AT_DEVICES and verdict != "stolen" else ""
            way.end = _End(chain, number, rule, tuple(path[:-1]), device, verdict if taken else "")


def _packets(ways: dict[str, list[_Way]]) -> int:
    """A packet that both backends tell of is one, whether they call it by one name or not."""
    names = [{way.packet for way in found} for found in ways.values()]
    if len(names) > 1 and set.intersection(*names):
        return len(set.union(*names))
    return max((len(found) for found in ways.values()), default=0)


def _last_hook(ways: dict[str, list[_Way]], ruleset: Ruleset) -> str:
    """Where the last packet was seen last; "" where any was dropped, or where nobody would have seen it further on."""
    if any(way.end for found in ways.values() for way in found):
        return ""
    hook = max((found[-1].hook for found in ways.values()), key=lambda one: ORDER.get(one, -1), default="")
    watched = {chain.hook for key, chain in ruleset.chains.items() if key[0] in ways}
    return hook if hook != "prerouting" or watched >= {"input", "forward"} else ""


def _told(node: str, asked: Trace, ends: Iterable[_End], ruleset: Ruleset, *, outer: bool) -> list[RuleDrop]:
    counted: dict[tuple[object, ...], list[_End]] = defaultdict(list)
    for end in ends:
        through = tuple(chain.name for chain, _ in end.path)
        counted[(*end.chain.key, end.number, through, end.device)].append(end)
    return [_rule_drop(node, asked, found[0], ruleset, "trace", len(found), outer) for found in counted.values()]


def _rule_drop(node: str, asked: Trace, end: _End, ruleset: Ruleset, how: str, packets: int, outer: bool) -> RuleDrop:
    chain, rule = end.chain, end.rule
    text = rule.text if rule else "policy drop" if end.number == 0 else ""
    before = chain.rules[: end.number - 1] if end.number > 0 else ()
    consulted = _policy_chains(before, ruleset) if rule and ENDS_TIER.search(rule.comment) else ()
    hooked = end.path[0][0] if end.path else chain
    enders = [one for one in chain.rules if one.verdict in ENDS_PACKETS]
    asked_map, element = _element(end, asked, ruleset)
    return RuleDrop(
        node=node,
        source_address=asked.source,
        target_address=asked.target,
        protocol=asked.protocol,
        port=asked.port,
        reply=asked.reply,
        outer=outer,
        how=how,
        packets=packets,
        backend=rule.backend if rule else chain.backend,
        family=6 if ":" in asked.source else 4,
        table=chain.table,
        chain=chain.name,
        number=end.number,
        handle=rule.handle if rule else -1,
        text=text,
        comment=rule.comment if rule else "",
        map=asked_map,
        element=element,
        verdict=end.verdict,
        hook=hooked.hook,
        device=end.device,
        through=tuple(one.name for one, _ in end.path),
        title=_title(chain),
        tier=_tier([*end.path, (chain, end.number)]),
        consulted=tuple(one.name for one in consulted),
        consulted_titles=tuple(_title(one) for one in consulted),
        marked_by=_marked_by(rule, before) if rule and _title(chain) else "",
        behind_limit=_behind_limit(asked, chain.rules if end.number == 0 else before),
        nth=enders.index(rule) + 1 if rule in enders else 0,
        drops=len(enders),
        later=asked.later,
    )


def _element(end: _End, asked: Trace, ruleset: Ruleset) -> tuple[str, str]:
    """The map whose element decided on these packets, and that element's comment: the last one on their way."""
    port = str(PROTOCOLS.get(asked.protocol, 0)), str(asked.port)
    for chain, number in reversed([*end.path, (end.chain, end.number)]):
        match = LOOKUP.search(chain.rules[number - 1].text) if 0 < number <= len(chain.rules) else None
        name = match[1] if match and match[1] else ""
        for key in ((asked.target, *port), port) if name else ():
            if (found := ruleset.element(chain, name, key)) and found.comment:
                return name, found.comment
    return "", ""


def _title(chain: Chain) -> str:
    """What the chain's first rule with such a comment says whose chain it is."""
    for rule in chain.rules:
        if match := NAMES_A_POLICY.search(rule.comment):
            return match[1]
    return ""


def _marked_by(rule: Rule, before: tuple[Rule, ...]) -> str:
    if not LOOKS_FOR_A_MARK.search(rule.text):
        return ""
    return next((one.text for one in reversed(before) if SETS_A_MARK.search(one.text)), "")


def _behind_limit(asked: Trace, before: Sequence[Rule]) -> str:
    """The rule that lets only so many of these packets pass, as far as addresses, protocols and ports in it tell."""
    for rule in before:
        if rule.verdict != "accept" or not LETS_SO_MANY.search(rule.text) or _is_of_others(rule.text, asked):
            continue
        protocols = {one.removeprefix("ipv6-").removesuffix("v6") for one in NAMED_PROTOCOL.findall(rule.text)}
        ports = set(map(int, NAMED_PORT[asked.reply].findall(rule.text)))
        if (not protocols or asked.protocol in protocols) and (not ports or asked.port in ports):
            return rule.text
    return ""


def _tier(path: list[tuple[Chain, int]]) -> str:
    for chain, number in reversed(path):
        for rule in reversed(chain.rules[: max(0, number - 1)]):
            if match := STARTS.search(rule.comment):
                return match[1] or "default"
    chain, number = path[-1]
    ends = 0 < number <= len(chain.rules) and ENDS_TIER.search(chain.rules[number - 1].comment)
    return "default" if ends else ""  # 3.28 has one tier, and does not say where it starts


def _policy_chains(rules: tuple[Rule, ...], ruleset: Ruleset) -> tuple[Chain, ...]:
    """The policies' chains that these rules jump to since the last tier began, a group of policies taken apart."""
    start = max((i for i, rule in enumerate(rules) if STARTS.search(rule.comment)), default=0)
    found: list[Chain] = []
    for rule in rules[start:]:
        for target in rule.targets:
            chain = ruleset.chain(rule.backend, rule.family, rule.table, target)
            if chain is None:
                continue
            found += _policy_chains(chain.rules, ruleset) if GROUP.search(target) else [chain]
    return tuple(found)


class Counted(NamedTuple):
    """Packets that went between two listings."""

    asked: Trace
    sent: int
    interfaces: Collection[str] | None = None  # host sides of those of their pods that live here; None: not known


def grown(
    node: str, legs: Sequence[Counted], before: Ruleset, after: Ruleset
) -> list[RuleDrop | FirewallTrace | Blind]:
    """What the counters of two listings of everything say of the packets that went between them.

    A RuleDrop and a FirewallTrace of each leg that ended at a rule: where one rule alone that drops counted, no rule
    changed, and only these legs' packets together are as many and can have met it. Nothing where none counted; else a
    Blind with the reason, minor since packets that pass need no rule named.
    """
    if before.unread or after.unread:
        return [_unclear(node, ", ".join(dict.fromkeys((*before.unread, *after.unread))))]
    grew: list[tuple[Chain, int, Rule | None, int]] = []
    for chain in after.chains.values():
        old = before.chains.get(chain.key)
        counts = _counts(chain)
        # Felix writes a policy anew under the old handles, and counts from 0 again.
        if _texts(old) != _texts(chain) and (CALICO.search(chain.name) or any(n for *_, n in counts)):
            return [_unclear(node, f"rules of {chain.name} changed while packets were sent")]
        for (number, rule, now), (_, _, was) in zip(counts, _counts(old) if old else (), strict=False):
            if now != was:
                grew.append((chain, number, rule, now - was))
    if gone := [key for key in before.chains.keys() - after.chains.keys() if CALICO.search(key[-1])]:
        return [_unclear(node, f"rules of {gone[0][-1]} changed while packets were sent")]
    if not grew:
        return []
    if len(grew) > 1:
        return [_unclear(node, f"{len(grew)} rules that drop counted packets meanwhile")]
    chain, number, rule, packets = grew[0]
    end = _End(chain, number, rule, _only_path(chain, before, after, packets))
    if not chain.hook and not end.path:
        return [_unclear(node, f"packets came to {chain.name} by more than one way meanwhile")]
    able = [leg for leg in legs if leg.sent and _can_be(end, leg)]
    if not able:
        return [_unclear(node, f"the one rule that counted drops, in {chain.name}, is about other packets")]
    fits = [
        some for n in range(len(able)) for some in combinations(able, n + 1) if sum(leg.sent for leg in some) == packets
    ]
    if not fits:
        sent = sum(leg.sent for leg in able)
        return [_unclear(node, f"the one rule that counted drops saw {packets} packets, of {sent} sent")]
    if len(fits) > 1:
        text = f"the one rule that counted drops saw {packets} packets, and more than one kind sent is as many"
        return [_unclear(node, text)]
    found: list[RuleDrop | FirewallTrace | Blind] = []
    for asked, sent, _ in fits[0]:
        trace = FirewallTrace(
            node=node,
            source_address=asked.source,
            target_address=asked.target,
            protocol=asked.protocol,
            port=asked.port,
            how="counter",
            seen=sent,
            dropped=sent,
        )
        found += [trace, _rule_drop(node, asked, end, after, "counter", sent, outer=False)]
    return found


def _can_be(end: _End, leg: Counted) -> bool:
    """Can the rule have met these packets, as far as other pods' chains, addresses and protocols in it tell?"""
    for chain in (end.chain, *(chain for chain, _ in end.path)):
        match = PODS.search(chain.name)
        if match and leg.interfaces is not None and match[1] not in leg.interfaces:
            return False
    text = end.rule.text if end.rule else ""
    if _is_of_others(text, leg.asked):
        return False
    match = PROTOCOL.search(text)
    return match is None or match[1].removeprefix("ipv6-").removesuffix("v6") == leg.asked.protocol


def _is_of_others(text: str, asked: Trace) -> bool:
    """Does the rule ask for other addresses?"""
    return any(
        (match := pattern.search(text)) and ip_address(address) not in ip_network(match[1], strict=False)
        for pattern, address in ((SOURCE, asked.source), (TARGET, asked.target))
    )


def _unclear(node: str, reason: str) -> Blind:
    return Blind(node=node, look="firewall counters", reason=reason, minor=True)


def _texts(chain: Chain | None) -> tuple[str, ...]:
    return (chain.policy, *(rule.text for rule in chain.rules)) if chain else ()


def _counts(chain: Chain) -> list[tuple[int, Rule | None, int]]:
    """What in this chain drops and counts: its policy (0) and rules, with the count."""
    found: list[tuple[int, Rule | None, int]] = []
    if chain.policy == "drop" and chain.packets >= 0:
        found.append((0, None, chain.packets))
    rules = [rule for rule in chain.rules if rule.verdict in ENDS_PACKETS and rule.packets >= 0]
    return found + [(rule.number, rule, rule.packets) for rule in rules]


def _only_path(chain: Chain, before: Ruleset, after: Ruleset, packets: int) -> tuple[tuple[Chain, int], ...]:
    """How packets came to this chain, where the rules that jump leave one way; else nothing."""
    if chain.hook:
        return ()
    paths: list[tuple[tuple[Chain, int], ...]] = []

    def up(name: str, path: tuple[tuple[Chain, int], ...]) -> None:
        for caller in after.chains.values():
            if caller.key[:3] != chain.key[:3] or len(path) > MAX_DEPTH:
                continue
            old = before.chains.get(caller.key)
            for rule in caller.rules:
                if name not in rule.targets or not _let_through(rule, old, packets):
                    continue
                way = ((caller, rule.number), *path)
                if caller.hook:
                    paths.append(way)
                else:
                    up(caller.name, way)

    up(chain.name, ())
    return paths[0] if len(paths) == 1 else ()


def _let_through(rule: Rule, old: Chain | None, packets: int) -> bool:
    """A jump that did not count these packets was not their way; one that counts nothing (a map's) may have been."""
    if rule.packets < 0 or old is None or len(old.rules) < rule.number:
        return True
    return rule.packets - old.rules[rule.number - 1].packets >= packets
