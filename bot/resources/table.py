"""Resources as calicoctl's tables show them; without it who knows those would have to learn others in an incident."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from bot.resources.names import ENDPOINTS, NODES, PROFILES
from fixes.resources.kinds import Object

PADDING, LEAST = 3, 5  # of a column, as calicoctl's
LONGEST = 80  # of networks in one cell

Cell = Callable[[Object], object]


def _at(*path: str, empty: object = "") -> Cell:
    def found(one: Object) -> object:
        value: Any = one
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return empty if value is None else value

    return found


def _joined(*path: str, longest: int = 0) -> Cell:
    def found(one: Object) -> str:
        value = _at(*path)(one)
        parts = [f"{key}={value[key]}" for key in sorted(value)] if isinstance(value, Mapping) else list(value or ())  # type: ignore[call-overload]
        text = ",".join(map(str, parts))
        return text[: longest - 3] + "..." if longest and len(text) > longest else text

    return found


def _number_of(*fields: str) -> Cell:
    return lambda one: sum(len((one.get("spec") or {}).get(field) or ()) for field in fields)


def _bgp_peer_of(one: Object) -> object:
    spec: Object = one.get("spec") or {}
    return spec.get("node") or spec.get("nodeSelector") or "(global)"


def _asn(one: Object) -> object:
    bgp: Object = (one.get("spec") or {}).get("bgp") or {}
    return (bgp.get("asNumber") or f"({one['asNumber']})") if bgp else ""


def _order(one: Object) -> str:
    """As Go prints a float64: 100, 0.5, 1e+06."""
    value = (one.get("spec") or {}).get("order")
    if not isinstance(value, int | float):
        return "<nil>"
    sign, digits, exponent = Decimal(repr(float(value))).normalize().as_tuple()
    power = int(exponent) + len(digits) - 1
    if -4 <= power < 6 or not value:
        return str(int(value)) if float(value).is_integer() else f"{Decimal(repr(float(value))):f}"
    rest = "".join(map(str, digits[1:]))
    return f"{'-' * sign}{digits[0]}{'.' * bool(rest)}{rest}e{'-' if power < 0 else '+'}{abs(power):02d}"


def _pod_selector(one: Object) -> str:
    selector: Object = (one.get("spec") or {}).get("podSelector") or {}
    labels = [f"{key} == '{value}'" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    words = [json.dumps(each, separators=(",", ":")) for each in selector.get("matchExpressions") or ()]
    return " && ".join([*labels, *words]) or "all()"


def _block_of(one: Object) -> object:
    return ",".join(f"{cidr}={count}" for cidr, count in sorted(((one.get("spec") or {}).get("block") or {}).items()))


def _allocated(one: Object) -> str:
    allocations = (one.get("spec") or {}).get("allocations") or []
    return f"{sum(each is not None for each in allocations)}/{len(allocations)}"


NAME = ("NAME", _at("metadata", "name"))
NAMESPACE = ("NAMESPACE", _at("metadata", "namespace"))
_TIER = ("TIER", _at("spec", "tier"))
_ORDER = ("ORDER", _order)
_SELECTOR = ("SELECTOR", _at("spec", "selector"))
_NETS = ("NETS", _joined("spec", "nets", longest=LONGEST))
_IPAM = (NAME, ("STRICTAFFINITY", _at("spec", "strictAffinity", empty=False)),
         ("AUTOALLOCATEBLOCKS", _at("spec", "autoAllocateBlocks", empty=False)))  # fmt: skip
_BGP = (NAME, ("LOGSEVERITY", _at("spec", "logSeverityScreen")),
        ("MESHENABLED", _at("spec", "nodeToNodeMeshEnabled", empty="-")),
        ("ASNUMBER", lambda one: _at("spec", "asNumber")(one) or "-"))  # fmt: skip
_WORKLOAD = (("WORKLOAD", _at("spec", "pod")), ("NODE", _at("spec", "node")),
             ("NETWORKS", _joined("spec", "ipNetworks")), ("INTERFACE", _at("spec", "interfaceName")))  # fmt: skip
_PEER = (
    NAME,
    ("PEERIP", _at("spec", "peerIP")),
    ("NODE", _bgp_peer_of),
    ("ASN", _at("spec", "asNumber", empty=0)),
)
_ABOUT = (
    NAME,
    ("CLUSTERGUID", _at("spec", "clusterGUID")),
    ("CLUSTERTYPE", _at("spec", "clusterType")),
    ("CALICOVERSION", _at("spec", "calicoVersion")),
    ("DATASTOREREADY", _at("spec", "datastoreReady", empty="<nil>")),
)
_FILTER = (NAME, ("NUMEXPORT", _number_of("exportV4", "exportV6")), ("NUMIMPORT", _number_of("importV4", "importV6")))

Columns = tuple[tuple[str, Cell], ...]
# The usual columns of a kind, and the wide ones.
COLUMNS: Mapping[str, tuple[Columns, Columns]] = {
    "ippools": (
        (NAME, ("CIDR", _at("spec", "cidr")), ("SELECTOR", _at("spec", "nodeSelector"))),
        (
            NAME,
            ("CIDR", _at("spec", "cidr")),
            ("NAT", _at("spec", "natOutgoing", empty=False)),
            ("IPIPMODE", _at("spec", "ipipMode")),
            ("VXLANMODE", _at("spec", "vxlanMode")),
            ("DISABLED", _at("spec", "disabled", empty=False)),
            ("DISABLEBGPEXPORT", _at("spec", "disableBGPExport", empty=False)),
            ("SELECTOR", _at("spec", "nodeSelector")),
            ("ASSIGNMENTMODE", _at("spec", "assignmentMode")),
        ),
    ),
    "ipamblocks": (
        (NAME, ("CIDR", _at("spec", "cidr")), ("AFFINITY", _at("spec", "affinity"))),
        (NAME, ("CIDR", _at("spec", "cidr")), ("AFFINITY", _at("spec", "affinity")), ("ALLOCATED", _allocated)),
    ),
    "blockaffinities": (
        (NAME, ("NODE", _at("spec", "node")), ("CIDR", _at("spec", "cidr"))),
        (
            NAME,
            ("NODE", _at("spec", "node")),
            ("CIDR", _at("spec", "cidr")),
            ("STATE", _at("spec", "state")),
            ("TYPE", lambda one: _at("spec", "type")(one) or "host"),
        ),
    ),
    "ipamhandles": ((NAME,), (NAME, ("BLOCKS", _block_of))),
    "ipamconfigs": (_IPAM, (*_IPAM, ("MAXBLOCKSPERHOST", _at("spec", "maxBlocksPerHost", empty=0)))),
    "ipreservations": ((NAME,), (NAME, ("CIDRS", _joined("spec", "reservedCIDRs", longest=LONGEST)))),
    "felixconfigurations": ((NAME,), (NAME,)),
    "bgpconfigurations": (_BGP, _BGP),
    "bgppeers": (_PEER, _PEER),
    "bgpfilters": (_FILTER, _FILTER),
    "networkpolicies": ((NAME, _TIER), (NAME, _TIER, _ORDER, _SELECTOR)),
    "globalnetworkpolicies": ((NAME, _TIER), (NAME, _TIER, _ORDER, _SELECTOR)),
    "stagednetworkpolicies": ((NAME, _TIER), (NAME, _TIER, _ORDER, _SELECTOR)),
    "stagedglobalnetworkpolicies": ((NAME, _TIER), (NAME, _TIER, _ORDER, _SELECTOR)),
    "stagedkubernetesnetworkpolicies": ((NAME,), (NAME, ("PODSELECTOR", _pod_selector))),
    "networksets": ((NAME,), (NAME, _NETS)),
    "globalnetworksets": ((NAME,), (NAME, _NETS)),
    "tiers": ((NAME, _ORDER), (NAME, _ORDER)),
    "hostendpoints": (
        (NAME, ("NODE", _at("spec", "node"))),
        (
            NAME,
            ("NODE", _at("spec", "node")),
            ("INTERFACE", _at("spec", "interfaceName")),
            ("IPS", _joined("spec", "expectedIPs")),
            ("PROFILES", _joined("spec", "profiles")),
        ),
    ),
    "clusterinformations": (_ABOUT, _ABOUT),
    "kubecontrollersconfigurations": ((NAME,), (NAME,)),
    "caliconodestatuses": (
        (NAME, ("NODE", _at("spec", "node"))),
        (NAME, ("NODE", _at("spec", "node")), ("CLASSES", _joined("spec", "classes"))),
    ),
    NODES: (
        (NAME,),
        (
            NAME,
            ("ASN", _asn),
            ("IPV4", _at("spec", "bgp", "ipv4Address")),
            ("IPV6", _at("spec", "bgp", "ipv6Address")),
        ),
    ),
    ENDPOINTS: (
        _WORKLOAD,
        (
            NAME,
            *_WORKLOAD,
            ("PROFILES", _joined("spec", "profiles")),
            ("NATS", lambda one: ",".join(str(nat["externalIP"]) for nat in _at("spec", "ipNATs")(one) or ())),  # type: ignore[attr-defined]
        ),
    ),
    PROFILES: ((NAME,), (NAME, ("LABELS", _joined("spec", "labelsToApply")))),
}


def rows(plural: str, found: Sequence[Object], *, wide: bool = False, namespace: bool = False) -> list[list[str]]:
    """The head and a row each. A node wants the AS number of the cluster beside it, as `asNumber`."""
    columns: Columns = COLUMNS[plural][wide]
    columns = (NAMESPACE, *columns) if namespace else columns
    return [[head for head, _ in columns], *([_text(cell(one)) for _, cell in columns] for one in found)]


def render(table: Sequence[Sequence[str]]) -> str:
    """Lines as calicoctl writes them: every column as wide as its widest cell, spaces behind the last one too."""
    widths = [max(LEAST, PADDING + max(map(len, column))) for column in zip(*table, strict=True)]
    return "\n".join("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
