"""Calico's own programs and its address management: when each is told, in which words, and when it is not."""

from __future__ import annotations

from typing import Any

import pytest

from engine.diagnosis import diagnose
from facts import (
    Allocation,
    BlockClaim,
    CalicoNode,
    CalicoService,
    CalicoSettings,
    Cause,
    Diagnosis,
    Endpoint,
    Fact,
    FdbEntry,
    FelixHealth,
    GarbageCollector,
    LeakedAddresses,
    Link,
    PoolUsage,
    ProbeResult,
    Question,
    RouteLookup,
    Typha,
)
from tests.other_ways import plain
from tests.scene import CART, DB, change, healthy

BY_DEFAULT_ROUTE = {"prefix": "0.0.0.0/0", "next_hop": "172.30.0.1", "device": "eth0", "protocol": 3}
LOST = {"answered": 0, "outcome": "silence", "rtt_us": -1}
LOOPS = {"seen": True, "starts": 3, "watched_ms": 2100, "age_s": 0}


def warned(diagnosis: Diagnosis) -> dict[str, str]:
    """rule -> text of the warnings."""
    return {cause.rule: cause.text for cause in diagnosis.warnings}


def only(diagnosis: Diagnosis) -> Cause:
    (cause,) = diagnosis.causes
    return cause


def service(name: str, **fields: Any) -> CalicoService:
    return CalicoService(**{"node": "node-b", "service": name, "seen": True, "running": True, **fields})


# -- Felix and its neighbors -----------------------------------------------------------------------------------------


def test_a_felix_that_dies_again_and_again_leaves_a_path_healthy_and_is_told() -> None:
    diagnosis = diagnose([*healthy(), service("felix", **LOOPS)])
    assert diagnosis.verdict == "healthy"
    assert warned(diagnosis) == {
        "felix_stuck": "Felix on node-b dies and starts again: 3 different processes within 2 s."
    }


def test_it_explains_why_felix_is_not_ready() -> None:
    dead = {"reachable": False, "live": False, "ready": False, "confirmed": True, "detail": "nothing listens"}
    facts = change(healthy(), FelixHealth, {"node": "node-b"}, **dead)
    assert list(warned(diagnose([*facts, service("felix", **LOOPS)]))) == ["felix_stuck"]


@pytest.mark.parametrize(
    ("still_s", "refresh_s", "stuck"),
    [
        (112, 90, True),  # a held xtables lock: live and ready all the while
        (60, 90, False),
        (100, 90, False),
        (200, 300, False),  # it need not do anything for five minutes
        (320, 300, True),
        (5000, 0, False),  # nothing is refreshed at all
    ],
)
def test_a_felix_that_applies_nothing_is_stuck_after_its_own_interval(
    still_s: int, refresh_s: int, stuck: bool
) -> None:
    facts = change(healthy(), CalicoNode, {"name": "node-b"}, route_refresh_s=refresh_s)
    diagnosis = diagnose([*facts, service("felix", applies=40, still_s=still_s, age_s=4000)])
    assert ("felix_stuck" in warned(diagnosis)) == stuck
    assert diagnosis.verdict == "healthy"


@pytest.mark.parametrize(
    "fields",
    [
        {"running": False, "seen": False},  # the probe sees no processes
        {"running": False, "supervised": True},
        {"starts": 1, "age_s": 2, "watched_ms": 4000},  # has just been restarted
        {"starts": 2, "age_s": 2, "supervisor_age_s": 9},  # all of calico-node starts
        {"starts": 2, "age_s": 3600, "supervisor_age_s": 3700},  # took a new setting while it was watched
    ],
)
def test_what_is_no_loop_is_not_told(fields: dict[str, Any]) -> None:
    facts = [*healthy(), service("felix", **fields), service("node-services", **fields)]
    assert (diagnose(facts).verdict, diagnose(facts).warnings) == ("healthy", ())


def test_services_that_crash_loop_are_told_beside_the_tunnel_address_they_do_not_give() -> None:
    loop = service("node-services", **LOOPS)
    assert "stand still with them" in warned(diagnose([*healthy(), loop]))["node_services_crash_looping"]
    bare = change(healthy(), CalicoNode, {"name": "node-b"}, tunnel_address="")
    diagnosis = diagnose([*bare, loop])
    assert only(diagnosis).rule == "tunnel_address_missing"
    assert "give it no tunnel address" in warned(diagnosis)["node_services_crash_looping"]


def test_a_node_that_no_pool_selects_any_more_has_no_tunnel_address() -> None:
    """Its peers withdrew what they had for it, as they should: that is not for Felix to repair."""
    left = change(healthy(), CalicoNode, {"name": "node-b"}, tunnel_address="", vxlan_expected=False)
    left = change(left, FdbEntry, {"node": "node-a"}, found=False, peer="")
    diagnosis = diagnose(change(left, RouteLookup, {"node": "node-a", "destination": DB[2]}, **BY_DEFAULT_ROUTE))
    assert (only(diagnosis).rule, only(diagnosis).node) == ("tunnel_address_missing", "node-b")
    assert "nodeSelector" in only(diagnosis).text


def test_a_pool_that_was_deleted_under_its_pods_is_no_other_plugin_s() -> None:
    bare = change(healthy(), Allocation, {"address": DB[2]}, pool="", vxlan_mode="", ipip_mode="")
    said = [str(blind.reason) for blind in diagnose(bare).blind if blind.look == "encapsulation"]
    assert said and "was deleted" in said[0]
    elsewhere = change(bare, Allocation, {"address": DB[2]}, found=False, block="", block_node="")
    said = [str(blind.reason) for blind in diagnose(elsewhere).blind if blind.look == "encapsulation"]
    assert said and "another plugin" in said[0]


def test_typha_is_a_warning_of_the_whole_cluster() -> None:
    assert diagnose([*healthy(), Typha(service="calico-system/calico-typha", ready=1, addresses=3)]).warnings == ()
    diagnosis = diagnose([*healthy(), Typha(service="calico-system/calico-typha", ready=0, addresses=3)])
    assert (diagnosis.verdict, list(warned(diagnosis))) == ("healthy", ["typha_unreachable"])


# -- leaks -----------------------------------------------------------------------------------------------------------

LEAKED = LeakedAddresses(
    pool="small", node="node-b", count=61, examined=63, oldest_s=600, examples=("10.244.9.3 (shop/old, node-b)",)
)
USAGE = PoolUsage(
    pool="small", cidr="10.244.9.0/26", node="node-b", block_size=26, addresses=64, blocks_possible=1, blocks_taken=1,
    nodes=3, free_on_node=0, free_elsewhere=0, empty_elsewhere=0, strict_affinity=False, exhausted=True,
)  # fmt: skip


def waits(*more: Fact) -> Diagnosis:
    young = {"address": "", "addresses": (), "phase": "Pending", "ready": False, "starting": True}
    return diagnose([*change(healthy(), Endpoint, {"name": DB[0]}, **young), USAGE, *more])


@pytest.mark.parametrize(("blocks", "said"), [(0, "no block of its own"), (1, "1 full block"), (3, "3 full blocks")])
def test_a_node_that_takes_no_block_by_itself_is_not_told_to_add_a_pool(blocks: int, said: str) -> None:
    about = {"forbids": "auto_allocate", "forbidden": 65344, "blocks_on_node": blocks, "strict_affinity": True}
    young = {"address": "", "addresses": (), "phase": "Pending", "ready": False, "starting": True}
    waiting = change(healthy(), Endpoint, {"name": DB[0]}, **young)
    cause = only(diagnose([*waiting, *change([USAGE], PoolUsage, {}, **about)]))
    assert cause.rule == "block_limit_reached" and "set autoAllocateBlocks to true" in cause.remedy
    assert f"which has {said} and takes no other by itself (autoAllocateBlocks is off); the 65344 addr" in cause.text


def aged(seconds: int) -> LeakedAddresses:
    return LeakedAddresses(
        pool="small", node="node-b", count=61, examined=63, oldest_s=seconds, examples=LEAKED.examples
    )


def test_leaks_are_told_beside_the_pool_they_fill_and_nowhere_else() -> None:
    collector = GarbageCollector(running=True, name="calico-system/calico-kube-controllers-x", unavailable=0)
    diagnosis = waits(LEAKED, collector)
    assert only(diagnosis).rule == "pool_exhausted"
    assert warned(diagnosis) == {
        "ip_leaked": "61 of the 63 addresses of pool small that IPAM holds for pods belong to pods that are gone: "
        "10.244.9.3 (shop/old, node-b) and 60 more."
    }
    none = LeakedAddresses(pool="small", node="node-b", count=0, examined=63)
    assert waits(none, collector).warnings == ()
    roomy = change([USAGE], PoolUsage, {}, exhausted=False)
    assert diagnose([*healthy(), *roomy, LEAKED, collector]).warnings == ()


@pytest.mark.parametrize(
    ("oldest_s", "collector", "version", "told"),
    [
        (600, {"running": False}, "v3.32.1", "ip_leaked"),  # younger than what is let pass
        (3600, {"running": False}, "v3.32.1", "no pod of calico-kube-controllers"),
        (-1, {"running": False}, "v3.32.1", "no pod of calico-kube-controllers"),  # no allocation says its age
        (3600, {"running": False, "name": "a/b", "reason": "CrashLoopBackOff."}, "v3.26.5", "does not run: CrashLoopB"),
        (3600, {"running": True, "name": "a/b", "grace_s": 0}, "v3.32.1", "leakGracePeriod is 0"),
        (3600, {"running": True, "name": "a/b", "unavailable": 1}, "v3.32.1", "may be waiting"),
        (3600, {"running": True, "name": "a/b", "unavailable": 1}, "v3.34.0-0.dev-head", "may be waiting"),
        (3600, {"running": True, "name": "a/b", "unavailable": 1}, "v3.31.7", "ip_leaked"),  # that one does not wait
        (3600, {"running": True, "name": "a/b", "unavailable": 1}, "", "ip_leaked"),
        (3600, {"running": True, "name": "a/b", "unavailable": 0}, "v3.32.1", "ip_leaked"),
        (3600, {"running": True, "name": "a/b", "unavailable": -1}, "v3.32.1", "ip_leaked"),
        (3600, {"running": False, "grace_s": 7200}, "v3.32.1", "ip_leaked"),
    ],
)
def test_who_should_free_them_is_told_when_that_is_why_they_stay(
    oldest_s: int, collector: dict[str, Any], version: str, told: str
) -> None:
    young = {"address": "", "addresses": (), "phase": "Pending", "ready": False, "starting": True}
    facts = change(healthy(), Endpoint, {"name": DB[0]}, **young)
    facts = change(facts, CalicoSettings, {}, version=version)
    found = warned(diagnose([*facts, USAGE, aged(oldest_s), GarbageCollector(**collector)]))
    if told == "ip_leaked":
        assert list(found) == ["ip_leaked"]
    else:
        assert list(found) == ["ipam_gc_stuck"] and told in found["ipam_gc_stuck"]


# -- one block, two nodes --------------------------------------------------------------------------------------------

DEFAULT = {"prefix": "0.0.0.0/0", "next_hop": "172.30.0.1", "device": "eth0", "protocol": 3}
SWALLOWED = {"found": False, "error": "EINVAL", "type": "blackhole", "device": "", "next_hop": ""}


def claim(node: str, state: str = "confirmed") -> BlockClaim:
    return BlockClaim(block="10.244.218.64/26", node=node, block_node="node-b", state=state)


def test_a_second_claim_does_no_harm_under_vxlan() -> None:
    """Observed: no route changes anywhere, no ping is lost (calico_truth.md 1.5)."""
    diagnosis = diagnose([*healthy(), claim("node-c")])
    assert (diagnosis.verdict, list(warned(diagnosis))) == ("healthy", ["block_affinity_conflict"])


def test_over_bgp_it_takes_half_of_the_packets_or_all_of_one_node_s() -> None:
    lost = change(plain(), ProbeResult, {"pod": CART[0]}, **LOST)
    cause = only(diagnose([*lost, claim("node-c")]))
    assert (cause.rule, cause.node, cause.severity) == ("block_affinity_conflict", "node-c", "degrades")
    way: dict[str, Any] = {"node": "node-a", "destination": DB[2], "source": "", "incoming": ""}
    cause = only(diagnose([*change(lost, RouteLookup, way, **SWALLOWED), claim("node-a")]))
    assert (cause.rule, cause.node, cause.severity) == ("block_affinity_conflict", "node-a", "breaks")


@pytest.mark.parametrize("node", ["node-a", "node-c"])
def test_a_claim_that_loses_no_packet_is_a_warning(node: str) -> None:
    diagnosis = diagnose([*plain(), claim(node)])
    assert (diagnosis.verdict, list(warned(diagnosis))) == ("healthy", ["block_affinity_conflict"])


@pytest.mark.parametrize("state", ["pending", "pendingDeletion"])
def test_claims_come_and_go(state: str) -> None:
    assert diagnose([*plain(), claim("node-c", state)]).warnings == ()
    assert list(warned(diagnose([*plain(), claim("node-c", "")]))) == ["block_affinity_conflict"]  # old data


# -- dual stack ------------------------------------------------------------------------------------------------------

CART6, DB6 = "fd00:10:244::a", "fd00:10:244::b"


def dual(*, db: tuple[str, ...], cart: tuple[str, ...] = (CART[2], CART6)) -> list[Fact]:
    """Both pods were given two addresses; these are what their status names."""
    facts = change(healthy(), Endpoint, {"name": DB[0]}, annotated=(DB[2], DB6), addresses=db)
    return change(facts, Endpoint, {"name": CART[0]}, annotated=(CART[2], CART6), addresses=cart)


def test_a_pod_whose_status_lacks_an_address_is_dead_in_that_family() -> None:
    cause = only(diagnose(dual(db=(DB[2],))))
    assert (cause.rule, cause.node, cause.severity) == ("pod_address_family_missing", "node-b", "degrades")
    assert DB6 in cause.text and "names only 10.244.218.68" in cause.text
    asked = change(dual(db=(DB[2],)), Question, {}, family=6)
    assert only(diagnose(asked)).severity == "breaks"


@pytest.mark.parametrize(
    "fields",
    [
        {"phase": "Pending"},  # the kubelet has not said anything yet
        {"terminating": True},
        {"host_network": True, "annotated": ()},
        {"addresses": (DB[2], DB6)},
        {"annotated": (DB[2],)},  # a single-stack pod
    ],
)
def test_a_pod_that_has_what_it_was_given_is_well(fields: dict[str, Any]) -> None:
    facts = change(dual(db=(DB[2],)), Endpoint, {"name": DB[0]}, **fields)
    assert "pod_address_family_missing" not in {cause.rule for cause in diagnose(facts).causes}


def test_a_peer_without_that_family_does_not_miss_it() -> None:
    facts = change(dual(db=(DB[2],)), Endpoint, {"name": CART[0]}, annotated=(CART[2],), addresses=(CART[2],))
    assert (diagnose(facts).causes, diagnose(facts).warnings) == ((), ())
    other = change(dual(db=(DB[2],)), Question, {}, family=4)
    assert diagnose(other).causes == ()


# -- what differs by version -----------------------------------------------------------------------------------------

VERSIONS = ["v3.26.5", "v3.28.2", "v3.29.7", "v3.30.7", "v3.31.7", "v3.32.1", "v3.33.0", "v3.34.0-0.dev-head", ""]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_healthy_flow_is_healthy_under_every_version(version: str) -> None:
    diagnosis = diagnose(change(healthy(), CalicoSettings, {}, version=version))
    assert (diagnosis.verdict, diagnosis.warnings, diagnosis.blind) == ("healthy", (), ())


@pytest.mark.parametrize("metric", [0, 1024])
def test_routes_to_pods_have_a_metric_or_not(metric: int) -> None:
    """1024 from 3.32 on; none before (calico_truth.md 1.4)."""
    facts = change(healthy(), RouteLookup, {"node": "node-b", "destination": DB[2]}, metric=metric)
    assert diagnose(facts).verdict == "healthy"


@pytest.mark.parametrize("protocol", [3, 80, 201])
def test_routes_may_carry_any_protocol(protocol: int) -> None:
    """deviceRouteProtocol is 3 by default, 80 for what Felix writes by the uplink, or whatever somebody set."""
    way = {"node": "node-a", "destination": DB[2], "source": "", "incoming": ""}
    assert diagnose(change(healthy(), RouteLookup, way, protocol=protocol)).verdict == "healthy"


@pytest.mark.parametrize(("version", "heals_within_s"), [("v3.29.7", 0), ("v3.30.0", 10), ("v3.32.1", 10), ("", 10)])
def test_a_wrong_mac_is_only_repaired_by_a_felix_that_looks_at_it(version: str, heals_within_s: int) -> None:
    facts = change(healthy(), CalicoSettings, {}, version=version)
    facts = change(facts, Link, {"node": "node-b", "device": "vxlan.calico"}, mac="66:00:00:00:00:99")
    cause = only(diagnose(change(facts, ProbeResult, {"pod": CART[0]}, **LOST)))
    assert (cause.rule, cause.heals_within_s) == ("vxlan_device_mac_wrong", heals_within_s)
    assert ("Felix does not repair this." in cause.felix) == (heals_within_s == 0)


def test_addresses_that_cool_down_are_told_beside_those_that_are_taken() -> None:
    """From 3.33 on a released address is kept back for a while: the shortage ends by itself."""
    young = {"address": "", "addresses": (), "phase": "Pending", "ready": False, "starting": True}
    facts = change(healthy(), Endpoint, {"name": DB[0]}, **young)
    cooling = change([USAGE], PoolUsage, {}, cooling=12, cooldown_s=300)
    assert "12 more were released and are kept back for 300 s" in only(diagnose([*facts, *cooling])).text
    assert "kept back" not in only(diagnose([*facts, USAGE])).text


def test_no_repair_is_promised_of_a_felix_that_is_stuck() -> None:
    facts = change(healthy(), Link, {"node": "node-b", "device": "vxlan.calico"}, mac="66:00:00:00:00:99")
    facts = change(facts, ProbeResult, {"pod": CART[0]}, **LOST)
    assert "is alive: it repairs this within 10 s" in only(diagnose(facts)).felix
    assert only(diagnose([*facts, service("felix", **LOOPS)])).felix == (
        "Felix on node-b is stuck: it may not repair this."
    )
    elsewhere = CalicoService(node="node-a", service="felix", running=True, **LOOPS)
    assert "is alive" in only(diagnose([*facts, elsewhere])).felix
