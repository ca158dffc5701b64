"""What a kind finds in an answer: the facts a cause rests on, and what Felix would do about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from facts import Cause, Fact, say

F = TypeVar("F", bound=Fact)


def of(kind: type[F], cause: Cause, facts: Sequence[Fact]) -> list[F]:
    """The facts of this kind in the cause's evidence."""
    return [fact for fact in facts if isinstance(fact, kind) and fact.id in cause.evidence]


def first(kind: type[F], cause: Cause, facts: Sequence[Fact]) -> F | None:
    return next(iter(of(kind, cause, facts)), None)


def checked(arguments: dict[str, str], check: Callable[[Mapping[str, str]], object]) -> dict[str, str] | None:
    """The arguments, None where one is not of its form (`check` raises ValueError): its fixer would refuse them."""
    try:
        check(arguments)
    except ValueError:
        return None
    return arguments


def felix(arguments: Mapping[str, str]) -> str:
    """Whether a living Felix does the same, in a sentence. `felix_s`: as Cause.heals_within_s."""
    seconds = arguments.get("felix_s", "-1")
    if seconds in ("", "-1"):
        return say("This is not Felix's business.")
    if seconds == "0":
        return say("Felix never does this by itself.")
    return say("A living Felix does the same within {seconds} s.", seconds=seconds)
