"""A fix leaves a node as Felix had left it: whatever differed would be a second entry beside Felix's own, or undone."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Iterator

import pytest

from bot.approvals import Approvals
from bot.fix_requests import requested
from bot.settings import from_environment
from facts import Diagnosis
from fixes.limits import PER_NODE, Switch
from fixes.request import Phase
from fixes.store import connect
from lab.client import Lab
from lab.errors import LabError
from tests import exhaustive
from tests.asking import ask, told, words_for
from tests.fix_samples import ANA, BO
from tests.fixing import APPROVERS, asked, end_of, ended, up
from tests.lab_python import python

# What the kernel forgot with a device that was set down, or with its MAC, before the fix, Felix puts back.
TO_THE_LAST_ENTRY = (
    "fdb_entry_missing",
    "fdb_entry_wrong_node",
    "foreign_route_to_pod",
    "ip_forwarding_off",
    "neighbor_missing",
    "neighbor_wrong_mac",
    "pod_neighbor_wrong",
    "pod_route_missing",
    "pod_route_wrong_device",
    "proxy_arp_off",
    "route_blackholed",
    "route_missing",
    "route_shadowed",
    "route_wrong_device",
    "route_wrong_next_hop",
    "underlay_neighbor_mistaken",
    "underlay_neighbor_wrong",
)

LEFT = """
import json, socket
from pathlib import Path
from pyroute2 import IPRoute
from fixes.kernel import Kernel
with IPRoute() as ip:
    routes = sorted(str(one) for family in (4, 6) for one in Kernel().routes(family))
    entries = [*ip.get_neighbours(), *ip.get_neighbours(family=7)]
    written = sorted(
        f"{one['family']} {one['ifindex']} {one.get_attr('NDA_DST')} {one.get_attr('NDA_LLADDR')} {one['flags']}"
        for one in entries if one["state"] & 128
    )
    links = sorted(f"{one['index']} {one['flags'] & 1} {one.get_attr('IFLA_ADDRESS')}" for one in ip.get_links())
switches = {str(path): path.read_text() for path in Path("/proc/sys/net/ipv4").glob("conf/*/[fpr]*")}
switches |= {str(path): path.read_text() for path in Path("/proc/sys/net/ipv6").glob("conf/*/forwarding")}
print(json.dumps([routes, written, links, switches]))
"""

# A pod's kernel, for the last time of three, asks who has its gateway: state INCOMPLETE is 1, and it counts from three,
# the questions to one machine that it would have asked before.
ASKED_THREE_TIMES = """
import socket, time
from pyroute2 import IPRoute
until = time.monotonic() + 20
with IPRoute() as ip, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets:
    while time.monotonic() < until:
        packets.sendto(b"x", ("10.244.255.1", 9))
        entries = [one for one in ip.get_neighbours() if one.get_attr("NDA_DST") == "169.254.1.1"]
        if any(one["state"] == 1 and one.get_attr("NDA_PROBES") == 6 for one in entries):
            break
        time.sleep(0.02)
    else:
        raise SystemExit("it never asked three times")
"""

# Kills a process once the kernel tells that this neighbor is written, before whoever wrote it can have told anybody.
# Says at the end of its input how often it was written. RTM_NEWNEIGH is 28, its group 4; NUD_PERMANENT is 128.
KILLS = """
import contextlib, ipaddress, os, select, signal, socket, sys
pid, address = int(sys.argv[1]), ipaddress.ip_address(sys.argv[2]).packed
mac = bytes.fromhex(sys.argv[3].replace(":", ""))
told, written = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0), 0
told.bind((0, 4))
with contextlib.suppress(PermissionError):  # before all others
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
print("ready", flush=True)
while told in select.select([told, sys.stdin], [], [])[0]:
    event = told.recv(1 << 16)
    if event[4] == 28 and event[24] & 128 and address in event and mac in event:
        written += 1
        if written == 1:
            os.kill(pid, signal.SIGKILL)
            print("killed", flush=True)
print(written, flush=True)
"""

# Another value than Felix's is what is wanted, or the kernel forgot what hung on the device before it was mended.
THE_REST_IS_FELIX_TO_DO = ("vxlan_device_down", "vxlan_device_mac_wrong", "pod_interface_down")
WELL_ALL_THE_SAME = ("reverse_path_filter_drops",)
OVER_IPV6 = (
    "fdb_entry_wrong_node",
    "foreign_route_to_pod",
    "ip_forwarding_off",
    "neighbor_wrong_mac",
    "pod_route_missing",
    "pod_route_wrong_device",
    "route_blackholed",
    "route_missing",
    "route_shadowed",
    "route_wrong_device",
    "route_wrong_next_hop",
    "underlay_neighbor_mistaken",
    "underlay_neighbor_wrong",
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    yield from up()


@pytest.fixture(scope="module")
def dual() -> Iterator[Lab]:
    yield from up("dualstack")


@pytest.fixture(scope="module")
def ipip() -> Iterator[Lab]:
    yield from up("ipip")


class Killer:
    """KILLS, on a node."""

    def __init__(self, lab: Lab, node: str, *arguments: str) -> None:
        (stdin, self._end), (out, stdout) = os.pipe(), os.pipe()
        self._said = os.fdopen(out)

        def run() -> None:
            argv = [sys.executable, "-c", KILLS, *arguments]
            with os.fdopen(stdin, "rb") as wanted, os.fdopen(stdout, "wb") as said:
                lab.run(node, argv, wanted, said, sys.__stderr__.buffer)  # type: ignore[union-attr]

        threading.Thread(target=run, daemon=True).start()

    def says(self) -> str:
        return self._said.readline().strip()

    def end(self) -> str:
        os.close(self._end)
        return self.says()


def left(lab: Lab, node: str) -> object:
    """What the kernel of this node is programmed with; what it learned by itself is not in it."""
    done = python(lab, node, LEFT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def mended(lab: Lab, mode: str, where: str, family: int = 4) -> Diagnosis:
    """Wound it, ask, let what is proposed be approved and done by the fixer of the node, ask once more."""
    inflicted = lab.inflict(mode, where=where, family=family)
    answer = await ask(lab.environment(), words_for(inflicted))
    assert [one.rule for one in told(answer.diagnosis, mode)] == [mode]
    (request,) = await ended(lab, answer, mode)
    assert request.spec.node == inflicted["node"]
    assert request.status.phase is Phase.VERIFIED, request.status.message
    return await asked(lab, words_for(inflicted))


async def test_healing_leaves_fixes_off_and_limited_as_people_said(lab: Lab) -> None:
    settings = from_environment(lab.environment())
    async with connect(settings.kubeconfig, settings.namespace) as store:
        switch = Switch(store)
        said = await switch.turn(False, BO, "freeze")
        assert not said.enabled and said.per_node_per_hour > PER_NODE
        try:
            lab.heal()
            assert await switch.read() == said
        finally:
            await switch.turn(True, BO)


@pytest.mark.parametrize(("mode", "where"), exhaustive.matrix(2, TO_THE_LAST_ENTRY, ("source", "target")))
async def test_a_fix_leaves_a_node_as_felix_had_left_it(lab: Lab, mode: str, where: str) -> None:
    lab.heal()
    nodes = ("node-a", "node-b")
    before = {node: left(lab, node) for node in nodes}
    after = await mended(lab, mode, where)
    assert {node: left(lab, node) for node in nodes} == before
    assert (after.verdict, after.causes) == ("healthy", ()), after.blind


async def test_a_fixer_that_was_killed_after_its_change_tells_of_it_and_makes_none(lab: Lab) -> None:
    lab.heal()
    before = left(lab, "node-a")
    words = words_for(lab.inflict("neighbor_wrong_mac", where="source"))
    answer = await ask(lab.environment(), words)
    settings = from_environment(lab.environment())
    async with connect(settings.kubeconfig, settings.namespace) as store:
        (request,) = await requested(answer, store, ANA)
        wanted = request.spec.arguments
        fixer = lab.exec("node-a", "pgrep", "-x", "fixer node-a").stdout.strip()
        killer = Killer(lab, "node-a", fixer, wanted["address"], wanted["mac"])
        assert await asyncio.to_thread(killer.says) == "ready"
        assert (await Approvals(store, APPROVERS).decide(request.name, Phase.APPROVED, BO)).changed
        assert await asyncio.to_thread(killer.says) == "killed"
        assert (await store.get(request.name)).status.phase is Phase.RUNNING
        end = (await end_of(store, request.name)).status
        assert end.phase is Phase.VERIFIED and "did not run it again" in end.message, end.message
    assert lab.exec("node-a", "pgrep", "-x", "fixer node-a").stdout.strip() not in ("", fixer)
    assert await asyncio.to_thread(killer.end) == "1"
    assert left(lab, "node-a") == before
    after = await asked(lab, words)
    assert (after.verdict, after.causes) == ("healthy", ()), after.blind


@pytest.mark.parametrize("mode", exhaustive.one_in(2, OVER_IPV6))
async def test_so_it_does_over_ipv6(dual: Lab, mode: str) -> None:
    dual.heal()
    before = left(dual, "node-a")
    after = await mended(dual, mode, "source", family=6)
    assert left(dual, "node-a") == before
    assert (after.verdict, after.causes) == ("healthy", ()), after.blind


@pytest.mark.parametrize("mode", WELL_ALL_THE_SAME)
async def test_packets_pass_again(lab: Lab, mode: str) -> None:
    lab.heal()
    after = await mended(lab, mode, "source")
    assert (after.verdict, after.causes) == ("healthy", ()), after.blind


@pytest.mark.parametrize("mode", THE_REST_IS_FELIX_TO_DO)
async def test_a_device_is_as_it_was_and_the_rest_is_felix_to_do(lab: Lab, mode: str) -> None:
    lab.heal()
    after = await mended(lab, mode, "source")
    assert mode not in {cause.rule for cause in (*after.causes, *after.warnings)}


async def test_sums_that_a_tunnel_leaves_to_a_card_are_made_by_the_kernel(lab: Lab) -> None:
    """The lab's cable goes on spoiling them, which is what the card says of such: ask again whether it helps."""
    lab.heal()
    after = await mended(lab, "checksum_offload_broken", "source")
    assert [one.rule for one in after.causes] == ["checksum_offload_broken"]
    answer = await ask(lab.environment(), "shop/cart shop/db 5432/tcp")
    (again,) = await ended(lab, answer, "checksum_offload_broken")
    assert again.status.phase is Phase.STALE
    assert "is off already: somebody else spoils the sums" in again.status.message


async def test_a_device_takes_ipv6_again_and_the_rest_is_felix_to_do(dual: Lab) -> None:
    dual.heal()
    after = await mended(dual, "ipv6_disabled", "source", family=6)
    assert "ipv6_disabled" not in {cause.rule for cause in (*after.causes, *after.warnings)}


async def test_an_ipip_device_is_set_up_again(ipip: Lab) -> None:
    ipip.heal()
    try:
        after = await mended(ipip, "ipip_device_down", "source")
    except LabError as error:
        pytest.skip(str(error))
    assert "ipip_device_down" not in {cause.rule for cause in (*after.causes, *after.warnings)}


async def test_what_a_pod_lost_while_it_looked_for_its_gateway_is_not_counted(lab: Lab) -> None:
    """Its kernel asked three times before the node answered again, and gives up a second after the last."""
    lab.heal()
    inflicted = lab.inflict("proxy_arp_off", where="source")
    switches = lab.exec(
        inflicted["node"], "sh", "-c", "grep -l 0 /proc/sys/net/ipv4/conf/cali*/proxy_arp"
    ).stdout.split()
    done = lab.exec(inflicted["source"], sys.executable, "-c", ASKED_THREE_TIMES)
    assert done.returncode == 0, done.stderr
    for switch in switches:
        assert lab.exec(inflicted["node"], "tee", switch, input="1").returncode == 0
    assert switches and (await asked(lab, words_for(inflicted))).verdict == "healthy"
