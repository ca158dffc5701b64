"""Reads objects and says what could not be read; without it a right that is missing would look like nothing there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from bot.sources.api import PAGE, Api, Missing, Refused, Unreachable
from facts import Blind, say

Object = dict[str, Any]


class Reader:
    """What is read of one API server. look: what a Blind calls it."""

    def __init__(self, api: Api) -> None:
        self.api = api

    async def optional(self, path: str, look: str, blind: list[Blind], *, node: str = "") -> Object | None:
        """One object; None when there is none, or (with a Blind added) when it cannot be read."""
        try:
            return await self.api.get(path)
        except Missing:
            return None
        except (Refused, Unreachable) as error:
            blind.append(Blind(node=node, look=look, reason=error.reason))
            return None

    async def listed(self, path: str, look: str, blind: list[Blind], **query: str | int) -> list[Object] | None:
        """One page of a list; None (with a Blind added) when it cannot be read."""
        try:
            return list((await self.api.get(path, **{"limit": PAGE, **query})).get("items") or ())
        except (Missing, Refused, Unreachable) as error:
            missing = say("the API server has no {look}", look=look)
            blind.append(Blind(look=look, reason=getattr(error, "reason", missing)))
            return None

    async def everything(self, path: str, look: str, blind: list[Blind]) -> list[Object] | None:
        """A whole list, page by page: only for what must be counted."""
        try:
            return await self.api.pages(path)
        except (Missing, Refused, Unreachable) as error:
            missing = say("the API server has no {look}", look=look)
            blind.append(Blind(look=look, reason=getattr(error, "reason", missing)))
            return None


async def together(*looks: Coroutine[Any, Any, Any]) -> list[Any]:
    """All at once; the first error ends the others and is raised as itself."""
    tasks = [asyncio.ensure_future(look) for look in looks]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def labels(resource: Object) -> Object:
    return (resource.get("metadata") or {}).get("labels") or {}


def spec(resource: Object | None) -> Object:
    return dict((resource or {}).get("spec") or {})
