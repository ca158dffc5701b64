"""What the probe sees of Calico's own programs: real processes, a BIRD stand-in's socket, recorded texts and bytes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from facts import BgpPeer, Blind, CalicoService, Fact, NodeAsk
from lab import looping
from lab.namespaces import Namespace
from node_probe import processes
from node_probe.answer import Prober
from node_probe.collectors import services
from node_probe.collectors.bird import peers, show_protocols
from node_probe.netlink_messages import NetlinkError
from node_probe.processes import Process, of_calico
from node_probe.progress import compared, read
from node_probe.view import View
from node_probe.wireguard import Wireguard, merged


class Here(Namespace):
    """The network the tests run in, as a place to start a program."""

    def __init__(self) -> None:
        super().__init__("here", -1)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def running(*arguments: str, seconds: float = 60) -> Iterator[subprocess.Popen[bytes]]:
    """A process that calls itself so."""
    sleep = f"import time; time.sleep({seconds})"
    name, *rest = arguments
    with subprocess.Popen([name, "-c", sleep, *rest], executable=sys.executable) as process:
        try:
            # It is seen to have been executed a moment before the kernel knows its arguments.
            wait_for(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes() != b"")
            yield process
        finally:
            process.kill()


def wait_for(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def view() -> View:
    return View(None, 0.0)  # type: ignore[arg-type]  # these collectors ask no kernel


async def seen(**fields: bool) -> dict[str, CalicoService]:
    ask = NodeAsk(node="node-a", **{"felix_again": True, **fields})  # type: ignore[arg-type]
    found = [fact async for fact in services.collect(ask, view())]
    assert all(isinstance(fact, CalicoService) for fact in found)
    return {fact.service: fact for fact in found if isinstance(fact, CalicoService)}


# -- processes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "role"),
    [
        (("calico-node", "-felix"), "felix"),  # up to 3.32
        (("/bin/calico-node", "-felix"), "felix"),
        (("calico", "component", "felix"), "felix"),  # from 3.33
        (("calico-felix",), "felix"),
        (("calico-node", "-allocate-tunnel-addrs"), "node-services"),
        (("calico", "component", "node", "node-services"), "node-services"),
        (("calico-node", "-confd"), "other"),
        (("bird", "-R", "-s", "/var/run/calico/bird.ctl", "-d"), "bird"),
        (("/usr/sbin/bird6",), "bird6"),
        (("runsv", "felix"), ""),
        (("grep", "calico-node"), ""),
        (("calicoctl", "node", "status"), ""),
        ((), ""),
    ],
)
def test_what_a_process_does_is_told_by_its_words(arguments: tuple[str, ...], role: str) -> None:
    assert Process(1, 1, 1, arguments).role == role


def test_runsv_says_what_ought_to_run() -> None:
    assert Process(1, 1, 1, ("runsv", "felix")).supervises == "felix"
    assert Process(1, 1, 1, ("runsv", "/etc/service/enabled/allocate-tunnel-addrs")).supervises == "node-services"
    assert Process(1, 1, 1, ("runsvdir", "/etc/service/enabled")).supervises == ""


def test_calico_s_processes_of_this_network_are_found_and_those_of_others_are_not(tmp_path: Path) -> None:
    with running("calico-node", "-felix") as mine:
        (found,) = [one for one in of_calico() if one.pid == mine.pid]
        assert (found.role, found.parent) == ("felix", os.getpid())
        assert 0 <= found.age_s < 30
        elsewhere = tmp_path / "another namespace"
        elsewhere.touch()
        assert of_calico(own=elsewhere) == []


async def test_a_program_that_dies_each_second_is_caught_in_one_look(tmp_path: Path) -> None:
    supervisor = looping.start(Here(), "node-services", tmp_path)
    try:
        await asyncio.to_thread(wait_for, lambda: bool(of_calico()))
        found = await seen()
    finally:
        looping.stop(supervisor)
    assert found["node-services"].loops and found["node-services"].starts >= 3
    assert not found["felix"].loops and not found["felix"].running


async def test_one_restart_is_no_loop_and_an_old_process_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    with running("calico-node", "-felix"):
        monkeypatch.setattr(services, "YOUNG_S", 0.0)  # whatever runs has run long
        found = await seen()
    assert (found["felix"].running, found["felix"].starts, found["felix"].watched_ms) == (True, 1, 0)
    assert not found["felix"].loops
    young = {"node": "a", "service": "felix", "seen": True, "starts": 2, "age_s": 1}
    assert not CalicoService(**young, supervisor_age_s=20).loops  # type: ignore[arg-type]  # calico-node is starting
    assert CalicoService(**young, supervisor_age_s=4000).loops  # type: ignore[arg-type]
    assert not CalicoService(**{**young, "age_s": 900}, supervisor_age_s=4000).loops  # type: ignore[arg-type]


async def test_where_no_process_of_calico_is_seen_nothing_is_said_of_any() -> None:
    found = await seen()
    assert {(one.seen, one.running, one.loops, one.watched_ms) for one in found.values()} == {(False, False, False, 0)}


async def test_the_ask_decides_whether_there_is_time_to_watch() -> None:
    with running("calico-node", "-felix"):
        assert (await seen(felix_again=False))["felix"].watched_ms == 0
    assert await seen(felix=False) == {}


def test_a_process_that_ends_while_it_is_looked_at_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "17").mkdir()
    assert of_calico(proc=tmp_path) == []
    (tmp_path / "17" / "cmdline").write_bytes(b"calico-node\0-felix\0")
    (tmp_path / "17" / "stat").write_text("17 (a (strange) name) S 1 " + " ".join("0" * 17) + " 4711 0")
    (only,) = processes._all(tmp_path)
    assert (only.parent, only.started, only.role) == (1, 4711, "felix")
    assert of_calico(proc=tmp_path) == []  # its namespace is gone


# -- how far Felix is ------------------------------------------------------------------------------------------------

METRICS = """# HELP felix_int_dataplane_apply_time_seconds Time in seconds that it took to apply a dataplane update.
# TYPE felix_int_dataplane_apply_time_seconds summary
felix_int_dataplane_apply_time_seconds{quantile="0.5"} 0.00412
felix_int_dataplane_apply_time_seconds_sum 0.62
felix_int_dataplane_apply_time_seconds_count 40
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.79538359917e+09
"""


def test_a_counter_that_stands_is_known_to_stand_only_since_it_was_first_seen() -> None:
    """With a held xtables lock Felix is live and ready for 112 s (calico_truth_2.md 2)."""
    numbers, before = read(METRICS), {}  # type: ignore[var-annotated]
    assert compared("node-a", numbers, before, 1000.0) == (40, 0)
    assert compared("node-a", numbers, before, 1112.4) == (40, 112)
    assert compared("node-a", {**numbers, "felix_int_dataplane_apply_time_seconds_count": 41.0}, before, 1120.0) == (
        41,
        0,
    )
    restarted = {**numbers, "process_start_time_seconds": 1.79538400000e09}
    assert compared("node-a", restarted, before, 1130.0) == (40, 0)
    assert compared("node-b", {}, before, 1130.0) == (-1, 0)  # somebody else's metrics


# -- BIRD ------------------------------------------------------------------------------------------------------------

GREETING = "0001 BIRD v0.3.3+birdv1.6.8 ready.\n"
TABLE = """2002-name     proto    table    state  since       info
1002-static1  Static   master   up     16:01:01
 kernel1  Kernel   master   up     16:01:01
 Mesh_172_19_0_4 BGP      master   up     16:01:02    Established
 Mesh_172_19_0_2 BGP      master   start  2016-11-21  Active        Socket: Connection refused
 Global_192_20_30_40 BGP      master   start  2026-11-25 18:12:35  Connect
 Node_172_16_2_116_port_179 BGP      master   down   16:42:53
 Local_Workload_10_1_1_1 BGP      master   up     16:42:53    Established
0000
"""
SIX = """2002-name     proto    table    state  since       info
1002-Mesh_172_17_8_102 BGP      ---   up     2016-11-21  Established
 Mesh_fd80_24e2_f998_72d7__2 BGP      ---   up     2016-11-21  Established
0000
"""

# BIRD 2.0.12 itself said this.
TWO = """0001 BIRD 2.0.12 ready.
2002-Name       Proto      Table      State  Since         Info
1002-device1    Device     ---        up     19:29:13.300
 static1    Static     master4    up     19:29:13.300
 Mesh_127_0_0_2 BGP        ---        up     19:29:13.300  Established
 Node_192_0_2_5_port_179 BGP        ---        start  19:29:13.300  Passive
0000
"""


def test_the_sessions_are_read_as_calicoctl_reads_them() -> None:
    found = peers("node-a", 4, GREETING + TABLE)
    assert [(one.kind, one.address, one.state, one.session, one.since, one.info) for one in found] == [
        ("mesh", "172.19.0.4", "up", "Established", "16:01:02", ""),
        ("mesh", "172.19.0.2", "start", "Active", "2016-11-21", "Socket: Connection refused"),
        ("global", "192.20.30.40", "start", "Connect", "2026-11-25 18:12:35", ""),
        ("node", "172.16.2.116", "down", "", "16:42:53", ""),
    ]
    # One BIRD of both families, from version 2 on.
    assert [one.address for one in peers("node-a", 6, SIX)] == ["fd80:24e2:f998:72d7::2"]
    assert [one.address for one in peers("node-a", 4, SIX)] == ["172.17.8.102"]
    assert isinstance(found[0], BgpPeer)
    assert [(one.address, one.session, one.since) for one in peers("node-a", 4, TWO)] == [
        ("127.0.0.2", "Established", "19:29:13.300"),
        ("192.0.2.5", "Passive", "19:29:13.300"),
    ]


@contextlib.contextmanager
def bird(path: Path, *parts: str) -> Iterator[None]:
    """Greets, and answers whatever is asked in these parts, as slowly as a socket may deliver them."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen(1)

        def serve() -> None:
            with contextlib.suppress(OSError):
                client, _ = listening.accept()
                with client:
                    client.sendall(GREETING.encode())
                    if client.recv(100) == b"show protocols\n":
                        for part in parts:
                            client.sendall(part.encode())
                    client.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.mark.parametrize(
    "parts", [(TABLE,), (TABLE[:40], TABLE[40:]), ("8003 No protocols match\n",), ("9001 Parse error\n",)]
)
def test_bird_s_answer_is_taken_to_its_end(tmp_path: Path, parts: tuple[str, ...]) -> None:
    with bird(tmp_path / "bird.ctl", *parts):
        assert show_protocols([tmp_path / "bird.ctl"], 2.0) == GREETING + "".join(parts)


def test_a_bird_that_does_not_answer_is_an_error_and_no_wait_for_ever(tmp_path: Path) -> None:
    with bird(tmp_path / "bird.ctl"), pytest.raises(OSError, match="timed out"):
        show_protocols([tmp_path / "bird.ctl"], 0.05)
    with pytest.raises(OSError, match="there is none"):
        show_protocols([], 1.0)


# -- WireGuard -------------------------------------------------------------------------------------------------------


def attribute(kind: int, value: bytes, *, nested: bool = False) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind | (0x8000 if nested else 0)) + value + b"\0" * (-len(value) % 4)


def allowed(address: str, length: int) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return attribute(
        0,
        attribute(1, struct.pack("=H", family))
        + attribute(2, socket.inet_pton(family, address))
        + attribute(3, bytes([length])),
        nested=True,
    )


KEY_A, KEY_B = bytes(range(32)), bytes(range(32, 64))
IN4 = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 51820) + socket.inet_aton("172.30.0.12") + bytes(8)
IN6 = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", 51821, 0) + socket.inet_pton(socket.AF_INET6, "fd00::2")


def test_a_wireguard_device_is_read_from_the_kernel_s_bytes() -> None:
    """A peer with many prefixes goes on in the next message: the kernel repeats its key there."""
    head = struct.pack("=BBxx", 0, 1)
    first = attribute(
        0,
        attribute(1, KEY_B)
        + attribute(4, IN4)
        + attribute(6, struct.pack("=qq", 1795383600, 5))
        + attribute(9, allowed("10.244.218.64", 26) + allowed("10.244.7.3", 32), nested=True),
        nested=True,
    )
    again = attribute(0, attribute(1, KEY_B) + attribute(9, allowed("fd00:10::40", 122), nested=True), nested=True)
    silent = attribute(0, attribute(1, KEY_A) + attribute(4, IN6 + bytes(4)), nested=True)
    messages = [
        head
        + attribute(1, struct.pack("=I", 7))
        + attribute(2, b"wireguard.cali\0")
        + attribute(3, bytes(32))
        + attribute(4, KEY_A)
        + attribute(6, struct.pack("=H", 51820))
        + attribute(8, first, nested=True),
        head + attribute(8, again + silent, nested=True),
    ]
    tunnel = merged(messages)
    key_a, key_b = (base64.b64encode(key).decode() for key in (KEY_A, KEY_B))
    assert (tunnel.public_key, tunnel.port, list(tunnel.peers)) == (key_a, 51820, [key_b, key_a])
    peer = tunnel.peers[key_b]
    assert (peer.endpoint, peer.handshake) == ("172.30.0.12:51820", 1795383600)
    assert peer.allowed == ["10.244.218.64/26", "10.244.7.3/32", "fd00:10::40/122"]
    assert (tunnel.peers[key_a].endpoint, tunnel.peers[key_a].handshake) == ("[fd00::2]:51821", 0)


def test_a_device_without_a_key_has_none() -> None:
    assert merged([struct.pack("=BBxx", 0, 1) + attribute(4, bytes(32))]).public_key == ""


def test_a_kernel_without_such_a_device_says_so() -> None:
    """Whether it knows WireGuard or not; one that asks for more rights than these tests have is an error instead."""
    with Wireguard() as kernel:
        try:
            assert kernel.tunnel("wireguard.cali") is None
        except NetlinkError as error:
            assert error.name == "EPERM"


def test_stopping_a_loop_leaves_nothing_behind(tmp_path: Path) -> None:
    supervisor = looping.start(Here(), "felix", tmp_path)
    looping.stop(supervisor)
    with pytest.raises(ProcessLookupError):
        os.killpg(supervisor.pid, signal.SIGKILL)


async def test_a_look_at_programs_that_breaks_casts_no_doubt_on_a_path() -> None:
    """Only warnings rest on it. What decides about a path is another matter."""

    def breaks(ask: NodeAsk, view: View) -> Iterator[Fact]:
        raise PermissionError(13, "Permission denied")
        yield

    prober = Prober("node-a", dict.fromkeys(("services", "bird", "route"), breaks))
    try:
        found = await prober.answer(NodeAsk(node="node-a"), time.monotonic() + 2)
    finally:
        await prober.close()
    assert {one.look: one.minor for one in found if isinstance(one, Blind)} == {
        "services": True,
        "bird": True,
        "route": False,
    }
