"""The lab does what it says: it comes up, breaks, heals, and leaves nothing behind however it ends."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lab.slack
from lab import client
from lab.client import Lab
from lab.errors import LabError
from lab.faults import load, names, needs, variant
from lab.state import base_directory, read_environment
from lab.variants import VARIANTS
from tests.lab_forks import AS_PEOPLE_DO
from tests.lab_state import read

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 15.0
# At one place each: healing is the same at both, and tests/test_answers_on_lab.py has every place healed in between.
WOUNDS = [(name, load(name).WHERE[0]) for name in names() if not variant(name)]
# Wounds a ping does not feel; what each does is looked at in a test of its own below.
PING_LIVES = {
    "allocation_missing", "allocation_owner_mismatch", "block_affinity_conflict", "block_limit_reached",
    "calico_node_missing", "checksum_offload_broken", "datastore_not_ready", "felix_not_ready", "felix_stuck",
    "host_endpoint_denies", "host_firewall_drops_local", "host_firewall_drops_service", "ip_leaked",
    "ipam_gc_stuck", "kube_proxy_refuses", "large_packets_filtered", "nat_outgoing_missing", "node_not_ready",
    "path_mtu_too_small",
    "pod_address_family_missing", "pod_firewall_drops", "pod_interface_mtu_too_small", "pod_ip_duplicate",
    "pod_mtu_too_large",
    "pod_to_own_node_denied", "pod_without_ip", "policy_bypassed", "policy_not_enforced", "pool_exhausted",
    "route_mtu_too_small", "route_wrong_next_hop", "service_endpoint_stale", "service_local_policy_without_endpoint",
    "service_without_endpoints", "service_wrong_port", "service_wrong_target_port", "strict_affinity_without_block",
    "target_listens_on_loopback", "target_not_listening", "target_queue_full", "tunnel_address_borrowed",
    "tunnel_address_freed", "tunnel_address_used_by_pod", "tunnel_mtu_too_large", "typha_unreachable",
    "vxlan_device_address_wrong",
}  # fmt: skip
PING_COMES_AND_GOES = {"packets_lost_now_and_then"}
# What traffic and chance put into a kernel, and so no healing can put back.
BY_CHANCE = ("neigh ", "addr eth0 fe80:", "route local fe80:", "fdb 33:33:", "fdb 01:00:", "link eth0 veth")


def wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"{what}: not after {PATIENCE_S} s"
        time.sleep(0.02)


@pytest.fixture(autouse=True, scope="module")
def nothing_is_loaded_before() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "launch", AS_PEOPLE_DO)
        yield


def started(**settings: bool | int | str | Path) -> Lab:
    """A lab of the test's own."""
    return Lab.up(**settings)  # type: ignore[arg-type]


# ---- up, look, break, heal


def test_every_pod_reaches_every_other(lab: Lab) -> None:
    assert lab.mesh() == {"pairs": 30, "unanswered": []}


def test_the_default_cluster_is_the_recorded_one(lab: Lab) -> None:
    status = lab.status()
    assert [(node["name"], node["address"], node["tunnel_address"]) for node in status["nodes"]] == [
        ("node-a", "172.30.0.11", "10.244.174.128"),
        ("node-b", "172.30.0.12", "10.244.218.64"),
        ("node-c", "172.30.0.13", "10.244.99.192"),
    ]
    assert {pod["name"]: (pod["node"], pod["address"]) for pod in status["pods"]} == {
        "shop/cart": ("node-a", "10.244.174.129"),
        "shop/web": ("node-a", "10.244.174.130"),
        "shop/db": ("node-b", "10.244.218.65"),
        "shop/queue": ("node-b", "10.244.218.66"),
        "shop/mail": ("node-c", "10.244.99.193"),
        "shop/search": ("node-c", "10.244.99.194"),
    }


TALK = """
import socket, sys
kind = socket.SOCK_STREAM if sys.argv[1] == "tcp" else socket.SOCK_DGRAM
with socket.socket(socket.AF_INET, kind) as one:
    one.settimeout(2)
    try:
        one.connect((sys.argv[2], int(sys.argv[3])))
        one.send(b"hello")
        print(one.recv(100).decode())
    except OSError as error:
        print(type(error).__name__)
"""


def talk(lab: Lab, pod: str, protocol: str, address: str, port: int) -> str:
    """What comes back: "hello", or the kind of failure."""
    return lab.exec(pod, sys.executable, "-c", TALK, protocol, address, str(port)).stdout.strip()


@pytest.mark.parametrize(("protocol", "port"), [("tcp", 8080), ("udp", 8080), ("tcp", 5432), ("udp", 5432)])
def test_pods_answer_on_their_ports(lab: Lab, protocol: str, port: int) -> None:
    assert talk(lab, "shop/mail", protocol, "10.244.218.65", port) == "hello"


def kernel(lab: Lab) -> dict[str, list[str]]:
    """Everything in every kernel that is not chance."""
    return {name: [line for line in lines if not line.startswith(BY_CHANCE)] for name, lines in read(lab).items()}


def settled_kernel(lab: Lab, wanted: dict[str, list[str]]) -> dict[str, list[str]]:
    """Every kernel once it is as wanted, or as it still is when patience ends: some lines follow others by a moment."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := kernel(lab)) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def healthy_kernel(shared_lab: Lab) -> dict[str, list[str]]:
    shared_lab.heal()
    return kernel(shared_lab)


@pytest.mark.parametrize(("fault", "where"), WOUNDS)
def test_a_wound_hurts_and_heals(lab: Lab, healthy_kernel: dict[str, list[str]], fault: str, where: str) -> None:
    if needs(fault):
        with pytest.raises(LabError, match=needs(fault)):
            lab.inflict(fault, where=where)
        pytest.skip(f"{fault} needs {needs(fault)}, which no lab has")
    told = lab.inflict(fault, where=where)
    assert told["node"] == ("node-a" if where == "source" else "node-b")
    assert lab.status()["inflicted"] == [told]
    if fault in PING_COMES_AND_GOES:
        mesh = lab.mesh()
        assert 0 < len(mesh["unanswered"]) < mesh["pairs"]
    else:
        assert lab.reaches("shop/cart", "shop/db") == (fault in PING_LIVES)
    lab.heal()
    assert lab.mesh()["unanswered"] == []
    assert lab.status()["inflicted"] == []
    assert settled_kernel(lab, healthy_kernel) == healthy_kernel


BY_HAND = """
from pyroute2 import IPRoute
from pyroute2.nftables.main import NFTables
with IPRoute() as ip:
    eth0 = ip.link_lookup(ifname="eth0")[0]
    ip.rule("add", priority=100, table=100, dst="10.244.0.0/16", dst_len=16)
    ip.route("add", dst="10.244.218.65/32", type="unreachable", table=100)
    ip.addr("add", index=eth0, address="192.0.2.1", prefixlen=24)
    ip.link("set", index=eth0, mtu=1300)
    ip.link("set", index=ip.link_lookup(ifname="calie45f23531db")[0], state="down")
NFTables().table("add", name="mine")
for name in ("conf/eth0/rp_filter=1", "conf/all/forwarding=0", "conf/vxlan.calico/proxy_arp=1"):
    name, _, value = name.partition("=")
    with open(f"/proc/sys/net/ipv4/{name}", "w") as file:
        file.write(value)
"""


def test_what_a_person_broke_by_hand_heals_too(lab: Lab, healthy_kernel: dict[str, list[str]]) -> None:
    """Rules, tables, addresses, MTU, interfaces, firewall, sysctls: nothing of it is a fault of the catalogue."""
    done = lab.exec("node-a", sys.executable, "-c", BY_HAND)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(set(read(lab)["node-a"]) ^ set(healthy_kernel["node-a"])) > 6
    assert not lab.reaches("shop/cart", "shop/db")
    lab.heal()
    assert kernel(lab) == healthy_kernel
    assert lab.mesh()["unanswered"] == []


def test_a_probe_that_dies_is_started_again(lab: Lab) -> None:
    os.kill(Remains(lab).called("probe node-c"), signal.SIGKILL)
    wait_until(lambda: lab.status()["nodes"][2]["probe"] == {"state": "running", "starts": 2}, "the probe is back")


def test_a_probe_is_the_command_a_person_would_start(lab: Lab) -> None:
    """The nodes' probes are forked from one process; this one is started on a node as the README says."""
    command = (sys.executable, "-m", "bot.cli", "probe", "--node", "node-a", "--certs", str(lab.directory / "certs"))
    started = subprocess.Popen(
        [sys.executable, "-m", "lab", "exec", "--name", lab.name, "node-a", "--", *command, "--listen", "[::]:9898"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stderr is not None
    with started.stderr as told:
        said = next(told)
        started.kill()
        started.wait()
    line = r"\d{{4}}-\S+ \S+ INFO node_probe.command probe of node-a listens on \[::\]:{}\n"
    assert re.fullmatch(line.format(9898), said)
    assert re.match(line.format(9797), (lab.directory / "logs" / "probe-node-a.log").read_text())


def test_a_wrong_next_hop_makes_a_detour(lab: Lab) -> None:
    lab.inflict("route_wrong_next_hop")
    [route] = [line for line in read(lab)["node-a"] if "10.244.218.64/26" in line]
    assert "via 10.244.99.192" in route


def test_a_pod_that_does_not_listen_refuses(lab: Lab) -> None:
    lab.inflict("target_not_listening")
    assert talk(lab, "shop/cart", "tcp", "10.244.218.65", 5432) == "ConnectionRefusedError"
    lab.heal()
    assert talk(lab, "shop/cart", "tcp", "10.244.218.65", 5432) == "hello"


def test_a_wrong_tunnel_address_cuts_the_node_itself_off(lab: Lab) -> None:
    assert talk(lab, "node-a", "udp", "10.244.218.65", 8080) == "hello"
    lab.inflict("vxlan_device_address_wrong", where="source")
    assert talk(lab, "node-a", "udp", "10.244.218.65", 8080) != "hello"


def test_an_exhausted_pool_leaves_the_late_pod_waiting(lab: Lab) -> None:
    told = lab.inflict("pool_exhausted", where="source")
    assert (told["source"], told["target"]) == ("shop/late", "shop/db")
    assert lab.mesh()["unanswered"] == []
    with pytest.raises(LabError):
        lab.inflict("no_such_fault")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"fault": "nonsense"}, "nonsense"),
        ({"fault": "route_missing", "source": "shop/nobody"}, "shop/nobody"),
        ({"fault": "route_missing", "family": 6}, "dualstack"),
        ({"fault": "target_not_listening", "where": "source"}, "target"),
    ],
)
def test_what_cannot_be_inflicted_is_said_in_a_sentence(lab: Lab, arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(LabError) as refused:
        lab.inflict(**arguments)
    assert word in refused.value.sentence
    assert lab.status()["inflicted"] == []


# ---- Felix


def kubectl(lab: Lab, *words: str) -> None:
    """Changes an object as any client would."""
    from kubernetes import client, config

    api = config.new_client_from_config(str(lab.directory / "kubeconfig"))
    kind, name, patch = words
    if kind == "node":
        client.CoreV1Api(api).patch_node(name, json.loads(patch))
    else:
        client.CustomObjectsApi(api).patch_cluster_custom_object(
            "crd.projectcalico.org", "v1", kind, name, json.loads(patch)
        )


def test_felix_follows_the_api_within_a_moment(lab: Lab) -> None:
    kubectl(lab, "node", "node-b", '{"metadata":{"annotations":{"projectcalico.org/IPv4VXLANTunnelAddr":null}}}')
    began = time.monotonic()
    wait_until(lambda: not any("10.244.218.64" in line for line in read(lab)["node-a"]), "node-a forgets node-b")
    assert time.monotonic() - began < 5
    lines = read(lab)["node-b"]
    assert any(line.startswith("addr vxlan.calico 10.244.218.64/32") for line in lines)  # its own device stays


def test_disabling_the_pool_cuts_every_path_between_nodes(lab: Lab) -> None:
    """As seen on a running Calico; enabling it brings other tunnel addresses."""
    kubectl(lab, "ippools", "default-ipv4-ippool", '{"spec":{"disabled":true}}')
    wait_until(lambda: len(lab.mesh()["unanswered"]) == 24, "only pods of one node reach each other")
    assert {node["tunnel_address"] for node in lab.status()["nodes"]} == {""}
    lines = read(lab)["node-a"]
    assert any(line.startswith("link vxlan.calico vxlan UP") for line in lines)
    assert "route blackhole 10.244.174.128/26 table main proto 80 scope global" in lines
    kubectl(lab, "ippools", "default-ipv4-ippool", '{"spec":{"disabled":false}}')
    wait_until(lambda: lab.mesh()["unanswered"] == [], "all pods reach each other again")
    assert [node["tunnel_address"] for node in lab.status()["nodes"]] == [
        "10.244.174.131",
        "10.244.218.67",
        "10.244.99.195",
    ]


def test_cross_subnet_switches_routes_and_loses_no_pod(lab: Lab) -> None:
    kubectl(lab, "ippools", "default-ipv4-ippool", '{"spec":{"vxlanMode":"CrossSubnet"}}')
    route = "route unicast 10.244.218.64/26 via 172.30.0.12 dev eth0 table main proto 80 scope global onlink"
    wait_until(lambda: route in read(lab)["node-a"], "node-a sends to node-b without a tunnel")
    assert lab.mesh()["unanswered"] == []


def test_felix_repairs_a_device_when_it_may() -> None:
    """The wound stays without --heal; with it the device is back within one tick, routes and neighbors with it."""
    with started(heal=True, workers=False) as healing:
        healing.inflict("vxlan_device_missing")
        assert not healing.reaches("shop/cart", "shop/db")
        wait_until(lambda: healing.mesh()["unanswered"] == [], "Felix made the device again")
        healing.inflict("pod_interface_down")
        assert not healing.reaches("shop/cart", "shop/db")  # and never touches a pod's interface


def test_felix_health_answers_inside_each_node(lab: Lab) -> None:
    look = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9099/readiness', timeout=2).read().decode())"
    done = lab.exec("node-c", sys.executable, "-c", look)
    assert "| InternalDataplaneMainLoop | 1m30s   | reporting live | reporting ready |" in done.stdout


# ---- exec


def test_exec_gives_status_output_and_input(lab: Lab) -> None:
    done = lab.exec("node-a", "sh", "-c", "cat; echo oops >&2; exit 7", input="hello")
    assert (done.returncode, done.stdout, done.stderr) == (7, "hello", "oops\n")
    assert lab.exec("shop/db", "sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM


def test_exec_is_in_the_place_it_names(lab: Lab) -> None:
    look = "import socket as s; u = s.socket(type=s.SOCK_DGRAM); u.connect(('192.0.2.1', 9)); print(u.getsockname()[0])"
    assert lab.exec("shop/mail", sys.executable, "-c", look).stdout == "10.244.99.193\n"
    assert lab.exec("node-b", sys.executable, "-c", look).stdout == "172.30.0.12\n"


def test_exec_says_what_is_not_there(lab: Lab) -> None:
    with pytest.raises(LabError, match="no command no-such-command"):
        lab.exec("node-a", "no-such-command")
    with pytest.raises(LabError, match="/etc/passwd cannot be executed"):
        lab.exec("node-a", "/etc/passwd")
    with pytest.raises(LabError, match="no node or pod called node-z"):
        lab.exec("node-z", "true")


def test_a_caller_that_hangs_up_ends_its_command(lab: Lab) -> None:
    marker = f"271828.{os.getpid()}"
    caller = subprocess.Popen(
        [sys.executable, "-m", "lab", "exec", "--name", lab.name, "node-a", "--", "sleep", marker], cwd=ROOT
    )
    wait_until(lambda: bool(commands(marker, but=caller.pid)), "the command runs")
    caller.kill()
    caller.wait()
    wait_until(lambda: not commands(marker, but=caller.pid), "the command is gone")


def commands(word: str, but: int) -> list[int]:
    """Processes with WORD on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word in path.read_bytes().decode(errors="replace") and int(path.parent.name) != but:
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


# ---- nothing is left


class Remains:
    """What must be gone when a lab is: its processes and its files. Namespaces live in these processes alone."""

    def __init__(self, lab: Lab) -> None:
        self.directory = lab.directory
        self.namespace = lab.status()["pid_namespace"]
        inside = self.inside()
        [self.init] = [pid for pid in inside if inner_pid(pid) == 1]
        [self.server] = [pid for pid in inside if inner_pid(pid) == 2]
        self.keeper = parent_of(self.init)
        self.launcher = parent_of(self.keeper)

    def inside(self) -> list[int]:
        """Processes in the lab's pid namespace."""
        found = []
        for path in Path("/proc").glob("[0-9]*/ns/pid"):
            try:
                if path.stat().st_ino == self.namespace:
                    found.append(int(path.parents[1].name))
            except OSError:
                continue
        return found

    def called(self, name: str) -> int:
        """The process of that name; other labs may be up on this machine."""
        [found] = [pid for pid in self.inside() if Path(f"/proc/{pid}/comm").read_text() == f"{name}\n"]
        return found

    def gone(self) -> bool:
        alive = [pid for pid in (self.launcher, self.keeper) if running(pid)]
        return not self.inside() and not alive and not self.directory.exists()


def running(pid: int) -> bool:
    """Also false for a process that only waits for its parent to notice its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def inner_pid(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("NSpid:"))
    return int(line.split()[-1])


@pytest.fixture
def short_lab() -> Iterator[Lab]:
    lab = started(nodes=2, pods_per_node=1)
    yield lab
    lab.down()


ENDS = {
    "Ctrl-C": ("launcher", signal.SIGINT),
    "SIGTERM": ("launcher", signal.SIGTERM),
    "closed terminal": ("launcher", signal.SIGHUP),
    "launcher killed": ("launcher", signal.SIGKILL),
    "keeper killed": ("keeper", signal.SIGKILL),
    "init killed": ("init", signal.SIGKILL),
    "server killed": ("server", signal.SIGKILL),
}


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left(short_lab: Lab, end: str) -> None:
    remains = Remains(short_lab)
    assert len(remains.inside()) >= 4  # init, server, and a probe or fixer of each node at least
    victim, number = ENDS[end]
    os.kill(getattr(remains, victim), number)
    wait_until(remains.gone, f"everything gone after: {end}")


def test_nothing_is_left_when_whoever_started_it_dies() -> None:
    script = (
        "from lab.client import Lab; import sys\n"
        "lab = Lab.up(nodes=1, workers=False); print(lab.directory, flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    directory = owner.stdout.readline().strip()
    if not directory:
        pytest.skip("this machine forbids user namespaces")
    remains = Remains(Lab(Path(directory)))
    owner.kill()
    owner.communicate()
    wait_until(remains.gone, "everything gone after its owner was killed")


@pytest.fixture
def own_runtime_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where no other lab of this machine sweeps; short, for a socket's path has an end."""
    with tempfile.TemporaryDirectory(prefix="cw-") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield


def test_when_all_who_could_clean_up_are_killed_the_next_start_does(own_runtime_directory: None) -> None:
    lab = started(nodes=1, workers=False)
    remains = Remains(lab)
    os.kill(remains.launcher, signal.SIGSTOP)
    os.kill(remains.keeper, signal.SIGKILL)
    os.kill(remains.launcher, signal.SIGKILL)
    wait_until(lambda: not remains.inside() and not running(remains.launcher), "the processes are gone")
    assert remains.directory.exists()
    lab.down()
    with started(nodes=1, workers=False):
        assert not remains.directory.exists()


def command_line(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "lab", *words], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_detached_on_the_command_line() -> None:
    name = f"detached-{os.getpid()}"
    done = command_line("up", "--detach", "--name", name, "--nodes", "2", "--pods-per-node", "1", "--no-workers")
    if "namespaces" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    try:
        assert "2 of 2 pod pairs answer a ping" in command_line("status", "--name", name).stdout
        assert f"export KUBECONFIG={base_directory()}/{name}/kubeconfig" in command_line("env", "--name", name).stdout
        again = command_line("up", "--name", name)
        assert (again.returncode, "is up already" in again.stderr) == (2, True)
        hurt = command_line("inflict", "--name", name, "route_missing", "--from", "shop/cart", "--to", "shop/db")
        assert "route_missing inflicted on node-a" in hurt.stdout
        assert "shop/cart does not reach shop/db" in command_line("status", "--name", name).stdout
        assert command_line("heal", "--name", name).returncode == 0
        assert command_line("exec", "--name", name, "shop/db", "--", "sh", "-c", "exit 5").returncode == 5
        remains = Remains(Lab(base_directory() / name))
    finally:
        down = command_line("down", "--name", name)
    assert down.returncode == 0, down.stderr
    wait_until(remains.gone, "everything gone after `lab down`")


def test_a_local_slack_comes_and_goes_with_its_lab() -> None:
    if not hasattr(lab.slack, "LocalSlack"):
        pytest.skip("this version has no local Slack")
    words = ["up", "--slack", "--name", f"slack-{os.getpid()}", "--nodes", "1", "--no-workers"]
    up = subprocess.Popen([sys.executable, "-m", "lab", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert up.stdout is not None
    lines = []
    for line in up.stdout:
        lines.append(line)
        if "Ctrl-C" in line:
            break
    environment = read_environment(base_directory() / words[3] / "env")
    assert environment["SLACK_API_URL"].startswith("http://127.0.0.1:")
    [seat] = commands("lab.slack_seat", but=os.getpid())
    up.kill()
    up.communicate()
    wait_until(lambda: not running(seat), "the local Slack is gone")


def test_errors_are_sentences() -> None:
    for words, status, said in (
        (("status", "--name", "nowhere"), 2, "There is no lab called nowhere."),
        (("up", "--name", "No Name"), 2, "is no name for a lab"),
        (("up", "--name", "x", "--objects", "/nonexistent"), 2, "There are no objects in /nonexistent"),
        (("up", "--name", "x", "--nodes", "0"), 2, "A lab has 1 to 200 nodes"),
        (("up", "--name", "x", "--nodes", "0", "--detach"), 2, "A lab has 1 to 200 nodes"),
        (("up", "--name", "x", "--variant", "x"), 2, "There is no variant x"),
    ):
        done = command_line(*words)
        if "namespaces" in done.stderr:
            pytest.skip(done.stderr)
        assert done.returncode == status, words
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_the_proxy_leads_to_the_probes_only(lab: Lab) -> None:
    host, _, port = lab.environment()["CALICO_WHY_PROBE_PROXY"].removeprefix("http://").partition(":")

    def ask(request: str) -> str:
        with socket.create_connection((host, int(port)), timeout=5) as wire:
            wire.sendall(f"{request}\r\n\r\n".encode())
            return wire.recv(100).decode().partition("\r\n")[0]

    assert ask("CONNECT 172.30.0.11:9797 HTTP/1.1") == "HTTP/1.1 200 Connection established"
    for target in ("172.30.0.11:22", "172.30.0.1:6443", "127.0.0.1:9797", "example.org:443"):
        assert ask(f"CONNECT {target} HTTP/1.1") == "HTTP/1.1 403 Forbidden"
    assert ask("GET http://172.30.0.11:9797/ HTTP/1.1") == "HTTP/1.1 403 Forbidden"


# ---- without root


FORBID = """
import os, sys
from lab.namespaces import CLONE_NEWUSER, unshare
user = os.geteuid()
unshare(CLONE_NEWUSER)
open("/proc/self/uid_map", "w").write(f"1001 {user} 1")
open("/proc/sys/user/max_user_namespaces", "w").write("0")
os.execv(sys.executable, [sys.executable, "-m", "lab", "up"])
"""


def test_a_machine_that_forbids_it_is_told_in_one_sentence(lab: Lab, own_runtime_directory: None) -> None:
    environment = dict(os.environ)
    done = subprocess.run(
        [sys.executable, "-c", FORBID], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "sudo sysctl user.max_user_namespaces=" in done.stderr
    assert not list(Path(environment["XDG_RUNTIME_DIR"]).glob("calico-why-lab-1001/[!.]*"))


def test_without_root() -> None:
    """The whole lab as an ordinary user; where the tests are root, as the user `tester`."""
    if os.geteuid() != 0:
        pytest.skip("the tests run as an ordinary user, so every other test here is this one")
    try:
        user = pwd.getpwnam("tester")
    except KeyError:
        pytest.skip("there is no user called tester on this machine to become")
    python = _python_for_everybody()
    site = os.pathsep.join([str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))])
    script = (
        "from lab.client import Lab\n"
        "with Lab.up() as lab:\n"
        "    print(lab.mesh())\n"
        "    lab.inflict('neighbor_wrong_mac'); print(lab.reaches('shop/cart', 'shop/db'))\n"
        "    lab.heal(); print(lab.reaches('shop/cart', 'shop/db'))\n"
        "    print(lab.exec('node-a', 'id', '-u').stdout.strip(), lab.status()['nodes'][0]['probe']['state'])\n"
    )
    done = subprocess.run(
        [python, "-c", script],
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": site},
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "makes no namespaces" in done.stderr or "NamespacesForbidden" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.stdout.splitlines() == ["{'pairs': 30, 'unanswered': []}", "False", "True", "0 running"], done.stderr
    assert not list(Path(f"/tmp/calico-why-lab-{user.pw_uid}").glob("[!.]*"))


def _python_for_everybody() -> str:
    """An interpreter of this version that other users may run: this one may lie in somebody's home."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (os.path.realpath(sys.executable), shutil.which(version, path="/usr/bin:/usr/local/bin")):
        if candidate and all(parent.stat().st_mode & 0o001 for parent in Path(candidate).parents):
            return candidate
    pytest.skip(f"there is no {version} that other users may run")


def test_the_shapes_are_listed_before_a_lab_is_up() -> None:
    listed = command_line("variants").stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(VARIANTS)
    refused = command_line("up", "--name", f"shapes-{os.getpid()}", "--variant", "dualstack+ipv6")
    assert refused.returncode and "No cluster is both dualstack and ipv6." in refused.stderr, refused


def test_every_shape_of_two_families_heals() -> None:
    with started(variant="dualstack+busy-host+missing-blackholes+strict-filters", workers=False) as lab:
        before = kernel(lab)
        for family in (4, 6):
            lab.inflict("vxlan_device_missing", family=family)
            lab.inflict("routing_rule_diverts", family=family)
            assert not lab.reaches("shop/cart", "shop/db")
            lab.heal()
            assert lab.mesh() == {"pairs": 30, "unanswered": []}
        assert settled_kernel(lab, before) == before
