"""Gives and takes tunnel addresses when pools change, as calico-node does; without it disabling one would do nothing.

It looks at pools only: a tunnel address lost in any other way does not come back by itself, on a real cluster neither.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from lab.apiserver.store import Store
from lab.intent import ANNOTATION_TUNNEL, Network, Object
from lab.kernel import FAMILIES, family_of
from lab.objects import handle_object

HANDLE = {4: "vxlan-tunnel-addr-{}", 6: "vxlan-v6-tunnel-addr-{}"}
TYPE = {4: "vxlanTunnelAddress", 6: "vxlanV6TunnelAddress"}


def reconcile_tunnel_addresses(store: Store) -> None:
    """Every node that an enabled VXLAN pool selects has a tunnel address in one of them; every other node has none."""
    for family in FAMILIES:
        _reconcile(store, family)


def _reconcile(store: Store, family: int) -> None:
    annotation = ANNOTATION_TUNNEL[family]
    pools = [
        entry["spec"]
        for entry in store.list("ippools")
        if not entry["spec"].get("disabled")
        and entry["spec"].get("vxlanMode", "Never") != "Never"
        and "Tunnel" in entry["spec"].get("allowedUses", ["Tunnel"])
        and family_of(entry["spec"]["cidr"]) == family
    ]
    for node in store.list("nodes"):
        mine = [ip_network(pool["cidr"]) for pool in pools if _selects(pool.get("nodeSelector", ""), node)]
        annotations = node["metadata"].get("annotations") or {}
        address = annotations.get(annotation, "")
        if address and not any(ip_address(address) in network for network in mine):
            release(store, address, HANDLE[family].format(node["metadata"]["name"]))
            _annotate(store, node, annotation, "")
            address = ""
        if not address and mine:
            _annotate(store, node, annotation, _assign(store, node["metadata"]["name"], mine, family))


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


def _annotate(store: Store, node: Object, annotation: str, address: str) -> None:
    found = store.get("nodes", node["metadata"]["name"])
    annotations = found["metadata"].setdefault("annotations", {})
    if address:
        annotations[annotation] = address
    else:
        annotations.pop(annotation, None)
    store.update(found)


def release(store: Store, address: str, handle: str) -> None:
    """Frees an address that HANDLE holds, and forgets the handle; nothing happens when it holds it no longer."""
    for block in store.list("ipamblocks"):
        spec, network = block["spec"], ip_network(block["spec"]["cidr"])
        if ip_address(address) not in network:
            continue
        ordinal = int(ip_address(address)) - int(network[0])
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


def _assign(store: Store, node: str, networks: list[Network], family: int) -> str:
    """The longest free address of the node's own block; "" when there is none."""
    for block in store.list("ipamblocks"):
        spec, network = block["spec"], ip_network(block["spec"]["cidr"])
        if spec.get("affinity") != f"host:{node}" or not spec["unallocated"]:
            continue
        if not any(network[0] in pool for pool in networks):
            continue
        ordinal = spec["unallocated"].pop(0)
        handle = HANDLE[family].format(node)
        spec["attributes"].append({"handle_id": handle, "secondary": {"node": node, "type": TYPE[family]}})
        spec["allocations"][ordinal] = len(spec["attributes"]) - 1
        spec["sequenceNumberForAllocation"][str(ordinal)] = spec["sequenceNumber"]
        spec["sequenceNumber"] += 1
        store.update(block)
        store.create(handle_object(handle, str(network)))
        return str(network[ordinal])
    return ""
