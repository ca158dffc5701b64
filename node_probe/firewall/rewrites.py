"""Which rule gave a packet other addresses; without it a packet under a new name would be called lost just there."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from facts.ask import Trace
from facts.firewall import RuleRewrite
from node_probe.firewall.event import Event
from node_probe.firewall.ruleset import IPTABLES_LEGACY, Key, Ruleset, layer

NAT = "nat"  # iptables' table
TRANSLATES = re.compile(
    r"\b(?:snat|dnat|masquerade|redirect|netmap|tproxy)\b|\b[sd](?:addr|port) set\b"
    r"|-j (?:SNAT|DNAT|MASQUERADE|REDIRECT|NETMAP|TPROXY)\b"
)


@dataclass(frozen=True)
class _Change:
    """What a packet carried afterwards, and what it had met since the last base chain that let it pass."""

    ends: tuple[str, str, int]
    met: tuple[Event, ...]


def rewrites(node: str, asked: Trace, events: Iterable[Event], ruleset: Ruleset) -> list[RuleRewrite]:
    """One for each rule that gave packets of `asked` other addresses or another port, and each that they got.

    events: of packets of `asked` alone; of one packet in the order met. ruleset: with the chains of `wanted`.
    """
    return list(dict.fromkeys(_told(node, asked, change, ruleset) for change in _changes(events)))


def wanted(events: Iterable[Event]) -> list[Key]:
    """Keys of the chains that `read` must list for `rewrites` to name these rules."""
    return list(dict.fromkeys(_key(one) for change in _changes(events) for one in change.met))


def _changes(events: Iterable[Event]) -> Iterator[_Change]:
    packets: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        packets[event.packet].append(event)
    for told in packets.values():
        # When these were met among the others is not known: they are told by another socket.
        legacy = [event for event in told if layer(event.backend) == IPTABLES_LEGACY and event.table == NAT]
        ends, met = ("", "", 0), list[Event]()
        for event in told:
            if event.ends[0]:
                if ends[0] and event.ends != ends:
                    yield _Change(event.ends, (*legacy, *met))
                ends = event.ends
            # A rule that translates ends its chain: there the chain's policy is not met.
            if event.kind == "policy":
                met.clear()
            elif layer(event.backend) != IPTABLES_LEGACY:
                met.append(event)


def _told(node: str, asked: Trace, change: _Change, ruleset: Ruleset) -> RuleRewrite:
    source, target, port = change.ends
    fact = RuleRewrite(
        node=node,
        source_address=asked.source,
        target_address=asked.target,
        protocol=asked.protocol,
        port=asked.port,
        source=source,
        target=target,
        target_port=port,
        family=6 if ":" in asked.source else 4,
    )
    for at, event in reversed(list(enumerate(change.met))):
        chain = ruleset.chain(event.backend, event.family, event.table, event.chain)
        rule = ruleset.rule(chain, handle=event.handle, number=event.number) if chain and event.kind == "rule" else None
        if chain is None or rule is None or not TRANSLATES.search(rule.text):
            continue
        through = [one.chain for one in change.met[:at] if (one.family, one.table) == (event.family, event.table)]
        base = ruleset.chain(event.backend, event.family, event.table, through[0]) if through else chain
        return msgspec.structs.replace(
            fact,
            backend=rule.backend,
            table=chain.table,
            chain=chain.name,
            number=rule.number,
            text=rule.text,
            hook=(base or chain).hook,
            through=tuple(dict.fromkeys(one for one in through if one != chain.name)),
        )
    return fact


def _key(event: Event) -> Key:
    return layer(event.backend), event.family, event.table, event.chain
