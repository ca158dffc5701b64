"""Resources as somebody wrote them down; without it each word would take other forms, and refuse others."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

from bot.errors import UserError
from bot.resources import yaml
from bot.resources.names import ENDPOINTS, NODES, PROFILES, kind_of, namespaced, plural_of
from fixes.resources.fields import unknown
from fixes.resources.kinds import KINDS, V3, Object

MOST = 20  # resources in one go: each is a request that a person reads
LONGEST = 1 << 20  # characters
KUBERNETES = {
    "Node": "kubectl edit node",
    "Pod": "kubectl edit pod",
    "Service": "kubectl edit service",
    "Namespace": "kubectl label namespace",
    "ServiceAccount": "kubectl edit serviceaccount",
}
# What is never written by hand, and what is there instead.
NEVER = {
    "ipamblocks": "IPAM's blocks are not written by hand: one wrong number gives an address twice. `ipam check` finds "
    "what is wrong in them, `ipam release` frees what leaked, and `why` proposes the other fixes.",
    "ipamhandles": "IPAM's handles are not written by hand: Calico frees addresses by them. `ipam check` finds leaked "
    "ones, and `ipam release` frees what leaked.",
    "blockaffinities": "Block affinities are not written by hand: they follow the blocks. Where a node claims another "
    "node's block, `why` proposes to delete that claim.",
    "clusterinformations": "ClusterInformation is Calico's own, and is only read.",
    NODES: "A Calico node is made of the Kubernetes node and its annotations. Change those: kubectl edit node NAME",
    ENDPOINTS: "A workload endpoint is made of its pod. Change that: kubectl edit pod NAME -n NAMESPACE",
    PROFILES: "A profile is made of a namespace or a service account. Change their labels: kubectl label namespace "
    "NAME ...",
}
# What Kubernetes keeps of any object. Of it people write name, namespace, labels and annotations; the rest is read.
METADATA = dict.fromkeys(
    ("name", "namespace", "labels", "annotations", "uid", "resourceVersion", "creationTimestamp", "generation",
     "generateName", "selfLink", "ownerReferences", "finalizers", "managedFields", "deletionTimestamp",
     "deletionGracePeriodSeconds")
)  # fmt: skip
_LINK = re.compile(r"<(?:https?|mailto):[^|>\s]*\|([^>\s]*)>|<((?:https?)://[^|>\s]*)>")
_QUOTES = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "\u00a0": " "})


class Wanted(NamedTuple):
    """One resource in the form of projectcalico.org/v3. place: "" where it is the only one, else which it is."""

    plural: str
    found: Object
    place: str = ""

    @property
    def name(self) -> str:
        return str(self.found["metadata"].get("name") or "")

    @property
    def namespace(self) -> str:
        return str(self.found["metadata"].get("namespace") or "")


def from_slack(text: str) -> str:
    """YAML as Slack has it: links it made of names, and quotes it made curly, are what was typed again."""
    return _LINK.sub(lambda link: link[1] or link[2], text).translate(_QUOTES)


def from_file(name: str) -> str:
    """Raises UserError."""
    try:
        text = sys.stdin.read(LONGEST + 1) if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UserError(
            f"{name} cannot be read ({why}). Give -f the name of a file, or - for what is piped in."
        ) from error
    return text


def read(text: str, namespace: str = "") -> list[Wanted]:
    """The resources of YAML or JSON: of several documents, of lists. Raises UserError for what is none of Calico's.

    namespace: of those that say none and are of one.
    """
    if len(text) > LONGEST:
        raise UserError(f"This is longer than {LONGEST} characters; write less in one go.")
    found = [one for document in yaml.documents(text) for one in _items(document)]
    if not found:
        raise UserError("There is no resource in this. Write one as `get KIND NAME -o yaml` prints it.")
    if len(found) > MOST:
        raise UserError(f"{len(found)} resources are more than a person reads; write {MOST} at a time.")
    many = len(found) > 1
    read = [_resource(one, namespace, f"resource {number}" if many else "") for number, one in enumerate(found, 1)]
    seen: dict[tuple[str, str, str], str] = {}
    for one in read:
        key = (one.plural, one.namespace, one.name)
        if key in seen:
            raise UserError(f"{kind_of(one.plural)} {one.name} is written twice: {seen[key]} and {one.place}.")
        seen[key] = one.place
    return read


def writable(word: str) -> str:
    """The plural of the kind that is meant. Raises UserError for one that nobody has written."""
    plural = plural_of(word)
    if plural in NEVER:
        raise UserError(NEVER[plural])
    return plural


def _items(document: object) -> list[object]:
    if isinstance(document, list):
        return list(document)
    if isinstance(document, dict) and str(document.get("kind", "")).endswith("List") and "items" in document:
        return list(document["items"] or ())
    return [document]


def _resource(document: object, namespace: str, place: str) -> Wanted:
    where = f"{place}: " if place else ""
    if not isinstance(document, dict):
        raise UserError(f"{where}This is no resource: it has neither kind nor apiVersion.")
    kind, version = document.get("kind"), document.get("apiVersion")
    if not isinstance(kind, str) or not isinstance(version, str):
        raise UserError(f"{where}A resource says its kind and its apiVersion ({V3}).")
    if version != V3:
        _other_group(kind, version, where)
    plural = plural_of(kind)
    if kind_of(plural) != kind and KINDS.get(plural, KINDS["ippools"]).kind != kind:
        raise UserError(f"{where}The kind is written {kind_of(plural)}, and not {kind}.")
    writable(plural)
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        raise UserError(f"{where}metadata: has to be given, with a name.")
    if more := sorted(set(document) - {"apiVersion", "kind", "metadata", "spec", "status"}):
        raise UserError(f"{where}{more[0]}: a resource has apiVersion, kind, metadata and spec only.")
    for name in metadata:
        if name not in METADATA:
            raise UserError(where + unknown(str(name), METADATA, "metadata"))
    metadata = dict(metadata)
    if not namespaced(plural) and metadata.get("namespace"):
        raise UserError(f"{where}{kind_of(plural)} is a kind of no namespace; leave metadata.namespace out.")
    if namespaced(plural) and not metadata.get("namespace"):
        metadata["namespace"] = namespace or "default"
    elif namespaced(plural) and namespace and metadata["namespace"] != namespace:
        raise UserError(f"{where}It says namespace {metadata['namespace']}, and -n {namespace}.")
    return Wanted(plural, {**document, "metadata": metadata}, place)


def _other_group(kind: str, version: str, where: str) -> None:
    group = version.partition("/")[0]
    if group == "networking.k8s.io" and kind == "NetworkPolicy":
        raise UserError(f"{where}This is a NetworkPolicy of Kubernetes. Apply it with: kubectl apply -f FILE")
    if version == "v1" and kind in KUBERNETES:
        raise UserError(f"{where}A {kind} is Kubernetes' own. Change it with: {KUBERNETES[kind]} NAME")
    if "projectcalico.org" in group:
        raise UserError(f"{where}apiVersion {version} is how the cluster stores it; write {V3}.")
    raise UserError(f"{where}{version} {kind} is not a resource of Calico's; those are of {V3}.")
