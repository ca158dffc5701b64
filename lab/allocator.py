"""Gives and takes tunnel addresses when pools change, as calico-node does; without it disabling one would do nothing.

It looks at pools only: a tunnel address lost in any other way does not come back by itself, on a real cluster neither.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from lab.apiserver.store import Store
from lab.intent import ANNOTATION_TUNNEL, Object
from lab.objects import handle_object

HANDLE = "vxlan-tunnel-addr-{}"


def reconcile_tunnel_addresses(store: Store) -> None:
    """Every node that an enabled VXLAN pool selects has a tunnel address in one of them; every other node has none."""
    pools = [
        entry["spec"]
        for entry in store.list("ippools")
        if not entry["spec"].get("disabled")
        and entry["spec"].get("vxlanMode", "Never") != "Never"
        and "Tunnel" in entry["spec"].get("allowedUses", ["Tunnel"])
        and ":" not in entry["spec"]["cidr"]
    ]
    for node in store.list("nodes"):
        mine = [IPv4Network(pool["cidr"]) for pool in pools if _selects(pool.get("nodeSelector", ""), node)]
        annotations = node["metadata"].get("annotations") or {}
        address = annotations.get(ANNOTATION_TUNNEL, "")
        if address and not any(IPv4Address(address) in network for network in mine):
            release(store, address, HANDLE.format(node["metadata"]["name"]))
            _annotate(store, node, "")
            address = ""
        if not address and mine:
            _annotate(store, node, _assign(store, node["metadata"]["name"], mine))


def _selects(selector: str, node: Object) -> bool:
    """`all()`, `!all()`, `has(label)` and `label == "value"`; a selector this does not read selects the node."""
    text = selector.strip()
    labels = node["metadata"].get("labels") or {}
    if text == "!all()":
        return False
    if text.startswith("has(") and text.endswith(")"):
        return text[4:-1].strip() in labels
    if "==" in text and "&&" not in text and "||" not in text:
        name, _, value = text.partition("==")
        return bool(labels.get(name.strip()) == value.strip().strip("'\""))
    return True


def _annotate(store: Store, node: Object, address: str) -> None:
    found = store.get("nodes", node["metadata"]["name"])
    annotations = found["metadata"].setdefault("annotations", {})
    if address:
        annotations[ANNOTATION_TUNNEL] = address
    else:
        annotations.pop(ANNOTATION_TUNNEL, None)
    store.update(found)


def release(store: Store, address: str, handle: str) -> None:
    """Frees an address that HANDLE holds, and forgets the handle; nothing happens when it holds it no longer."""
    for block in store.list("ipamblocks"):
        spec, network = block["spec"], IPv4Network(block["spec"]["cidr"])
        if IPv4Address(address) not in network:
            continue
        ordinal = int(IPv4Address(address)) - int(network[0])
        index = spec["allocations"][ordinal]
        if index is None or spec["attributes"][index].get("handle_id") != handle:
            continue
        del spec["attributes"][index]
        spec["allocations"] = [
            None if entry == index else entry - 1 if entry is not None and entry > index else entry
            for entry in spec["allocations"]
        ]
        spec["unallocated"].append(ordinal)
        spec["sequenceNumberForAllocation"].pop(str(ordinal), None)
        spec["sequenceNumber"] += 1
        store.update(block)
        if any(entry["metadata"]["name"] == handle for entry in store.list("ipamhandles")):
            store.delete("ipamhandles", handle)


def _assign(store: Store, node: str, networks: list[IPv4Network]) -> str:
    """The longest free address of the node's own block; "" when there is none."""
    for block in store.list("ipamblocks"):
        spec, network = block["spec"], IPv4Network(block["spec"]["cidr"])
        if spec.get("affinity") != f"host:{node}" or not spec["unallocated"]:
            continue
        if not any(network.subnet_of(pool) for pool in networks):
            continue
        ordinal = spec["unallocated"].pop(0)
        handle = HANDLE.format(node)
        spec["attributes"].append({"handle_id": handle, "secondary": {"node": node, "type": "vxlanTunnelAddress"}})
        spec["allocations"][ordinal] = len(spec["attributes"]) - 1
        spec["sequenceNumberForAllocation"][str(ordinal)] = spec["sequenceNumber"]
        spec["sequenceNumber"] += 1
        store.update(block)
        store.create(handle_object(handle, str(network)))
        return str(network[ordinal])
    return ""
