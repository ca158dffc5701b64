"""What people call Calico's kinds, as calicoctl takes it; without it everybody would have to know the plurals."""

from __future__ import annotations

import difflib

from bot.errors import UserError
from fixes.resources.kinds import KINDS

NODES, ENDPOINTS, PROFILES = "nodes", "workloadendpoints", "profiles"  # made of Kubernetes' objects

# calicoctl's own words for each, and ours for the three kinds it does not show.
SHORT = {
    "ippools": ("ippool", "ipp", "ipps", "pool", "pools"),
    "ipamblocks": ("ipamblock", "block", "blocks"),
    "blockaffinities": ("blockaffinity", "affinity", "affinities"),
    "ipamhandles": ("ipamhandle", "handle", "handles"),
    "ipamconfigs": ("ipamconfig", "ipamconfiguration", "ipamconfigurations"),
    "ipreservations": ("ipreservation", "reservation", "reservations"),
    "felixconfigurations": ("felixconfiguration", "felixconfig", "felixconfigs"),
    "bgpconfigurations": ("bgpconfiguration", "bgpconfig", "bgpconfigs"),
    "bgppeers": ("bgppeer", "bgpp", "bgpps", "bp", "bps"),
    "bgpfilters": ("bgpfilter", "bgpf", "bgpfs", "bf", "bfs"),
    "networkpolicies": ("networkpolicy", "policy", "np", "policies", "pol", "pols"),
    "networksets": ("networkset", "netset", "netsets"),
    "globalnetworkpolicies": ("globalnetworkpolicy", "gnp", "gnps"),
    "globalnetworksets": ("globalnetworkset", "gnetset", "gnetsets"),
    "stagednetworkpolicies": ("stagednetworkpolicy", "stagedpolicy", "snp", "stagedpolicies", "spol", "spols"),
    "stagedglobalnetworkpolicies": ("stagedglobalnetworkpolicy", "sgnp", "sgnps"),
    "stagedkubernetesnetworkpolicies": (
        "stagedkubernetesnetworkpolicy",
        "stagedkubernetespolicy",
        "sknp",
        "stagedkubernetespolicies",
        "skpol",
        "skpols",
    ),
    "tiers": ("tier",),
    "hostendpoints": ("hostendpoint", "hep", "heps"),
    "clusterinformations": ("clusterinformation", "clusterinfo", "clusterinfos"),
    "kubecontrollersconfigurations": ("kubecontrollersconfiguration", "kubecontrollersconfig", "kcc", "kccs"),
    "caliconodestatuses": ("caliconodestatus", "nodestatus", "nodestatuses"),
    NODES: ("node", "no", "nos"),
    ENDPOINTS: ("workloadendpoint", "wep", "weps"),
    PROFILES: ("profile", "pro", "pros"),
}
# Kubernetes' own kinds that people ask for here, and what shows them of Calico's.
OF_KUBERNETES = {
    "pod": "workloadendpoints",
    "service": "",
    "namespace": "profiles",
    "serviceaccount": "profiles",
    "deployment": "",
    "daemonset": "",
    "endpointslice": "",
    "event": "",
    "customresourcedefinition": "",
}
_SHORT_OF_KUBERNETES = {"po": "pod", "svc": "service", "ns": "namespace", "sa": "serviceaccount", "ev": "event",
                        "deploy": "deployment", "ds": "daemonset", "crd": "customresourcedefinition"}  # fmt: skip
SHORT_WORD = 3
_PLURALS = {word: plural for plural, words in SHORT.items() for word in (plural, *words)}


def plural_of(word: str) -> str:
    """The plural of the kind that is meant. Raises UserError with the nearest word."""
    said = word.lower()
    if found := _PLURALS.get(said) or _PLURALS.get(said.partition(".")[0]):
        return found
    short = _SHORT_OF_KUBERNETES.get(said, said.removesuffix("s"))
    if short in OF_KUBERNETES:
        like = OF_KUBERNETES[short]
        also = f" What Calico makes of it: get {like}" if like else ""
        raise UserError(f"{word!r} is Kubernetes' own; kubectl shows and changes it: kubectl get {short}.{also}")
    alike = [one for one in _PLURALS if len(one) > SHORT_WORD or len(said) <= SHORT_WORD + 1]  # "nosuch" is no "nos"
    near = difflib.get_close_matches(said, alike, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(sorted(SHORT))}."
    shown = word if len(word) <= 40 else word[:39] + "…"
    raise UserError(f"Calico has no kind {shown!r}; {hint}", word=word, choices=near)


def kind_of(plural: str) -> str:
    """The kind as an object says it: IPPool."""
    made = {ENDPOINTS: "WorkloadEndpoint", PROFILES: "Profile"}
    return made.get(plural) or KINDS[plural].shown


def namespaced(plural: str) -> bool:
    return plural == ENDPOINTS or (plural in KINDS and KINDS[plural].namespaced)
