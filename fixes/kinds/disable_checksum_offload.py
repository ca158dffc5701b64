"""Lets the kernel sum up what a tunnel sends where a card or its driver sums wrongly: TCP and UDP pass again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from facts import Cause, Fact, Leg, say
from fixes import evidence, form
from fixes.kernel import Kernel
from fixes.kind import EvidenceChanged, NodeKind
from fixes.offload import SUMS


def title(arguments: Mapping[str, str], node: str) -> str:
    return say("Turn off checksum offload of {device} on {node}", device=arguments["device"], node=node)


def blast_radius(arguments: Mapping[str, str], node: str) -> str:
    return say(
        "{node}, all that it sends by {device}: the kernel sums it up, which costs the node's processors some of their "
        "time. It lasts until the device is made anew.",
        node=node,
        device=arguments["device"],
    )


def undo(arguments: Mapping[str, str], node: str) -> str:
    return say(
        "{command}. Felix does it only where featureDetectOverride says ChecksumOffloadBroken=true, and then for good.",
        command=f"ethtool -K {arguments['device']} {SUMS} on",
    )


def propose(cause: Cause, facts: Sequence[Fact]) -> dict[str, str] | None:
    """device, its vni. Where it is only suspected, nothing is proposed."""
    leg = evidence.first(Leg, cause, facts)
    if leg is None or cause.node != leg.source_node or cause.severity != "breaks":
        return None
    if leg.encapsulation != "vxlan" or leg.expected_device != leg.tunnel_device:
        return None
    arguments = {"device": leg.tunnel_device, "vni": str(leg.vni)}
    return evidence.checked(arguments, _check)


def holds(kernel: Kernel, arguments: Mapping[str, str]) -> None:
    device = _check(arguments)
    tunnel = kernel.device(device)
    if tunnel is None:
        raise EvidenceChanged(f"There is no device {device} any more.")
    if (tunnel.kind, str(tunnel.vni)) != ("vxlan", arguments["vni"]):
        raise EvidenceChanged(f"{device} is not the VXLAN device with VNI {arguments['vni']} any more.")
    if not kernel.sums(device):
        raise EvidenceChanged(f"{SUMS} of {device} is off already: somebody else spoils the sums.")


def preview(kernel: Kernel, arguments: Mapping[str, str]) -> list[str]:
    return by_hand(arguments)


def by_hand(arguments: Mapping[str, str]) -> list[str]:
    return [f"ethtool -K {_check(arguments)} {SUMS} off"]


def execute(kernel: Kernel, arguments: Mapping[str, str]) -> None:
    kernel.stop_sums(_check(arguments))


def verify(kernel: Kernel, arguments: Mapping[str, str]) -> tuple[bool, str]:
    device = _check(arguments)
    if kernel.device(device) is None:
        return False, f"There is no device {device}."
    if kernel.sums(device):
        return False, f"{SUMS} of {device} is on."
    return True, f"{SUMS} of {device} is off now; ask again whether it helps."


def _check(arguments: Mapping[str, str]) -> str:
    """device, of its own form. Raises ValueError: nothing else may reach a kernel."""
    form.number(arguments, "vni")
    return form.device(arguments)


KIND = NodeKind(
    name="disable_checksum_offload",
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
