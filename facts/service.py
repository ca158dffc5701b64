"""Calico's own programs on a node and behind it; a path can be well while nobody looks after it any more."""

from __future__ import annotations

from facts.fact import Fact

SETTLED_S = 60  # then calico-node as a whole has started
YOUNG_S = 5


class CalicoService(Fact, frozen=True, kw_only=True):
    """One program of calico-node, as the node's process table shows it: `ps`, and again while it is young or gone."""

    node: str
    service: str  # "felix" | "node-services" | "bird"
    seen: bool  # False: the probe sees no process of Calico on this node, so it cannot say anything of this one
    running: bool = False  # at the last look
    supervised: bool = False  # a runsv stands behind it: it ought to run
    starts: int = 0  # different processes met
    watched_ms: int = 0  # between the first look and the last
    age_s: int = -1  # of the first process met, at the first look
    supervisor_age_s: int = -1  # of what starts it: young where all of calico-node has just started
    applies: int = -1  # Felix's counter of applied changes, where it has metrics
    still_s: int = 0  # for how long the same process has been known to stand at that number

    @property
    def loops(self) -> bool:
        """Does it die again and again? One restart is how Felix takes a new setting, and its first start has two."""
        settled = self.supervisor_age_s >= SETTLED_S
        return self.starts >= 3 or (self.starts == 2 and 0 <= self.age_s < YOUNG_S and settled)


class Typha(Fact, frozen=True, kw_only=True):
    """The cache between Felix and the API server; only where calico-node is told to use one."""

    service: str  # namespace/name
    ready: int  # addresses that are ready behind it
    addresses: int  # all of them


class GarbageCollector(Fact, frozen=True, kw_only=True):
    """calico-kube-controllers, which frees leaked addresses. Looked at only where some have leaked."""

    running: bool
    name: str = ""  # namespace/name of its pod; "" when there is none
    reason: str = ""  # why it does not run
    grace_s: int = 900  # leakGracePeriod; 0: it frees none
    unavailable: int = -1  # calico-node pods of its namespace's DaemonSet that are not available; -1: not known
