"""Which of several replicas answers what Slack may deliver to each of them; without it a mention whose acknowledgement
was lost would be answered twice.

A claim is a core/v1 Event in the bot's own namespace: its name is made of the delivery, so the API server lets one
replica create it, and forgets it within an hour, long after Slack's last try. Many may read Events, so it has neither
words nor people in it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging

from kubernetes.aio.client.exceptions import ApiException

from fixes.limits import NAME
from fixes.request import GROUP
from fixes.store import FixStore

log = logging.getLogger(__name__)

PATIENCE_S = 2.0  # for which somebody waits longer where the API server is slow


class Claims:
    """Of one replica in one cluster."""

    def __init__(self, store: FixStore, mine: str) -> None:
        """mine: identity of the journal of this replica, by which what was claimed before a restart is known."""
        self._store = store
        self._mine = mine

    async def take(self, delivery: str) -> bool:
        """Whether to answer here: False where another replica has claimed it. Where that cannot be seen in time it is
        answered: twice is better than never. delivery: the event's id."""
        name = f"calico-why-asked-{hashlib.sha256(delivery.encode()).hexdigest()[:32]}"
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._holder(name) == self._mine
        except Exception as error:  # whatever an API server, or what is before it, may answer
            why = str(error.reason) if isinstance(error, ApiException) else str(error) or "it takes too long"
            log.warning("whether another replica answers %s cannot be seen, so it is answered here: %s", delivery, why)
            return True

    async def _holder(self, name: str) -> str:
        """Whose it is now. Raises as the client does."""
        try:
            await self._store.core("POST", "events", body=self._claim(name))
        except ApiException as error:
            if error.status != 409:
                raise
            found = await self._store.core("GET", "events", name)
            return str(found["reportingInstance"])
        return self._mine

    def _claim(self, name: str) -> dict[str, object]:
        """As of events.k8s.io/v1, which asks for more than core/v1 does where `eventTime` is set."""
        namespace = self._store.namespace
        about = {"apiVersion": "v1", "kind": "ConfigMap", "namespace": namespace, "name": NAME}
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
        }
