"""Nodes in an incident are busy: 50,000 packets a second that nobody asked about must not change an answer."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Iterator

import pytest

from lab.client import Lab
from tests.asking import ask, told, words_for

FLOOD = """
import ctypes, select, socket, sys, time
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
class Message(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32), ("vectors", ctypes.POINTER(Vector)),
                ("count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
                ("flags", ctypes.c_int), ("padding", ctypes.c_int), ("sent", ctypes.c_uint)]
AT_ONCE, A_SECOND = 64, 50_000
one, data = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), ctypes.create_string_buffer(64)
one.connect((sys.argv[1], 9999))
vector = Vector(ctypes.addressof(data), 64)
messages = (Message * AT_ONCE)(*(Message(vectors=ctypes.pointer(vector), count=1) for _ in range(AT_ONCE)))
send, began, sent = ctypes.CDLL(None).sendmmsg, time.monotonic(), 0
print("begun", flush=True)
while not select.select([sys.stdin], [], [], 0.001)[0]:
    due = int((time.monotonic() - began) * A_SECOND)
    for _ in range(0, due - sent, AT_ONCE):
        send(one.fileno(), messages, AT_ONCE, 0)
        sent += AT_ONCE
"""
SINK = """
import socket, sys
one = socket.socket(type=socket.SOCK_DGRAM)
one.bind(("", 9999))
print("begun", flush=True)
sys.stdin.read()
"""
AT_LEAST = 2_000  # packets beside one question, which takes a quarter of a second or more: less would be no flood
WOUNDS = ("policy_denies_ingress", "host_firewall_drops_forward", "conntrack_invalid_drops", "neighbor_wrong_mac")
FILTERS = ("", "iptables-nft", "iptables-legacy")  # "" is nftables


@contextlib.contextmanager
def running(lab: Lab, pod: str, script: str, *words: str) -> Iterator[None]:
    """A program in the pod, which says when it has begun and ends when its input does."""
    (stdin, stop), (begun, stdout) = os.pipe(), os.pipe()
    with os.fdopen(stdin, "rb") as given, os.fdopen(stdout, "wb") as out, os.fdopen(begun) as lines:
        argv = [sys.executable, "-c", script, *words]
        program = threading.Thread(target=lab.run, args=(pod, argv, given, out, sys.stderr.buffer))
        program.start()
        try:
            assert lines.readline() == "begun\n"
            yield
        finally:
            os.close(stop)
            program.join()


@pytest.fixture(scope="module", params=FILTERS, ids=lambda variant: variant or "nftables")
def busy(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab through whose first two nodes other pods' packets flow all the time."""
    if request.param and shutil.which(f"{request.param}-restore") is None:
        pytest.skip(f"this machine has no {request.param}")
    with Lab.up(variant=request.param, fixers=False) as lab:
        others = {one["node"]: one for one in lab.status()["pods"] if one["name"] not in ("shop/cart", "shop/db")}
        sender, sink = others["node-a"], others["node-b"]
        with running(lab, sink["name"], SINK), running(lab, sender["name"], FLOOD, sink["address"]):
            yield lab


def passed(lab: Lab) -> int:
    """Packets that came to node-b's tunnel."""
    done = lab.exec("node-b", "cat", "/proc/net/dev")
    (line,) = [line for line in done.stdout.splitlines() if line.strip().startswith("vxlan.calico:")]
    return int(line.partition(":")[2].split()[1])


async def test_a_healthy_path_between_busy_nodes_is_healthy(busy: Lab) -> None:
    before = passed(busy)
    diagnosis = (await ask(busy.environment(), "shop/cart shop/db 5432/tcp")).diagnosis
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ()), diagnosis.summary
    assert passed(busy) - before > AT_LEAST


@pytest.mark.parametrize("mode", WOUNDS)
async def test_a_wound_between_busy_nodes_is_named(busy: Lab, mode: str) -> None:
    busy.heal()
    inflicted = busy.inflict(mode)
    before = passed(busy)
    diagnosis = (await ask(busy.environment(), words_for(inflicted))).diagnosis
    named = [(cause.rule, cause.node) for cause in told(diagnosis, mode)]
    assert named[:1] == [(mode, inflicted["node"])], diagnosis.summary
    assert {rule for rule, _ in named} == {mode}
    if mode != "neighbor_wrong_mac":  # with which all packets of the node's pods end there
        assert passed(busy) - before > AT_LEAST
