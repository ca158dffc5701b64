"""Without this file a probe and a bot of different versions could not exchange what they saw."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec

from facts.message import Message, kept


class Fact(msgspec.Struct, frozen=True, kw_only=True, tag_field="fact", tag=True, dict=True):
    """One thing somebody saw, or looked for and did not find. Flat and JSON-safe; equal facts are one fact.

    A field that could not be known is "" (text), -1 (number) or an empty tuple. `found=False`: looked, not there.
    """

    kinds: ClassVar[dict[str, type[Fact]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__name__ in Fact.kinds and Fact.kinds[cls.__name__].__module__ != cls.__module__:
            raise TypeError(f"two facts are called {cls.__name__}")
        Fact.kinds[cls.__name__] = cls

    @functools.cached_property
    def id(self) -> str:
        """A digest of the content, such as `neighbor-3f2a91c07b`: the same fact has the same id on every machine."""
        digest = hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()
        return f"{type(self).__name__.lower()}-{digest[:10]}"


class Blind(Fact, frozen=True, kw_only=True):
    """A look that could not be made. Not looking is never "not there"."""

    node: str = ""  # the node that was to be looked at; "" for the API server or the engine
    look: str  # what could not be looked at: a collector, a resource, "probe", "engine"
    reason: str  # a sentence for a person
    minor: bool = False  # only warnings would have come of it: a path can be healthy all the same
    late: bool = False  # time was up before it was done: who gives it longer may hear
    message: Message | None = None  # the reason, before it was put into English; `say` gives both

    def __post_init__(self) -> None:
        reason, message = kept(self.reason)
        if message is not None:
            msgspec.structs.force_setattr(self, "reason", reason)
            msgspec.structs.force_setattr(self, "message", message)


def encode(facts: Iterable[Fact]) -> bytes:
    """JSON list of facts, each an object with its kind under "fact"."""
    return msgspec.json.encode(list(facts))


def decode(data: bytes, *, node: str = "") -> list[Fact]:
    """Facts from `encode`. A kind this version does not know, or a fact that does not validate, becomes a `Blind`.

    Raises msgspec.DecodeError when `data` is not a JSON list of objects at all.
    """
    return [from_builtins(one, node=node) for one in msgspec.json.decode(data, type=list[dict[str, Any]])]


def from_builtins(one: dict[str, Any], *, node: str = "") -> Fact:
    """One fact from its plain dictionary; unknown or broken ones become `Blind`."""
    kind = str(one.get("fact", ""))
    if kind not in Fact.kinds:
        return Blind(node=node, look=kind or "fact", reason=f"this version does not know the fact {kind or one!r}")
    try:
        return msgspec.convert(one, Fact.kinds[kind])
    except msgspec.ValidationError as error:
        return Blind(node=node, look=kind, reason=f"a {kind} that does not validate: {error}")
