"""Which BGP sessions this node has; without them a route that BGP should bring is only known to be missing."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path

from facts import BgpPeer, Bird, Fact, NodeAsk
from node_probe.processes import PROC, Process, of_calico
from node_probe.view import View

PLACES = ("var/run/calico", "var/run/bird")  # of the control socket, in calico-node's own file system
TIMEOUT_S = 1.0
LARGEST = 1 << 20
END = re.compile(r"^(0000|[89]\d\d\d) ?", re.MULTILINE)  # the end of an answer, or a refusal
_PEER = re.compile(r"(Global|Node|Mesh|Local_Workload)_(.+?)(?:_port_\d+)?")
OF_NODES = ("Global", "Node", "Mesh")
_TIME = re.compile(r"\d\d:\d\d(:\d\d(\.\d+)?)?")


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """Bird, and BgpPeer for each of its sessions with a peer of Calico's; nothing where BGP does not matter."""
    if not ask.bird:
        return
    processes = of_calico()
    name = "bird6" if ask.family == 6 else "bird"
    daemons = [one for one in processes if one.role == name]
    # From version 2 on one BIRD speaks both families.
    daemons = daemons or [one for one in processes if one.role == "bird"]
    if not daemons:
        yield Bird(node=ask.node, family=ask.family, seen=bool(processes), running=False)
        return
    try:
        said = show_protocols(_sockets(daemons, name), min(TIMEOUT_S, max(view.deadline - time.monotonic(), 0.1)))
    except OSError as error:
        detail = f"its control socket does not answer: {error.strerror or error}"
        yield Bird(node=ask.node, family=ask.family, seen=True, running=True, detail=detail)
        return
    yield Bird(node=ask.node, family=ask.family, seen=True, running=True, detail=said.partition("\n")[0][5:].strip())
    yield from peers(ask.node, ask.family, said, pods=ask.status)


def _sockets(daemons: Iterable[Process], name: str) -> list[Path]:
    roots = [PROC / str(one.pid) / "root" / place for one in daemons for place in PLACES]
    found = [root / f"{file}.ctl" for file in dict.fromkeys((name, "bird")) for root in roots]
    return [one for one in found if one.exists()]


def show_protocols(paths: Iterable[Path], timeout_s: float) -> str:
    """BIRD's greeting and its answer, from the first of its control sockets that is there. Raises OSError."""
    path = next(iter(paths), None)
    if path is None:
        raise FileNotFoundError(2, "there is none")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        control.settimeout(timeout_s)
        control.connect(str(path))
        said = b""
        asked = False
        while len(said) < LARGEST:
            part = control.recv(1 << 16)
            if not part:
                break
            said += part
            if not asked and b"\n" in said:  # the greeting
                control.sendall(b"show protocols\n")
                asked = True
            elif END.search(said.decode(errors="replace")):
                break
    return said.decode(errors="replace")


def peers(node: str, family: int, said: str, *, pods: bool = False) -> list[BgpPeer]:
    """The sessions of an answer to `show protocols` whose names Calico gave, as `calicoctl node status` reads them.

    pods: those with pods too, which it leaves out.
    """
    found = []
    for line in said.splitlines():
        if not line.startswith(("1002-", " ")):
            continue
        words = line.removeprefix("1002-").split()
        if len(words) < 4 or words[1] != "BGP":
            continue
        name = _PEER.fullmatch(words[0])
        address = _address(name[2], family) if name else ""
        if name is None or not address or not (pods or name[1] in OF_NODES):
            continue
        since, rest = words[4:5], words[5:]
        if rest and _TIME.fullmatch(rest[0]):  # a date and a time
            since, rest = [*since, rest[0]], rest[1:]
        found.append(
            BgpPeer(
                node=node,
                family=family,
                name=words[0],
                kind=name[1].lower(),
                address=address,
                state=words[3],
                session=rest[0] if rest else "",
                since=" ".join(since),
                info=" ".join(rest[1:]),
            )
        )
    return found


def _address(text: str, family: int) -> str:
    """172_30_0_12 is 172.30.0.12; "" for what is no address of the family."""
    try:
        address = ip_address(text.replace("_", ":" if family == 6 else "."))
    except ValueError:
        return ""
    return str(address) if address.version == family else ""
