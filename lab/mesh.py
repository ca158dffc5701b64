"""Pings every pod from every other; without it "the lab is up" would be a hope."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct

from lab.topology import PodMachine

ECHO_REQUEST, ECHO_REPLY = 8, 0
TIMEOUT_S = 1.0


async def unanswered(pods: list[PodMachine], sockets: dict[str, socket.socket]) -> list[tuple[str, str]]:
    """The pairs (from, to) without an answer within one second. `sockets`: a raw ICMP socket inside each pod."""
    by_address = {pod.record.address: pod.record.full_name for pod in pods}
    waiting = {(source, target) for source in sockets for target in by_address.values() if source != target}
    number = int.from_bytes(os.urandom(2))
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def heard(name: str) -> None:
        while True:
            try:
                packet, (sender, *_) = sockets[name].recvfrom(2048)
            except BlockingIOError:
                return
            header = (packet[0] & 15) * 4
            kind, _, _, found, _ = struct.unpack_from("!BBHHH", packet, header)
            if kind == ECHO_REPLY and found == number:
                waiting.discard((name, by_address.get(sender, "")))
                if not waiting:
                    done.set()

    for name, one in sockets.items():
        loop.add_reader(one, heard, name)
    try:
        for name, one in sockets.items():
            for address in by_address:
                if by_address[address] != name:
                    try:
                        one.sendto(_echo_request(number), (address, 0))
                    except OSError:
                        continue  # no route: stays among the unanswered
        if waiting:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), TIMEOUT_S)
    finally:
        for one in sockets.values():
            loop.remove_reader(one)
    return sorted(waiting)


def _echo_request(number: int) -> bytes:
    payload = b"calico-why lab.."
    header = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, number, 1)
    total = sum(struct.unpack(f"!{len(header + payload) // 2}H", header + payload))
    total = (total >> 16) + (total & 0xFFFF)
    total += total >> 16
    return struct.pack("!BBHHH", ECHO_REQUEST, 0, ~total & 0xFFFF, number, 1) + payload
