"""Streams what happens to objects; without it every client would have to poll."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from lab.apiserver.errors import ApiError, Object
from lab.apiserver.registry import Resource
from lab.apiserver.selectors import Selector
from lab.apiserver.store import Event, Store

# A client that far behind is let go; it lists and watches again.
_LONGEST_QUEUE = 20_000
_BOOKMARK_SECONDS = 60.0
_INITIAL_EVENTS_END = "k8s.io/initial-events-end"


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """What is watched. `since` None: everything there is comes first, as ADDED."""

    resource: Resource
    namespace: str
    selector: Selector
    since: int | None
    timeout_s: float
    bookmarks: bool
    mark_initial: bool


class Watcher:
    """One stream of (type, object), as the client's selection sees it."""

    def __init__(self, store: Store, options: WatchOptions) -> None:
        self._store = store
        self._options = options
        self._queue: asyncio.Queue[tuple[str, Object] | None] = asyncio.Queue()

    def close(self) -> None:
        self._queue.put_nowait(None)

    async def events(self) -> AsyncIterator[tuple[str, Object]]:
        """Until the timeout, `close`, or a client too slow. An expired `since` is an ERROR event, and the last."""
        options = self._options
        loop = asyncio.get_running_loop()
        ends = loop.time() + options.timeout_s
        unsubscribe = self._store.subscribe(self._heard, options.resource)
        try:
            try:
                self._begin()
            except ApiError as error:
                yield "ERROR", error.body()
                return
            while True:
                remaining = ends - loop.time()
                if remaining <= 0:
                    break
                try:
                    entry = await asyncio.wait_for(self._queue.get(), min(remaining, _BOOKMARK_SECONDS))
                except TimeoutError:
                    if options.bookmarks:
                        yield "BOOKMARK", self._bookmark()
                    continue
                if entry is None:
                    return
                yield entry
        finally:
            unsubscribe()

    def _begin(self) -> None:
        options = self._options
        if options.since is None:
            for obj in self._store.view(options.resource, options.namespace or None):
                if options.selector(obj):
                    self._queue.put_nowait(("ADDED", obj))
            if options.mark_initial:
                bookmark = self._bookmark()
                bookmark["metadata"]["annotations"] = {_INITIAL_EVENTS_END: "true"}
                self._queue.put_nowait(("BOOKMARK", bookmark))
            return
        for event in self._store.history(options.resource, options.since):
            self._heard(event)

    def _heard(self, event: Event) -> None:
        options = self._options
        if options.namespace and event.object["metadata"].get("namespace") != options.namespace:
            return
        seen = seen_as(event, options.selector)
        if seen is None:
            return
        if self._queue.qsize() >= _LONGEST_QUEUE:
            self._queue.put_nowait(None)
            return
        self._queue.put_nowait((seen, event.object))

    def _bookmark(self) -> Object:
        resource = self._options.resource
        metadata: Object = {"resourceVersion": str(self._store.version), "creationTimestamp": None}
        return {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}


def seen_as(event: Event, selector: Callable[[Object], bool]) -> str | None:
    """An object that comes to be selected is ADDED for this client, one that ceases to be is DELETED."""
    before = event.previous is not None and selector(event.previous)
    after = event.type != "DELETED" and selector(event.object)
    if after:
        return "MODIFIED" if before else "ADDED"
    return "DELETED" if before else None
