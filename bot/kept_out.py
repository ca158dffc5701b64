"""Says which host endpoint keeps the question away from a node's own probe; without it a person would look for a dead
node, or a broken probe, where a policy forgot one port."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bot.errors import UserError
from bot.sources.kubernetes import Cluster
from bot.sources.policies import policies
from engine.opinions import kept_out
from engine.policy import Packet
from facts import Blind, Fact, PoliciesRead, say

PATIENCE_S = 1.0  # as long as a healthy answer waits for the policies


async def by_policies(cluster: Cluster, known: Sequence[Fact], seen: Sequence[Fact], port: int) -> list[Blind]:
    """A minor Blind for each host endpoint that lets nobody in to a probe that was not reached.

    port: where probes listen. It must not cost the answer it stands beside: what cannot be read says nothing.
    """
    silent = list(dict.fromkeys(one.node for one in seen if isinstance(one, Blind) and one.look == "probe"))
    if not silent:
        return []
    facts = [*known, *seen]
    if not any(isinstance(one, PoliciesRead) for one in seen):
        try:
            facts += await asyncio.wait_for(policies(cluster, known), PATIENCE_S)
        except (UserError, TimeoutError):
            return []
    return [
        Blind(node=node, look="policies", reason=reason, minor=True)
        for node in silent
        for reason in await asyncio.to_thread(_reasons, facts, node, Packet("tcp", port))
    ]


def _reasons(facts: Sequence[Fact], node: str, packet: Packet) -> list[str]:
    return [
        say("what listens there is not reached, and by the policies in the API nobody is let in: {said}", said=said)
        for said in kept_out(facts, node, packet)
    ]
