"""Makes the kernel ask anew who has an address; what somebody wrote, or Felix, it would not ask for and so is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from facts import Cause, Fact, Leg, Neighbor, in_turn, say
from fixes import evidence, form
from fixes.kernel import Kernel
from fixes.kind import EvidenceChanged, NodeKind

LEARNED = frozenset({"REACHABLE", "STALE", "DELAY", "PROBE"})


def title(arguments: Mapping[str, str], node: str) -> str:
    return say("Flush the neighbor {address} on {node}", address=arguments["address"], node=node)


def blast_radius(arguments: Mapping[str, str], node: str) -> str:
    return say(
        "{node}, one entry on {device}: the next packet waits until the kernel has asked again.",
        node=node,
        device=arguments["device"],
    )


def undo(arguments: Mapping[str, str], node: str) -> str:
    return in_turn([say("Not needed: the kernel learns the entry anew."), evidence.felix(arguments)])


def propose(cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    """device (no VXLAN device), address, seen (the MAC that is taken for wrong): of the peer's node address by the
    uplink, where the kernel learned another MAC than the peer's own probe read."""
    leg = evidence.first(Leg, cause, facts)
    if leg is None or cause.node != leg.source_node:
        return None
    entries = [
        one
        for one in evidence.of(Neighbor, cause, facts)
        if (one.node, one.address) == (leg.source_node, leg.target_node_address) and one.state in LEARNED
    ]
    if len(entries) != 1:
        return None
    (entry,) = entries
    return evidence.checked({"device": entry.device, "address": entry.address, "seen": entry.mac}, _check)


def holds(kernel: Kernel, arguments: Mapping[str, str]) -> None:
    device, address, seen = _check(arguments)
    link = kernel.device(device)
    if link is None:
        raise EvidenceChanged(f"There is no device {device} any more.")
    if link.kind == "vxlan":
        raise ValueError(f"nothing relearns a neighbor on {device}; replace it (replace_neighbor)")
    entry = kernel.neighbor(device, address)
    if entry is None or not entry.mac:
        raise EvidenceChanged(f"{address} on {device} is unresolved now; it was {seen}.")
    if entry.state not in LEARNED:
        raise EvidenceChanged(f"{address} on {device} is {entry.state}; only an entry the kernel learned is flushed.")
    if entry.mac != seen:
        raise EvidenceChanged(f"{address} on {device} is {entry.mac} now; it was {seen}.")


def preview(kernel: Kernel, arguments: Mapping[str, str]) -> list[str]:
    return by_hand(arguments)


def by_hand(arguments: Mapping[str, str]) -> list[str]:
    device, address, _ = _check(arguments)
    return [f"ip neigh del {address} dev {device}"]


def execute(kernel: Kernel, arguments: Mapping[str, str]) -> None:
    device, address, _ = _check(arguments)
    kernel.delete_neighbor(device, address)


def verify(kernel: Kernel, arguments: Mapping[str, str]) -> tuple[bool, str]:
    """Gone, being asked for, or learned anew as another: all of them are what was wanted."""
    device, address, seen = _check(arguments)
    entry = kernel.neighbor(device, address)
    if entry is None or not entry.mac:
        return True, f"{address} on {device} is asked for anew with the next packet."
    if entry.mac != seen:
        return True, f"{address} on {device} is {entry.mac} now."
    return False, f"{address} on {device} is {seen} ({entry.state}) again: somebody answers with it."


def _check(arguments: Mapping[str, str]) -> tuple[str, str, str]:
    """device, address, seen, each of its own form. Raises ValueError: nothing else may reach a kernel."""
    return form.device(arguments), form.address(arguments), form.mac(arguments, "seen")


KIND = NodeKind(
    name="flush_neighbor",
    title=title,
    blast_radius=blast_radius,
    undo=undo,
    propose=propose,
    holds=holds,
    preview=preview,
    by_hand=by_hand,
    execute=execute,
    verify=verify,
)
