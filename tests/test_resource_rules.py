"""What Calico refuses of a resource we refuse with the place that is wrong, and what a running one took we take; labels
and names come back as they were written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.resources import yaml
from bot.resources.names import plural_of
from fixes.calico import CLASSIC, NATIVE
from fixes.resources import fields, rules
from fixes.resources.form import METADATA, convert_uid, plain, shown, stored, stored_name, tier_of, tiered
from fixes.resources.kinds import KINDS, TIERED
from tests import recorded_calicoctl as calicoctl
from tests.recordings import load, states

Object = dict[str, Any]
NOW = "2026-11-26T08:00:00Z"


def said(word: str, spec: str, name: str = "", version: str = "", **metadata: Any) -> list[str]:
    """All that is refused of this `spec`."""
    plural = plural_of(word)
    kind = KINDS[plural]
    names = {"ipamconfigs": "default", "kubecontrollersconfigurations": "default"}
    place = {"namespace": "shop"} if kind.namespaced else {}
    [read] = yaml.documents(spec)
    found = {
        "apiVersion": "projectcalico.org/v3",
        "kind": kind.shown,
        "metadata": {"name": name or names.get(plural, "x"), **place, **metadata},
        "spec": read,
    }
    return fields.wrong(read, plural) or rules.refused(found, plural, version=version)


# ---- what a running Calico took


def recorded() -> Iterator[tuple[str, Object]]:
    by_kind = {kind.kind: plural for plural, kind in KINDS.items() if kind.written}
    for state in [*states(), *(f"{version}/loose" for version in ("v3.31.7", "v3.32.1", "master-87c15906f20c"))]:
        for path, content in load(state).items():
            for one in content.get("items", ()) if isinstance(content, dict) else ():
                if isinstance(one, dict) and one.get("apiVersion") == CLASSIC and one.get("kind") in by_kind:
                    yield by_kind[one["kind"]], {"path": f"{state}/{path}", **one}


def test_all_that_a_running_calico_took_is_taken() -> None:
    seen: dict[str, int] = {}
    for plural, one in recorded():
        path = one.pop("path")
        found = shown(one, plural)
        assert rules.refused(found, plural, version="v3.32.1") == [], path
        assert fields.wrong(found["spec"], plural) == [], path
        assert rules.changed(found, found, plural) == []
        seen[plural] = seen.get(plural, 0) + 1
    assert set(seen) >= {
        "ippools", "felixconfigurations", "bgpconfigurations", "ipamconfigs", "tiers", "networkpolicies",
        "globalnetworkpolicies", "stagednetworkpolicies", "stagedglobalnetworkpolicies", "globalnetworksets",
        "networksets", "hostendpoints", "kubecontrollersconfigurations", "stagedkubernetesnetworkpolicies",
    }  # fmt: skip


def test_what_is_filled_in_is_what_a_running_calico_filled_in() -> None:
    """A pool and a policy that calicoctl made hold just what we would write."""
    for plural, one in recorded():
        one.pop("path")
        if plural in TIERED or plural == "ippools":
            found = shown(one, plural)
            assert rules.completed(found, plural)["spec"] == found["spec"]


# ---- what it refuses, a row each: kind, spec, and where it is wrong


@pytest.mark.parametrize(
    ("plural", "spec", "why"),
    [
        ("ippools", "{}", "spec.cidr: has to be given"),
        ("ippools", "{cidr: 10.0.0.0}", "is not a network in CIDR form"),
        ("ippools", "{cidr: 10.0.0.1/16}", "spec.cidr: 10.0.0.1/16 has bits beyond its mask; write 10.0.0.0/16"),
        ("ippools", "{cidr: 169.254.0.0/17}", "link-local"),
        ("ippools", "{cidr: 'fe80::/64'}", "link-local"),
        ("ippools", "{cidr: 10.0.0.0/16, blockSize: 19}", "19 is not between 20 and 32"),
        ("ippools", "{cidr: 'fd00::/64', blockSize: 64}", "64 is not between 116 and 128"),
        ("ippools", "{cidr: 10.0.0.0/27}", "smaller than one block of /26"),
        ("ippools", "{cidr: 10.0.0.0/16, vxlanMode: Always, ipipMode: CrossSubnet}", "VXLAN or IPIP and not both"),
        ("ippools", "{cidr: 'fd00::/64', ipipMode: Always}", "no IPIP for IPv6"),
        ("ippools", "{cidr: 10.0.0.0/16, vxlanMode: always}", "'always' is not one of Always, CrossSubnet, Never"),
        ("ippools", "{cidr: 10.0.0.0/16, nodeSelector: 'all('}", "spec.nodeSelector: "),
        ("ippools", "{cidr: 10.0.0.0/16, allowedUses: [Workloads]}", "'Workloads' is not one of Workload"),
        ("ippools", "{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer, Tunnel]}", "LoadBalancer stands alone"),
        ("ippools", "{cidr: 10.0.0.0/16, natOutgoing: 'true'}", "spec.natOutgoing: 'true' is not true or false"),
        ("ippools", "{cidr: 10.0.0.0/16, blocksize: 26}", "no such field; did you mean blockSize?"),
        ("ippools", "[]", "spec: "),
        ("ipreservations", "{reservedCIDRs: [10.0.0.0/33]}", "spec.reservedCIDRs[0]"),
        ("ipamconfigs", "{strictAffinity: false, autoAllocateBlocks: false}", "no pod would get an address"),
        ("ipamconfigs", "{strictAffinity: true, maxBlocksPerHost: -1}", "is less than 0"),
        ("ipamconfigs", "{ipCooldownSeconds: 1201}", "between 0 and 1200"),
        ("tiers", "{order: high}", "spec.order: 'high' is not a number"),
        ("tiers", "{defaultAction: Allow}", "'Allow' is not one of Deny, Pass"),
        ("networksets", "{nets: [10.0.0.0/8, nothing]}", "spec.nets[1]"),
        ("hostendpoints", "{interfaceName: eth0}", "spec.node: has to be given"),
        ("hostendpoints", "{node: a}", "it, or expectedIPs, has to be given"),
        ("hostendpoints", "{node: a, interfaceName: a-name-too-long-for-linux}", "is not the name of an interface"),
        ("hostendpoints", "{node: a, interfaceName: '*', expectedIPs: [1.2.3]}", "is not an address"),
        ("hostendpoints", "{node: a, interfaceName: '*', ports: [{name: a, protocol: ICMP, port: 1}]}", "no ports"),
        ("caliconodestatuses", "{node: a, classes: [Agent, Agent]}", "each once"),
        ("caliconodestatuses", "{node: a, classes: [All]}", "'All' is not one of Agent, BGP, Routes"),
        ("bgpconfig", "{asNumber: 64512}", "of the BGPConfiguration default only"),
        ("bgpconfig", "{communities: [{name: a, value: '1:2'}]}", "not used by any of prefixAdvertisements"),
        ("bgpconfig", "{listenPort: 0}", "between 1 and 65535"),
        ("bgpconfig", "{nodeMeshMaxRestartTime: 2min}", "is not a duration"),
        ("bgppeers", "{node: a, nodeSelector: all()}", "does not go with nodeSelector"),
        ("bgppeers", "{peerIP: 10.0.0.1, peerSelector: all()}", "does not go with peerSelector"),
        ("bgppeers", "{peerIP: '10.0.0.1:0'}", "neither an address, nor IPv4:PORT"),
        ("bgppeers", "{peerIP: 'fd00::1:179', asNumber: 4294967296}", "is not an AS number"),
        ("bgppeers", "{peerIP: 10.0.0.1, reachableBy: 'fd00::1'}", "of the family of peerIP"),
        ("bgppeers", "{peerIP: 10.0.0.1, keepOriginalNextHop: true, nextHopMode: Keep}", "which replaces it"),
        ("bgpfilters", "{exportV4: [{action: Permit}]}", "'Permit' is not one of Accept, Reject"),
        ("bgpfilters", "{exportV4: [{action: Accept, cidr: 10.0.0.0/8}]}", "it and matchOperator are both set"),
        ("bgpfilters", "{importV6: [{action: Accept, cidr: 10.0.0.0/8, matchOperator: In}]}", "not a network of IPv6"),
        ("bgpfilters", "{exportV4: [{action: Accept, cdir: 10.0.0.0/8}]}", "no such field; did you mean cidr?"),
        ("felixconfig", "{logSeveritySceen: Info}", "no such field; did you mean logSeverityScreen?"),
        ("felixconfig", "{BPFEnabled: true}", "no such field; did you mean bpfEnabled?"),
        ("felixconfig", "{bpfEnabled: 'yes please'}", "'yes please' is not true or false"),
        ("felixconfig", "{failsafeInboundHostPorts: [{ports: 22}]}", "no such field; did you mean port?"),
        ("sknp", "{policyTypes: [Ingres]}", "spec.policyTypes: 'Ingres' is not one of Ingress, Egress"),
        ("sknp", "{podSelector: {matchLabel: {a: b}}}", "no such field; did you mean matchLabels?"),
        ("sknp", "{podSelector: {matchExpressions: [{key: a, operator: In}]}}", "go with In and NotIn"),
        ("sknp", "{podSelector: {matchExpressions: [{key: a, operator: Is}]}}", "'Is' is not one of In, NotIn"),
        ("sknp", "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]}", "'10.0.0.0/33' is not a network"),
        ("sknp", "{egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]}", "does not go with selectors"),
        ("sknp", "{ingress: [{to: []}]}", "spec.ingress[0].to: there is no such field"),
        ("sknp", "{egress: [{ports: [{protocol: ICMP}]}]}", "'ICMP' is not one of TCP, UDP, SCTP"),
        ("sknp", "{egress: [{ports: [{port: 0}]}]}", "0 is neither a port nor the name of one"),
        ("sknp", "{egress: [{ports: [{port: 90, endPort: 80}]}]}", "80 does not end a range"),
        ("sknp", "{stagedAction: Delete, policyTypes: [Ingress]}", "nothing else is said"),
        ("felixconfig", "{logSeverityScreen: info}", "'info' is not one of Trace, Debug, Info"),
        ("felixconfig", "{iptablesRefreshInterval: 90}", "90 is not a duration, such as 90s"),
        ("felixconfig", "{reportingInterval: 1d}", "is not a duration"),
        ("felixconfig", "{vxlanPort: 70000}", "70000 is not a port"),
        ("felixconfig", "{vxlanVNI: 16777216}", "is not a VXLAN identifier"),
        ("felixconfig", "{routeTableRange: {min: 10, max: 5}}", "is not within 1 to 250"),
        ("felixconfig", "{deviceRouteSourceAddress: 'fd00::1'}", "is not an IPv4 address"),
        ("kcc", "{}", "spec.controllers: has to be given"),
        ("kcc", "{controllers: {node: {leakGracePeriod: 15}}}", "15 is not a duration"),
        ("kcc", "{controllers: {nodes: {}}}", "did you mean node?"),
        ("gnp", "{selector: \"a = 'b'\"}", "spec.selector: "),
        ("gnp", "{selector: global()}", "global() is for the namespaceSelector of a rule only"),
        ("gnp", "{types: [Ingress, Ingress]}", "says one of them twice"),
        ("gnp", "{types: [In]}", "'In' is not one of Ingress, Egress"),
        ("gnp", "{doNotTrack: true}", "spec.applyOnForward: has to be true"),
        ("gnp", "{preDNAT: true, doNotTrack: true, applyOnForward: true}", "does not go with"),
        ("gnp", "{preDNAT: true, applyOnForward: true, types: [Egress]}", "nor the type Egress"),
        ("gnp", "{ingress: [{action: allow}]}", "spec.ingress[0].action: 'allow' is not one of"),
        ("gnp", "{ingress: [{action: Allow, protocl: TCP}]}", "did you mean protocol?"),
        ("gnp", "{ingress: [{action: Allow, source: {ports: [80]}}]}", "says the protocol, TCP"),
        ("gnp", "{ingress: [{action: Allow, protocol: ICMP, source: {notPorts: [80]}}]}", "notPorts"),
        ("gnp", "{ingress: [{action: Allow, protocol: HTTP}]}", "neither a number nor one of TCP"),
        ("gnp", "{ingress: [{action: Allow, protocol: 256}]}", "they are 1 to 255"),
        ("gnp", "{ingress: [{action: Allow, icmp: {type: 8}}]}", "says the protocol, ICMP"),
        ("gnp", "{ingress: [{action: Allow, protocol: ICMP, icmp: {code: 0}}]}", "with a type only"),
        ("gnp", "{ingress: [{action: Allow, protocol: ICMP, icmp: {type: 255}}]}", "0 and 254"),
        ("gnp", "{ingress: [{action: Allow, protocol: ICMPv6, ipVersion: 4}]}", "is 6 with icmpv6"),
        ("gnp", "{ingress: [{action: Allow, protocol: TCP, destination: {ports: ['90:80']}}]}", "90:80"),
        ("gnp", "{ingress: [{action: Allow, protocol: TCP, destination: {ports: [0]}}]}", "0 is not"),
        ("gnp", "{ingress: [{action: Allow, protocol: TCP, destination: {ports: [80-90]}}]}", "80:90"),
        ("gnp", "{ingress: [{action: Allow, source: {nets: [10.0.0.0/8, 'fd00::/8']}}]}", "and of IPv6"),
        ("gnp", "{ingress: [{action: Allow, source: {nets: [10.0.0.1]}}]}", "write 10.0.0.1/32"),
        ("gnp", "{ingress: [{action: Allow, ipVersion: 6, source: {nets: [10.0.0.0/8]}}]}", "IPv6"),
        ("gnp", "{egress: [{action: Allow, destination: {services: {name: a}}}]}", "services.namespace"),
        ("np", "{egress: [{action: Allow, source: {services: {name: a}}}]}", "stands on the other side"),
        ("np", "{egress: [{action: Allow, protocol: TCP, destination: {services: {name: a}, ports: [1]}}]}",
         "are those of the service"),
        ("np", "{ingress: [{action: Allow, source: {services: {name: a}, selector: all()}}]}", "does not go"),
        ("np", "{ingress: [{action: Allow, source: {selector: 'has('}}]}", "source.selector: "),
        ("np", "{ingress: [{action: Allow, source: {namespaceSelector: 'global() && all()'}}]}", "alone"),
        ("np", "{ingress: [{action: Deny, http: {methods: [GET]}}]}", "for the action Allow only"),
        ("np", "{egress: [{action: Allow, http: {methods: [GET]}}]}", "for ingress rules only"),
        ("np", "{ingress: [{action: Allow, http: {paths: [{exact: /a, prefix: /b}]}}]}", "either exact"),
        ("np", "{namespaceSelector: all()}", "spec.namespaceSelector: there is no such field"),
        ("np", "{ingress: {action: Allow}}", "is not a list; begin each item with '- '"),
        ("sgnp", "{stagedAction: Remove}", "'Remove' is not one of Set, Delete"),
        ("sgnp", "{stagedAction: Delete, selector: all()}", "nothing but the tier is said"),
    ],
)  # fmt: skip
def test_what_calico_refuses(plural: str, spec: str, why: str) -> None:
    found = said(plural, spec)
    assert any(why in one for one in found), found
    assert all(one.startswith("spec") for one in found)


@pytest.mark.parametrize(
    ("plural", "spec"),
    [
        ("ippools", "{cidr: 10.0.0.0/28, blockSize: 28, nodeSelector: \"!has(x) && zone in {'a', 'b'}\"}"),
        ("ippools", "{cidr: 10.0.0.0/30, disabled: true}"),
        ("ippools", "{cidr: 'fd00:10::/64', vxlanMode: CrossSubnet, assignmentMode: Manual}"),
        ("ippools", "{cidr: 10.0.0.0/24, allowedUses: [LoadBalancer], nodeSelector: all()}"),
        ("hostendpoints", "{node: a, interfaceName: '*', profiles: [projectcalico-default-allow]}"),
        ("bgppeers", "{peerIP: '[fd00::1]:1790', asNumber: 64512, password: {secretKeyRef: {name: a, key: b}}}"),
        ("bgppeers", "{peerIP: 10.0.0.1, asNumber: '1.1', nodeSelector: rack == 'r1', maxRestartTime: 1m30s}"),
        ("bgpfilters", "{exportV4: [{action: Reject, cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {min: 9}}]}"),
        ("sknp", "{podSelector: {}, ingress: [{from: [{podSelector: {}, namespaceSelector: {matchExpressions: [{key: "
                 "a, operator: NotIn, values: [b]}]}}], ports: [{protocol: TCP, port: 8, endPort: 9}, {port: dns}]}]}"),
        ("sknp", "{stagedAction: Delete}"),
        ("felixconfig", "{routeTableRanges: [{min: 10, max: 500}], bpfLogLevel: '', somethingNew: 1}"),
        ("gnp", "{order: 0.5, selector: '', ingress: [{action: Allow, protocol: tcp, destination: "
                                  "{ports: [80, '443', '8000:9000', http-web]}}, {action: Log}, {action: Pass}]}"),
        ("gnp", "{ingress: [{action: Allow, protocol: 6, source: {ports: [1], notNets: [10.0.0.0/8], "
                                  "namespaceSelector: global()}}]}"),
        ("np", "{egress: [{action: Allow, destination: {services: {name: a, namespace: b}}}], types: [Egress]}"),
        ("np", "{ingress: [{action: Allow, protocol: ICMP, icmp: {type: 8, code: 0}, notICMP: {type: 3}}]}"),
    ],
)  # fmt: skip
def test_what_calico_takes(plural: str, spec: str) -> None:
    assert said(plural, spec) == []


@pytest.mark.parametrize(
    ("plural", "name", "version", "spec", "why"),
    [
        ("ippools", "Second", "", "{cidr: 10.0.0.0/16}", "Second is not a name"),
        ("ippools", "a" * 254, "", "{cidr: 10.0.0.0/16}", "too long by 1"),
        ("tiers", "a.b", "", "{order: 1}", "small letters, digits and '-' only"),
        ("tiers", "default", "", "{order: 1}", "of tier default it is 1000000"),
        ("ipamconfigs", "other", "", "{strictAffinity: true}", "is called default"),
        ("gnp", "a.b.c", "", "{}", "and its tier before a '.'"),
        ("gnp", "knp.default.x", "", "{}", "made of a Kubernetes policy"),
        ("gnp", "x", "v3.31.7", "{tier: platform}", "has it before its name: platform.x"),
        ("gnp", "x", "v3.32.1", "{tier: platform}", ""),
        ("gnp", "platform.x", "v3.31.7", "{tier: platform}", ""),
        ("felixconfig", "node.node-a", "", "{}", ""),
    ],
)
def test_names(plural: str, name: str, version: str, spec: str, why: str) -> None:
    found = said(plural, spec, name, version)
    assert [why in one for one in found] == ([True] if why else [])


def test_labels_and_annotations() -> None:
    for metadata, why in (
        ({"labels": {"a b": "c"}}, "metadata.labels.a b: is not the name of a label"),
        ({"labels": {"a": "c d"}}, "is not the value of a label"),
        ({"labels": {"a": 1}}, "1 is not text; write it in quotes"),
        ({"labels": ["a"]}, "metadata.labels: is not a mapping"),
        ({"annotations": {"a": True}}, "True is not text"),
        ({"namespace": "shop"}, "is a kind without namespaces"),
    ):
        [found] = said("ippools", "{cidr: 10.0.0.0/16}", **metadata)
        assert why in found
    assert said("globalnetworksets", "{nets: []}", labels={"projectcalico.org/namespace": "x"}) != []
    annotations = {"Any/thing.Else": "text of any kind \n"}
    assert said("ippools", "{cidr: 10.0.0.0/16}", labels={"x.example/a": ""}, annotations=annotations) == []


# ---- the two forms of a resource


def test_uids_are_turned_as_calico_turns_them() -> None:
    """Of every recorded pool: what was stored, and what calicoctl printed."""
    pairs: list[tuple[str, str]] = []
    for path in calicoctl.files():
        state, _, file = path.partition("/calicoctl/")
        if file == "get-ippools-json.json":
            items = load(state)["cr/ippools.json"]["items"]
            pairs += [(raw["metadata"]["uid"], one["metadata"]["uid"])
                      for raw, one in zip(items, calicoctl.parsed(path)["items"], strict=True)]  # fmt: skip
    assert len(pairs) > 15
    assert all(convert_uid(raw) == printed and convert_uid(printed) == raw for raw, printed in pairs)
    assert convert_uid("not-a-uuid") == "not-a-uuid"


KEYS = st.sampled_from(["team", "app.kubernetes.io/name", "projectcalico.org/tier-ish", "operator.tigera.io/x", "b"])
MAPPING = st.dictionaries(KEYS, st.text(max_size=8), max_size=4)


@given(
    plural=st.sampled_from(sorted(plural for plural, kind in KINDS.items() if kind.written)),
    group=st.sampled_from([CLASSIC, NATIVE]),
    name=st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,5})?", fullmatch=True),
    labels=MAPPING,
    annotations=MAPPING,
    version=st.sampled_from(["", "v3.26.5", "v3.31.7", "v3.32.1", "v3.33.0"]),
    changes=st.lists(st.tuples(MAPPING, MAPPING), max_size=3),
)
def test_what_is_written_is_what_is_shown_however_often(
    plural: str,
    group: str,
    name: str,
    labels: dict[str, str],
    annotations: dict[str, str],
    version: str,
    changes: list[tuple[dict[str, str], dict[str, str]]],
) -> None:
    place = {"namespace": "shop"} if KINDS[plural].namespaced else {}
    tier = tier_of(name) if plural in TIERED else ""
    own = {"projectcalico.org/tier": tier} if tier else {}
    before: Object | None = None
    for wanted_labels, wanted_annotations in [(labels, annotations), *changes]:
        metadata = {"name": name, **place, "labels": wanted_labels, "annotations": wanted_annotations}
        spec = {"x": [1, {"y": None}], **({"tier": tier} if tier else {})}
        wanted = {"apiVersion": "projectcalico.org/v3", "kind": KINDS[plural].shown, "metadata": metadata, "spec": spec}
        raw = stored(wanted, plural, group, before, version=version, now=NOW)
        assert raw["apiVersion"] == group and raw["metadata"].get("namespace") == place.get("namespace")
        found = shown(raw, plural, version)
        assert found["metadata"]["name"] == name
        assert found["metadata"].get("labels", {}) == {**wanted_labels, **own}
        assert found["metadata"].get("annotations", {}) == wanted_annotations
        assert {**found["spec"], **spec} == found["spec"]
        assert METADATA not in plain(found)["metadata"].get("annotations", {})
        if before is not None:
            kept = {key: before["metadata"].get(key) for key in ("uid", "resourceVersion", "finalizers", "name")}
            assert {key: raw["metadata"].get(key) for key in kept} == kept and raw["ofANewerVersion"] == 1
        else:
            assert raw["metadata"]["name"] == stored_name(name, plural, group, version)
        raw["metadata"] |= {"uid": "6c6b3daa-30f0-4016-a438-1d46e0320d6d", "resourceVersion": "7", "finalizers": ["x"]}
        before = {**raw, "ofANewerVersion": 1}


def test_names_of_policies_in_the_store() -> None:
    assert stored_name("a", "networkpolicies", CLASSIC, "v3.31.7") == "default.a"
    assert stored_name("p.a", "networkpolicies", CLASSIC, "v3.31.7") == "p.a"
    assert stored_name("a", "networkpolicies", CLASSIC, "v3.32.1") == "a"
    assert stored_name("a", "networkpolicies", NATIVE, "v3.31.7") == "a"
    assert stored_name("a", "ippools", CLASSIC, "v3.26.5") == "a"
    assert tiered("knp.default.x.y") == "knp.default.x.y" and tier_of("kcnp.kube-admin.x") == "kube-admin"
