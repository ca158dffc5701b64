"""A fix leaves a node as Felix had left it: whatever differed would be a second entry beside Felix's own, or undone."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from facts import Cause, Diagnosis
from fixes.kind import kinds
from lab.client import Lab
from lab.errors import NamespacesForbidden
from tests.asking import ask, told, words_for

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
    "proxy_arp_off",
    "route_blackholed",
    "route_missing",
    "route_wrong_device",
    "route_wrong_next_hop",
    "underlay_neighbor_wrong",
)

LEFT = """
import json, socket
from pathlib import Path
from pyroute2 import IPRoute
from fixes.kernel import Kernel
with IPRoute() as ip:
    routes = sorted(str(one) for one in Kernel().routes(4))
    entries = [*ip.get_neighbours(), *ip.get_neighbours(family=7)]
    written = sorted(
        f"{one['family']} {one['ifindex']} {one.get_attr('NDA_DST')} {one.get_attr('NDA_LLADDR')} {one['flags']}"
        for one in entries if one["state"] & 128
    )
    links = sorted(f"{one['index']} {one['flags'] & 1} {one.get_attr('IFLA_ADDRESS')}" for one in ip.get_links())
switches = {str(path): path.read_text() for path in Path("/proc/sys/net/ipv4").glob("conf/*/[fpr]*")}
print(json.dumps([routes, written, links, switches]))
"""

DO = """
import json, sys
from fixes.kernel import Kernel
from fixes.kind import kinds
name, arguments = json.load(sys.stdin)
kind, kernel = kinds()[name], Kernel()
kind.holds(kernel, arguments)
shown = kind.preview(kernel, arguments)
kind.execute(kernel, arguments)
print(json.dumps([*kind.verify(kernel, arguments), shown]))
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    try:
        lab = Lab.up()
    except NamespacesForbidden as error:
        pytest.skip(error.sentence)
    with lab:
        yield lab


def left(lab: Lab, node: str) -> object:
    """What the kernel of this node is programmed with; what it learned by itself is not in it."""
    return json.loads(run(lab, node, LEFT))


def run(lab: Lab, node: str, script: str, given: object = None) -> str:
    done = lab.exec(node, sys.executable, "-c", script, input=json.dumps(given))
    assert done.returncode == 0, done.stderr
    return done.stdout


async def mended(lab: Lab, mode: str, where: str) -> Diagnosis:
    """Wound it, ask, do what is proposed on the node it is proposed for, ask again."""
    inflicted = lab.inflict(mode, where=where)
    diagnosis = (await ask(lab.environment(), words_for(inflicted))).diagnosis
    (cause,) = (one for one in told(diagnosis, mode) if one.rule == mode)
    assert isinstance(cause, Cause) and cause.node == inflicted["node"]
    arguments = kinds()[cause.fix].propose(cause, diagnosis.facts)
    assert arguments is not None
    right, sentence, shown = json.loads(run(lab, cause.node, DO, (cause.fix, {**arguments, "now": "yes"})))
    assert right, f"{sentence} {shown}"
    for _ in range(3):  # a pod that nobody answered a moment ago still waits with its first packet
        after = (await ask(lab.environment(), words_for(inflicted))).diagnosis
        if after.verdict == "healthy":
            break
    return after


@pytest.mark.parametrize("where", ["source", "target"])
@pytest.mark.parametrize("mode", TO_THE_LAST_ENTRY)
async def test_a_fix_leaves_a_node_as_felix_had_left_it(lab: Lab, mode: str, where: str) -> None:
    lab.heal()
    nodes = ("node-a", "node-b")
    before = {node: left(lab, node) for node in nodes}
    after = await mended(lab, mode, where)
    assert {node: left(lab, node) for node in nodes} == before
    assert (after.verdict, after.causes) == ("healthy", ()), after.blind


@pytest.mark.parametrize("mode", ["vxlan_device_down", "vxlan_device_mac_wrong", "pod_interface_down"])
async def test_a_device_is_as_it_was_and_the_rest_is_felix_to_do(lab: Lab, mode: str) -> None:
    lab.heal()
    after = await mended(lab, mode, "source")
    assert mode not in {cause.rule for cause in (*after.causes, *after.warnings)}
