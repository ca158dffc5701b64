"""Sets one of the few switches a pod's packets depend on, and only to the value they need; Felix never looks again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from facts import Cause, Fact, Leg, RouteLookup, Sysctl, in_turn, say
from facts.sysctl import typed
from fixes import evidence, form
from fixes.kernel import Kernel
from fixes.kind import EvidenceChanged, NodeKind

# The whole list: each switch and the one value it may get.
OF_THE_NODE = {"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"}
OF_A_DEVICE = {
    "ipv4": {"forwarding": "1", "proxy_arp": "1", "rp_filter": "2"},
    "ipv6": {"disable_ipv6": "0"},
}
DEVICE_SWITCH = re.compile(r"net\.(?P<family>ipv4|ipv6)\.conf\.(?P<device>.+)\.(?P<switch>[a-z0-9_]+)")
STRICT = 1
TUNNELS = ("vxlan", "ipip", "wireguard")
EVERYWHERE = ("all", "default")

BLAST = {
    "net.ipv4.ip_forward": "{node}: every device of it forwards IPv4, not only the pods'.",
    "net.ipv6.conf.all.forwarding": "{node}: every device of it forwards IPv6, and where accept_ra is 1 it stops "
    "taking its default route from router advertisements.",
    "disable_ipv6": "{node}, {device}: the kernel takes and sends IPv6 there again, which is broken now. Its addresses "
    "and routes of it are Felix's to put back.",
    "forwarding": "{node}, packets that come in by {device}.",
    "proxy_arp": "{node}, {device}: it answers the pod's question for its gateway, which nobody answers now.",
    "rp_filter": "{node}, packets that come in by {device}: their way back need no longer be the same device, so a "
    "forged source address is less likely to be refused there.",
}


def title(arguments: Mapping[str, str], node: str) -> str:
    return say("Set {name} to {value} on {node}", name=arguments["name"], value=arguments["value"], node=node)


def blast_radius(arguments: Mapping[str, str], node: str) -> str:
    name, _, device, _ = _check(arguments)
    return say(BLAST[name if name in BLAST else name.rpartition(".")[2]], node=node, device=device)


def undo(arguments: Mapping[str, str], node: str) -> str:
    name, _, device, _ = _check(arguments)
    said = say("{command}.", command=f"sysctl -w {typed(name, device)}={arguments['seen']}")
    return in_turn([said, evidence.felix(arguments)])


def propose(cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    """name (in dotted form), value, seen, felix_s: the one switch that is in the way. Of several none is proposed."""
    leg = evidence.first(Leg, cause, facts)
    if leg is None:
        return None
    found = _strict(cause, facts) or _off(leg, cause, facts) if cause.node == leg.source_node else _strict(cause, facts)
    if found is None:
        return None
    name, value, seen = found
    arguments = {"name": name, "value": value, "seen": seen, "felix_s": str(cause.heals_within_s)}
    return evidence.checked(arguments, _check)


def _strict(cause: Cause, facts: Sequence[Fact]) -> tuple[str, str, str] | None:
    """The filter that refused the packets where they came in."""
    names = {
        f"net.ipv4.conf.{one.incoming}.rp_filter"
        for one in evidence.of(RouteLookup, cause, facts)
        if one.node == cause.node and one.incoming and not one.found and one.rp_filter == STRICT
    }
    return (names.pop(), OF_A_DEVICE["ipv4"]["rp_filter"], str(STRICT)) if len(names) == 1 else None


def _off(leg: Leg, cause: Cause, facts: Sequence[Fact]) -> tuple[str, str, str] | None:
    """name, value, seen of a switch that lets nothing pass."""
    switches = [one for one in evidence.of(Sysctl, cause, facts) if one.node == cause.node and one.found]
    without = {one.name for one in switches if (one.switch, one.value) == ("disable_ipv6", "1")}
    if without:
        return (without.pop(), "0", "1") if len(without) == 1 else None
    entries = [leg.source_interface] + [leg.tunnel_device] * (leg.encapsulation in TUNNELS)
    off = [one for one in switches if one.value == "0" and (one.name in OF_THE_NODE or one.device in entries)]
    whole = [one for one in off if one.name in OF_THE_NODE]  # it sets those of the devices with itself
    unlike = [f"net.ipv4.conf.{device}.forwarding" for one in switches for device in one.unlike]
    names = [one.name for one in whole] or [one.name for one in off] or unlike
    return (names[0], "1", "0") if len(names) == 1 else None


def holds(kernel: Kernel, arguments: Mapping[str, str]) -> None:
    name, value, _, path = _check(arguments)
    now = _now(kernel, path)
    if now is None:
        raise EvidenceChanged(f"There is no {name} any more.")
    if now == value:
        raise EvidenceChanged(f"{name} is {value} already; there is nothing left to do.")
    if now != arguments["seen"]:
        raise EvidenceChanged(f"{name} is {now} now; it was {arguments['seen']}.")


def preview(kernel: Kernel, arguments: Mapping[str, str]) -> list[str]:
    return by_hand(arguments)


def by_hand(arguments: Mapping[str, str]) -> list[str]:
    name, value, device, _ = _check(arguments)
    return [f"sysctl -w {typed(name, device)}={value}"]


def execute(kernel: Kernel, arguments: Mapping[str, str]) -> None:
    _, value, _, path = _check(arguments)
    kernel.set_sysctl(path, value)


def verify(kernel: Kernel, arguments: Mapping[str, str]) -> tuple[bool, str]:
    name, value, _, path = _check(arguments)
    now = _now(kernel, path)
    if now == value:
        return True, f"{name} is {value} now."
    return False, f"{name} is {now}; it should be {value}." if now is not None else f"There is no {name}."


def _now(kernel: Kernel, path: str) -> str | None:
    """Its value; of the reverse path filter what is in effect there, which is the larger one of it and that of all."""
    own = kernel.sysctl(path)
    if own is None or not path.endswith("/rp_filter"):
        return own
    return max(own, kernel.sysctl("net/ipv4/conf/all/rp_filter") or "0")


def _check(arguments: Mapping[str, str]) -> tuple[str, str, str, str]:
    """name, value, device ("" for the node's), path below /proc/sys. Raises ValueError for all not on the list."""
    name, value = arguments.get("name", ""), arguments.get("value", "")
    if form.number(arguments, "seen") > 2:
        raise ValueError(f"{arguments['seen']!r} is not the value of such a switch")
    if name in OF_THE_NODE:
        needed, device, path = OF_THE_NODE[name], "", name.replace(".", "/")
    else:
        found = DEVICE_SWITCH.fullmatch(name)
        if found is None or found["switch"] not in OF_A_DEVICE[found["family"]] or found["device"] in EVERYWHERE:
            raise ValueError(f"{name!r} is not one of the switches that may be set")
        device = form.device(found.groupdict())
        needed = OF_A_DEVICE[found["family"]][found["switch"]]
        path = f"net/{found['family']}/conf/{device}/{found['switch']}"
    if value != needed:
        raise ValueError(f"{value!r} is not the value {name} may get, which is {needed}")
    return name, value, device, path


KIND = NodeKind(
    name="set_sysctl",
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
