"""A resource as people write it, and as the cluster stores it; without it labels would be written where Calico does not
look, and names under which it finds nothing.

Calico keeps what it knows of an object of crd.projectcalico.org/v1 in its annotation projectcalico.org/metadata
(calico.md 1.1), and shows it by another uid. In projectcalico.org/v3 an object is what it looks like.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

from fixes.calico import CLASSIC, NATIVE
from fixes.resources.kinds import KINDS, TIERED, V3, Object

METADATA = "projectcalico.org/metadata"
TIER = "projectcalico.org/tier"
DEFAULT = "default"
WELL_FORMED = ("knp.default.", "kcnp.kube-admin.", "kcnp.kube-baseline.", "ossg.")  # names made by Calico itself
_ORDER = ("name", "generateName", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp")
_VERSION = re.compile(r"v?(\d+)\.(\d+)")


def convert_uid(uid: str) -> str:
    """The uid that Calico shows for an object of this one, and the other way round. What is no UUID stays as it is."""
    try:
        raw = uuid.UUID(uid).bytes
    except ValueError:
        return uid
    turned = bytes(one if at in (6, 8) else int(f"{one:08b}"[::-1], 2) for at, one in enumerate(raw))
    return str(uuid.UUID(bytes=turned))


def shown(stored: Object, plural: str, version: str = "") -> Object:
    """The projectcalico.org/v3 object of what the cluster stores, as calicoctl prints it.

    version: of Calico (ClusterInformation), which decides how the name of a policy without that annotation is read.
    """
    native = stored.get("apiVersion") == NATIVE
    metadata = dict(stored.get("metadata") or {}) if native else _restored(stored, plural, version)
    found: Object = {"kind": KINDS[plural].shown, "apiVersion": V3, "metadata": _in_order(metadata)}
    found |= {key: value for key, value in stored.items() if key not in found}
    if "spec" in found:
        found["spec"] = _defaulted(dict(found["spec"] or {}), plural, str(metadata.get("name") or ""))
    if plural in TIERED:
        labels = {TIER: DEFAULT, **(metadata.get("labels") or {})}
        found["metadata"] = _in_order({**metadata, "labels": labels})
    return found


def stored(wanted: Object, plural: str, group: str, before: Object | None, *, version: str = "", now: str) -> Object:
    """What is to be written for this projectcalico.org/v3 object; before: as it is stored now, None for a new one.

    All that is stored beside labels, annotations and `spec` stays. now: RFC 3339, for a new object.
    """
    metadata: Object = wanted.get("metadata") or {}
    labels, annotations = dict(metadata.get("labels") or {}), dict(metadata.get("annotations") or {})
    kind = KINDS[plural]
    if plural in TIERED:
        labels[TIER] = str((wanted.get("spec") or {}).get("tier") or DEFAULT)
    old: Object = dict((before or {}).get("metadata") or {})
    if before is None:
        old = {"name": stored_name(str(metadata.get("name")), plural, group, version)}
        if kind.namespaced:
            old["namespace"] = metadata.get("namespace")
    for name in ("labels", "annotations", "managedFields", "selfLink"):
        kept = old.pop(name, None)
        if name == "annotations":
            known = _parsed((kept or {}).get(METADATA))
    if group == CLASSIC:
        known = {key: value for key, value in known.items() if key not in ("labels", "annotations")}
        if plural in TIERED:
            known["name"] = metadata.get("name")
        if not known.get("creationTimestamp"):
            known["creationTimestamp"] = old.get("creationTimestamp") or now
        known |= {"labels": labels} if labels else {}
        known |= {"annotations": annotations} if annotations else {}
        written = json.dumps(known, separators=(",", ":"), ensure_ascii=False)
        annotations = {METADATA: written, **{key: value for key, value in annotations.items() if _ours(key)}}
        labels = {key: value for key, value in labels.items() if _ours(key)}
    own = {**old, **({"labels": labels} if labels else {}), **({"annotations": annotations} if annotations else {})}
    made = {
        **(before or {}),
        "apiVersion": group,
        "kind": kind.kind if group == CLASSIC else kind.shown,
        "metadata": own,
    }
    if "spec" in wanted:
        made["spec"] = wanted["spec"]
    return made


def stored_name(name: str, plural: str, group: str, version: str = "") -> str:
    """The name under which an object of this name is made: until v3.31 policies carry their tier there."""
    number = _VERSION.match(version)
    if plural not in TIERED or group == NATIVE or not number or (int(number[1]), int(number[2])) >= (3, 32):
        return name
    return tiered(name)


def tiered(name: str) -> str:
    """A policy's name with its tier before it."""
    return name if name.startswith(WELL_FORMED) or "." in name else f"{DEFAULT}.{name}"


def tier_of(name: str) -> str:
    """The tier that the name of a policy says."""
    if name.startswith("kcnp."):
        return name.split(".")[1]
    return DEFAULT if name.startswith(WELL_FORMED) or "." not in name else name.partition(".")[0]


def plain(found: Object) -> Object:
    """A shown object without what the cluster keeps account of: what two people would compare."""
    metadata = {key: found["metadata"][key] for key in ("name", "namespace", "labels", "annotations")
                if found["metadata"].get(key)}  # fmt: skip
    return {"apiVersion": found["apiVersion"], "kind": found["kind"], "metadata": metadata} | {
        key: value for key, value in found.items() if key not in ("apiVersion", "kind", "metadata", "status")
    }


def _restored(stored: Object, plural: str, version: str) -> Object:
    own: Object = dict(stored.get("metadata") or {})
    annotations = dict(own.get("annotations") or {})
    if own.get("uid"):
        own["uid"] = convert_uid(str(own["uid"]))
    if METADATA not in annotations:
        if plural in TIERED:
            own["name"] = _read_name(str(own.get("name") or ""), version)
        return own
    known = _parsed(annotations.pop(METADATA))
    labels = {**(own.get("labels") or {}), **(known.get("labels") or {})}
    annotations |= known.get("annotations") or {}
    references = [_reference(one) for one in known.get("ownerReferences") or ()]
    found: Object = {**known}
    found["name"] = known.get("name") or own.get("name")
    if plural in TIERED and not known.get("name"):
        found["name"] = _read_name(str(own.get("name") or ""), version)
    found["creationTimestamp"] = known.get("creationTimestamp") or own.get("creationTimestamp")
    for name in ("namespace", "uid", "resourceVersion"):
        found[name] = own.get(name)
    found |= {"labels": labels, "annotations": annotations, "ownerReferences": references}
    return {key: value for key, value in found.items() if value}


def _read_name(name: str, version: str) -> str:
    """The name of a policy as versions that keep no other one show it."""
    number = _VERSION.match(version)
    old = number is not None and (int(number[1]), int(number[2])) < (3, 30)
    return name.removeprefix(f"{DEFAULT}.") if old else name


def _reference(owner: Object) -> Object:
    if owner.get("apiVersion") not in (CLASSIC, V3):
        return owner
    return {**owner, "apiVersion": V3, "uid": convert_uid(str(owner.get("uid") or ""))}


def _parsed(text: object) -> Object:
    """The annotation's content; {} where it holds none, as a hand may have written it."""
    try:
        found = json.loads(str(text or "{}"))
    except ValueError:
        return {}
    return dict(found) if isinstance(found, dict) else {}


def _ours(key: str) -> bool:
    return "projectcalico.org/" in key or "operator.tigera.io/" in key


def _in_order(metadata: Mapping[str, Any]) -> Object:
    first = {key: metadata[key] for key in _ORDER if key in metadata}
    return first | {key: value for key, value in metadata.items() if key not in first}


def _defaulted(spec: Object, plural: str, name: str) -> Object:
    """What Calico's client fills in when it reads."""
    if plural == "ippools":
        spec["blockSize"] = spec.get("blockSize") or (122 if ":" in str(spec.get("cidr")) else 26)
        spec["allowedUses"] = spec.get("allowedUses") or ["Workload", "Tunnel"]
        for field, default in (("nodeSelector", "all()"), ("ipipMode", "Never"), ("vxlanMode", "Never"),
                               ("assignmentMode", "Automatic")):  # fmt: skip
            spec[field] = spec.get(field) or default
    elif plural == "felixconfigurations":
        spec = {"bpfLogLevel": "", **spec}
    elif plural == "tiers":
        spec = {"order": 1000000, "defaultAction": "Deny", **spec}
    elif plural in TIERED:
        spec["tier"] = spec.get("tier") or tier_of(name)
    return spec
