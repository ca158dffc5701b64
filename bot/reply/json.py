"""The answer for programs, version 1 of a contract: schema.json beside this file says what may be relied on."""

from __future__ import annotations

from typing import Any

import msgspec

from bot.investigate import Investigation
from bot.reply import commands
from bot.words import parse
from facts import Blind, Cause, Checked, Diagnosis, Fact, LegPath, Message

VERSION = 1


def render(investigation: Investigation) -> str:
    """JSON with two spaces of indentation, ending with a newline."""
    return msgspec.json.format(msgspec.json.encode(document(investigation)), indent=2).decode() + "\n"


def document(investigation: Investigation) -> dict[str, Any]:
    """The contract as plain data."""
    diagnosis = investigation.diagnosis
    return {
        "version": VERSION,
        "id": investigation.id,
        "cluster": investigation.cluster,
        "started": investigation.started,
        "elapsed_ms": investigation.elapsed_ms,
        "question": _question(investigation),
        "verdict": diagnosis.verdict,
        "summary": diagnosis.summary,
        "causes": [_cause(one, diagnosis) for one in diagnosis.causes],
        "warnings": [_cause(one, diagnosis) for one in diagnosis.warnings],
        "checked": [_checked(one) for one in diagnosis.checked],
        "blind": [_blind(one) for one in diagnosis.blind],
        "path": [_path(one) for one in diagnosis.path],
        "watch": msgspec.to_builtins(investigation.watched),
        "facts": [_fact(one) for one in diagnosis.facts],
    }


def _question(investigation: Investigation) -> dict[str, Any]:
    question = investigation.diagnosis.question
    if question:
        source, target, protocol, port = question.source, question.target, question.protocol, question.port
    else:
        asked = parse([investigation.asked])
        source, target, protocol, port = asked.source, asked.target, asked.protocol, asked.port
    return {
        "asked": investigation.asked,
        "asked_by": investigation.asked_by,
        "source": source,
        "target": target,
        "protocol": protocol,
        "port": port,
    }


def _cause(cause: Cause, diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "rule": cause.rule,
        "title": cause.title,
        "text": cause.text,
        "message": _message(cause.message) if cause.message else None,
        "node": cause.node,
        "flow": cause.flow,
        "leg": cause.leg,
        "stage": cause.stage,
        "severity": cause.severity,
        "evidence": list(cause.evidence),
        "remedy": cause.remedy,
        "see": list(map(_command, commands.to_see(cause, diagnosis))),
        "by_hand": list(map(_command, commands.by_hand(cause, diagnosis.facts))),
        "fix": cause.fix,
        "felix": cause.felix,
    }


def _command(command: commands.Command) -> dict[str, str]:
    return {"place": command.place, "command": command.line}


def _message(message: Message) -> dict[str, Any]:
    """The template and what goes into it; a value that is a sentence of its own is a message again."""
    values = {name: value if isinstance(value, str) else _message(value) for name, value in message.values}
    return {"template": message.template, "values": values}


def _checked(checked: Checked) -> dict[str, Any]:
    return {"rule": checked.rule, "node": checked.node, "flow": checked.flow, "leg": checked.leg}


def _blind(blind: Blind) -> dict[str, Any]:
    return {"node": blind.node, "look": blind.look, "reason": blind.reason}


def _path(leg: LegPath) -> dict[str, Any]:
    return {
        "flow": leg.flow,
        "direction": leg.direction,
        "source": leg.source,
        "target": leg.target,
        "last_good": leg.last_good,
        "first_bad": leg.first_bad,
        "lost": leg.lost,
        "hops": [
            {"stage": hop.stage, "node": hop.node, "name": hop.name, "state": hop.state, "met": hop.met}
            for hop in leg.hops
        ],
    }


def _fact(fact: Fact) -> dict[str, Any]:
    fields = msgspec.to_builtins(fact)
    del fields["fact"]
    return {"id": fact.id, "kind": type(fact).__name__, "fields": fields}
