"""An address is released only while nobody uses it, whoever writes at the same moment and wherever it is ended."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facts import Cause, LeakedAddresses
from fixes.calico import ApiError, Object
from fixes.kind import EvidenceChanged, TooSoon
from fixes.kinds.release_ip import KIND, nodes_asked
from fixes.release import fingerprint, holding
from fixes.request import stamp
from tests import exhaustive
from tests.calico_model import (
    BLOCK,
    CIDR,
    GONE,
    GONE_CONTAINER,
    NODES,
    NOW,
    Client,
    Model,
    Writer,
    a_model,
    about,
    cni_add,
    cni_del,
    show,
    step,
    storm,
)

ADDRESS = "10.244.1.1"
SEEN_AT = NOW - timedelta(minutes=20)


def arguments_for(model: Model, address: str = "", **changes: str) -> dict[str, str]:
    """What the bot's question writes into the request, for the gone pod's first address."""
    address = address or model.at(1)
    held = holding(model.block, address)
    assert held.attribute is not None
    secondary = held.attribute.get("secondary") or {}
    fact = LeakedAddresses(
        pool="small",
        node="node-a",
        count=1,
        examined=1,
        address=address,
        block=model.cidr,
        handle=held.handle,
        sequence=str(held.sequence),
        owner=fingerprint(held.attribute),
        pod=f"{secondary.get('namespace', 'shop')}/{secondary.get('pod', 'gone')}",
        no_route_on=NODES,
    )
    cause = Cause(rule="ip_leaked", title="", text="", evidence=(fact.id,))
    arguments = KIND.propose(cause, [fact])
    assert arguments is not None
    return arguments | {"seen_at": stamp(SEEN_AT)} | changes


def run(writer: Any) -> Any:
    """A coroutine to its end, with nobody beside it."""
    while True:
        try:
            writer.send(None)
        except StopIteration as end:
            return end.value


def test_a_leaked_address_is_free_afterwards_and_its_handle_gone() -> None:
    model = a_model()
    arguments, client = arguments_for(model), Client(model)
    assert all(len(value) <= 253 for value in arguments.values()), "the custom resource takes no longer ones"
    run(KIND.holds(client, arguments))
    shown = run(KIND.preview(client, arguments))
    assert model.writes == [], "a preview writes nothing"
    assert any(line.startswith("-") and GONE in line for line in shown)
    right, said = run(KIND.verify(client, arguments))
    assert (right, said) == (False, f"{ADDRESS} is still held by shop/gone.")
    run(KIND.execute(client, arguments))
    assert model.holder(ADDRESS) == "" and model.block["unallocated"][-1] == 1
    assert model.block["somethingNewer"] == {"kept": [1, 2]}
    assert ("ipamhandles", "", GONE) not in model.objects
    assert run(KIND.verify(client, arguments)) == (True, f"{ADDRESS} is free now.")
    with pytest.raises(EvidenceChanged, match="free already"):
        run(KIND.holds(client, arguments))


def test_one_of_two_addresses_of_a_handle_leaves_the_handle_with_the_other() -> None:
    """calicoctl up to 3.32 counts wrongly here (calico.md 2.2)."""
    model = a_model(leaked=2)
    first, second = arguments_for(model), arguments_for(model, "10.244.1.2")
    run(KIND.execute(Client(model), first))
    assert model.count(GONE) == 1 and model.holder("10.244.1.2") == GONE
    run(KIND.execute(Client(model), second))
    assert ("ipamhandles", "", GONE) not in model.objects


def test_with_a_cooldown_it_is_kept_back() -> None:
    model = a_model(cooldown_s=60)
    arguments = arguments_for(model)
    run(KIND.execute(Client(model), arguments))
    assert holding(model.block, ADDRESS).in_cooldown and 1 not in model.block["unallocated"]
    assert ("ipamhandles", "", GONE) not in model.objects
    right, said = run(KIND.verify(Client(model), arguments))
    assert right and "cooldown" in said
    with pytest.raises(EvidenceChanged, match="in its cooldown"):
        run(KIND.holds(Client(model), arguments))


@pytest.mark.parametrize(
    ("grace", "asked_s", "due_s"),
    [
        (None, "900", 900),
        (None, "1", 900),
        ("15m0s", "1200", 1200),
        ("1h0m0s", "900", 3600),
        ("1m0s", "60", 60),
        ("0s", "1", 900),
    ],
)
def test_the_second_look_is_no_sooner_than_calico_itself_would_wait(
    grace: str | None, asked_s: str, due_s: int
) -> None:
    """P1; a request made by hand cannot shorten it."""
    model = a_model()
    if grace is not None:
        controllers = {"controllers": {"node": {"leakGracePeriod": grace}}}
        model.put("kubecontrollersconfigurations", "default", spec=controllers)
    arguments = arguments_for(model, again_after_s=asked_s)
    early = Client(model, now=lambda: SEEN_AT + timedelta(seconds=due_s - 1))
    with pytest.raises(TooSoon) as soon:
        run(KIND.holds(early, arguments))
    assert soon.value.wait_s == 1
    run(KIND.holds(Client(model, now=lambda: SEEN_AT + timedelta(seconds=due_s)), arguments))


def node_annotated(model: Model) -> None:
    model.objects["nodes", "", "node-b"]["metadata"]["annotations"] = {
        "projectcalico.org/IPv4VXLANTunnelAddr": ADDRESS,
    }


def balancer(model: Model) -> None:
    model.put("services", "web", "shop", spec={}, status={"loadBalancer": {"ingress": [{"ip": ADDRESS}]}})


def second_interface(model: Model) -> None:
    show(model, "other", "10.244.1.7", "other-container")
    model.objects["pods", "shop", "other"]["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"] = (
        '[{"name":"x","ips":["10.244.1.7"]},{"name":"y","interface":"net1","ips":["' + ADDRESS + '"]}]'
    )


def host_network_pod(model: Model) -> None:
    show(model, "other", ADDRESS, "")


def terminating_pod(model: Model) -> None:
    show(model, "other", ADDRESS, "other-container")
    pod = model.objects["pods", "shop", "other"]
    pod["metadata"] |= {"deletionTimestamp": "2026-11-22T22:03:00Z"}
    pod["metadata"]["annotations"]["cni.projectcalico.org/podIP"] = ""


def same_pod_starting(model: Model) -> None:
    show(model, "gone", "", "another-container")


def same_pod_same_container(model: Model) -> None:
    show(model, "gone", "10.244.1.7", GONE_CONTAINER)


def same_pod_no_container(model: Model) -> None:
    show(model, "gone", "10.244.1.7", "")


def completed_pod(model: Model) -> None:
    show(model, "gone", ADDRESS, GONE_CONTAINER)
    model.objects["pods", "shop", "gone"]["status"]["phase"] = "Succeeded"


def locked(model: Model) -> None:
    model.objects["clusterinformations", "", "default"]["spec"]["datastoreReady"] = False


def windows(model: Model) -> None:
    model.objects["nodes", "", "node-b"]["metadata"]["labels"]["kubernetes.io/os"] = "windows"


def new_node(model: Model) -> None:
    model.put("nodes", "node-new", status={})


def reserved(model: Model) -> None:
    model.put("ipreservations", "kept", spec={"reservedCIDRs": ["10.244.1.0/31"]})


def other_block(model: Model) -> None:
    block = model.objects["ipamblocks", "", BLOCK]
    model.put("ipamblocks", "10-244-1-0-28", spec={**copy.deepcopy(block["spec"]), "cidr": "10.244.1.0/28"})


def deleted_block(model: Model) -> None:
    model.block["deleted"] = True


def broken_block(model: Model) -> None:
    model.block["unallocated"].append(1)


def given_again(model: Model) -> None:
    """Freed by somebody else, gone round the row, and given to a new pod."""
    run(cni_del(Client(model), "gone", GONE))
    for number in range(7):
        run(cni_add(Client(model), f"new-{number}"))
    assert model.holder(ADDRESS).startswith("k8s-pod-network.new-")


def same_handle_again(model: Model) -> None:
    """The same, to the same handle: only the sequence number tells."""
    model.block["sequenceNumberForAllocation"]["1"] += 1


def later_attribute(model: Model) -> None:
    index = model.block["allocations"][1]
    model.block["attributes"][index]["secondary"] = {**about("gone"), "node": "node-b"}


@pytest.mark.parametrize(
    "change",
    [
        node_annotated,
        balancer,
        second_interface,
        host_network_pod,
        terminating_pod,
        same_pod_starting,
        same_pod_same_container,
        same_pod_no_container,
        completed_pod,
        locked,
        windows,
        new_node,
        reserved,
        other_block,
        deleted_block,
        broken_block,
        given_again,
        same_handle_again,
        later_attribute,
    ],
)
def test_what_may_use_the_address_forbids_it(change: Callable[[Model], None]) -> None:
    """P1 to P7 of calico.md 2.3: each alone is enough, at the check and again at the write."""
    model = a_model()
    arguments = arguments_for(model)
    change(model)
    model.writes.clear()
    with pytest.raises(EvidenceChanged):
        run(KIND.holds(Client(model), arguments))
    if change is not other_block:  # the write names its block, and the other one has its own
        with pytest.raises(EvidenceChanged):
            run(KIND.execute(Client(model), arguments))
    assert model.writes == []


def evicted(model: Model) -> None:
    show(model, "gone", "", GONE_CONTAINER)
    model.objects["pods", "shop", "gone"]["status"] |= {"phase": "Failed", "reason": "Evicted"}


def started_anew(model: Model) -> None:
    show(model, "gone", "10.244.1.7", "another-container")


def finished_stranger(model: Model) -> None:
    show(model, "other", ADDRESS, "other-container")
    model.objects["pods", "shop", "other"]["status"]["phase"] = "Succeeded"


@pytest.mark.parametrize("change", [evicted, started_anew, finished_stranger])
def test_what_cannot_use_it_does_not_forbid_it(change: Callable[[Model], None]) -> None:
    model = a_model()
    arguments = arguments_for(model)
    change(model)
    run(KIND.holds(Client(model), arguments))
    run(KIND.execute(Client(model), arguments))
    assert model.holder(ADDRESS) == ""


@pytest.mark.parametrize(
    ("handle", "secondary", "more", "said"),
    [
        ("vxlan-tunnel-addr-node-a", {"node": "node-a", "type": "vxlanTunnelAddress"}, {}, "a tunnel's"),
        ("wireguard-v6-tunnel-addr-node-a", about("gone"), {}, "a tunnel's"),
        ("windows-reserved-ipam-handle", {"note": "windows host reserved"}, {}, "reserved for Windows"),
        ("lb-1", {"service": "web", "namespace": "shop"}, {}, "a load balancer's"),
        ("k8s-pod-network.vmi.shop.db", about("gone") | {"vmi-name": "db"}, {}, "a virtual machine's"),
        ("k8s-pod-network.x", about("gone") | {"vmim-uid": "7"}, {}, "a virtual machine's"),
        (GONE, about("gone"), {"alternateOwnerAttrs": {"pod": "other"}}, "two owners"),
        (GONE, {}, {}, "not shop/gone's"),
        (GONE, about("other"), {}, "not shop/gone's"),
    ],
)
def test_only_a_pods_address_is_released(handle: str, secondary: Object, more: Object, said: str) -> None:
    """P2, also where the request was made by hand with all its numbers right."""
    model = a_model()
    index = model.block["allocations"][1]
    model.block["attributes"][index] = {"handle_id": handle, "secondary": secondary, **more}
    arguments = arguments_for(model, pod="shop/gone")
    for refuses in (KIND.holds, KIND.execute, KIND.preview):
        with pytest.raises(EvidenceChanged, match=said):
            run(refuses(Client(model), arguments))
    assert model.writes == []


def test_an_address_of_a_virtual_block_is_refused() -> None:
    model = a_model()
    model.block["affinity"] = "virtual:load-balancer"
    with pytest.raises(EvidenceChanged, match="a load balancer's"):
        run(KIND.execute(Client(model), arguments_for(model)))


def test_without_the_nodes_answers_it_is_not_proposed() -> None:
    """P5: nobody asked the nodes for a route to it."""
    model = a_model()
    arguments = arguments_for(model)
    fact = LeakedAddresses(
        pool="small",
        node="node-a",
        count=1,
        examined=1,
        address=ADDRESS,
        block=CIDR,
        handle=GONE,
        sequence="1",
        owner="x",
        pod="shop/gone",
    )
    assert KIND.propose(Cause(rule="ip_leaked", title="", text="", evidence=(fact.id,)), [fact]) is None
    with pytest.raises(ValueError, match="no_route_on"):
        run(KIND.holds(Client(model), arguments | {"no_route_on": ""}))
    with pytest.raises(EvidenceChanged, match="asked for a route"):
        run(KIND.holds(Client(model), arguments | {"no_route_on": nodes_asked(["node-a"])}))


def test_a_storm_of_writes_ends_it_with_nothing_changed() -> None:
    model = a_model()
    arguments, client, other = arguments_for(model), Client(model), Client(model)
    fix, noise = KIND.execute(client, arguments), storm(other, 1000)
    with pytest.raises(ApiError, match="nothing was released"):
        while step(fix):
            step(noise)
            step(noise)
    noise.close()
    assert model.holder(ADDRESS) == GONE and model.count(GONE) == 1


# ---- whoever writes at the same moment

OTHERS = st.sampled_from(
    ["add", "add", "add", "del", "late del", "storm", "short storm", "release", "pod appears", "pod starts", "crash"]
)


class Scene:
    """One fixer among other writers; `turns` says whose call comes next."""

    def __init__(self, model: Model, others: list[str]) -> None:
        self.model = model
        self.arguments = arguments_for(model)
        self.crashed = False
        self.outcome = "running"
        self.writers: list[tuple[str, Writer]] = [("fix", self._fix())]
        for number, kind in enumerate(others):
            self.writers.append((kind, self._other(kind, number)))

    async def _fix(self) -> None:
        client = _Watching(self.model)
        try:
            await KIND.holds(client, self.arguments)
            await KIND.execute(client, self.arguments)
            self.outcome = "done"
        except EvidenceChanged:
            self.outcome = "stale"
        except ApiError:
            self.outcome = "failed"

    async def _other(self, kind: str, number: int) -> None:
        client = Client(self.model)
        if kind == "add":
            await cni_add(client, f"new-{number}")
        elif kind == "del":
            await cni_del(client, "old-0")
        elif kind == "late del":
            await cni_del(client, "gone", GONE)
        elif kind == "storm":
            await storm(client, 60)
        elif kind == "short storm":
            await storm(client, 3)
        elif kind == "release":  # somebody else approved the very same
            with contextlib.suppress(EvidenceChanged, ApiError):
                await KIND.execute(client, self.arguments)
        elif kind == "pod appears":  # that was there all the time, and the API server did not know
            await client.get("nodes", "node-a")
            address = self.model.at(1)
            if self.model.holder(address) == GONE:
                show(self.model, "gone", address, GONE_CONTAINER)
        elif kind == "pod starts":  # of the same name, as a StatefulSet makes them
            await cni_add(client, "gone", f"anew-{number}")
        else:
            assert kind == "crash"
            await client.get("nodes", "node-a")
            self.crashed = True

    def play(self, turns: random.Random) -> None:
        """To the end of all; every fixer that still runs ends with the crash, wherever it stands."""
        try:
            while self.writers:
                place = turns.randrange(len(self.writers))
                if not step(self.writers[place][1]):
                    del self.writers[place]
                if self.crashed:
                    for fixer in [one for one in self.writers if one[0] in ("fix", "release")]:
                        fixer[1].close()
                        self.writers.remove(fixer)
        finally:
            for _, writer in self.writers:
                writer.close()


class _Watching(Client):
    """The fixer's own client: between the block it read and the one it writes it looks at all pods."""

    shown: list[str] | None = None

    async def _send(self, method: str, path: str, query: Any = None, body: Object | None = None) -> tuple[int, Object]:
        if method == "PUT" and path.endswith(self.model.name):
            assert self.shown is not None and self.model.at(1) not in self.shown
        status, answer = await super()._send(method, path, query, body)
        if path.endswith(self.model.name):
            self.shown = None
        elif path.endswith("/pods"):
            self.shown = [str((one.get("status") or {}).get("podIP")) for one in answer["items"]]
        return status, answer


INTERLEAVINGS = exhaustive.times(1500, every=4)


@settings(max_examples=INTERLEAVINGS, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    others=st.lists(OTHERS, max_size=6),
    turns=st.randoms(use_true_random=False),
    leaked=st.integers(1, 2),
    cooldown_s=st.sampled_from([None, 0, 60]),
    taken=st.integers(0, 5),  # with five the next new pod gets whatever address is released
    family=st.sampled_from([4, 6]),
)
def test_no_address_in_use_is_ever_freed(
    others: list[str], turns: random.Random, leaked: int, cooldown_s: int | None, taken: int, family: int
) -> None:
    """The model itself looks after every write: each pod's address is its own, the block is whole, no handle counts
    too few (tests/calico_model.py)."""
    model = a_model(leaked=leaked, cooldown_s=cooldown_s, taken=taken, family=family)
    scene = Scene(model, others)
    scene.play(turns)
    model.check()
    left = sum(model.holder(model.at(ordinal)) == GONE for ordinal in range(8))
    if scene.outcome == "done":
        assert holding(model.block, model.at(1)).sequence != int(scene.arguments["sequence"]) or left < leaked
        right, _ = run(KIND.verify(Client(model), scene.arguments))
        assert right
    if not scene.crashed:
        assert model.count(GONE) == left, "its handle counts what it has"
        assert (("ipamhandles", "", GONE) in model.objects) == bool(left)
    else:
        assert model.count(GONE) >= left


@pytest.mark.parametrize(("cooldown_s", "family"), [(None, 4), (60, 4), (None, 6), (60, 6)])
def test_ended_at_any_call_it_is_told_truly_and_a_new_request_finds_it_done(
    cooldown_s: int | None, family: int
) -> None:
    """Killed before its first call, before its second, and so on: the block is whole, and nobody is told a lie."""
    calls, ends = 0, set()
    while True:
        model = a_model(cooldown_s=cooldown_s, taken=2, family=family)
        arguments = arguments_for(model)
        fix = KIND.execute(Client(model), arguments)
        if not all(step(fix) for _ in range(calls)):
            break
        fix.close()
        model.check()
        right, said = run(KIND.verify(Client(model), arguments))
        assert right == (model.holder(model.at(1)) == ""), said
        if right:
            with pytest.raises(EvidenceChanged):
                run(KIND.holds(Client(model), arguments))
            ends.add("handle" if "counts more" in said else "whole")
        else:
            run(KIND.holds(Client(model), arguments))
            ends.add("nothing")
        calls += 1
    assert ends == {"nothing", "handle", "whole"}, "killed before, between and after the two writes"
