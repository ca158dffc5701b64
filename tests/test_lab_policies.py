"""What a running Calico let through and what it dropped, the lab's kernels let through and drop, too; without it its
rules could read like Calico's and mean something else.

The recorded clusters' pods, under each recorded set of policies, and every connection that was tried there.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab.client import Lab
from tests.test_recorded_policies import DROPPED, FLOWS, of_set

SETS = sorted({flow["set"] for flow in FLOWS})
LONG_S, SHORT_S = 5.0, 0.7  # a packet that is let through takes a millisecond; only a busy machine needs more
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3]))
except ConnectionRefusedError:
    pass  # nobody listens there, and somebody said so
except TimeoutError:
    sys.exit(1)
"""


def objects(name: str, directory: Path) -> Path:
    """The cluster as it was under a set of policies, as files a lab can be made of."""
    (directory / "k8s").mkdir()
    items: list[dict[str, Any]] = json.loads(json.dumps(of_set(name)))
    (directory / "k8s" / "all.json").write_text(json.dumps({"items": items}))
    return directory


def passes(lab: Lab, flow: dict[str, Any]) -> bool:
    kind, _, rest = flow["src"].partition("-")
    source = f"node-{rest}" if kind == "host" else flow["src"] if "/" in flow["src"] else f"default/{flow['src']}"
    address, _, port = flow["dst"].partition(":")
    patience = SHORT_S if flow["result"] == DROPPED else LONG_S
    done = lab.exec(source, sys.executable, "-c", CONNECT, address, port, str(patience))
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0


@pytest.mark.parametrize("name", SETS)
def test_connections_meet_what_they_met_in_a_running_calico(name: str, tmp_path: Path) -> None:
    lab = Lab.up(objects=objects(name, tmp_path), workers=False)
    flows = [flow for flow in FLOWS if flow["set"] == name]
    with lab, ThreadPoolExecutor(len(flows)) as at_once:
        found = list(at_once.map(lambda flow: passes(lab, flow), flows))
    wrong = [
        (flow["flow"], flow["src"], flow["dst"], flow["result"])
        for flow, passed in zip(flows, found, strict=True)
        if passed == (flow["result"] == DROPPED)
    ]
    assert wrong == []
