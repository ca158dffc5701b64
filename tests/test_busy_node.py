"""A node that is too busy to look in time is asked once more for what is missing: its answer is right, not unknown."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from bot.investigate import Means, investigate
from bot.settings import from_environment
from bot.sources.kubernetes import Cluster
from bot.sources.probes import Probes
from engine.settling import completed, late, longer
from facts import Blind, LocalPod, NodeAsk, ProbeResult, SendProbe, Sighting, Train
from lab.client import Lab
from node_probe import packets, series
from node_probe.netlink import Netlink
from node_probe.view import View
from tests.asking import worker
from tests.namespaces import in_namespaces
from tests.test_own_faults_disk import loopback_up

HALTED_S = 2.6  # its deadline is 2.5 s
HALTED_AFTER_S = 3 * (0.05, 0.1, 0.03, 0.2, 0.02, 0.4, 0.01, 0.7)  # it was asked
POD = LocalPod(name="shop/cart", address="10.244.1.2", interface="cali1")
TARGET = "10.244.2.3"
PING = SendProbe(pod=POD.name, target=TARGET, protocol="icmp")
FULL = SendProbe(pod=POD.name, target=TARGET, protocol="icmp", size=-1)
ASKED = SendProbe(pod=POD.name, target=TARGET, protocol="tcp", port=5432)
THERE, BACK = (msgspec.structs.replace(ASKED, large=way) for way in ("there", "back"))
MANY = msgspec.structs.replace(ASKED, count=32, every_ms=1, once=True)
SENDS = (PING, FULL, ASKED, THERE, BACK, MANY)
HERE = NodeAsk(node="node-a", send=SENDS, local_pods=(POD,))
PEER = NodeAsk(node="node-b")
LATE = Blind(node="node-a", look="packets", reason="not done after 2500 ms", late=True)
SEEN = Sighting(node="node-a", way="out", source_address=POD.address, target_address=TARGET, seen=2)


def result(probe: SendProbe, **changes: object) -> ProbeResult:
    known = {"node": "node-a", "pod": probe.pod, "source_address": POD.address, "target_address": probe.target}
    of = {"protocol": probe.protocol, "port": probe.port, "size": 1430 if probe.size or probe.large else 0}
    told = {"answers": probe.large == "back", "sent": 2, "answered": 2, "outcome": "answered"}
    return ProbeResult(**known | of | told | changes)  # type: ignore[arg-type]


def train() -> Train:
    return Train(
        node="node-a",
        pod=POD.name,
        source_address=POD.address,
        target_address=TARGET,
        protocol="tcp",
        port=5432,
        sent=32,
        back=32,
        sent_again=0,
        back_again=0,
        retried=0,
        retried_back=0,
        outcome="",
    )


@pytest.mark.parametrize("missing", range(len(SENDS)))
def test_only_packets_that_are_missing_are_sent_again(missing: int) -> None:
    told = [train() if probe is MANY else result(probe) for i, probe in enumerate(SENDS) if i != missing]
    seen = [*told, SEEN, LATE]
    assert late(seen) == ["node-a"]
    again, watching = longer([HERE, PEER], seen)
    assert again.send == (SENDS[missing],) and not again.read and again.local_pods == HERE.local_pods
    assert watching.send == () and watching.watch == PEER.watch, "the peer sees and answers them"
    assert again.deadline_ms == watching.deadline_ms > HERE.deadline_ms
    more = [train() if SENDS[missing] is MANY else result(SENDS[missing]), msgspec.structs.replace(SEEN, seen=0)]
    assert set(completed([again, watching], seen, more)) == {*told, SEEN, more[0]}


def test_who_is_late_again_or_silent_then_is_told() -> None:
    seen = [result(PING), SEEN, LATE]
    again = longer([HERE], seen)
    later = msgspec.structs.replace(LATE, reason="not done after 3500 ms")
    assert set(completed(again, seen, [later])) == {result(PING), SEEN, later}
    assert completed(again, seen, [Blind(node="node-a", look="probe", reason="it hung up")]) == seen


def test_another_late_look_is_taken_anew_as_a_whole() -> None:
    seen = [result(PING), SEEN, msgspec.structs.replace(LATE, look="route")]
    asks = longer([HERE, PEER], seen)
    assert [ask.send for ask in asks] == [SENDS, ()] and all(ask.read for ask in asks)
    anew = [result(PING, answered=1)]
    assert completed(asks, seen, anew) == anew
    worse = [*seen, msgspec.structs.replace(LATE, node="node-b")]
    assert completed(asks, seen, worse) == seen


def test_what_a_healthy_path_does_not_rest_on_is_not_waited_for() -> None:
    assert late([msgspec.structs.replace(LATE, minor=True), msgspec.structs.replace(LATE, late=False)]) == []


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port of this machine whose server has no room for another connection, so that its kernel says nothing."""
    with socket.socket() as server, socket.socket() as first:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        first.connect(server.getsockname())
        yield server.getsockname()[1]


@pytest.mark.parametrize("left_s", (0.0, packets.RESERVE_S, 0.2))
@in_namespaces
async def test_silence_that_nobody_waited_for_is_no_loss(left_s: float) -> None:
    await asyncio.to_thread(loopback_up)
    with silent_port() as port, contextlib.closing(Netlink()) as netlink:
        plain = SendProbe(pod="", target="127.0.0.1", protocol="tcp", port=port)
        full = msgspec.structs.replace(plain, size=200, large="there")
        many = msgspec.structs.replace(plain, every_ms=1, once=True)
        ask = NodeAsk(node="node-a", send=(plain, full, many))
        with View(netlink, time.monotonic() + left_s) as view:
            found = [fact async for fact in series.collect(ask, view)]
    (told,) = found
    assert isinstance(told, Blind) and told.late and "no time was left" in told.reason


@contextlib.contextmanager
def halting(lab: Lab, node: str) -> Iterator[Callable[[bool], None]]:
    """Whatever runs in a node's network is kept from running, or runs on: True, False."""
    network = lab.exec(node, "readlink", "/proc/self/ns/net").stdout.strip()
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and str((process / "ns/net").readlink()) == network:
                found.append(os.pidfd_open(int(process.name)))
    assert found, "no program runs on the node"

    def halt(still: bool) -> None:
        for one in found:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(one, signal.SIGSTOP if still else signal.SIGCONT)

    try:
        yield halt
    finally:
        halt(False)
        for one in found:
            os.close(one)


@pytest.mark.parametrize("fault", ("", "neighbor_wrong_mac"))
async def test_a_probe_that_did_not_get_to_run_gives_the_right_answer(lab: Lab, fault: str) -> None:
    """It is halted until its time is up, in the middle of its look; when that is depends on the machine."""
    if fault:
        lab.inflict(fault, "shop/cart", "shop/db")
    settings = from_environment(lab.environment())
    told: list[str] = []
    asking = asyncio.Event()

    async def progress(text: str) -> None:
        told.append(text)
        if text.startswith("asking "):
            asking.set()

    async with Cluster(settings) as cluster, Probes(settings) as probes:
        with halting(lab, "node-a") as halt:

            async def halted(after_s: float) -> None:
                await asking.wait()
                await asyncio.sleep(after_s)
                halt(True)
                await asyncio.sleep(HALTED_S)
                halt(False)

            for after_s in HALTED_AFTER_S:
                told.clear()
                asking.clear()
                halting_it = asyncio.ensure_future(halted(after_s))
                words = ["shop/cart", "shop/db", "5432/tcp"]
                found = await investigate(words, Means(cluster, probes, worker()), progress=progress)
                halting_it.cancel()
                halt(False)
                diagnosis = found.diagnosis
                assert [one.rule for one in diagnosis.causes] == ([fault] if fault else []), (after_s, diagnosis)
                assert diagnosis.verdict == ("cause" if fault else "healthy"), (after_s, diagnosis)
                if any("took too long" in one for one in told):
                    return
    raise AssertionError(f"it was late at no time: {told}")
