"""What a request says of itself, in the words of its kind; without it a card would be English in every language, and a
request that somebody else made could call itself what it is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from facts import say
from fixes.kind import kinds
from fixes.request import CAPTURE, Spec

HEADERS, WHOLE = "headers only", "whole packets"  # the content of a capture


class FixWords(NamedTuple):
    """Each may have been said, and can then be said in another language."""

    title: str
    blast_radius: str
    undo: str


def words_of(spec: Spec) -> FixWords:
    return fix_words(msgspec.to_builtins(spec))


def fix_words(spec: Mapping[str, Any]) -> FixWords:
    """Of the spec of a FixRequest's custom resource: what its kind says of these arguments. What the request itself
    says counts only where its kind, or an argument, is not one of this version."""
    own = FixWords(*(str(spec.get(name) or "") for name in ("title", "blastRadius", "undo")))
    arguments, node = dict(spec.get("arguments") or {}), str(spec.get("node") or "")
    try:
        if spec.get("kind") == CAPTURE:
            return of_capture(arguments)
        kind = kinds()[str(spec.get("kind"))]
        return FixWords(kind.title(arguments, node), kind.blast_radius(arguments, node), kind.undo(arguments, node))
    except (KeyError, ValueError):
        return own


def of_capture(arguments: Mapping[str, str]) -> FixWords:
    """Of a request for a capture (bot.approved_captures). Raises KeyError, ValueError."""
    if arguments["content"] not in (HEADERS, WHOLE):
        raise ValueError(f"{arguments['content']!r} is nothing that is captured")
    whole = arguments["content"] == WHOLE
    what = say("whole packets") if whole else say("packet headers")
    ends = {name: arguments[name] for name in ("source", "target", "port")}
    seconds = f"{float(arguments['seconds']):g}"
    return FixWords(
        say(
            "Capture {what} between {source} and {target}, {port} for {seconds} s"
            if arguments["port"]
            else "Capture {what} between {source} and {target} for {seconds} s",
            what=what,
            seconds=seconds,
            **ends,
        ),
        say(
            "Changes nothing and sends nothing. What the two say to each other, secrets and personal data included, "
            "goes into a file in this thread, which everybody in this channel can download."
            if whole
            else "Changes nothing and sends nothing. Addresses, ports, sizes and times of these packets go into a file "
            "in this thread, which everybody in this channel can download."
        ),
        say("There is nothing to undo. The file can be deleted in Slack, copies of it cannot."),
    )
