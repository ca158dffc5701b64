"""What was done to a running Calico, moment by moment: the wound is named while it is there, and nothing after it.

Each rule also announces what Felix will do about it and when; the run tells whether it did.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import pytest

from bot.sources.kubernetes import Cluster
from engine import rulebase
from facts import Cause, Diagnosis, NodeAsk, SendProbe
from tests.recorded_answers import cluster_of, judged, known
from tests.recorded_heal import DATASTORE_FILES, Moment, Run, runs

NAMES = tuple[str, ...]
HARMLESS: NAMES = ()
# What a device that was made anew, or lost its address, lacks until Felix has written it again.
LEFT_BEHIND: NAMES = ("route_missing", "neighbor_missing", "fdb_entry_missing")


class Wound(NamedTuple):
    """modes: the first cause named is one of these, and no other is beside it; (): nothing is accused."""

    modes: NAMES
    between: NAMES = ()  # nodes a pair must have to be hurt; others are well
    then: dict[int, NAMES] = {}  # noqa: RUF012 -- moment: what is named from it on; some of the wound has healed
    warns: NAMES = ()
    sizes: bool = True  # False: what full-size packets met was not recorded
    alone: bool = False  # it healed without Felix, so that Felix has nothing to announce


FIREWALL = Wound(HARMLESS)  # this version does not look at the firewall: lost packets are "unknown", nothing else
WOUNDS: dict[str, Wound] = {
    # a node's entries
    "neigh_del": Wound(("neighbor_missing",)),
    "neigh_wrong_mac": Wound(("neighbor_wrong_mac",)),
    "neigh_state_stale_right_mac": Wound(HARMLESS),
    "neigh_foreign_permanent_extra": Wound(HARMLESS),
    "fdb_del": Wound(("fdb_entry_missing",)),
    "fdb_wrong_dst": Wound(("fdb_entry_wrong_node",)),
    "fdb_foreign_extra": Wound(HARMLESS),
    "fdb_default_entry_extra": Wound(HARMLESS),
    "route_remote_block_del": Wound(("route_missing",)),
    "route_remote_block_wrong_nexthop": Wound(("route_wrong_next_hop",)),
    "route_remote_block_extra_metric_copy": Wound(HARMLESS),
    "route_foreign_pod32_on_vxlan_dev": Wound(("route_wrong_next_hop",)),
    "route_foreign_pod32_on_uplink": Wound(("foreign_route_to_pod",)),
    "route_foreign_blackhole_pod32_proto_boot": Wound(("route_blackholed",)),
    "route_foreign_blackhole_pod32_proto80": Wound(("route_blackholed",)),
    "own_block_blackhole_del": Wound(HARMLESS),
    "local_pod32_del": Wound(("pod_route_missing",)),
    "local_pod32_readd_without_metric": Wound(HARMLESS),
    "local_pod32_extra_lower_metric_wrong_dev": Wound(("pod_route_wrong_device",)),
    "pod_neigh_wrong_permanent": Wound(("pod_neighbor_wrong",)),
    "ip_rule_foreign": Wound(HARMLESS),
    # its devices
    "vxlan_down": Wound(("vxlan_device_down",)),
    "vxlan_down_again": Wound(("vxlan_device_down",)),
    "vxlan_deleted": Wound(("vxlan_device_missing",), then={1: LEFT_BEHIND}),
    "vxlan_mac_changed": Wound(("vxlan_device_mac_wrong", "vxlan_device_missing")),
    "vxlan_addr_del": Wound(("vxlan_device_address_wrong",), then={1: LEFT_BEHIND}),
    "vxlan_addr_extra": Wound(HARMLESS),
    "vxlan_mtu_changed": Wound(HARMLESS, warns=("pod_mtu_too_large",), sizes=False),
    "vxlan_recreated_vni_4097": Wound(("vxlan_vni_wrong",), then={2: ("vxlan_device_missing",)}),
    "vxlan_recreated_port_8472": Wound(("vxlan_port_wrong",), then={2: LEFT_BEHIND}),
    "vxlan_recreated_wrong_local": Wound(("vxlan_local_address_wrong",), then={2: LEFT_BEHIND}),
    "vxlan_recreated_identical_params": Wound(LEFT_BEHIND),
    "uplink_eth0_flap": Wound(HARMLESS),
    "default_route_del": Wound(
        HARMLESS, then={1: ("node_without_default_route",)}, warns=("node_without_default_route",)
    ),
    "cali_down": Wound(("pod_interface_down",)),
    "cali_mac_changed": Wound(("pod_gateway_mac_wrong",), then={1: HARMLESS}, alone=True),
    "cali_proxy_arp_0": Wound(("proxy_arp_off",)),
    "cali_forwarding_0": Wound(("ip_forwarding_off",)),
    "ip_forward_0": Wound(("ip_forwarding_off",)),
    "rp_filter_strict_all": Wound(HARMLESS),
    "veth_deleted_other_pod": Wound(HARMLESS),
    # IPv6
    "v6 neighbour of remote VTEP deleted": Wound(("neighbor_missing",)),
    "v6 FDB entry deleted": Wound(("fdb_entry_missing",)),
    "v6 remote block route deleted": Wound(("route_missing",)),
    "local pod /128 deleted": Wound(("pod_route_missing",)),
    "own v6 blackhole deleted": Wound(HARMLESS),
    "vxlan-v6.calico down": Wound(("vxlan_device_down",)),
    "vxlan-v6.calico deleted": Wound(("vxlan_device_missing",), then={1: LEFT_BEHIND}),
    "address of vxlan-v6.calico removed": Wound(("vxlan_device_address_wrong",), then={1: HARMLESS}),
    "net.ipv6.conf.all.forwarding=0": Wound(("ip_forwarding_off",)),
    "disable_ipv6=1 on vxlan-v6.calico": Wound(("ipv6_disabled",)),
    "disable_ipv6=1 on the pod interface": Wound(("ipv6_disabled",)),
    "link-local address of the pod interface removed (gateway of the pod)": Wound(
        HARMLESS, then={1: ("pod_gateway_missing",)}, warns=("pod_gateway_missing",)
    ),
    "proxy_ndp=0 on the pod interface": Wound(HARMLESS),
    # the firewall
    "ipset_member_del": FIREWALL,
    "ipt_forward_jump_del": FIREWALL,
    "ipt_flush_cali_forward": FIREWALL,
    "ipt_drop_inserted_in_cali_tw": FIREWALL,
    "ipt_foreign_drop_top_of_forward": FIREWALL,
    "ipt_forward_policy_drop": FIREWALL,
    "ipt_flush_filter": FIREWALL,
    "ipt_foreign_input_drop_4789": FIREWALL,
    "nft_del_jump_in_base_forward": FIREWALL,
    "nft_flush_cali_tw_chain": FIREWALL,
    "nft_drop_inserted_in_cali_tw": FIREWALL,
    "nft_vmap_element_deleted": FIREWALL,
    "nft_set_member_deleted": FIREWALL,
    "nft_flush_table_ip_calico": FIREWALL,
    "nft_delete_table_ip_calico": FIREWALL,
    "nft_foreign_table_drop_to_pod": FIREWALL,
    "nft_flush_ruleset": FIREWALL,
    # the datastore
    "node-b annotation IPv4VXLANTunnelAddr removed": Wound(("tunnel_address_missing",), ("node-b",)),
    "node-b annotation IPv4VXLANTunnelAddr set to other free address": Wound(
        ("vxlan_device_address_wrong",), ("node-b",), then={1: HARMLESS}, warns=("tunnel_address_freed",)
    ),
    "node-b annotation IPv4VXLANTunnelAddr = node-c tunnel address (duplicate)": Wound(
        ("tunnel_address_not_owned",), ("node-b",)
    ),
    "node-b annotation IPv4Address wrong (172.30.0.99/24)": Wound(
        ("node_address_stale",), ("node-b",), then={1: ("fdb_entry_wrong_node",)}
    ),
    "node-b annotation IPv4Address removed": Wound(("node_address_missing",), ("node-b",)),
    "node-b annotation VXLANTunnelMACAddr set 66:00:00:00:00:42": Wound(
        ("vxlan_device_mac_wrong",), ("node-b",), then={1: HARMLESS}
    ),
    "BlockAffinity of node-b deleted (block keeps affinity)": Wound(HARMLESS),
    "second BlockAffinity node-c for node-b block": Wound(HARMLESS, warns=("block_affinity_conflict",)),
    "IPAMBlock of node-b: affinity changed to host:node-c": Wound(HARMLESS, warns=("block_affinity_conflict",)),
    "IPAMBlock of node-b: affinity removed": Wound(HARMLESS),
    "IPAMBlock of node-b deleted": Wound(("allocation_missing",), ("node-b",), warns=("tunnel_address_freed",)),
    "pod-b1 status.podIP(s) wrong": Wound(("pod_address_disagrees",), ("node-b",)),
    "IPPool disabled: true": Wound(("pool_disabled",)),
    "IPPool vxlanMode CrossSubnet (same subnet nodes)": Wound(HARMLESS),
    # BGP is what such a pool needs, and there is none.
    "IPPool vxlanMode Never": Wound(("bgp_not_running",)),
    "ClusterInformation datastoreReady false": Wound(HARMLESS, warns=("datastore_not_ready",)),
    "FelixConfiguration vxlanVNI 4097": Wound(("vxlan_vni_wrong",), then={2: HARMLESS}),
    "FelixConfiguration node.node-b vxlanPort 8472 only on node-b": Wound(("vxlan_port_wrong",), ("node-b",)),
    "Felix on node-a stopped, neighbour for node-b deleted": Wound(
        ("neighbor_missing",), ("node-a", "node-b"), warns=("felix_not_ready",)
    ),
}
RUNS = runs()


def modes_at(wound: Wound, moment: int) -> NAMES:
    return next((modes for since, modes in sorted(wound.then.items(), reverse=True) if moment >= since), wound.modes)


async def questions(run: Run, moment: Moment, cluster: Cluster) -> AsyncIterator[tuple[str, str, bool, Diagnosis]]:
    """(node asked from, node asked about, were pings lost, answer) of each pair that was pinged, asked both ways."""
    sizes = WOUNDS[run.fault].sizes or moment.healed
    for pair in sorted(moment.pinged, key=sorted):
        lost = pair in moment.lost

        def met(ask: NodeAsk, probe: SendProbe, lost: bool = lost) -> str:
            if lost and probe.pod:
                return "silence"
            return "answered" if sizes or not probe.size else ""

        for source, target in permutations(sorted(pair)):
            facts = await known(cluster, run.pod(source), run.pod(target), family=run.family)
            yield source, target, lost, judged(facts, moment.recording, met, stopped_on=run.felix_stopped_on)


ANSWERS: dict[str, list[tuple[int, str, str, bool, Diagnosis]]] = {}


async def answers(run: Run, directory: Path) -> list[tuple[int, str, str, bool, Diagnosis]]:
    """Those of all moments, by their number; asked once. What the API says changes only in runs of the datastore."""
    if str(run) not in ANSWERS:
        found = []
        async with AsyncExitStack() as stack:
            cluster: Cluster | None = None
            for number, moment in enumerate(run.moments):
                if cluster is None or run.file.endswith(DATASTORE_FILES):
                    cluster = await stack.enter_async_context(cluster_of(moment.recording, directory))
                found += [(number, *one) async for one in questions(run, moment, cluster)]
        ANSWERS[str(run)] = found
    return ANSWERS[str(run)]


@pytest.mark.parametrize("run", RUNS, ids=str)
async def test_the_wound_is_named_while_it_is_there_and_nothing_after_it(run: Run, tmp_path: Path) -> None:
    wound = WOUNDS[run.fault]
    wrong = []
    for number, source, target, lost, diagnosis in await answers(run, tmp_path):
        moment = run.moments[number]
        well = moment.healed or not set(wound.between) <= {source, target}
        modes = HARMLESS if well else modes_at(wound, number)
        named = [cause.rule for cause in diagnosis.causes]
        warned = {warning.rule for warning in diagnosis.warnings}
        if modes:
            right = diagnosis.verdict == "cause" and set(named) <= set(modes)
        else:
            passes = not lost and (wound.sizes or moment.healed)
            right = diagnosis.verdict == ("healthy" if passes else "unknown")
        if not right or not warned <= set(wound.warns):
            wrong.append((moment.at, source, target, lost, diagnosis.verdict, named, warned, diagnosis.summary))
    assert wrong == []


@pytest.mark.parametrize("run", [run for run in RUNS if WOUNDS[run.fault].modes], ids=str)
async def test_what_felix_will_do_is_what_it_did(run: Run, tmp_path: Path) -> None:
    """Announced within some seconds: gone by then. Announced never: still there when nobody watched any more."""
    told = await answers(run, tmp_path)
    wrong = []
    for number, source, target, _, diagnosis in told:
        for cause in diagnosis.causes:
            lasted_s = _lasted(cause, run, number, [one[0] for one in told if _still(cause, one, source, target)])
            if run.felix_stopped_on:
                right = "stopped" in cause.felix or "not" in cause.felix
            elif WOUNDS[run.fault].alone:
                right = cause.heals_within_s <= 0
            elif lasted_s is None:
                right = cause.heals_within_s <= 0 or cause.heals_within_s > run.limit_s
            else:
                right = lasted_s <= cause.heals_within_s
            if not right:
                wrong.append((run.moments[number].at, cause.rule, cause.heals_within_s, cause.felix, lasted_s))
    assert wrong == []


def _still(cause: Cause, answer: tuple[int, str, str, bool, Diagnosis], source: str, target: str) -> bool:
    """Does this answer to the same question name the same cause?"""
    same = [(one.rule, one.node, one.heals_within_s) for one in answer[-1].causes]
    return answer[1:3] == (source, target) and (cause.rule, cause.node, cause.heals_within_s) in same


def _lasted(cause: Cause, run: Run, number: int, seen: list[int]) -> float | None:
    """Seconds from one moment until the first later one without this cause; None: it was there to the end."""
    later = [one.at for index, one in enumerate(run.moments) if index > number and index not in seen]
    return later[0] - run.moments[number].at if later else None


async def test_a_pod_that_lost_its_interface_is_told_so(tmp_path: Path) -> None:
    """The run watched another pod of that node; this is the one that was hurt."""
    (run,) = [run for run in RUNS if run.fault == "veth_deleted_other_pod"]
    recording = run.moments[0].recording
    async with cluster_of(recording, tmp_path) as cluster:
        facts = await known(cluster, "default/pod-b2", "default/pod-c1")
        diagnosis = judged(facts, recording, lambda ask, probe: "silence" if probe.pod else "answered")
    assert [(cause.rule, cause.node) for cause in diagnosis.causes] == [("pod_interface_missing", "node-b")]


def test_every_recorded_wound_is_judged_and_every_mode_exists() -> None:
    assert {run.fault for run in RUNS} == WOUNDS.keys()
    there = {rule.name for rule in rulebase.load().rules}
    for fault, wound in WOUNDS.items():
        for modes in (wound.modes, *wound.then.values()):
            assert set(modes) <= there, fault
