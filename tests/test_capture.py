"""`calico-why capture` on the lab: real pods talk, real probes look on, and one file tells where each packet passed."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bot.capture import Captured, capture, table, understand, way
from bot.errors import COULD_NOT_JUDGE, UserError
from bot.language import ENGLISH, language
from bot.pcapng import Interface, Packet, write
from bot.settings import from_environment
from bot.sources.kubernetes import Cluster
from bot.sources.probes import Probes
from facts.capture import LINK_ETHERNET, LINK_IP
from lab.client import Lab
from tests import pcapng
from tests.test_lab import Remains

SECRET = b"a password nobody may see"
SPEAK = """
import socket, sys, time
address, port, text = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
with socket.create_connection((address, port), 5) as one:
    one.sendall(text)
    one.shutdown(socket.SHUT_WR)
    one.recv(100)
"""


def address(lab: Lab, pod: str, family: int = 4) -> str:
    (found,) = [one for one in lab.status()["pods"] if one["name"] == pod]
    return next(one for one in found["addresses"] if (":" in one) == (family == 6))


def interface(lab: Lab, pod: str) -> str:
    return next(str(one["interface"]) for one in lab.status()["pods"] if one["name"] == pod)


def speak(lab: Lab, source: str, target: str, port: int, family: int = 4) -> None:
    """A TCP connection of real pods."""
    told = lab.exec(source, sys.executable, "-c", SPEAK, address(lab, target, family), str(port), SECRET.decode())
    assert told.returncode == 0, told.stderr


class Seen:
    """Progress of a capture; sets `begun` when every probe looks on."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.begun = asyncio.Event()
        self.passed = asyncio.Event()

    async def __call__(self, text: str) -> None:
        self.said.append(text)
        if found := re.match(r"(\d+) of .* (\d+) packets", text):
            self.begun.set()
            if int(found[2]):
                self.passed.set()


async def captured(
    lab: Lab,
    words: str,
    talk: Any = None,
    *,
    environment: Mapping[str, str] | None = None,
    until_packets: bool = True,
) -> Captured:
    """What `capture WORDS` gives; `talk()` runs meanwhile, and soon after it the capture is stopped."""
    settings = from_environment(environment or lab.environment())
    seen, stop = Seen(), asyncio.Event()

    async def meanwhile() -> None:
        await seen.begun.wait()
        await asyncio.to_thread(talk)
        if until_packets:
            await seen.passed.wait()
        await asyncio.sleep(0.6)  # two lines of a probe: what passed was told
        stop.set()

    async with Cluster(settings) as cluster, Probes(settings) as probes:
        talking = asyncio.create_task(meanwhile()) if talk else None
        try:
            return await capture(understand(words.split()), cluster=cluster, probes=probes, progress=seen, stop=stop)
        finally:
            if talking:
                await talking


TCPDUMP = shutil.which("tcpdump")


@pytest.mark.skipif(not TCPDUMP, reason="no tcpdump here: the files of these tests are read by our own reader only")
def test_the_files_of_these_tests_are_read_by_tcpdump_too() -> None:
    """`checked` does it with each."""
    assert TCPDUMP
    told = subprocess.run([TCPDUMP, "--version"], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


def checked(content: bytes, path: Path) -> pcapng.File:
    """The file as our own strict reader has it; tcpdump, where there is one, reads the same packets."""
    path.write_bytes(content)
    found = pcapng.read(content)
    if TCPDUMP:
        told = subprocess.run([TCPDUMP, "-n", "-r", path], capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stderr
        lines = [line for line in told.stdout.splitlines() if re.match(r"\d\d:\d\d:\d\d\.", line)]
        assert len(lines) == len(found.packets), told.stdout
    return found


async def test_one_file_with_every_place_of_both_nodes(lab: Lab, tmp_path: Path) -> None:
    def talk() -> None:
        speak(lab, "shop/cart", "shop/db", 5432)
        speak(lab, "shop/cart", "shop/db", 8080)

    taken = await captured(lab, "shop/cart shop/db 5432/tcp --seconds 30", talk)
    file = checked(taken.file, tmp_path / "a.pcapng")
    places = [
        "node-a shop/cart eth0",
        f"node-a {interface(lab, 'shop/cart')} (veth)",
        "node-a vxlan.calico",
        "node-a eth0 (uplink)",
        "node-b eth0 (uplink)",
        "node-b vxlan.calico",
        f"node-b {interface(lab, 'shop/db')} (veth)",
        "node-b shop/db eth0",
    ]
    assert [one.name for one in file.interfaces] == places
    assert {(one.link, one.resolution) for one in file.interfaces} == {(1, 9)}
    counts = {(row.there, row.back) for row in taken.rows}
    assert len(counts) == 1 and min(counts) >= (3, 2), taken.rows
    assert taken.packets == len(file.packets) == 8 * sum(next(iter(counts)))
    assert taken.complete
    for one in file.packets:
        assert SECRET[:3] not in one.data
        tunnelled = "uplink" in one.interface.name
        assert (one.data[14 + 9] == 17) == tunnelled, "TCP in the tunnel, which is UDP on the uplink"
        ports = one.data[14 + 50 + 20 :][:4] if tunnelled else one.data[14 + 20 :][:4]
        assert (5432).to_bytes(2, "big") in (ports[:2], ports[2:]), "no packet to the other port"
    # The nodes of a lab share a clock: what is first in the file is first on the way.
    first = [packet.interface.name for packet in file.packets[:8]]
    assert first == places
    asked, *_, clocks, wireshark = file.comments
    assert wireshark.endswith('frame.interface_name == "node-a shop/cart eth0"')
    assert asked.startswith("calico-why capture shop/cart shop/db 5432/tcp --seconds 30: packets between shop/cart (")
    least, most = map(float, re.findall(r"from (\S+) to (\S+) ms", clocks)[0])
    assert "two nodes' clocks differ" in clocks and least <= 0 <= most
    assert file.application.startswith("calico-why ")


async def test_pods_of_one_node_and_whole_packets(lab: Lab, tmp_path: Path) -> None:
    taken = await captured(
        lab, "shop/cart shop/web --payload --seconds 30", lambda: speak(lab, "shop/cart", "shop/web", 8080)
    )
    file = checked(taken.file, tmp_path / "a.pcapng")
    assert [one.name for one in file.interfaces if one.received] == [
        "node-a shop/cart eth0",
        f"node-a {interface(lab, 'shop/cart')} (veth)",
        f"node-a {interface(lab, 'shop/web')} (veth)",
        "node-a shop/web eth0",
    ]
    assert sum(SECRET in one.data for one in file.packets) == 8, "there, and back as an echo, in four places"
    assert not any("clocks" in one for one in file.comments), "one node has one clock"


async def test_it_ends_with_as_many_packets_as_were_asked_for(lab: Lab, tmp_path: Path) -> None:
    taken = await captured(
        lab, "shop/cart shop/db --packets 16 --seconds 30", lambda: speak(lab, "shop/cart", "shop/db", 5432)
    )
    file = checked(taken.file, tmp_path / "a.pcapng")
    assert 8 <= taken.packets <= 16 and taken.packets == len(file.packets)
    assert all(row.there for row in taken.rows), "the way of its first packet is there from end to end"
    assert any("as many packets had passed as were asked for: 16" in note for note in taken.notes)
    assert not any("stopped" in note for note in taken.notes)


async def test_no_packet_is_an_answer_too(lab: Lab, tmp_path: Path) -> None:
    taken = await captured(lab, "shop/cart shop/db 9/udp --seconds 0.5")
    file = checked(taken.file, tmp_path / "a.pcapng")
    assert taken.packets == 0 and len(file.interfaces) == 8
    assert "A capture sends nothing itself" in taken.notes[0] and "why shop/cart shop/db" in taken.notes[0]


async def test_what_is_lost_on_the_way_is_seen_where_it_was_last(lab: Lab, tmp_path: Path) -> None:
    lab.inflict("neighbor_wrong_mac", where="source")

    def talk() -> None:
        target = address(lab, "shop/db")
        send = f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ({target!r}, 5432))"
        assert lab.exec("shop/cart", sys.executable, "-c", send).returncode == 0

    taken = await captured(lab, "shop/cart shop/db 5432/udp --seconds 30", talk)
    checked(taken.file, tmp_path / "a.pcapng")
    there = {row.place: row.there for row in taken.rows}
    assert there["node-a vxlan.calico"] == 1
    assert there["node-b shop/db eth0"] == 0


async def test_over_ipv6_beside_ipv4(tmp_path: Path) -> None:
    with Lab.up(nodes=2, variant="dualstack") as lab:

        def talk() -> None:
            speak(lab, "shop/cart", "shop/db", 5432)
            speak(lab, "shop/cart", "shop/db", 5432, family=6)

        taken = await captured(lab, "shop/cart shop/db --seconds 30", talk)
        file = checked(taken.file, tmp_path / "a.pcapng")
        for place in ("node-a shop/cart eth0", "node-a eth0 (uplink)", "node-b eth0 (uplink)", "node-b shop/db eth0"):
            assert {one.data[12:14] for one in file.of(place)} == {b"\x08\x00", b"\x86\xdd"}, place
        for place, kind in (("vxlan.calico", b"\x08\x00"), ("vxlan-v6.calico", b"\x86\xdd")):
            assert {one.data[12:14] for one in file.of(f"node-b {place}")} == {kind}
        assert not any(SECRET[:3] in one.data for one in file.packets)


async def test_inside_of_ipip_and_around_it() -> None:
    with Lab.up(nodes=2, variant="ipip") as lab:
        taken = await captured(
            lab, "shop/cart shop/db 5432/tcp --seconds 30", lambda: speak(lab, "shop/cart", "shop/db", 5432)
        )
    file = pcapng.read(taken.file)
    for node in ("node-a", "node-b"):
        assert {one.interface.link for one in file.of(f"{node} tunl0")} == {LINK_IP}
        assert {one.data[9] for one in file.of(f"{node} tunl0")} == {socket.IPPROTO_TCP}
        assert {one.data[14 + 9] for one in file.of(f"{node} eth0 (uplink)")} == {socket.IPPROTO_IPIP}
    assert not any(SECRET[:3] in one.data for one in file.packets)
    assert all(row.there >= 3 and row.back >= 2 for row in taken.rows), taken.rows


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("shop/cart node-b", "node-b is a node; packets are captured between two pods"),
        ("shop/cart 192.0.2.1", "192.0.2.1 is an address that no running pod has"),
        ("shop/cart shop/cart", "Both sides are shop/cart"),
        ("shop/cart shop/nothing", "shop/nothing"),
    ],
)
async def test_what_cannot_be_captured_is_told_with_what_to_do(lab: Lab, words: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        await captured(lab, words)
    assert sentence in error.value.sentence


async def test_a_node_without_a_probe_leaves_its_packets_out_and_is_named(lab: Lab, tmp_path: Path) -> None:
    probe = Remains(lab).called("probe node-b")
    os.kill(probe, signal.SIGSTOP)
    try:
        taken = await captured(lab, "shop/cart shop/db --seconds 20", lambda: None, until_packets=False)
    finally:
        os.kill(probe, signal.SIGCONT)
    assert not taken.complete
    assert any("node-b" in note and "packets there are missing" in note for note in taken.notes)
    assert {one.name.split()[0] for one in checked(taken.file, tmp_path / "a.pcapng").interfaces} == {"node-a"}


async def test_probes_that_capture_nothing_are_told(lab: Lab) -> None:
    nowhere = {**lab.environment(), "CALICO_WHY_PROBE_PORT": "9"}
    with pytest.raises(UserError) as error:
        await captured(lab, "shop/cart shop/db", environment=nowhere)
    assert error.value.status == COULD_NOT_JUDGE
    assert "Nothing was captured. node-a: " in error.value.sentence and "calico-why probe" in error.value.sentence


def test_ctrl_c_keeps_what_there_is(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "kept.pcapng"
    argv = [sys.executable, "-m", "bot.cli", "capture", "shop/cart", "shop/db", "--seconds", "60", "-o", str(path)]

    with subprocess.Popen(
        argv, env={**os.environ, **lab.person()}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as one:
        assert one.stderr and one.stdout
        for line in one.stderr:
            if line.startswith("0 of 60 s, 0 packets"):
                speak(lab, "shop/cart", "shop/db", 5432)
            if " of 60 s" in line and not line.rstrip().endswith(" 0 packets"):
                break
        one.send_signal(signal.SIGINT)
        told = one.stdout.read()
        assert one.wait(30) == 0, told
    assert "It was stopped after" in told and told.splitlines()[-1] == str(path)
    assert pcapng.read(path.read_bytes()).packets
    assert path.stat().st_mode & 0o077 == 0, "packets are nobody else's business"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("shop/cart", "only 'shop/cart' was said. Write: capture POD POD"),
        ("shop/cart shop/db:80", "Write: capture shop/cart shop/db 80/tcp"),
        ("shop/cart shop/db --seconds 90", "from 0.1 to 60 s"),
        ("shop/cart shop/db --seconds soon", "no number of seconds"),
        ("shop/cart shop/db --packets 0", "from 1 to 20000 packets"),
        ("shop/cart shop/db --pakets 7", "'--pakets' is no option of a capture"),
    ],
)
def test_words_that_make_no_capture(words: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        understand(words.split())
    assert sentence in error.value.sentence


def test_options_are_understood_as_phones_write_them() -> None:
    wanted = understand(["shop/cart", "shop/db", "5432", "—seconds", "3", "–packets=7", "--payload"])
    assert (wanted.seconds, wanted.packets, wanted.payload) == (3.0, 7, True)
    assert str(wanted) == "shop/cart shop/db 5432/tcp --seconds 3 --packets 7 --payload"
    assert understand(str(wanted).split()) == wanted


def test_a_place_without_a_links_header_has_its_own_kind_of_packets() -> None:
    """tunl0 and WireGuard's devices: their packets begin with the IP header."""
    inner = bytes.fromhex("4500001400000000400400000a0000010a000002")
    outer = bytes.fromhex("450000280000000040040000ac1e000bac1e000c")
    pairs = [("10.0.0.1", "10.0.0.2")]
    content = write(
        [Interface(name="node-a tunl0", link=LINK_IP), Interface(name="node-a eth0 (uplink)", link=LINK_ETHERNET)],
        [
            Packet(interface=1, at_ns=2, length=54, out=True, data=bytes(12) + b"\x08\x00" + outer + inner),
            Packet(interface=0, at_ns=1, length=20, out=True, data=inner),
        ],
        comments=["what was asked", "zwei Uhren gehen verschieden"],
        application="test",
        snap=256,
    )
    file = pcapng.read(content)
    assert [(one.interface.name, one.interface.link, one.at_ns) for one in file.packets] == [
        ("node-a tunl0", LINK_IP, 1),
        ("node-a eth0 (uplink)", LINK_ETHERNET, 2),
    ]
    assert [way(one.data, one.interface.link, pairs) for one in file.packets] == ["there", "there"]
    assert [one.received for one in file.interfaces] == [1, 1]
    tagged = bytes(12) + b"\x81\x00\x00\x07\x08\x00" + inner
    assert [way(tagged, LINK_ETHERNET, pair) for pair in (pairs, [("10.0.0.2", "10.0.0.1")])] == ["there", "back"]


async def test_the_table_is_read_in_every_language(lab: Lab) -> None:
    taken = await captured(lab, "shop/cart shop/db 9/udp --seconds 0.2")
    head, *rows = table(taken, language("zh"))
    assert "去程" in head and len(rows) == 8 == len(table(taken, ENGLISH)) - 1
