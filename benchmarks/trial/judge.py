"""Compares what each request says of itself with what was written, and each card with its request."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from benchmarks.trial.people import MAY
from bot.reply.block_kit import meant
from bot.reply.fix_card import APPROVE, fix_card
from fixes.audit import Line, verify
from fixes.request import ENDS, FixRequest, Phase, document
from lab.slack.workspace import Message

Key = tuple[str, int]  # kind and number of a target


class Seen(msgspec.Struct, kw_only=True):
    """What the witnesses saw. Times are of time.monotonic()."""

    requests: Mapping[str, FixRequest]
    target_of: Mapping[str, Key]  # by name of a request
    since: Mapping[tuple[str, str], float]  # when it came into that phase
    effects: Mapping[Key, Sequence[float]]
    undone: frozenset[Key]  # another hand made it wrong again
    kills: Mapping[str, Sequence[float]]  # of whoever executes: "node-a", "node-b", "" for the cluster


class Wrong(msgspec.Struct, kw_only=True):
    """Sentences; empty where all is well."""

    twice: list[str] = msgspec.field(default_factory=list)
    lost: list[str] = msgspec.field(default_factory=list)
    not_allowed: list[str] = msgspec.field(default_factory=list)
    untrue: list[str] = msgspec.field(default_factory=list)
    cards: list[str] = msgspec.field(default_factory=list)
    audit: list[str] = msgspec.field(default_factory=list)


def judge(seen: Seen) -> Wrong:
    """What docs/decisions/034-trial.md calls executed twice, lost, not allowed and untrue."""
    wrong = Wrong()
    by_target: defaultdict[Key, list[FixRequest]] = defaultdict(list)
    for name, request in seen.requests.items():
        by_target[seen.target_of[name]].append(request)
    for key, effects in seen.effects.items():
        runs = [one for one in by_target[key] if (one.name, Phase.RUNNING) in seen.since]
        if len(effects) > 1:
            times = ", ".join(f"{at - effects[0]:.3f}" for at in effects)
            names = ", ".join(one.name for one in runs)
            wrong.twice.append(f"{key} was written {len(effects)} times (after {times} s) by {names}")
        if not any(min(effects) >= seen.since[one.name, Phase.RUNNING] for one in runs):
            wrong.not_allowed.append(f"{key} was written and no request for it was being executed")
        wrong.not_allowed += [
            f"{key} was written, and {one.name} was approved by {one.status.approved_by}"
            for one in runs
            if not _allowed(one)
        ]
    for request in seen.requests.values():
        if request.status.phase not in ENDS:
            wrong.lost.append(f"{request.name} is {request.status.phase} still")
        elif why := _untrue(request, seen):
            wrong.untrue.append(f"{request.name} is {request.status.phase}, {why}: {request.status.message}")
        wrong.twice += _ran_twice(request)
    return wrong


def _ran_twice(request: FixRequest) -> list[str]:
    ran = Counter(event.phase for event in request.status.history)
    return [f"{request.name} was {phase} {count} times" for phase, count in ran.items() if count > 1]


def _allowed(request: FixRequest) -> bool:
    by, asked = request.status.approved_by, request.spec.requested_by
    return by is not None and (by.via, by.id) in MAY and (by.via, by.id) != (asked.via, asked.id)


def _untrue(request: FixRequest, seen: Seen) -> str:
    """Why its end is not what happened, "" when it is."""
    key, phase = seen.target_of[request.name], request.status.phase
    written = len([one for one in seen.effects.get(key, ()) if (request.name, Phase.RUNNING) in seen.since])
    began = seen.since.get((request.name, Phase.RUNNING))
    if began is None:
        return "" if phase not in (Phase.VERIFIED, Phase.NOT_FIXED, Phase.UNKNOWN) else "and was never executed"
    if phase is Phase.VERIFIED:
        return "" if written else "and nothing was written"
    if phase is Phase.NOT_FIXED:
        return "" if written and key in seen.undone else "and nobody made it wrong again"
    if phase is Phase.FAILED:
        return "and it was written" if written else ""
    if phase is Phase.UNKNOWN:
        ended = seen.since[request.name, Phase.UNKNOWN]
        if not any(began - 1 <= at <= ended for at in seen.kills[request.spec.node if key[0] in _OF_NODES else ""]):
            return "and its fixer was not killed"
        return "and it is right" if written and key not in seen.undone else ""
    return "and it was being executed"


_OF_NODES = ("replace_neighbor", "replace_fdb_entry", "set_sysctl")


def cards(
    requests: Mapping[str, FixRequest],
    messages: Mapping[tuple[str, str], Message],
    approvers: Sequence[str],
    store: Any,
    links: str = "",
) -> list[str]:
    """Cards that do not show their request as it is, and buttons that nobody should see any more.

    links: what Slack's links to messages begin with.
    """
    wrong = []
    for request in requests.values():
        card = request.status.slack
        if card is None:
            continue
        message = messages.get((card.channel, card.ts))
        answer = f"{links}/archives/{card.channel}/p{card.thread.replace('.', '')}"
        shown = fix_card(
            document(request, store.namespace), store.now(), approvers=approvers, answer=answer, cluster="trial"
        )
        if message is None:
            wrong.append(f"{request.name} has no card")
        elif _plain(message.blocks) != _plain(shown.blocks):
            wrong.append(f"the card of {request.name} says {message.text!r}, which is {request.status.phase}")
    for message in messages.values():
        decides = [
            meant(str(element.get("value")))[0]
            for block in message.blocks
            for element in block.get("elements", ())
            if element.get("action_id") == APPROVE
        ]
        for name in decides:
            card = requests[name].status.slack
            if card is None or card.ts != message.ts:
                wrong.append(f"{name} has buttons on a message that is not its card: {message.text!r}")
    return wrong


def _plain(shown: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [{key: value for key, value in block.items() if key != "block_id"} for block in shown]


def audit(lines: Sequence[Line], requests: Sequence[FixRequest], messages: Sequence[Message]) -> list[str]:
    """What is wrong with the trail, and with the heads of it that were posted."""
    wrong = verify(lines, requests)
    heads = Counter(message.text for message in messages if message.text.startswith("Audit trail: "))
    hashes = {str(line.spec["hash"]) for line in lines}
    wrong += [f"{head} was posted {count} times" for head, count in heads.items() if count > 1]
    wrong += [f"{head} is not in the trail" for head in heads if not hashes & {*head.split()}]
    return wrong


def denied(lines: Sequence[Line]) -> int:
    """Records of tries that were refused."""
    return sum(line.spec["event"] == "refused" for line in lines)
