"""What policies say of a question, on a terminal, in Slack and for programs; without it nobody could read the walk."""

from __future__ import annotations

from typing import Any

import msgspec

from bot import words
from bot.language import ENGLISH, Language
from bot.reply import blocks
from bot.reply.block_kit import Message, escape
from bot.reply.wording import printable
from bot.second_opinion import SecondOpinion, together
from engine.opinions import PolicyGate, PolicyStep, PolicyWalk, kind_of_packet, let_pass, told
from facts import PolicyOpinion, in_turn, joined, say

VERSION = 1
SHOWN = 6  # flows that a message in Slack has room for
MARKS = {"allow": "ok", "some": "!", "deny": "x", "unknown": "?"}
SLACK_MARKS = {
    "allow": ":white_check_mark:",
    "some": ":warning:",
    "deny": ":x:",
    "unknown": ":grey_question:",
}

OF_A_PORT = {
    "allow": "By the policies in the API {packet} passes from {source} to {target}.",
    "some": "By the policies in the API {packet} passes from {source} to {target} on some of the ways there only.",
    "deny": "By the policies in the API {packet} does not pass from {source} to {target}.",
    "unknown": "Whether {packet} passes from {source} to {target} by the policies in the API cannot be said.",
}
OF_ALL = {
    "allow": "By the policies in the API everything passes from {source} to {target}.",
    "some": "By the policies in the API not everything passes from {source} to {target}.",
    "deny": "By the policies in the API nothing passes from {source} to {target}.",
    "unknown": "What passes from {source} to {target} by the policies in the API cannot be said.",
}
GATES = {
    "pod egress": "out of {endpoint}, on {node}",
    "pod ingress": "into {endpoint}, on {node}",
    "host egress": "out by host endpoint {endpoint} of {node}",
    "host ingress": "in by host endpoint {endpoint} of {node}",
}
ENDS = {
    "allow": "tier {tier} ({policies}): allows it",
    "deny": "tier {tier} ({policies}): denies it",
    "pass": "tier {tier} ({policies}): lets it go on to the next",
    "unknown": "tier {tier} ({policies}): cannot be said",
    "not reached": "tier {tier} ({policies}): not asked any more",
}
STAGED = {
    "allow": "Were the staged policies enforced, {packet} would be allowed ({policies}).",
    "deny": "Were the staged policies enforced, {packet} would be denied ({policies}).",
    "unknown": "Whether {packet} would pass were the staged policies enforced cannot be said ({policies}).",
}


def text(one: SecondOpinion, language: Language = ENGLISH) -> str:
    """The whole opinion for a terminal, ending with a newline."""
    lines = [f"{MARKS[one.verdict]} {headline(one, language)}" + (f"   [{one.cluster}]" if one.cluster else "")]
    lines.append(f"  {_kernel(one, f'calico-why why {one.asked}', language)}")
    for walk in one.walks:
        lines += ["", f"  {_title(walk, language)}", *(f"    {line}" for line in _walk(walk, language))]
    if last := _unread(one, language):
        lines += ["", *(f"  {line}" for line in last)]
    return "\n".join(printable(line).rstrip() for line in lines) + "\n"


def slack(one: SecondOpinion, asked_by: str = "", language: Language = ENGLISH, flag: str = "") -> Message:
    """The same as one message. flag: of `/calico why`, which leads to this cluster."""
    paragraphs = [
        [f"*{escape(_title(walk, language))}*", *map(escape, _walk(walk, language))] for walk in one.walks[:SHOWN]
    ]
    if (more := len(one.walks) - SHOWN) > 0:
        command = f"calico-why policy {one.asked}"
        paragraphs.append(
            [escape(language(say("{count} more ways; all of them: {command}", count=more, command=command)))]
        )
    if last := _unread(one, language):
        paragraphs.append([escape(line) for line in last])
    return blocks.policy(
        one.asked,
        headline(one, language),
        SLACK_MARKS[one.verdict],
        paragraphs,
        note=escape(_kernel(one, f"/calico why {one.asked}{flag}", language)),
        asked_by=asked_by,
        cluster=one.cluster,
        language=language,
    )


def document(one: SecondOpinion) -> dict[str, Any]:
    """The contract as plain data; in English."""
    asked = words.parse([one.asked])
    return {
        "version": VERSION,
        "cluster": one.cluster,
        "started": one.started,
        "elapsed_ms": one.elapsed_ms,
        "question": {
            "asked": one.asked,
            "source": one.source,
            "target": one.target,
            "protocol": asked.protocol,
            "port": asked.port,
        },
        "kernel_asked": False,
        "verdict": one.verdict,
        "summary": headline(one),
        "node_port_of": one.node_port_of,
        "unjudged_endpoints": one.unjudged,
        "flows": [_flow(walk) for walk in one.walks],
        "blind": [{"node": blind.node, "look": blind.look, "reason": blind.reason} for blind in one.blind],
        "staged_read": one.staged_read,
    }


def json(one: SecondOpinion) -> str:
    """With two spaces of indentation, ending with a newline."""
    return msgspec.json.format(msgspec.json.encode(document(one)), indent=2).decode() + "\n"


def headline(one: SecondOpinion, language: Language = ENGLISH) -> str:
    """The verdict in one sentence."""
    asked, verdict = words.parse([one.asked]), together(one.walks)
    ends = {"source": one.source, "target": one.target}
    if asked.port:
        sentence = say(OF_A_PORT[verdict], packet=f"{asked.protocol} {asked.port}", **ends)
    else:
        sentence = say(OF_ALL[verdict], **ends)
    if one.unjudged:
        sentence = say(
            "Of the endpoints of {target} {count} were judged and {left} were not. Of those that were: {sentence}",
            target=one.target,
            count=len({walk.target for walk in one.walks}),
            left=one.unjudged,
            sentence=sentence,
        )
    return language(sentence)


def _kernel(one: SecondOpinion, command: str, language: Language) -> str:
    return language(
        say(
            "A second opinion: nothing was sent and the kernel, which decides, was not asked. What it does: {command}",
            command=command,
        )
    )


def _title(walk: PolicyWalk, language: Language) -> str:
    packet = f"{walk.protocol} {walk.port}" if walk.port else say("a ping")
    return language(
        say(
            "{source} to {target} over IPv{family}: {packet}",
            source=walk.source,
            target=walk.target,
            family=walk.family,
            packet=packet,
        )
    )


def _walk(walk: PolicyWalk, language: Language) -> list[str]:
    lines: list[str] = []
    for gate in walk.gates:
        lines += [language(_place(gate.opinion)), *(f"  {language(_step(one))}" for one in gate.steps)]
        lines.append(f"  {language(told(gate.opinion))}")
    lines += map(language, _without_gate(walk))
    return [*lines, *map(language, _together(walk))]


def _place(one: PolicyOpinion) -> str:
    place = say(GATES[f"{one.endpoint_kind} {one.direction}"], endpoint=one.endpoint, node=one.node)
    return say("{place}, which it only passes", place=place) if one.forward else place


def _step(step: PolicyStep) -> str:
    told = say(ENDS[step.end], tier=step.tier, policies=joined(step.policies))
    return say("before all others, {told}", told=told) if step.early else told


def _without_gate(walk: PolicyWalk) -> list[str]:
    """Why no policy stands at an end."""
    if walk.within and "node" in (walk.source_kind, walk.target_kind):
        if walk.source_kind == "node":
            return [say("A node reaches its own pods whatever policies say.")]
        return [say("What a pod sends to its own node is judged where it leaves the pod, and not here any more.")]
    found: list[str] = []
    gated = {(one.opinion.direction, one.opinion.endpoint_kind) for one in walk.gates if not one.opinion.forward}
    for name, kind, direction in (
        (walk.source, walk.source_kind, "egress"),
        (walk.target, walk.target_kind, "ingress"),
    ):
        if kind == "outside":
            found.append(say("{name} is outside of the cluster: no policy stands there.", name=name))
        elif kind == "pod" and (direction, "pod") not in gated:
            found.append(
                say("The labels of {name} could not be read, and with them which policies select it.", name=name)
            )
        elif kind == "node" and (direction, "host") not in gated and not walk.unplaced:
            found.append(say("No host endpoint that is known of stands in the way at {name}.", name=name))
    if walk.unplaced:
        names = joined(walk.unplaced)
        found.append(
            say("Whether host endpoint {names} is in the way only its node knows, which was not asked.", names=names)
        )
    return found


def _together(walk: PolicyWalk) -> list[str]:
    """What passes all gates, and what staged policies would change of it."""
    found: list[str] = []
    if walk.passes:
        found.append(let_pass(walk.source, walk.target, walk.passes))
        if walk.passes.doubtful:
            found.append(say("Whether these pass cannot be said: {packets}.", packets=joined(walk.passes.doubtful)))
    changed = [one.opinion for one in walk.gates if one.opinion.staged]
    found += [say(STAGED[one.staged], packet=kind_of_packet(one), policies=joined(one.staged_by)) for one in changed]
    if walk.staged and walk.passes:
        if _same(walk):
            if not changed:
                names = joined(dict.fromkeys(name for gate in walk.gates for name in gate.opinion.staged_by))
                found.append(say("The staged policies ({names}) would change nothing of what passes.", names=names))
        else:
            then = let_pass(walk.source, walk.target, walk.staged)
            told = then or say("Whether anything would pass cannot be said.")
            found.append(say("Were the staged policies enforced: {told}", told=told))
    return [one for one in found if one]


def _same(walk: PolicyWalk) -> bool:
    now, then = walk.passes, walk.staged
    return bool(now and then and (now.allowed, now.doubtful) == (then.allowed, then.doubtful))


def _unread(one: SecondOpinion, language: Language) -> list[str]:
    lines = [
        f"{blind.node + ': ' if blind.node else ''}{blind.look}: {language(blind.reason, blind.message)}"
        for blind in one.blind
    ]
    if lines:
        lines.insert(0, language(say("could not be read:")))
    if one.node_port_of:
        on_the_way = say(
            "This port is a nodePort of {service}, whose packets get other addresses on the way: ask for {service}.",
            service=one.node_port_of,
        )
        lines.insert(0, language(on_the_way))
    elif not one.walks:
        nothing = say(
            "No way there is known: one end has no address, or both share no family, or no endpoint serves it."
        )
        lines.insert(0, language(nothing))
    if not one.staged_read:
        lines.append(language(say("Staged policies could not all be read: what they would change is not all told.")))
    return lines


# -- for programs ------------------------------------------------------------------------------------------------------


def _flow(walk: PolicyWalk) -> dict[str, Any]:
    return {
        "flow": walk.flow,
        "family": walk.family,
        "source": {"name": walk.source, "kind": walk.source_kind},
        "target": {"name": walk.target, "kind": walk.target_kind},
        "protocol": walk.protocol,
        "port": walk.port,
        "verdict": walk.verdict,
        "text": str(in_turn(_without_gate(walk) + _together(walk))),
        "gates": [_gate(gate) for gate in walk.gates],
        "passes": list(walk.passes.allowed) if walk.passes else None,
        "doubtful": list(walk.passes.doubtful) if walk.passes else None,
        "passes_with_staged": list(walk.staged.allowed) if walk.staged else None,
    }


def _gate(gate: PolicyGate) -> dict[str, Any]:
    one = gate.opinion
    return {
        "endpoint": one.endpoint,
        "endpoint_kind": one.endpoint_kind,
        "node": one.node,
        "direction": one.direction,
        "forward": one.forward,
        "tiers": [_tier(step) for step in gate.steps],
        "verdict": one.verdict,
        "by": one.by,
        "tier": one.tier,
        "policy": {"kind": one.kind, "namespace": one.namespace, "name": one.name} if one.kind else None,
        "rule": one.rule,
        "rule_name": one.rule_name,
        "doubt": one.doubt,
        "text": str(told(one)),
        "staged_verdict": one.staged,
        "staged_policies": list(one.staged_by),
    }


def _tier(step: PolicyStep) -> dict[str, Any]:
    return {"tier": step.tier, "policies": list(step.policies), "end": step.end, "early": step.early}
