"""Two wounds in one cluster: which pairs people meet, and what one hides of the other; without it one fault is all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from facts import Fact, from_builtins
from lab.faults import load

CASES = Path(__file__).parent / "cases"
HEALTHY = Path(__file__).parent / "healthy.json"
Plain = Mapping[str, Any]  # a fact as JSON has it
Key = tuple[Any, ...]

# The fifteen: what no Felix repairs and so is still there when people ask, and the runbook's own steps.
MODES = (
    "reverse_path_filter_drops",  # hardening scripts; first, because the lab makes other pools for it
    "pool_disabled",  # somebody edited the pool: everybody's tunnels
    "tunnel_address_missing",  # restored datastores, released addresses
    "allocation_owner_mismatch",  # the same, for a pod
    "pod_ip_duplicate",
    "ip_forwarding_off",
    "node_without_default_route",  # network managers
    "foreign_route_to_pod",  # routing daemons, other network plugins
    "routing_rule_diverts",
    "proxy_arp_off",
    "path_mtu_too_small",  # the network between
    "underlay_neighbor_wrong",
    "target_not_listening",  # the application, the most common of all
    "vxlan_device_down",  # the runbook's second step
    "neighbor_wrong_mac",  # the runbook's fifth
)


_NO_PACKET = "no packet passes, so which sizes pass cannot be known before the other wound is healed"
_NO_ADDRESS = "entries of the neighbor table are for tunnel addresses; a peer without one has none that could be wrong"
_NOT_NEEDED = "with the pools that make the filter drop, packets to the other node need no tunnel, nor its address"
# (what is named, what is not) -> why one of two wounds is rightly not named. All others must be.
HIDDEN = {
    **{
        (mode, "path_mtu_too_small"): _NO_PACKET
        for mode in (
            "reverse_path_filter_drops", "pool_disabled", "tunnel_address_missing", "ip_forwarding_off",
            "node_without_default_route", "foreign_route_to_pod", "routing_rule_diverts", "proxy_arp_off",
            "underlay_neighbor_wrong", "vxlan_device_down", "neighbor_wrong_mac",
        )
    },
    ("pool_disabled", "tunnel_address_missing"): "a disabled pool is why it is missing, and the pool brings it back",
    ("pool_disabled", "neighbor_wrong_mac"): _NO_ADDRESS,
    ("tunnel_address_missing", "neighbor_wrong_mac"): _NO_ADDRESS,
    ("reverse_path_filter_drops", "tunnel_address_missing"): _NOT_NEEDED,
}  # fmt: skip
# Pairs whose facts are more than the sum of two recordings: what one does to the pools decides what Felix makes of the
# other. `make score` judges them in the lab.
NOT_COMPOSED = {
    frozenset({"reverse_path_filter_drops", other})
    for other in ("pool_disabled", "tunnel_address_missing", "allocation_owner_mismatch")
}


@dataclass(frozen=True)
class Wounded:
    """A failure mode on the source's or the target's node."""

    mode: str
    where: str

    def __str__(self) -> str:
        return f"{self.mode}@{self.where}"


def pairs(modes: Sequence[str] = MODES) -> Iterator[tuple[Wounded, Wounded]]:
    """Every two modes on different nodes, both ways round where both can be; what concerns the whole cluster has no
    node and goes with either."""
    for one, two in combinations(modes, 2):
        for here, there in (("source", "target"), ("target", "source")):
            if here in load(one).WHERE and there in load(two).WHERE:
                yield Wounded(one, here), Wounded(two, there)
        if load(one).WHERE == load(two).WHERE == ("source",):
            yield Wounded(one, "source"), Wounded(two, "source")


def expected(one: Wounded, two: Wounded) -> set[str]:
    """The failure modes an answer must name, no more and no less."""
    both = {one.mode, two.mode}
    return both - {hidden for seen, hidden in HIDDEN if {seen, hidden} == both}


# ---- composed from two recordings

RESOLVED = ("REACHABLE", "STALE", "DELAY", "PROBE")  # which of them is a matter of seconds

# What tells two facts of a kind apart; the other fields are what was seen.
IDENTITY = {
    "Allocation": ("address",),
    "CalicoNode": ("name", "family"),
    "CalicoPod": ("node",),
    "CalicoSettings": (),
    "AddressHolders": ("address",),
    "Endpoint": ("name",),
    "FdbEntry": ("node", "device", "mac"),
    "FelixHealth": ("node",),
    "ForeignVxlans": ("node",),
    "Link": ("node", "device"),
    "LinkAddresses": ("node", "device", "family"),
    "Listener": ("node", "pod", "protocol", "port"),
    "MacSharers": ("node", "device", "mac"),
    "Neighbor": ("node", "device", "address"),
    "NeighborTable": ("node", "family"),
    "NodeAddress": ("node", "address"),
    "PodInterface": ("node", "pod", "family"),
    "PodRoute": ("node", "pod", "destination"),
    "Pool": ("name",),
    "ProbeResult": ("node", "pod", "target_address", "protocol", "port", "size"),
    "RouteLookup": ("node", "destination", "source", "incoming"),
    "RoutingRules": ("node", "family"),
    "Sighting": ("node", "way", "source_address", "target_address"),
    "Sysctl": ("node", "name"),
}


def composed(healthy: Sequence[Plain], one: Sequence[Plain], two: Sequence[Plain]) -> list[Fact]:
    """What would be seen with both wounds: what each changed of the healthy lab. Where both changed the same field the
    second's stands, as it was inflicted last; of packets the fewer come back, or are seen."""
    base = _by_identity(healthy)
    first, second = (_by_identity(_with_macs_of(healthy, facts)) for facts in (one, two))
    merged = [_merged(base.get(key), first.get(key), second.get(key)) for key in {**base, **first, **second}]
    return [from_builtins(dict(fact)) for fact in merged if fact is not None]


def _merged(base: Plain | None, one: Plain | None, two: Plain | None) -> Plain | None:
    if one == two or two == base:
        return one
    if one == base or one is None or two is None or base is None:
        return two
    if base["fact"] == "RouteLookup" or one.get("found") != two.get("found"):  # one answer of the kernel, or none
        return two
    if base["fact"] == "Sighting":
        return min(two, one, key=lambda fact: int(fact["seen"]))
    if base["fact"] == "ProbeResult":
        return min(two, one, key=lambda fact: (fact["answered"], fact["outcome"] == "refused"))
    changed = {name: value for name, value in two.items() if value != base.get(name)}
    return {**one, **changed}


def _by_identity(facts: Sequence[Plain]) -> dict[Key, Plain]:
    """A kind that is not in the table is told apart by all that it says."""
    found: dict[Key, Plain] = {}
    for fact in facts:
        names = IDENTITY.get(fact["fact"], tuple(fact))
        told = {**fact, "state": RESOLVED[0]} if fact.get("state") in RESOLVED else fact
        found[fact["fact"], *(str(fact.get(name)) for name in names)] = told
    return found


def _with_macs_of(healthy: Sequence[Plain], facts: Sequence[Plain]) -> list[Plain]:
    """The kernel gives pods other MACs in every lab: that is no difference."""
    macs = {fact["pod"]: fact["pod_mac"] for fact in healthy if fact["fact"] == "PodInterface"}
    text = json.dumps(facts)
    for fact in facts:
        if fact["fact"] == "PodInterface" and fact["pod_mac"] and fact["pod"] in macs:
            text = text.replace(str(fact["pod_mac"]), macs[fact["pod"]])
    found: list[Plain] = json.loads(text)
    return found


def recorded(wounded: Wounded) -> list[Plain]:
    """The facts of tests/cases for that wound."""
    case = json.loads((CASES / f"{wounded.mode}.json").read_text())
    facts: list[Plain] = next(one["facts"] for one in case["recordings"] if one["where"] == wounded.where)
    return facts


def recorded_healthy() -> list[Plain]:
    facts: list[Plain] = json.loads(HEALTHY.read_text())["recordings"][0]["facts"]
    return facts
