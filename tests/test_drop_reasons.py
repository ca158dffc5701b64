"""What the kernel says it dropped while packets were lost is counted, and its tracer is gone afterwards."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.diagnosis import diagnose
from facts import DropReason, DropReasons, Fact, ProbeResult
from node_probe import drop_reasons
from node_probe.drop_reasons import PREFIX, Tracing, mounted, parsed, sweep
from tests.scene import CART, DB, change, healthy

# Of Linux 6.18: packets to a closed port, to a chain that drops, to a route that refuses; what a raw socket's filter
# does not take, an answer that no ping socket waits for, what a closed socket had not read; ARP; and another event.
RECORDED = """\
# tracer: nop
#
# entries-in-buffer/entries-written: 6/6   #P:2
#
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
           <...>-30316   [001] ..s1. 16445.268022: kfree_skb: skbaddr=0000000020aebb9b rx_sk=0000000000000000 \
protocol=2048 location=__udp4_lib_rcv+0x4bc/0xd00 reason: NO_SOCKET
           <...>-30316   [001] ..s1. 16445.268044: kfree_skb: skbaddr=0000000019fc0ada rx_sk=0000000000000000 \
protocol=2048 location=__udp4_lib_rcv+0x4bc/0xd00 reason: NO_SOCKET
          <idle>-0       [000] ..s2. 16446.111111: kfree_skb: skbaddr=0000000019fc0adb rx_sk=0000000000000000 \
protocol=34525 location=nft_do_chain+0x3f0/0x4c0 reason: NETFILTER_DROP
          <idle>-0       [000] ..s2. 16446.112111: kfree_skb: skbaddr=0000000019fc0adf rx_sk=0000000000000000 \
protocol=2048 location=raw_rcv+0x7a/0x1f0 reason: SOCKET_FILTER
          <idle>-0       [000] ..s2. 16446.113111: kfree_skb: skbaddr=0000000019fc0ad0 rx_sk=0000000000000000 \
protocol=2048 location=ping_rcv+0x8c/0x120 reason: NO_SOCKET
          <idle>-0       [000] ..s2. 16446.114111: kfree_skb: skbaddr=0000000019fc0ad1 rx_sk=0000000000000000 \
protocol=2048 location=inet_sock_destruct+0x2c/0x190 reason: QUEUE_PURGE
          <idle>-0       [000] ..s2. 16446.222222: kfree_skb: skbaddr=0000000019fc0adc rx_sk=0000000000000000 \
protocol=2054 location=arp_rcv+0x10/0x20 reason: OTHERHOST
          <idle>-0       [000] ..s2. 16446.333333: kfree_skb: skbaddr=0000000019fc0add protocol=2048 \
location=00000000deadbeef reason: NOT_SPECIFIED
          <idle>-0       [000] ..s2. 16446.444444: consume_skb: skbaddr=0000000019fc0ade
"""


def test_ip_packets_are_counted_by_reason_and_place() -> None:
    assert parsed(RECORDED) == (
        DropReason(reason="NO_SOCKET", place="__udp4_lib_rcv", count=2),
        DropReason(reason="NETFILTER_DROP", place="nft_do_chain", count=1),
        DropReason(reason="NOT_SPECIFIED", place="00000000deadbeef", count=1),
    )
    assert parsed("") == ()


def names(tracers: Path) -> set[Path]:
    """Of this process: others on this machine come and go meanwhile."""
    return {one for one in tracers.iterdir() if f"-{os.getpid()}-" in one.name}


@pytest.fixture
def tracers() -> Iterator[Path]:
    """Where the kernel's tracers are; only root of the machine itself may make one."""
    try:
        root = mounted()
    except OSError as error:
        pytest.skip(f"this machine lets nobody trace here: {error.strerror}")
    yield Path(f"/proc/self/fd/{root}/instances")
    os.close(root)


async def test_the_kernel_tells_and_nothing_stays_behind(tracers: Path) -> None:
    before = names(tracers)
    tracing = Tracing(wanted=True)
    await tracing.open()
    assert len(names(tracers)) == len(before) + 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed, socket.socket(type=socket.SOCK_DGRAM) as one:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        closed.close()
        for _ in range(3):
            one.sendto(b"x", ("127.0.0.1", port))
    (told,) = await tracing.reasons("node-a")
    assert isinstance(told, DropReasons)
    assert sum(drop.count for drop in told.drops if drop.reason == "NO_SOCKET") >= 3
    await tracing.close()
    assert names(tracers) == before
    assert await tracing.reasons("node-a") == []


async def test_a_tracer_that_is_not_wanted_or_not_allowed_is_none() -> None:
    tracing = Tracing(wanted=False)
    await tracing.open()
    assert await tracing.reasons("node-a") == []
    await tracing.close()


def test_a_machine_of_many_processors_is_spared(tracers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each processor gets a buffer, and for a moment a large one."""
    monkeypatch.setattr(drop_reasons, "MOST_PROCESSORS", 0)
    tracing = Tracing(wanted=True)
    tracing._open()
    assert not tracing._made


def test_tracers_of_a_killed_probe_are_swept_and_no_others(tracers: Path) -> None:
    left, foreign, living = (tracers / name for name in (f"{PREFIX}4194304-dead", "somebody", f"{PREFIX}1-living"))
    made = (left, foreign, living)
    for one in made:
        one.mkdir()
    try:
        sweep()
        assert [one.exists() for one in made] == [False, True, True]
    finally:
        for one in made:
            if one.exists():
                one.rmdir()


def test_they_are_told_beside_a_loss_that_nothing_explains_and_only_there() -> None:
    drops = (DropReason(reason="NETFILTER_DROP", place="nft_do_chain", count=4),)
    seen: list[Fact] = [*healthy(), DropReasons(node="node-b", drops=drops), DropReasons(node="node-c", drops=drops)]
    assert "NETFILTER_DROP" not in diagnose(seen).summary
    for pod in (CART[0], DB[0]):
        seen = change(seen, ProbeResult, {"pod": pod}, answered=0, outcome="silence", rtt_us=-1)
    diagnosis = diagnose(seen)
    assert diagnosis.verdict == "unknown"
    assert "kernel of node-b dropped packets, whoever's they were: 4 for NETFILTER_DROP in nft_do_chain." in (
        diagnosis.summary
    )
    assert "node-c" not in diagnosis.summary
