"""What is wrong in the trial's cluster, one thing for each request, and what an answer of the bot would say of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from bot.investigate import Investigation
from facts import (
    BlockClaim,
    CalicoPod,
    Cause,
    Diagnosis,
    Fact,
    FdbEntry,
    LeakedAddresses,
    Leg,
    Neighbor,
    Pool,
    Question,
    Sysctl,
)
from fixes.kind import ClusterKind, kinds
from fixes.release import fingerprint
from tests.two_nodes import NODE, TUNNEL

NODES = ("node-a", "node-b")
WRONG_MAC, OTHER_MAC = "66:00:00:00:00:99", "66:00:00:00:00:77"
WRONG_PEER, OTHER_PEER = "172.30.0.99", "172.30.0.77"
GRACE_S = 2
ORDINAL = 5  # of the leaked address in its block
OWNER, CLAIMANT = "node-a", "node-b"
# How often each kind is asked for. Between them all ways of an effect: a kernel's tables, a file below /proc/sys, one
# write of an object, a write and a deletion, two objects, a deletion.
SHARES = {
    "replace_neighbor": 26,
    "set_sysctl": 22,
    "replace_fdb_entry": 12,
    "enable_pool": 14,
    "delete_block_affinity": 10,
    "release_ip": 12,
    "restart_calico_node": 4,
}


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One wrong thing, which one fix of this kind mends. node: whose kernel it is in, "" for the cluster's objects."""

    kind: str
    number: int
    node: str = ""

    @property
    def of_cluster(self) -> bool:
        return isinstance(kinds()[self.kind], ClusterKind)

    @property
    def address(self) -> str:
        return f"10.200.{self.number // 250}.{self.number % 250 + 1}"

    @property
    def mac(self) -> str:
        return f"66:01:00:00:{self.number >> 8:02x}:{self.number & 255:02x}"

    @property
    def device(self) -> str:
        return f"cali{self.number:08d}"

    @property
    def switch(self) -> str:
        return ("forwarding", "proxy_arp")[self.number % 2]

    @property
    def pool(self) -> str:
        return f"pool-{self.number}"

    @property
    def block(self) -> str:
        return f"10.{100 + self.number // 1024}.{self.number // 4 % 256}.{self.number % 4 * 64}/26"

    @property
    def block_name(self) -> str:
        return self.block.replace(".", "-").replace("/", "-")

    @property
    def leaked(self) -> str:
        network, _, last = self.block.partition("/")[0].rpartition(".")
        return f"{network}.{int(last) + ORDINAL}"

    @property
    def handle(self) -> str:
        return f"k8s-pod-network.{self.number:08d}"

    @property
    def worker(self) -> str:
        return f"worker-{self.number}"

    @property
    def pod(self) -> str:
        """The calico-node pod that is stuck there."""
        return f"calico-node-{self.number}-first"

    @property
    def attribute(self) -> dict[str, Any]:
        """Whom the leaked address is held for."""
        about = {
            "namespace": "shop",
            "node": OWNER,
            "pod": f"gone-{self.number}",
            "timestamp": "2026-01-01 00:00:00 +0000 UTC",
        }
        return {"handle_id": self.handle, "secondary": about}


def cause(target: Target, nodes: Sequence[str]) -> tuple[Cause, list[Fact]]:
    """What the rules say of it, and the facts that rests on. nodes: all there are."""
    facts = _facts(target, nodes)
    evidence = tuple(fact.id for fact in facts)
    node = target.node or (target.worker if target.kind == "restart_calico_node" else "")
    return Cause(
        rule=f"trial_{target.kind}",
        title=target.kind,
        text=f"Wrong: {target.number}.",
        node=node,
        evidence=evidence,
        fix=target.kind,
    ), facts


def investigation(asked: str, asked_by: str, targets: Sequence[Target], nodes: Sequence[str]) -> Investigation:
    """The answer that names them all; of none: that nothing is wrong any more."""
    causes, facts = [], []
    for target in targets:
        one, rests_on = cause(target, nodes)
        causes.append(one)
        facts += rests_on
    diagnosis = Diagnosis(
        verdict="cause" if causes else "healthy",
        question=Question(source="trial/a", target="trial/b", protocol="tcp", port=80),
        summary="" if causes else "Nothing is wrong any more.",
        causes=tuple(causes),
        facts=tuple(facts),
    )
    return Investigation(
        id="inv-20261126-000000-tr",
        cluster="trial",
        asked=asked,
        asked_by=asked_by,
        started="2026-11-26T00:00:00+00:00",
        elapsed_ms=1,
        diagnosis=diagnosis,
    )


def _facts(target: Target, nodes: Sequence[str]) -> list[Fact]:
    if target.kind == "replace_neighbor":
        seen = Neighbor(
            node=target.node, device=TUNNEL, address=target.address, found=True, mac=WRONG_MAC, state="PERMANENT"
        )
        return [_leg(target, target_tunnel_address=target.address), seen]
    if target.kind == "replace_fdb_entry":
        entry = FdbEntry(node=target.node, device=TUNNEL, mac=target.mac, found=True, peer=WRONG_PEER)
        return [_leg(target), entry]
    if target.kind == "set_sysctl":
        name = f"net.ipv4.conf.{target.device}.{target.switch}"
        value = Sysctl(node=target.node, name=name, found=True, value="0", device=target.device, switch=target.switch)
        return [_leg(target, source_interface=target.device), value]
    if target.kind == "enable_pool":
        return [Pool(name=target.pool, cidr=target.block, block_size=26, disabled=True)]
    if target.kind == "delete_block_affinity":
        return [BlockClaim(block=target.block, node=CLAIMANT, block_node=OWNER, state="confirmed")]
    if target.kind == "restart_calico_node":
        return [CalicoPod(node=target.worker, running=True, name=f"calico-system/{target.pod}")]
    return [
        LeakedAddresses(
            pool="small",
            node=OWNER,
            count=1,
            examined=1,
            address=target.leaked,
            block=target.block,
            handle=target.handle,
            sequence=str(target.number),
            owner=fingerprint(target.attribute),
            pod=f"shop/gone-{target.number}",
            grace_s=GRACE_S,
            no_route_on=tuple(nodes),
        )
    ]


def _leg(target: Target, **changes: str) -> Leg:
    side = target.node[-1]
    other = "b" if side == "a" else "a"
    fields: dict[str, Any] = {
        "direction": "forward",
        "encapsulation": "vxlan",
        "source": "trial/a",
        "target": "trial/b",
        "source_address": "10.244.1.2",
        "target_address": "10.244.2.2",
        "source_interface": "",
        "target_interface": "",
        "source_node": target.node,
        "target_node": f"node-{other}",
        "source_node_address": NODE[side],
        "target_node_address": NODE[other],
        "source_tunnel_address": "",
        "target_tunnel_address": "",
        "source_tunnel_mac": "",
        "target_tunnel_mac": target.mac,
        "target_block": "",
    }
    return Leg(**(fields | changes))
