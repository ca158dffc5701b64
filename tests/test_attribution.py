"""Were the wrong policy blamed for a lost packet, its team would look for a fault it does not have."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.attribution import blame, chain_names, limited
from engine.dropped import by_policy
from facts.ask import Trace
from facts.firewall import BLAMED, Blame, RuleDrop
from facts.policy import Policy, PolicyPeer, PolicyRule
from facts.policy_kinds import calico, cluster_wide, kubernetes
from node_probe.firewall.drops import Counted, drops, grown
from node_probe.firewall.event import Event
from node_probe.firewall.ruleset import IPTABLES_LEGACY, Ruleset, from_nft, from_save
from tests.recorded_firewall import directories, events, files, ruleset
from tests.recordings import load
from tests.test_firewall_ruleset import FLOWS, before_and_after

ASKED = Trace(source="10.244.218.65", target="10.244.174.129", protocol="tcp", port=8080)
DENY, ALLOW = PolicyRule(action="Deny"), PolicyRule(action="Allow")
OWN = ("drop", "node", "source_address", "target_address", "fact", "interface")


def told(found: Blame) -> dict[str, Any]:
    """What it says beyond the packet's own words; of interfaces, whose names are made, only that there is one."""
    return {name: value for name, value in msgspec.to_builtins(found).items() if value and name not in OWN}


def policy(kind: str, name: str, namespace: str = "", **more: Any) -> Policy:
    return Policy(kind=kind, name=name, namespace=namespace, **more)


# --- the recorded traces ---

OF_TRACES = (
    policy("KubernetesNetworkPolicy", "default-deny", "default", types=("Ingress",)),
    policy("GlobalNetworkPolicy", "block-g1", ingress=(DENY, ALLOW)),
    policy("NetworkPolicy", "security.allow-only-https", "default", tier="security", ingress=(ALLOW,)),
    policy("NetworkPolicy", "no-egress", "default", egress=(DENY, ALLOW)),
)
TO_POD = {"endpoint": "pod", "direction": "ingress"}
SCENARIOS: dict[str, dict[str, Any]] = {
    "1-default-deny-ingress": {
        **TO_POD,
        "what": "end_of_tier",
        "tier": "default",
        "consulted": ("KubernetesNetworkPolicy default/default-deny",),
    },
    "2-gnp-explicit-deny": {
        **TO_POD,
        "what": "policy",
        "kind": "GlobalNetworkPolicy",
        "name": "block-g1",
        "tier": "default",
        "rule": 1,
    },
    "3-end-of-tier-security": {
        **TO_POD,
        "what": "end_of_tier",
        "tier": "security",
        "consulted": ("NetworkPolicy default/security.allow-only-https",),
    },
    "4-egress-deny-at-source": {
        "endpoint": "pod",
        "direction": "egress",
        "what": "policy",
        "kind": "NetworkPolicy",
        "namespace": "default",
        "name": "no-egress",
        "tier": "default",
        "rule": 1,
    },
    "5-rpfilter-spoofed-source": {"what": "reverse_path"},
    "10-own-route-missing-rpfilter": {"what": "reverse_path"},
    "6-unknown-interface-from": {"what": "unknown_interface_from"},
    "6-unknown-interface-to": {"what": "unknown_interface_to"},
    "7-input-non-allowed-vxlan-host": {"what": "vxlan_source"},
    "8-foreign-nft-table-drop": {"what": "foreign"},
}


SERVICES = {"no-endpoints": "10.96.0.51", "internal-local": "10.96.0.57"}


def recorded(directory: str, name: str = "") -> list[RuleDrop]:
    asked = Trace(source=ASKED.source, target=SERVICES[name], protocol="tcp", port=80) if name in SERVICES else ASKED
    found = drops("node-a", asked, events(directory, name), ruleset(directory))
    return [one for one in found if isinstance(one, RuleDrop)]


@pytest.mark.parametrize("directory", directories(r"trace/.*/meta\.json"))
def test_a_recorded_drop_is_led_to_who_wanted_it(directory: str) -> None:
    expected = SCENARIOS.get(directory.split("/")[2])
    found = recorded(directory)
    assert [told(blame(drop, OF_TRACES)) for drop in found] == ([expected] if expected else [])
    without = {name: value for name, value in (expected or {}).items() if name != "rule"}
    assert [told(blame(drop, ())) for drop in found] == ([without] if expected else [])


@pytest.mark.parametrize(
    ("node", "name", "why", "service"),
    [
        ("node-a", "no-endpoints", "no_endpoints", "default/svc-none:web"),
        ("node-a", "internal-local", "no_local_endpoints", "default/svc-intlocal:web"),
        ("node-c", "no-endpoints", "no_endpoints", "default/svc-none:web"),
        ("node-c", "internal-local", "no_local_endpoints", "default/svc-intlocal:web"),
        ("node-c", "unallocated-ip", "unallocated", ""),
    ],
)
def test_a_recorded_drop_of_a_service_is_led_to_kube_proxy(node: str, name: str, why: str, service: str) -> None:
    (drop,) = recorded(f"services/trace/{node}", name)
    found = blame(drop, ())
    assert (found.what, found.owner, found.why, found.service) == ("kube_proxy", "kube-proxy", why, service)


# --- the recorded flows, by counters, with the policies the API server had ---


def of_set(name: str) -> list[Policy]:
    found: list[Policy | None] = []
    for path, content in load("v3.32.1/loose").items():
        if path.startswith(f"policy-zoo/{name}/objects/") and "policies." in path:
            for one in content["items"]:
                staged = one["kind"].startswith("Staged")
                if one["kind"] == "ClusterNetworkPolicy":
                    found.append(cluster_wide(one))
                elif one["kind"].endswith("KubernetesNetworkPolicy") or "networking.k8s.io" in one["apiVersion"]:
                    found.append(kubernetes(one, staged=staged))
                else:
                    found.append(calico(one, staged=staged))
    return [one for one in found if one]


KNP, NP, GNP, KCNP = (
    "KubernetesNetworkPolicy",
    "NetworkPolicy",
    "GlobalNetworkPolicy",
    "KubernetesClusterNetworkPolicy",
)
END = "end of tier"
# (set, words of the flow) -> what is blamed, tier, policies consulted or kind, namespace/name and rule
ZOO: dict[tuple[str, str], tuple[Any, ...]] = {
    ("01", ""): (END, "default", f"{KNP} default/web-ingress"),
    ("02", ""): (END, "default", f"{KNP} default/egress-only-b1"),
    ("03", ""): (END, "default", f"{KNP} default/named-port"),
    ("04", ""): (END, "default", f"{KNP} default/cidr"),
    ("05", ""): (END, "default", f"{KNP} default/from-shop"),
    ("06", ""): ("default", NP, "default/deny-g2-first", 1),
    ("07", "passed then"): (END, "default", f"{NP} default/only-8080"),
    ("07", "explicit deny"): ("platform", GNP, "platform.pass-shop", 2),
    ("07", "no match"): (END, "platform", f"{GNP} platform.pass-shop"),
    ("09", ""): (END, "default", f"{KNP} default/default-deny"),
    ("11", ""): ("default", GNP, "deny-bad-nets", 1),
    ("12", ""): ("default", NP, "default/deny-bad-local", 1),
    ("13", ""): (END, "default", f"{GNP} only-frontend-sa"),
    ("14", "admin"): ("kube-admin", KCNP, "admin-deny-ops", 1, "deny-ops"),
    ("14", "baseline"): ("kube-baseline", KCNP, "baseline-deny", 1, "deny-default-b2"),
    ("15", ""): (END, "default", f"{GNP} host-allow-8443"),
    ("16", ""): ("default", GNP, "fwd-deny-b2", 1),
}
DENIED = [(flow, node) for flow in FLOWS for node in flow["drop_rules"]]


@pytest.mark.parametrize("names", ["all that is told", "chains alone"])
@pytest.mark.parametrize(("flow", "node"), DENIED, ids=[f"{f['set']}: {f['flow']}" for f, _ in DENIED])
def test_a_recorded_flows_drop_is_led_to_its_policy(flow: dict[str, Any], node: str, names: str) -> None:
    (packets,) = (rule["packets"] for rule in flow["drop_rules"][node])
    _, drop = grown(node, [Counted(ASKED, packets)], *before_and_after(flow, node))
    assert isinstance(drop, RuleDrop)
    if names == "chains alone":  # of which most are hashes in iptables
        drop = msgspec.structs.replace(drop, title="", consulted_titles=("",) * len(drop.consulted))
    found = blame(drop, of_set(flow["set"]))
    (expected,) = (
        value for (number, words), value in ZOO.items() if flow["set"][:2] == number and words in flow["flow"]
    )
    if expected[0] == END:
        assert (found.what, found.tier, found.consulted) == ("end_of_tier", expected[1], expected[2:])
    else:
        name = f"{found.namespace}/{found.name}" if found.namespace else found.name
        known = (found.tier, found.kind, name, found.rule, *filter(None, [found.rule_name]))
        assert (found.what, known) == ("policy", expected)
    kind, way = ("host", flow["set"][:2] == "16") if flow["set"][:2] in ("15", "16") else ("pod", False)
    assert (found.endpoint, found.forward) == (kind, way)
    assert found.direction == ("egress" if flow["set"][:2] == "02" else "ingress")
    assert found.interface == {"15": "eth0", "16": "*"}.get(flow["set"][:2], found.interface) != ""


@pytest.mark.parametrize(
    ("where", "before", "after", "packets", "expected"),
    [
        ("policy-iptables", "1-deny-idle", "2-deny-probed", 6, (f"{KNP} default/default-deny",)),
        (
            "policy-iptables",
            "3-allow-idle",
            "4-allow-probed",
            3,
            (f"{KNP} default/allow-b2-to-8080", f"{KNP} default/default-deny"),
        ),
        ("policy-iptables", "5-gnp-deny-idle", "6-gnp-deny-probed", 2, "block-b2"),
        ("policy-nftables", "1-deny-idle", "2-deny-probed", 6, (f"{KNP} default/default-deny",)),
        (
            "policy-nftables",
            "3-allow-idle",
            "4-allow-probed",
            3,
            (f"{KNP} default/allow-8080", f"{KNP} default/default-deny"),
        ),
        ("policy-nftables", "5-gnp-deny-idle", "6-gnp-deny-probed", 2, "block-p"),
        (
            "dualstack/policy-v6",
            "1-v4-cidr-only-idle",
            "2-v4-cidr-only-probed",
            2,
            (f"{KNP} default/deny-v6-except-a2",),
        ),
    ],
)
def test_counters_of_iptables_legacy_of_groups_and_of_ipv6_name_the_policies(
    where: str, before: str, after: str, packets: int, expected: str | tuple[str, ...]
) -> None:
    """A group's policies are the ones asked, not the group; a policy with IPv4 addresses alone ends all IPv6."""
    for node in ("node-b", "node-c") if "v6" in where else ("node-c",):
        first, then = (ruleset(f"{where}/{state}/{node}") for state in (before, after))
        _, drop = grown(node, [Counted(ASKED, packets)], first, then)
        assert isinstance(drop, RuleDrop)
        assert where != "policy-iptables" or drop.backend == IPTABLES_LEGACY
        found = blame(drop, ())
        assert (found.name or found.consulted, found.tier, found.endpoint) == (expected, "default", "pod")


# --- names of all versions ---


def in_chain(chain: str, **more: Any) -> RuleDrop:
    given: dict[str, Any] = {
        "node": "node-a",
        "source_address": "10.244.218.65",
        "target_address": "10.244.174.129",
        "protocol": "tcp",
        "how": "trace",
        "backend": IPTABLES_LEGACY,
        "family": 4,
        "table": "filter",
        "text": f'-A {chain} -m comment --comment "cali:638TriinwfaKDyR0" -j DROP',
        "through": ("FORWARD", "cali-FORWARD", "cali-to-wl-dispatch", "cali-tw-cali1b3732f617b"),
        "number": 2,
        "nth": 1,
        "drops": 1,
    }
    return RuleDrop(chain=chain, **{**given, **more})


WEB = policy(KNP, "web", "shop", types=("Ingress",))
LONG = policy(NP, "platform.allow-the-front-end-and-nobody-else", "shop", tier="platform", ingress=(ALLOW, DENY))
SHORT_ONE = policy(GNP, "foo", ingress=(DENY,))


@pytest.mark.parametrize(
    ("known", "identity"),
    [
        (WEB, "shop/knp.default.web"),
        (WEB, "default/shop/knp.default.web"),
        (WEB, "knp/shop/web"),
        (LONG, "shop/platform.allow-the-front-end-and-nobody-else"),
        (LONG, "platform/shop/platform.allow-the-front-end-and-nobody-else"),
        (LONG, "np/shop/platform.allow-the-front-end-and-nobody-else"),
        (SHORT_ONE, "default.foo"),
        (SHORT_ONE, "default/default.foo"),
        (SHORT_ONE, "default/foo"),
        (SHORT_ONE, "gnp/foo"),
        (policy(KCNP, "admin", tier="kube-admin"), "kcnp/admin"),
    ],
)
@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_a_policys_chain_is_known_by_every_versions_name(known: Policy, identity: str, mode: str) -> None:
    """Until 3.28 a name, from 3.29 with its tier, from 3.32 with its kind; beyond 28 characters a hash in iptables."""
    others = (WEB, LONG, SHORT_ONE, policy(GNP, "other"), policy(KCNP, "admin", tier="kube-admin"))
    if mode == "iptables":
        drop = in_chain(limited("cali-pi-", identity))
        assert len(drop.chain) <= 28
    else:
        through = ("filter-FORWARD", "filter-cali-FORWARD", "filter-cali-tw-cali1b3732f617b")
        drop = in_chain(f"filter-cali-pi-{identity}", table="calico", backend="nft", through=through)
    found = blame(drop, others)
    assert (found.what, found.kind, found.namespace, found.name) == ("policy", known.kind, known.namespace, known.name)
    assert (found.endpoint, found.interface) == ("pod", "cali1b3732f617b")


@pytest.mark.parametrize(
    ("title", "kind", "namespace", "name"),
    [
        ("KubernetesNetworkPolicy shop/web ingress", KNP, "shop", "web"),
        ("GlobalNetworkPolicy block ingress", GNP, "", "block"),
        ("Policy shop/knp.default.web ingress", KNP, "shop", "web"),
        ("Policy shop/default.web ingress", NP, "shop", "web"),
        ("Policy default.block ingress", GNP, "", "block"),
        ("Policy platform.block ingress", GNP, "", "platform.block"),
        ("Policy kanp.adminnetworkpolicy.deny-ops ingress", "", "", "kanp.adminnetworkpolicy.deny-ops"),
        ("KubernetesAdminNetworkPolicy deny-ops ingress", "KubernetesAdminNetworkPolicy", "", "deny-ops"),
        ("", "", "", "cali-pi-_hkektpvVyhILpLRsra1"),
    ],
)
def test_a_policy_nobody_read_is_called_as_its_rules_call_it(title: str, kind: str, namespace: str, name: str) -> None:
    found = blame(in_chain("cali-pi-_hkektpvVyhILpLRsra1", title=title), (WEB,) if not title else ())
    assert (found.what, found.kind, found.namespace, found.name) == ("policy", kind, namespace, name)


def test_a_name_that_two_policies_may_have_is_told_by_the_comment() -> None:
    """default/default.foo: the NetworkPolicy foo of namespace default (3.28), or foo of tier default (3.29)."""
    both = (policy(NP, "foo", "default"), policy(GNP, "foo"))
    chain = "cali-pi-default/default.foo"
    assert blame(in_chain(chain, title="Policy default/default.foo ingress"), both).kind == NP
    assert blame(in_chain(chain, title="Policy default.foo ingress"), both).kind == GNP
    undecided = blame(in_chain(chain), both)
    assert (undecided.kind, undecided.name) == ("", chain)


def test_a_staged_policy_is_never_blamed() -> None:
    staged = policy(GNP, "foo", staged=True, ingress=(DENY,))
    found = blame(in_chain("cali-pi-gnp/foo"), (staged,))
    assert (found.name, found.rule) == ("foo", 0)


def test_names_of_different_policies_never_meet() -> None:
    read = [(name, one) for name in {flow["set"] for flow in FLOWS} for one in of_set(name)]
    chains: dict[tuple[str, str], set[tuple[str, str, str]]] = {}
    for name, one in read:
        for chain in chain_names(one, "ingress") | chain_names(one, "egress"):
            chains.setdefault((name, chain), set()).add((one.kind, one.namespace, one.name))
    assert chains and all(len(owners) == 1 for owners in chains.values())


# --- which of a policy's rules ---


def test_the_rule_of_a_policy_is_counted_among_those_of_the_packets_family() -> None:
    six = PolicyRule(action="Deny", source=PolicyPeer(nets=("fd00::/8",)))
    four = PolicyRule(action="Deny", destination=PolicyPeer(nets=("10.0.0.0/8", "fd00::/8")))
    not_all = PolicyRule(action="Deny", source=PolicyPeer(not_nets=("0.0.0.0/0",)))
    known = policy(GNP, "foo", ingress=(ALLOW, six, not_all, four, PolicyRule(action="Deny", ip_version=6), DENY))
    for family, nth, of, rule in ((4, 1, 2, 4), (4, 2, 2, 6), (6, 1, 4, 2), (6, 2, 4, 4), (6, 3, 4, 5), (6, 4, 4, 6)):
        drop = in_chain("cali-pi-gnp/foo", nth=nth, drops=of, family=family)
        assert blame(drop, (known,)).rule == rule, (family, nth)
    assert blame(in_chain("cali-pi-gnp/foo", nth=1, drops=3), (known,)).rule == 0  # read before, or after, a change


# --- everything else in Calico's chains ---


@pytest.mark.parametrize(
    ("chain", "more", "expected"),
    [
        ("cali-tw-cali1", {"comment": "Drop if no profiles matched"}, {"what": "no_profile", **TO_POD}),
        ("cali-tw-cali1", {"comment": "Reject if no profiles matched"}, {"what": "no_profile", **TO_POD}),
        ("cali-tw-cali1", {"comment": "Endpoint admin disabled"}, {"what": "endpoint_down", **TO_POD}),
        (
            "cali-fw-cali1",
            {"comment": "Drop VXLAN encapped packets originating in workloads"},
            {"what": "encapsulation", "endpoint": "pod", "direction": "egress"},
        ),
        (
            "cali-fw-cali1",
            {
                "comment": "DROP if no policies passed packet",
                "tier": "default",
                "consulted": ("cali-po-shop/knp.default.web",),
            },
            {
                "what": "end_of_tier",
                "tier": "default",
                "endpoint": "pod",
                "direction": "egress",
                "consulted": (f"{KNP} shop/web",),
            },
        ),
        (
            "cali-th-eth0",
            {"comment": "End of tier default. Reject if no policies passed packet", "tier": "default"},
            {"what": "end_of_tier", "tier": "default", "endpoint": "host", "direction": "egress"},
        ),
        ("cali-tw-cali1", {"comment": "Drop packets over packet rate limit"}, {"what": "limit", **TO_POD}),
        (
            "cali-pri-kns.shop",
            {"title": "Profile kns.shop ingress", "through": ("FORWARD", "cali-FORWARD", "cali-tw-cali1")},
            {"what": "profile", "kind": "Profile", "name": "kns.shop", **TO_POD},
        ),
        (
            "cali-INPUT",
            {"comment": "Drop IPIP packets from non-Calico hosts", "through": ("INPUT",)},
            {"what": "ipip_source"},
        ),
        (
            "cali-wl-to-host",
            {"comment": "Configured DefaultEndpointToHostAction", "through": ("INPUT", "cali-INPUT")},
            {"what": "own_host"},
        ),
        ("cali-cidr-block", {"through": ("FORWARD", "cali-FORWARD")}, {"what": "service_loop"}),
        ("cali-forward-check", {"through": ("INPUT",)}, {"what": "calico"}),
    ],
)
def test_calicos_other_rules_are_known_by_what_it_writes_beside_them(
    chain: str, more: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert told(blame(in_chain(chain, **{"through": (), **more}), ())) == expected


@pytest.mark.parametrize(
    "text", ["-m conntrack --ctstate INVALID -j DROP", "ct state invalid counter drop", "ct state 0x1 counter drop"]
)
def test_what_connection_tracking_refuses_is_no_policy(text: str) -> None:
    drop = in_chain("cali-tw-cali1", through=(), text=f'{text} comment "cali:638TriinwfaKDyR0;"')
    assert told(blame(drop, ())) == {"what": "invalid", **TO_POD}


@pytest.mark.parametrize("directory", directories(r"trace/iptables-nft/.*/meta\.json"))
def test_without_iptables_own_tool_a_recorded_drop_is_known_by_what_it_does(directory: str) -> None:
    """nft prints iptables' rules without their comments: only what the end of a tier stood for is missing then."""
    scenario = directory.split("/")[2]
    bare = Ruleset(from_nft(files()[f"{directory}/nft.txt"]))
    found = [one for one in drops("node-a", ASKED, events(directory), bare) if isinstance(one, RuleDrop)]
    expected = dict(SCENARIOS.get(scenario, {}))
    if expected.get("what") == "end_of_tier":
        del expected["consulted"], expected["tier"]
    assert [told(blame(drop, OF_TRACES)) for drop in found] == ([expected] if expected else [])


# What v3.28.5 wrote while it ran, of a pod with a default-deny policy: the chain of TO_POD.
OF_3_28 = """*filter
:FORWARD ACCEPT [0:0]
:cali-pi-_ZFjibTxb9j7SjgJ2hzN - [0:0]
:cali-tw-cali1 - [0:0]
[0:0] -A FORWARD -o cali1 -m comment --comment "cali:nMvXHbfPkHagWjmI" -g cali-tw-cali1
[0:0] -A cali-pi-_ZFjibTxb9j7SjgJ2hzN -m comment --comment "cali:MbyQLfcUuNZNVRbi" -m comment --comment "Policy shop/knp.default.default-deny ingress"
[0:0] -A cali-tw-cali1 -m comment --comment "cali:8vc66YsNJGe3Ky9C" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
[0:0] -A cali-tw-cali1 -m comment --comment "cali:pI6VUf31LqlsKdoP" -m conntrack --ctstate INVALID -j DROP
[0:0] -A cali-tw-cali1 -m comment --comment "cali:xN3RgdskDnA7KNFV" -j MARK --set-xmark 0x0/0x30000
[0:0] -A cali-tw-cali1 -m comment --comment "cali:4Vb8eFP8s1jhvm6N" -m mark --mark 0x0/0x20000 -j cali-pi-_ZFjibTxb9j7SjgJ2hzN
[0:0] -A cali-tw-cali1 -m comment --comment "cali:6FAFtAbVqI_4N2Mv" -m comment --comment "Return if policy accepted" -m mark --mark 0x10000/0x10000 -j RETURN
[0:0] -A cali-tw-cali1 -m comment --comment "cali:ikGXUVwzImlDftjc" -m comment --comment "Drop if no policies passed packet" -m mark --mark 0x0/0x20000 -j DROP
COMMIT
"""  # noqa: E501


def test_the_one_tier_of_3_28_is_named_though_no_rule_says_where_it_starts() -> None:
    ruleset = Ruleset(from_save(OF_3_28, backend=IPTABLES_LEGACY, family="ip"))
    at: dict[str, Any] = {"packet": "1", "backend": IPTABLES_LEGACY, "family": "ip", "table": "filter", "kind": "rule"}
    met = [Event(chain="FORWARD", number=1, **at), Event(chain="cali-tw-cali1", number=6, **at)]
    (drop,) = (one for one in drops("node-a", ASKED, met, ruleset) if isinstance(one, RuleDrop))
    found = blame(drop, [policy(KNP, "default-deny", "shop")])
    assert (found.what, found.tier, found.consulted) == (
        "end_of_tier",
        "default",
        ("KubernetesNetworkPolicy shop/default-deny",),
    )
    assert by_policy(found) == (
        "at the end of tier default, where none of its policies took them (NetworkPolicy shop/default-deny)"
    )
    assert "tier ," not in by_policy(msgspec.structs.replace(found, tier=""))


def test_a_rule_put_into_calicos_chain_by_hand_is_not_calicos() -> None:
    by_hand = in_chain("cali-tw-cali1", through=(), text="-A cali-tw-cali1 -s 10.0.0.1/32 -j DROP")
    assert told(blame(by_hand, ())) == {"what": "foreign", **TO_POD}
    in_nft = in_chain("filter-cali-tw-cali1", table="calico", backend="nft", through=(), text="ip saddr 10.0.0.1 drop")
    assert blame(in_nft, ()).what == "foreign"
    # Without iptables' own tool nobody sees the comments of its rules.
    unsaid = in_chain(
        "cali-tw-cali1", backend="nft", through=(), text="meta mark & 0x00020000 == 0x00000000 counter drop"
    )
    assert blame(unsaid, ()).what == "end_of_tier"


def test_a_rule_that_was_not_listed_any_more_is_unknown_unless_its_chain_tells() -> None:
    assert blame(in_chain("cali-tw-cali1", text="", number=-1, through=()), ()).what == "unknown"
    found = blame(in_chain("cali-pi-gnp/foo", text="", number=-1, nth=0, drops=2), (SHORT_ONE,))
    assert (found.what, found.name, found.rule) == ("policy", "foo", 0)


# --- rules of others ---


@pytest.mark.parametrize(
    ("chain", "table", "through", "owner"),
    [
        ("DOCKER-USER", "filter", ("FORWARD",), "docker"),
        ("DOCKER-ISOLATION-STAGE-2", "filter", ("FORWARD", "DOCKER-ISOLATION-STAGE-1"), "docker"),
        ("filter_FORWARD", "firewalld", (), "firewalld"),
        ("FWDI_public_deny", "filter", ("FORWARD", "FORWARD_IN_ZONES"), "firewalld"),
        ("ufw-reject-forward", "filter", ("FORWARD",), "ufw"),
        ("ufw6-user-input", "filter", ("INPUT", "ufw6-before-input"), "ufw"),
        ("mine", "filter", ("FORWARD", "DOCKER-USER"), "docker"),
        ("LIBVIRT_FWI", "filter", ("FORWARD",), "libvirt"),
        ("KUBE-FIREWALL", "filter", ("INPUT",), "kubelet"),
        ("KUBE-POD-FW-XYZ", "filter", ("FORWARD", "KUBE-ROUTER-FORWARD"), "kube-router"),
        ("f2b-sshd", "filter", ("INPUT",), "fail2ban"),
        ("FORWARD", "filter", (), ""),
        ("guard", "corp_fw", (), ""),
    ],
)
def test_somebody_elses_rule_is_theirs(chain: str, table: str, through: tuple[str, ...], owner: str) -> None:
    found = blame(in_chain(chain, table=table, through=through, text="-j DROP"), (WEB,))
    assert (found.what, found.owner, found.name) == ("foreign", owner, "")


@pytest.mark.parametrize(
    ("chain", "more", "why"),
    [
        ("KUBE-FORWARD", {"text": "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"}, "invalid"),
        ("KUBE-PROXY-FIREWALL", {"comment": "traffic to shop/web:http not accepted by KUBE-FW-ABC"}, "source_range"),
        ("KUBE-NEW", {}, ""),
        (
            "cluster-ips-check",
            {"table": "kube-proxy", "comment": "Reject traffic to invalid ports of ClusterIPs"},
            "wrong_port",
        ),
    ],
)
def test_kube_proxys_other_rules(chain: str, more: dict[str, Any], why: str) -> None:
    found = blame(in_chain(chain, **{"through": ("FORWARD",), "text": "-j DROP", **more}), ())
    assert (found.what, found.why) == ("kube_proxy", why)


def test_every_blame_is_one_of_those_listed() -> None:
    seen = {expected["what"] for expected in SCENARIOS.values()}
    assert seen < set(BLAMED)


def test_a_listing_of_nothing_is_no_rules() -> None:
    assert Ruleset([*from_nft(""), *from_save("", backend=IPTABLES_LEGACY, family="ip")]).chains == {}
