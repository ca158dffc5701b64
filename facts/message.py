"""A sentence that can still be said in another language; without it every language would need rules of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """An English sentence with names in braces, and what goes into them: text, or a sentence of its own."""

    template: str
    values: tuple[tuple[str, str | Message], ...] = ()

    def __str__(self) -> str:
        return self.template.format_map({name: str(value) for name, value in self.values})


class Text(str):
    """The English sentence of a Message: text everywhere, and nowhere without its parts."""

    message: Message


def say(template: str, /, **values: Any) -> Text:
    """`say("{node} has no route to {address}.", node=..., address=...)`.

    The template is what catalogues of other languages are looked up by, so nothing of the cluster may stand in it.
    A value may be what another `say` returned, or its Message. Raises KeyError for a name without a value.
    """
    told = tuple((name, _part(value)) for name, value in values.items())
    message = Message(template=template, values=told)
    text = Text(message)
    text.message = message
    return text


def _part(value: Any) -> str | Message:
    if isinstance(value, Message):
        return value
    return value.message if isinstance(value, Text) else str(value)


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`: a value for `say`. Raises IndexError for none."""
    if len(names) == 1:
        return names[0]
    return say("{names} and {last}", names=joined(names[:-1]), last=names[-1])


def joined(parts: Iterable[str]) -> str:
    """`a, b, c` of what may itself have been said: a value for `say`. "" for none."""
    found = ""
    for part in parts:
        found = say("{first}, {next}", first=found, next=part) if found else part
    return found


def in_turn(sentences: Iterable[str]) -> str:
    """Whole sentences one after the other; "" for none."""
    found = ""
    for sentence in filter(None, sentences):
        found = say("{first} {next}", first=found, next=sentence) if found else sentence
    return found


def kept(sentence: str) -> tuple[str, Message | None]:
    """The sentence as plain text, which JSON can carry, and what it was before it was put into English."""
    return str(sentence), sentence.message if isinstance(sentence, Text) else None
