"""Which of several replicas answers what Slack may deliver to each of them; without it a mention whose acknowledgement
was lost would be answered twice, or never.

A claim is a core/v1 Event in the bot's own namespace: its name is made of the delivery, so the API server lets one
replica create it, and forgets it within an hour, long after Slack's last try. It names the pod of who has it, and a
second Event says that it is answered: a pod that is no more will not do it. Many may read Events, so they have neither
words nor people in them.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import Any

import aiohttp
from kubernetes.aio.client.exceptions import ApiException

from fixes.limits import NAME
from fixes.request import GROUP, moment
from fixes.store import FixStore, StoreError

log = logging.getLogger(__name__)

PATIENCE_S = 2.0  # for which somebody waits longer where the API server is slow
LOOK_EVERY_S = 30.0
LOOKS = 30  # a quarter of an hour: a node that is gone is given up after some six minutes, and its pods a minute later


class Claims:
    """Of one replica in one cluster."""

    def __init__(self, store: FixStore, mine: str) -> None:
        """mine: identity of the journal of this replica, by which what was claimed before a restart is known."""
        self._store = store
        self._mine = mine
        self._pod: tuple[str, str] | None = None  # name and uid, "" where it is in none of this cluster

    async def know_itself(self) -> None:
        """By which pod others see that this one is there. Never raises."""
        while self._pod is None:
            try:
                self._pod = await self._store.own_pod()
            except StoreError as error:
                log.warning("which pod this is cannot be seen, so nobody takes over from it: %s", error.sentence)
                if not error.gone:
                    return
                await asyncio.sleep(LOOK_EVERY_S)

    async def take(self, delivery: str) -> bool:
        """Whether to answer here: False where another replica has claimed it. Where that cannot be seen in time it is
        answered: twice is better than never. delivery: the event's id."""
        name = _name("asked", delivery)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return bool((await self._claimed(name))["reportingInstance"] == self._mine)
        except Exception as error:  # whatever an API server, or what is before it, may answer
            log.warning(
                "whether another replica answers %s cannot be seen, so it is answered here: %s", delivery, _why(error)
            )
            return True

    async def answered(self, delivery: str) -> None:
        """Nobody has to take it over any more. Never raises."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._claimed(_name("told", delivery))
        except Exception as error:  # as above
            log.warning("that %s is answered cannot be written down: %s", delivery, _why(error))

    async def left(self, delivery: str) -> bool:
        """Whether who has claimed it is no more and has not answered it; then it is claimed here. Looks for a quarter
        of an hour, and never at how long it takes: what is looked into by a pod that is there is not taken over."""
        for _ in range(LOOKS):
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                claim = await self._get("events", _name("asked", delivery))
                holder = (claim or {}).get("related")
                if not holder or await self._get("events", _name("told", delivery)):
                    return False
                if await self._gone(holder):
                    return await self.take(f"{delivery} left by {holder['uid']}")
            except (ApiException, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("whether who answers %s is there cannot be seen: %s", delivery, _why(error))
        return False

    async def _gone(self, holder: dict[str, Any]) -> bool:
        """Its journal goes with its pod, and not with its container."""
        pod = await self._get("pods", holder["name"])
        if pod is None or pod["metadata"]["uid"] != holder["uid"]:
            return True
        until = pod["metadata"].get("deletionTimestamp")  # of a node that does not answer it stays
        ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        return ended or bool(until and moment(until) < self._store.now())

    async def _get(self, plural: str, name: str) -> dict[str, Any] | None:
        """None where there is none. Raises as the client does."""
        try:
            return await self._store.core("GET", plural, name)
        except ApiException as error:
            if error.status != 404:
                raise
            return None

    async def _claimed(self, name: str) -> dict[str, Any]:
        """The Event of this name, made here where there was none. Raises as the client does."""
        try:
            return await self._store.core("POST", "events", body=self._event(name))
        except ApiException as error:
            if error.status != 409:
                raise
            return await self._store.core("GET", "events", name)

    def _event(self, name: str) -> dict[str, Any]:
        """As of events.k8s.io/v1, which asks for more than core/v1 does where `eventTime` is set."""
        namespace = self._store.namespace
        about = {"apiVersion": "v1", "kind": "ConfigMap", "namespace": namespace, "name": NAME}
        pod, uid = self._pod or ("", "")
        related = {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": pod, "uid": uid}
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": about,
            "type": "Normal",
            "reason": "Asked",
            "action": "Answer",
            "message": "One replica of the bot answers a mention in Slack.",
            "eventTime": self._store.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingComponent": f"{GROUP}/bot",
            "reportingInstance": self._mine,
            **({"related": related} if pod else {}),
        }


def _name(what: str, delivery: str) -> str:
    return f"calico-why-{what}-{hashlib.sha256(delivery.encode()).hexdigest()[:32]}"


def _why(error: Exception) -> str:
    return str(error.reason) if isinstance(error, ApiException) else str(error) or "it takes too long"
