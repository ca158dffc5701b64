"""Calico's own policies: tiers, orders, and all that a rule can ask for, judged as Felix programs them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine import policy
from engine.policy import End, Ends, Gate, Opinion, Packet, Rules
from facts import LabelledEndpoint, NetworkSet, Policy, Tier, policy_kinds
from tests.policy_world import PODS, Pod, between, calico_policy, endpoint, labels

A, B = endpoint(Pod("x", "a")), endpoint(Pod("x", "b"))
YC = endpoint(Pod("y", "c"))
TCP80 = Packet("tcp", 80)
PING = Packet("icmp")
TIERS = (
    Tier(name="default", order="1000000"),
    Tier(name="early", order="50"),
    Tier(name="soft", order="60", default_action="Pass"),
)


def into(
    *policies: Policy, source: LabelledEndpoint = A, target: LabelledEndpoint = B, packet: Packet = TCP80, **other: Any
) -> Opinion:
    """What is said of a packet that comes to x/b."""
    return between(Rules(policies, TIERS), source, target, packet, **other)[1]


def ingress(*rules: dict[str, Any], name: str = "p", **spec: Any) -> Policy:
    return calico_policy(name, types=["Ingress"], ingress=list(rules), **spec)


ALLOW, DENY, PASS, LOG = ({"action": action} for action in ("Allow", "Deny", "Pass", "Log"))


def test_a_policy_of_a_lower_order_is_asked_first() -> None:
    deny, allow = ingress(DENY, order=10, name="z"), ingress(ALLOW, order=20, name="a")
    assert (into(allow, deny).verdict, into(allow, deny).policy) == ("deny", deny)
    assert into(msgspec.structs.replace(deny, order="30"), allow).verdict == "allow"
    assert into(msgspec.structs.replace(deny, order=""), allow).verdict == "allow"  # none comes last
    assert into(msgspec.structs.replace(deny, order="9.5"), msgspec.structs.replace(allow, order="9.75")).policy == (
        msgspec.structs.replace(deny, order="9.5")
    )


def test_of_one_order_the_name_decides() -> None:
    assert into(ingress(DENY, name="b"), ingress(ALLOW, name="a")).verdict == "allow"
    assert into(ingress(DENY, name="a"), ingress(ALLOW, name="b")).verdict == "deny"


def test_before_3_32_a_namespace_was_the_beginning_of_a_name() -> None:
    policies = (ingress(DENY, name="a", namespace="x"), ingress(ALLOW, name="b"))
    now, before = Rules(policies, TIERS), Rules(policies, TIERS, names_first=False)
    assert between(now, A, B, TCP80)[1].verdict == "deny"
    assert between(before, A, B, TCP80)[1].verdict == "allow"  # default.b comes before x/default.a


def test_the_first_rule_that_matches_decides_and_is_named() -> None:
    found = into(ingress(LOG, {"action": "Deny", "source": {"selector": "pod == 'c'"}}, ALLOW, DENY))
    assert (found.verdict, found.by, found.rule, found.tier) == ("allow", "rule", 3, "default")


def test_what_no_policy_of_a_tier_takes_is_dropped_at_its_end() -> None:
    mine, other = ingress({"action": "Allow", "protocol": "UDP"}), ingress(ALLOW, selector="pod == 'q'", name="other")
    found = into(mine, other)
    assert (found.verdict, found.by, found.tier, found.consulted) == ("deny", "end of tier", "default", (mine,))
    assert into(other).by == "profile"  # a tier without a policy about the pod is not asked


def test_pass_goes_to_the_next_tier() -> None:
    passing = ingress(PASS, DENY, tier="early")
    assert into(passing).by == "profile"
    assert into(passing, ingress(DENY)).verdict == "deny"
    assert into(passing, ingress(ALLOW)).verdict == "allow"
    assert into(ingress(PASS), ingress(ALLOW, tier="early", name="q")).verdict == "allow"
    assert (
        into(ingress(PASS, name="a"), ingress(DENY, name="b")).by == "profile"
    )  # the rest of its own tier is not asked


def test_a_tier_may_pass_by_default() -> None:
    soft = ingress({"action": "Allow", "protocol": "UDP"}, tier="soft")
    assert into(soft).by == "profile"
    found = into(soft, ingress(name="nothing"))
    assert (found.verdict, found.by, found.tier) == ("deny", "end of tier", "default")


def test_a_policy_of_a_tier_that_is_not_there_is_not_asked() -> None:
    assert into(ingress(DENY, tier="gone")).by == "profile"


def test_tier_default_is_there_where_tiers_are_no_resources() -> None:
    assert between(Rules((ingress(DENY),)), A, B, TCP80)[1].verdict == "deny"


def test_a_policy_without_types_is_about_both_directions() -> None:
    both = calico_policy("p", ingress=[DENY])
    out, come = between(Rules((both,), TIERS), A, B, TCP80)
    assert (out.by, come.by) == ("end of tier", "rule")


def test_a_policy_that_felix_cannot_read_is_not_programmed() -> None:
    assert into(ingress(DENY, selector="pod = 'b'")).by == "profile"
    assert into(ingress({"action": "Deny", "source": {"selector": "!"}})).by == "profile"


def test_a_staged_policy_decides_nothing() -> None:
    written = {"metadata": {"name": "p", "namespace": "x"}, "spec": {"types": ["Ingress"], "ingress": [DENY]}}
    staged = policy_kinds.calico(written, staged=True)
    assert staged is not None
    assert into(staged).by == "profile"
    rules = Rules(policy.staged_enforced([staged]), TIERS)
    assert between(rules, A, B, TCP80)[1].verdict == "deny"
    enforced = calico_policy("p", "x", types=["Ingress"], ingress=[ALLOW])
    assert policy.staged_enforced([enforced, staged]) == (msgspec.structs.replace(staged, staged=False),)
    removal = policy_kinds.calico({**written, "spec": {"stagedAction": "Delete"}}, staged=True)
    assert removal is not None
    assert policy.staged_enforced([enforced, removal]) == ()
    assert policy_kinds.calico({**written, "spec": {"stagedAction": "Ignore"}}, staged=True) is None


@pytest.mark.parametrize(
    ("rule", "source", "hit"),
    [
        ({}, YC, True),
        ({"protocol": "TCP"}, YC, True),
        ({"protocol": "UDP"}, YC, False),
        ({"protocol": 6}, YC, True),
        ({"notProtocol": "UDP"}, YC, True),
        ({"notProtocol": "TCP"}, YC, False),
        ({"ipVersion": 4}, YC, True),
        ({"ipVersion": 6}, YC, False),
        ({"destination": {"ports": [80]}}, YC, True),
        ({"destination": {"ports": ["70:90", 443]}}, YC, True),
        ({"destination": {"ports": ["81:90"]}}, YC, False),
        ({"destination": {"ports": ["serve-80-tcp"]}, "protocol": "TCP"}, YC, True),
        ({"destination": {"ports": ["serve-81-tcp"]}, "protocol": "TCP"}, YC, False),
        ({"destination": {"notPorts": [80]}}, YC, False),
        ({"destination": {"notPorts": [81]}}, YC, True),
        ({"source": {"nets": ["10.0.2.0/24"]}}, YC, True),
        ({"source": {"nets": ["10.0.2.3/24"]}}, YC, True),  # whose host part does not matter
        ({"source": {"nets": ["10.0.2.3"]}}, YC, True),
        ({"source": {"nets": ["10.0.1.0/24", "fd00::/16"]}}, YC, False),
        ({"source": {"nets": ["fd00::/16"]}}, YC, False),
        ({"source": {"notNets": ["10.0.2.0/24"]}}, YC, False),
        ({"source": {"notNets": ["10.0.1.0/24"]}}, YC, True),
        ({"source": {"notNets": ["fd00::/16"]}}, YC, False),  # a rule of the other family only is not programmed
        ({"source": {"notNets": ["0.0.0.0/0"]}}, YC, False),
        ({"source": {"selector": "pod == 'c'"}}, YC, True),
        ({"source": {"selector": "pod == 'a'"}}, YC, False),
        ({"source": {"selector": "all()"}}, YC, True),
        ({"source": {"notSelector": "pod == 'c'"}}, YC, False),
        ({"source": {"notSelector": "pod == 'a'"}}, YC, True),
        ({"source": {"namespaceSelector": "ns == 'y'"}}, YC, True),
        ({"source": {"namespaceSelector": "ns == 'x'"}}, YC, False),
        ({"source": {"namespaceSelector": "all()"}}, YC, True),
        ({"source": {"namespaceSelector": "global()"}}, YC, False),
        ({"source": {"namespaceSelector": "projectcalico.org/name == 'y'", "selector": "pod == 'c'"}}, YC, True),
        ({"source": {"selector": "projectcalico.org/namespace == 'y'"}}, YC, True),
        ({"source": {"selector": "pcns.ns == 'y'"}}, YC, True),
        ({"source": {"serviceAccounts": {"names": ["default", "web"]}}}, YC, True),
        ({"source": {"serviceAccounts": {"names": ["web"]}}}, YC, False),
        ({"icmp": {"type": 8}, "protocol": "ICMP"}, YC, False),
        ({"source": {"selector": "pod == 'c'", "nets": ["10.9.0.0/16"]}}, YC, False),
        ({"destination": {"selector": "pod == 'b'"}}, YC, True),
    ],
)
def test_what_a_rule_of_a_global_policy_matches(rule: dict[str, Any], source: LabelledEndpoint, hit: bool) -> None:
    assert into(ingress({"action": "Deny", **rule}, ALLOW), source=source).verdict == ("deny" if hit else "allow")


@pytest.mark.parametrize(
    ("peer", "source", "hit"),
    [
        ({}, YC, True),
        ({"nets": ["10.0.2.0/24"]}, YC, True),
        ({"selector": "pod == 'c'"}, YC, False),  # of its own namespace only
        ({"selector": "pod == 'a'"}, A, True),
        ({"notSelector": "pod == 'b'"}, YC, False),
        ({"notSelector": "pod == 'b'"}, A, True),
        ({"serviceAccounts": {"names": ["default"]}}, YC, False),
        ({"serviceAccounts": {"names": ["default"]}}, A, True),
        ({"namespaceSelector": "ns == 'y'", "selector": "pod == 'c'"}, YC, True),
        ({"namespaceSelector": "all()"}, YC, True),
    ],
)
def test_a_namespaced_policy_selects_in_its_own_namespace(
    peer: dict[str, Any], source: LabelledEndpoint, hit: bool
) -> None:
    found = into(ingress({"action": "Allow", "source": peer}, namespace="x"), source=source)
    assert found.verdict == ("allow" if hit else "deny")


def test_whoever_is_not_excluded_is_meant_by_a_global_rule_that_only_excludes() -> None:
    """An address that no pod and no set has, too: Felix adds no selector there. A namespaced one means its own pods."""
    only_not_a = {"action": "Deny", "source": {"notSelector": "pod == 'a'"}}
    of_namespace = calico_policy("p", "x", types=["Ingress"], ingress=[only_not_a, ALLOW])
    for of, verdict in ((ingress(only_not_a, ALLOW), "deny"), (of_namespace, "allow")):
        ends = Ends(End("192.0.2.9"), End(B.addresses[0], (B,)), 4)
        assert policy.decide(policy.gate(Rules((of,), TIERS), B, "ingress", ends), TCP80).verdict == verdict


def test_a_namespaced_policy_is_about_its_own_namespace() -> None:
    assert into(ingress(DENY, namespace="y")).by == "profile"
    assert into(ingress(DENY, namespace="x", selector="all()")).verdict == "deny"


def test_whom_a_global_policy_is_about() -> None:
    account = {"metadata": {"name": "web", "labels": {"role": "web"}}}
    web = endpoint(Pod("x", "b"), account=account)
    assert into(ingress(DENY, namespaceSelector="ns == 'x'")).verdict == "deny"
    assert into(ingress(DENY, namespaceSelector="ns == 'y'")).by == "profile"
    assert into(ingress(DENY, serviceAccountSelector="role == 'web'"), target=web).verdict == "deny"
    assert into(ingress(DENY, serviceAccountSelector="role == 'web'")).by == "profile"
    assert into(ingress({"action": "Deny", "source": {"serviceAccounts": {"selector": "role == 'web'"}}}, ALLOW),
                source=web).verdict == "deny"  # fmt: skip


def test_pings() -> None:
    echo = {"action": "Allow", "protocol": "ICMP", "icmp": {"type": 8, "code": 0}}
    assert into(ingress(echo), packet=PING).verdict == "allow"
    assert into(ingress({**echo, "icmp": {"type": 0}}), packet=PING).verdict == "deny"
    assert into(ingress({"action": "Allow", "protocol": "ICMP", "notICMP": {"type": 8}}), packet=PING).verdict == "deny"
    assert into(ingress({"action": "Allow", "protocol": "ICMP", "notICMP": {"type": 8, "code": 1}}),
                packet=PING).verdict == "allow"  # fmt: skip
    assert into(ingress({"action": "Allow", "protocol": "ICMP"}), packet=PING, family=6).verdict == "deny"
    assert into(ingress({"action": "Allow", "protocol": "ICMPv6", "icmp": {"type": 128}}), packet=PING,
                family=6).verdict == "allow"  # fmt: skip
    assert into(ingress({"action": "Allow", "destination": {"ports": [80]}}), packet=PING).verdict == "deny"


def test_network_sets_are_selected_like_pods() -> None:
    outside = NetworkSet(name="bad", labels=(("bad", "yes"),), nets=("10.0.2.0/24",))
    inside = NetworkSet(name="bad", namespace="x", labels=(("bad", "yes"),), namespace_labels=(("ns", "x"),),
                        nets=("10.0.2.3/32",))  # fmt: skip
    deny = ingress({"action": "Deny", "source": {"selector": "bad == 'yes'"}}, ALLOW)
    of_x = ingress({"action": "Deny", "source": {"selector": "bad == 'yes'"}}, ALLOW, namespace="x")
    everywhere = ingress(
        {"action": "Deny", "source": {"selector": "bad == 'yes'", "namespaceSelector": "global()"}}, ALLOW
    )
    assert into(deny, source=YC, sets=[outside]).verdict == "deny"
    assert into(deny, source=A, sets=[outside]).verdict == "allow"
    assert into(of_x, source=YC, sets=[outside]).verdict == "allow"
    assert into(of_x, source=YC, sets=[inside]).verdict == "deny"
    assert into(everywhere, source=YC, sets=[outside]).verdict == "deny"
    assert into(everywhere, source=YC, sets=[inside]).verdict == "allow"


def test_services_mean_their_endpoints() -> None:
    allow = {"action": "Allow", "destination": {"services": {"name": "web", "namespace": "x"}}}
    out = calico_policy("p", types=["Egress"], egress=[allow])
    assert out.egress[0].destination.service == "x/web"

    def out_of_a(*behind: str, read: bool = True) -> str:
        peer = msgspec.structs.replace(out.egress[0].destination, service_endpoints=behind, service_read=read)
        rule = msgspec.structs.replace(out.egress[0], destination=peer)
        return between(Rules((msgspec.structs.replace(out, egress=(rule,)),), TIERS), A, B, TCP80)[0].verdict

    assert out_of_a("10.0.1.2", "10.0.1.2 80/tcp") == "allow"
    assert out_of_a("10.0.1.2", "10.0.1.2 81/tcp") == "deny"
    assert out_of_a() == "deny"
    assert out_of_a(read=False) == "unknown"


def test_a_rule_that_names_domains_is_in_doubt() -> None:
    """They are of other editions of Calico; what they lead to nobody here can tell."""
    allow = calico_policy(
        "p", types=["Egress"], egress=[{"action": "Allow", "destination": {"domains": ["a.example"]}}]
    )
    assert between(Rules((allow,), TIERS), A, B, TCP80)[0].verdict == "unknown"


def test_a_rule_about_the_port_something_is_sent_from_is_in_doubt() -> None:
    by_source = {"action": "Deny", "protocol": "TCP", "source": {"ports": [53]}}
    assert into(ingress(by_source, ALLOW)).verdict == "unknown"
    assert into(ingress(by_source, DENY)).verdict == "deny"  # it makes no difference
    assert into(ingress(by_source, ALLOW), packet=Packet("tcp", 80, 40000)).verdict == "allow"
    assert into(ingress(by_source, ALLOW), packet=Packet("tcp", 80, 53)).verdict == "deny"
    assert into(ingress({**by_source, "source": {"ports": ["1:65535"]}}, ALLOW)).verdict == "deny"
    passes = {**by_source, "action": "Pass"}
    assert into(ingress(passes, ALLOW, tier="early"), ingress(DENY)).verdict == "unknown"
    assert into(ingress(passes, ALLOW, tier="early"), ingress(ALLOW)).verdict == "allow"


# -- ClusterNetworkPolicy ---------------------------------------------------------------------------------------------

KUBE = (*TIERS, Tier(name="kube-admin", order="1000", default_action="Pass"),
        Tier(name="kube-baseline", order="10000000", default_action="Pass"))  # fmt: skip


def cluster_policy(*ingress: dict[str, Any], tier: str = "Admin", priority: int = 10, name: str = "c") -> Policy:
    spec = {"tier": tier, "priority": priority, "subject": {"namespaces": {}}, "ingress": list(ingress)}
    return policy_kinds.cluster_wide({"metadata": {"name": name}, "spec": spec})


def into_by(*policies: Policy, source: LabelledEndpoint = A, packet: Packet = TCP80) -> Opinion:
    return between(Rules(policies, KUBE), source, B, packet)[1]


FROM_ALL: list[dict[str, Any]] = [{"namespaces": {}}]


def test_cluster_policies_of_the_admin_come_before_others_and_baseline_after() -> None:
    deny = cluster_policy({"action": "Deny", "from": FROM_ALL, "name": "no"})
    baseline = cluster_policy({"action": "Deny", "from": FROM_ALL}, tier="Baseline")
    assert into_by(deny, ingress(ALLOW)).policy == deny
    assert into_by(deny, ingress(ALLOW)).policy.ingress[0].name == "no"  # type: ignore[union-attr]
    assert into_by(baseline, ingress(ALLOW)).verdict == "allow"
    assert into_by(baseline).policy == baseline
    assert into_by(cluster_policy({"action": "Accept", "from": FROM_ALL}), ingress(DENY)).verdict == "allow"
    assert into_by(cluster_policy({"action": "Pass", "from": FROM_ALL}), ingress(DENY)).verdict == "deny"
    assert into_by(cluster_policy({"action": "Deny", "from": [{"namespaces": labels(ns="z")}]})).by == "profile"


def test_a_lower_priority_number_of_a_cluster_policy_is_asked_first() -> None:
    deny = cluster_policy({"action": "Deny", "from": FROM_ALL}, priority=9, name="z")
    accept = cluster_policy({"action": "Accept", "from": FROM_ALL}, priority=10, name="a")
    assert into_by(deny, accept).verdict == "deny"


def test_peers_and_protocols_of_cluster_policies() -> None:
    pods = [{"pods": {"namespaceSelector": labels(ns="y"), "podSelector": labels(pod="c")}}]
    assert into_by(cluster_policy({"action": "Deny", "from": pods}), source=YC).verdict == "deny"
    assert into_by(cluster_policy({"action": "Deny", "from": pods})).by == "profile"
    tcp = {"action": "Deny", "from": FROM_ALL, "protocols": [{"tcp": {"destinationPort": {"number": 80}}}]}
    span = {
        "action": "Deny",
        "from": FROM_ALL,
        "protocols": [{"udp": {"destinationPort": {"range": {"start": 1, "end": 90}}}}],
    }
    assert into_by(cluster_policy(tcp)).verdict == "deny"
    assert into_by(cluster_policy(tcp), packet=Packet("tcp", 81)).by == "profile"
    assert into_by(cluster_policy(span), packet=Packet("udp", 81)).verdict == "deny"
    assert into_by(cluster_policy(span), packet=Packet("udp", 91)).by == "profile"
    assert into_by(cluster_policy({**tcp, "protocols": [{"tcp": {}}]}), packet=Packet("tcp", 9)).verdict == "deny"


def test_what_felix_does_not_know_in_a_cluster_policy_it_denies() -> None:
    named = {"from": FROM_ALL, "protocols": [{"destinationNamedPort": "web"}]}
    assert into_by(cluster_policy({"action": "Deny", **named})).verdict == "deny"
    assert into_by(cluster_policy({"action": "Pass", **named})).verdict == "deny"
    assert into_by(cluster_policy({"action": "Accept", **named})).by == "profile"


# -- hosts ------------------------------------------------------------------------------------------------------------


def host(**fields: Any) -> LabelledEndpoint:
    written = {"metadata": {"name": "node-eth0", "labels": {"host": "yes"}},
               "spec": {"node": "node", "interfaceName": "eth0", "expectedIPs": ["192.0.2.1"], **fields}}  # fmt: skip
    return policy_kinds.host_endpoint(written, {})


def at_host(*policies: Policy, port: int = 80, protocol: str = "tcp", direction: str = "ingress", forward: bool = False,
            own: LabelledEndpoint | None = None) -> Opinion:  # fmt: skip
    own = own or host()
    ends = Ends(End("10.0.1.1", (A,)), End("192.0.2.1", (own,)), 4)
    gate: Gate = policy.gate(Rules(policies, TIERS), own, direction, ends, forward=forward)
    return policy.decide(gate, Packet(protocol, port))


def of_hosts(*rules: dict[str, Any], **spec: Any) -> Policy:
    return ingress(*rules, selector="host == 'yes'", **spec)


def test_a_host_endpoint_drops_what_nothing_allows() -> None:
    assert at_host().by == "no profile"
    assert at_host(own=host(profiles=["projectcalico-default-allow"])).verdict == "allow"
    assert at_host(own=host(profiles=["gone"])).verdict == "deny"
    assert at_host(of_hosts(ALLOW)).by == "rule"


def test_failsafe_ports_of_a_host_are_never_stopped() -> None:
    assert at_host(of_hosts(DENY), port=22).by == "failsafe"
    assert at_host(of_hosts(DENY), port=22, protocol="udp").verdict == "deny"
    assert at_host(of_hosts(DENY), port=53, protocol="udp").verdict == "deny"
    ports = [{"protocol": "tcp", "port": 2222, "net": "10.0.0.0/8"}, {"port": 2223, "net": "10.9.0.0/16"}]
    written = {"metadata": {"name": "h"}, "spec": {}}
    own = policy_kinds.host_endpoint(written, {"failsafeInboundHostPorts": ports})
    assert at_host(own=own, port=2222).by == "failsafe"
    assert at_host(own=own, port=2223).by == "no profile"
    assert at_host(own=own, port=22).by == "no profile"


def test_what_only_passes_a_host_is_stopped_by_what_is_applied_on_forward() -> None:
    assert at_host(forward=True).by == "no policy"
    assert at_host(of_hosts(DENY), forward=True).by == "no policy"
    assert at_host(of_hosts(DENY, applyOnForward=True), forward=True).verdict == "deny"
    assert at_host(of_hosts(DENY, applyOnForward=True), forward=True, port=22).verdict == "deny"
    assert (
        at_host(of_hosts({"action": "Allow", "protocol": "UDP"}, applyOnForward=True), forward=True).by == "end of tier"
    )


def test_untracked_policies_and_those_before_dnat_come_first() -> None:
    untracked = of_hosts(DENY, name="u", doNotTrack=True, applyOnForward=True)
    before = of_hosts(DENY, name="b", preDNAT=True, applyOnForward=True)
    for early in (untracked, before):
        assert at_host(early, of_hosts(ALLOW, order=1)).policy == early
        assert at_host(early, forward=True).verdict == "deny"
        assert at_host(early, port=22).by == "failsafe"
        assert into(msgspec.structs.replace(early, selector="")).by == "profile"  # they are nothing to a pod
    allows = of_hosts({"action": "Allow", "protocol": "TCP"}, name="b", preDNAT=True, applyOnForward=True)
    assert at_host(allows, of_hosts(DENY)).policy == allows
    assert at_host(allows, of_hosts(DENY), protocol="udp").verdict == "deny"  # there is no end of tier before


# -- all ports --------------------------------------------------------------------------------------------------------


def passes(*policies: Policy, source: LabelledEndpoint = A) -> tuple[tuple[str, ...], tuple[str, ...]]:
    ends = Ends(End(source.addresses[0], (source,)), End(B.addresses[0], (B,)), 4)
    rules = Rules(policies, TIERS)
    return policy.allowed([policy.gate(rules, source, "egress", ends), policy.gate(rules, B, "ingress", ends)])


def test_all_that_policies_let_pass() -> None:
    assert passes() == (("tcp", "udp", "sctp", "icmp"), ())
    assert passes(ingress(DENY)) == ((), ())
    web = ingress({"action": "Allow", "protocol": "TCP", "destination": {"ports": [5432, "8000:8080", 8081]}})
    assert passes(web) == (("5432/tcp", "8000-8081/tcp"), ())
    named = ingress({"action": "Allow", "protocol": "TCP", "destination": {"ports": ["serve-81-tcp"]}})
    assert passes(named) == (("81/tcp",), ())
    but = ingress({"action": "Deny", "protocol": "UDP", "destination": {"ports": [53]}}, ALLOW)
    assert passes(but) == (("tcp", "1-52/udp", "54-65535/udp", "sctp", "icmp"), ())
    some = {"action": "Allow", "protocol": "TCP", "destination": {"ports": ["8080:9000"]}}
    both = calico_policy("out", types=["Egress"], selector="pod == 'a'", egress=[some])
    assert passes(web, both) == (("8080-8081/tcp",), ())
    gre = ingress({"action": "Allow", "protocol": 47})
    assert passes(gre) == (("protocol 47",), ())
    doubtful = ingress({"action": "Allow", "protocol": "UDP", "source": {"ports": [53]}})
    assert passes(doubtful) == ((), ("udp",))


def test_every_pod_has_its_own_address() -> None:
    assert len({endpoint(pod).addresses for pod in PODS}) == 9
