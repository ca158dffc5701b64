"""What a change of a resource reaches, counted where it can be; without it who approves would not know how many pods a
selector means."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bot.resources import core
from bot.sources.describe import selects
from facts import policy_kinds
from facts.selector import SelectorError, matches
from fixes.beside import used
from fixes.resources.form import shown
from fixes.resources.kinds import TIERED, Object

OF_KUBERNETES = "stagedkubernetesnetworkpolicies"

SHOWN = 4  # names in one sentence
LONGEST = 1000  # characters, the request's


class World(NamedTuple):
    """What is there, each as Kubernetes or the cluster stores it; None for what could not be read."""

    pods: Sequence[Object] | None = None
    namespaces: Sequence[Object] | None = None
    accounts: Sequence[Object] | None = None
    nodes: Sequence[Object] | None = None
    hosts: Sequence[Object] | None = None
    blocks: Sequence[Object] | None = None


NEEDS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(TIERED, ("pods", "namespaces", "serviceaccounts", "hostendpoints")),
    OF_KUBERNETES: ("pods", "namespaces", "serviceaccounts", "hostendpoints"),
    "ippools": ("nodes", "ipamblocks"),
    "felixconfigurations": ("nodes",),
    "bgpconfigurations": ("nodes",),
    "bgppeers": ("nodes",),
    "hostendpoints": ("nodes",),
}


def reach(plural: str, after: Object | None, before: Object | None, world: World) -> str:
    """A few sentences. after: None where it is deleted; before: None where it is new; both of projectcalico.org/v3."""
    states = [one for one in (after, before) if one is not None]
    told = _SENTENCES.get(plural, _anything)(plural, after, states, world)
    return " ".join(told)[:LONGEST]


def selected(policy: Object, world: World) -> tuple[list[str], list[str]] | None:
    """Names of the pods (NAMESPACE/NAME) and of the host endpoints that a policy is about; None where that is not
    known."""
    if world.pods is None or world.namespaces is None or world.accounts is None:
        return None
    spec = policy.get("spec") or {}
    own = str(policy["metadata"].get("namespace") or "")
    spaces = {str(one["metadata"]["name"]): _named(one) for one in world.namespaces}
    accounts = {(str(one["metadata"]["namespace"]), str(one["metadata"]["name"])): _named(one)
                for one in world.accounts}  # fmt: skip
    try:
        pods = [
            f"{one['metadata']['namespace']}/{one['spec']['pod']}"
            for one in filter(None, map(core.endpoint, world.pods))
            if (not own or one["metadata"]["namespace"] == own)
            and matches(spec.get("selector") or "all()", one["metadata"]["labels"])
            and _by(spec.get("namespaceSelector"), spaces.get(one["metadata"]["namespace"]))
            and _by(
                spec.get("serviceAccountSelector"),
                accounts.get((one["metadata"]["namespace"], one["spec"].get("serviceAccountName", ""))),
            )
        ]
        hosts = [
            str(one["metadata"]["name"])
            for one in (shown(each, "hostendpoints") for each in world.hosts or ())
            if not own
            and not spec.get("namespaceSelector")
            and not spec.get("serviceAccountSelector")
            and matches(spec.get("selector") or "all()", one["metadata"].get("labels") or {})
        ]
    except SelectorError:
        return None
    return sorted(pods), sorted(hosts)


def _policy(plural: str, after: Object | None, states: Sequence[Object], world: World) -> list[str]:
    staged = "It is staged: nothing is enforced by it."
    if any(one["spec"].get("stagedAction") == "Delete" for one in states):
        return [staged]  # it says whose end is tried, and selects nobody itself
    if plural == OF_KUBERNETES:
        states = [_in_words_of_calico(one) for one in states]
    found = [one for one in (selected(each, world) for each in states) if one is not None]
    if len(found) < len(states):
        told = ["Which endpoints it selects could not be counted."]
    else:
        pods = sorted({name for one, _ in found for name in one})
        hosts = sorted({name for _, one in found for name in one})
        every = sum(core.endpoint(one) is not None for one in world.pods or ())
        also = f" and {_counted(hosts, 'host endpoint')}" if hosts else ""
        told = [f"It is about {_counted(pods, 'pod', every)}{also}."]
    if "staged" in plural:
        return [*told, staged]
    if after is None:
        return [*told, "What it allowed, and what it denied, is up to the other policies then."]
    spec = after["spec"]
    types = spec.get("types") or []
    for kind, rules, way in (("Ingress", "ingress", "in"), ("Egress", "egress", "out")):
        if kind in types and not any(rule.get("action") in ("Allow", "Pass") for rule in spec.get(rules) or ()):
            told.append(f"It lets nothing {way}: what no policy before it allows is dropped there.")
    return told


def _in_words_of_calico(policy: Object) -> Object:
    try:
        found = policy_kinds.kubernetes(policy, staged=True)
    except (KeyError, TypeError):
        found = None
    return {**policy, "spec": {"selector": found.selector if found else "!all()"}}


def _pool(plural: str, after: Object | None, states: Sequence[Object], world: World) -> list[str]:
    told = []
    cidr = str(states[0]["spec"].get("cidr"))
    if world.blocks is not None:
        within = ipaddress.ip_network(cidr, strict=False)
        blocks = [ipaddress.ip_network(str(one["spec"].get("cidr"))) for one in world.blocks]
        count = sum(one.version == within.version and one.overlaps(within) for one in blocks)
        told.append(f"{used(world.blocks, cidr)} addresses of {cidr} are in use, in {count} blocks.")
    else:
        told.append(f"How many addresses of {cidr} are in use could not be read.")
    if after is None:
        told.append(
            "Nodes lose the tunnels and routes that this pool calls for. Pods keep addresses that are in no pool then, "
            "and may lose their path to other nodes. Its blocks stay as they are."
        )
        return told
    if world.nodes is not None:
        names = [
            str(one["metadata"]["name"])
            for one in world.nodes
            if selects(str(after["spec"].get("nodeSelector") or "all()"), one)
        ]
        told.append(f"It is for {_counted(names, 'node', len(world.nodes))}.")
    if after["spec"].get("disabled"):
        told.append("It is disabled: no address is given out of it, and tunnel addresses of it go.")
    return told


def _felix(plural: str, after: Object | None, states: Sequence[Object], world: World) -> list[str]:
    name = str(states[0]["metadata"]["name"])
    names = [str(one["metadata"]["name"]) for one in world.nodes or ()]
    if name.startswith("node."):
        here = name.removeprefix("node.")
        missing = world.nodes is not None and here not in names
        return [f"Node {here}, {'which there is not' if missing else 'whose Felix restarts for most of its settings'}."]
    if name != "default":
        return ["Nothing: Felix reads default and node.NAME only."]
    return [f"{_all(names, world)}; their Felix restarts for most of its settings."]


def _bgp(plural: str, after: Object | None, states: Sequence[Object], world: World) -> list[str]:
    name = str(states[0]["metadata"]["name"])
    names = [str(one["metadata"]["name"]) for one in world.nodes or ()]
    if plural == "bgpconfigurations":
        return [f"BGP of {name.removeprefix('node.') if name.startswith('node.') else _all(names, world).lower()}."]
    spec = states[0]["spec"]
    if spec.get("node"):
        return [f"BGP of node {spec['node']}."]
    if world.nodes is not None and spec.get("nodeSelector"):
        names = [str(one["metadata"]["name"]) for one in world.nodes if selects(spec["nodeSelector"], one)]
        return [f"BGP of {_counted(names, 'node', len(world.nodes))}."]
    return [f"BGP of {_all(names, world).lower()}."]


def _host(plural: str, after: Object | None, states: Sequence[Object], world: World) -> list[str]:
    spec = states[0]["spec"]
    node = str(spec.get("node"))
    which = f"{spec.get('interfaceName') or ', '.join(spec.get('expectedIPs') or ())} of node {node}"
    if world.nodes is not None and node not in [str(one["metadata"]["name"]) for one in world.nodes]:
        return [f"Nothing as long as there is no node {node}."]
    if after is None:
        return [f"What policies say of {which} is not enforced any more."]
    return [
        f"All packets of {which}: what neither a policy nor a profile nor a failsafe port of Felix allows there is "
        "dropped from then on."
    ]


def _anything(plural: str, after: Object | None, states: Sequence[Object], world: World) -> list[str]:
    return [
        {
            "tiers": "The endpoints that policies of this tier select: they are judged in another order.",
            "networksets": "What rules select by its labels.",
            "globalnetworksets": "What rules select by its labels, in every namespace.",
            "ipamconfigs": "The whole cluster: how nodes get blocks, and pods addresses. Pods that run keep theirs.",
            "ipreservations": "IPAM gives none of these addresses; who has one keeps it.",
            "kubecontrollersconfigurations": "The whole cluster: what calico-kube-controllers does, which restarts.",
            "bgpfilters": "The routes of the BGPPeers that name it.",
            "caliconodestatuses": "Nothing but what calico-node reports of itself.",
        }.get(plural, "All that Calico does by it.")
    ]


_SENTENCES = {
    **dict.fromkeys((*TIERED, OF_KUBERNETES), _policy),
    "ippools": _pool,
    "felixconfigurations": _felix,
    "bgpconfigurations": _bgp,
    "bgppeers": _bgp,
    "hostendpoints": _host,
}


def _by(selector: object, labels: Mapping[str, str] | None) -> bool:
    return not selector or (labels is not None and matches(str(selector), labels))


def _named(core_object: Object) -> dict[str, str]:
    """Labels of a namespace or an account as Calico's selectors see them."""
    own = core_object["metadata"]
    return {**(own.get("labels") or {}), "projectcalico.org/name": str(own["name"])}


def _all(names: Sequence[str], world: World) -> str:
    return "All nodes" if world.nodes is None else f"All {len(names)} nodes"


def _counted(names: Iterable[str], what: str, every: int | None = None) -> str:
    """2 of 9 pods (a, b). every: how many there are."""
    found = list(names)
    many = "s" * ((len(found) if every is None else every) != 1)
    count = f"{len(found) or 'none'}" if every is None else f"{len(found) or 'none'} of {every}"
    listed = ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
    return f"{count} {what}{many}" + (f" ({listed})" if found else "")
