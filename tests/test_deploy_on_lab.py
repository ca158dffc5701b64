"""Probe and fixer in what their containers leave them: the capabilities of the manifests, the runtimes' filter of
system calls, a read-only root, a read-only /proc/sys, a /run of their own. Each capability is taken away once, and
something is missing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import subprocess
import sys
import tarfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from bot.investigate import Investigation
from fixes.kind import NodeKind, kinds
from fixes.request import Phase
from lab.client import Lab
from lab.workers import PROBE_PORT
from tests import manifests, seccomp
from tests.asking import ask, words_for
from tests.fix_samples import BO
from tests.fixing import ended, without_limits

pytestmark = pytest.mark.skipif(bool(seccomp.why_not()), reason=seccomp.why_not() or "a filter can be made")

NODES = ("node-a", "node-b", "node-c")
QUESTION = "shop/cart shop/db 5432/tcp"
ROOT = "/run/container"  # where paths of the container that the node has not are, in here
ENVIRONMENT = {"CALICO_WHY_APPROVERS": BO.id}
# What the runtimes hide from a container that is not privileged, and what they let it read only; and its few devices.
HIDDEN = ("acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "timer_list", "sched_debug", "scsi")
READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
DEVICES = ("full", "null", "random", "tty", "urandom", "zero")
MASKED = (
    *(f"test ! -f /proc/{one} || mount --bind /dev/null /proc/{one}" for one in HIDDEN),
    *(f"test ! -d /proc/{one} || mount -t tmpfs -o ro tmpfs /proc/{one}" for one in HIDDEN),
    *(f"! test -e /proc/{it} || {{ mount --bind /proc/{it} /proc/{it}; mount -o remount,bind,ro /proc/{it}; }}"
      for it in READ_ONLY),
    "mount -t tmpfs -o ro tmpfs /sys/firmware && mount --bind /sys /sys && mount -o remount,bind,ro /sys",
    "mount -t tmpfs tmpfs /opt",
    *(f"touch /opt/{one} && mount --bind /dev/{one} /opt/{one}" for one in DEVICES),
    "mount --move /opt /dev",
)  # fmt: skip


def container(name: str, overlay: str = "socket-mode") -> dict[str, Any]:
    return manifests.containers(overlay)[f"calico-why-node/{name}"]


def inside(lab: Lab, place: str, *argv: str) -> list[str]:
    return [sys.executable, "-m", "bot.cli", "lab", "exec", "--name", lab.name, place, "--", *argv]


@contextlib.contextmanager
def inhabited(lab: Lab) -> Iterator[None]:
    """In each pod something runs, as in a cluster: by its process a probe finds the pod's network."""
    with contextlib.ExitStack() as stack:
        for pod in lab.status()["pods"]:
            process = stack.enter_context(subprocess.Popen(inside(lab, pod["name"], "sleep", "infinity")))
            stack.callback(process.terminate)
        yield


@contextlib.contextmanager
def contained(lab: Lab, node: str, spec: dict[str, Any], kept: Collection[str], log: Path) -> Iterator[None]:
    """The container's program on a node of the lab, with these capabilities; ended at the end."""
    host = {
        mount["mountPath"]: volume["hostPath"]["path"]
        for volume in manifests.pod("socket-mode", "DaemonSet", "calico-why-node")["volumes"]
        for mount in spec["volumeMounts"]
        if "hostPath" in volume and mount["name"] == volume["name"]
    }
    environment = {
        **lab.environment(),
        **ENVIRONMENT,
        **{one["name"]: one["value"] for one in spec["env"] if "value" in one and one["name"] != "CALICO_WHY_CERTS"},
        "KUBECONFIG": str(lab.directory / f"kubeconfig.nodes.{node}"),
    }
    if "CALICO_WHY_CONFIG" in environment:
        config = lab.directory / "calico-why.yaml"
        config.write_text(manifests.configuration("socket-mode"))
        environment["CALICO_WHY_CONFIG"] = str(config)
    if "CALICO_WHY_SYSCTL" in environment:
        environment["CALICO_WHY_SYSCTL"] = ROOT + environment["CALICO_WHY_SYSCTL"]
    files, checkout = shlex.quote(str(lab.directory)), shlex.quote(str(manifests.DEPLOY.parent))
    arguments = [word.replace("$(NODE_NAME)", node) for word in spec["args"]]
    program = [sys.executable, "-m", "bot.cli", *arguments]
    told = [f"{name}={value}" for name, value in environment.items()]
    steps = [
        "set -e",
        "mount --make-rprivate /",
        "mount -t tmpfs tmpfs /mnt && mkdir /mnt/lab /mnt/checkout",
        f"mount --bind {files} /mnt/lab && mount --bind {checkout} /mnt/checkout",
        "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /tmp",
        f"mkdir -p {files} {checkout} && mount --bind /mnt/lab {files} && mount --bind /mnt/checkout {checkout}",
        *(f"mkdir -p {ROOT}{path} && mount --bind {source} {ROOT}{path}" for path, source in host.items()),
        *MASKED,
        "mount --bind / / && mount -o remount,bind,ro /",
        "mount -o remount,ro /run",
        f"cd {checkout}",
        shlex.join(
            [
                "exec",
                "setpriv",
                "--no-new-privs",
                "--inh-caps=-all",
                "--bounding-set=" + ",".join(["-all", *(f"+{one.lower()}" for one in kept)]),
                *(sys.executable, "-m", "tests.seccomp", seccomp.word(kept), "--"),
                "env",
                *told,
                *program,
            ]
        ),
    ]
    with log.open("w") as output:
        process = subprocess.Popen(
            inside(lab, node, "unshare", "--mount", "sh", "-c", "\n".join(steps)),
            cwd=manifests.DEPLOY.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(os.environ),
        )
        try:
            yield
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def probes(lab: Lab, directory: Path, kept: Collection[str]) -> Iterator[None]:
    """One in its container on every node, listening."""
    with contextlib.ExitStack() as stack:
        logs = [directory / f"{node}.log" for node in NODES]
        for node, log in zip(NODES, logs, strict=True):
            stack.enter_context(contained(lab, node, container("probe"), kept, log))
        for log in logs:
            wait_for_line(log, f":{PROBE_PORT}")
        yield


def wait_for_line(log: Path, end: str) -> None:
    """Until the log has a line that ends so. Fails with all of it after half a minute."""
    deadline = time.monotonic() + 30
    while not any(line.endswith(end) for line in log.read_text().splitlines()):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Without probes and fixers of its own. In each pod something runs, as in a cluster: by its process the probe finds
    the pod's network, where it has not the node's /run/netns."""
    with Lab.up(workers=False, environment=ENVIRONMENT) as lab, inhabited(lab):
        yield lab


CAPABILITIES = ("NET_ADMIN", "NET_RAW", "SYSLOG", "SYS_ADMIN", "SYS_PTRACE")


def in_a_terminal(lab: Lab, *words: str, through: Collection[str] = ()) -> subprocess.CompletedProcess[str]:
    """`calico-why WORDS`. through: a program that becomes it."""
    environment = {**os.environ, **lab.person()}
    command = [*through, sys.executable, "-m", "bot.cli", *words]
    return subprocess.run(command, cwd=manifests.DEPLOY.parent, env=environment, capture_output=True, text=True)


def filtered(capabilities: Collection[str], *argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.seccomp", seccomp.word(capabilities), "--", *argv]
    return subprocess.run(command, cwd=manifests.DEPLOY.parent, capture_output=True, text=True)


def answered(lab: Lab, words: str = QUESTION) -> Investigation:
    return asyncio.run(ask(lab.environment(), words))


def test_what_the_runtimes_refuse_is_refused_here() -> None:
    """Else an answer under these filters would say nothing of a cluster."""
    of_vms = "import socket; socket.socket(socket.AF_VSOCK)"
    assert "PermissionError" in filtered(CAPABILITIES, sys.executable, "-c", of_vms).stderr
    assert filtered(["NET_ADMIN"], "unshare", "--net", "true").returncode != 0
    if subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode == 0:
        assert filtered(CAPABILITIES, "unshare", "--net", "true").returncode == 0
    shown = filtered(CAPABILITIES, "cat", "/proc/self/status").stdout.split()
    assert shown[shown.index("Seccomp_filters:") + 1] == str(len(list(seccomp.RECORDED.glob("*.json")))) == "3"


def test_the_probe_sees_all_there_is_with_the_capabilities_of_its_container(lab: Lab, tmp_path: Path) -> None:
    lab.heal()
    assert tuple(sorted(container("probe")["securityContext"]["capabilities"]["add"])) == CAPABILITIES
    with probes(lab, tmp_path, CAPABILITIES):
        diagnosis = answered(lab).diagnosis
        assert (diagnosis.verdict, diagnosis.blind) == ("healthy", ())
        told = lab.inflict("policy_denies_ingress")
        diagnosis = answered(lab, words_for(told)).diagnosis
        assert [one.rule for one in diagnosis.causes] == ["policy_denies_ingress"]
    lab.heal()


@pytest.mark.parametrize("taken", CAPABILITIES)
def test_without_one_of_them_something_could_not_be_seen_and_is_said(lab: Lab, tmp_path: Path, taken: str) -> None:
    lab.heal()
    with probes(lab, tmp_path, [one for one in CAPABILITIES if one != taken]):
        if taken == "SYSLOG":
            assert "nodes/node-a/kernel-log.txt" in missing(lab, tmp_path) or not is_kept_from_most(lab)
            return
        diagnosis = answered(lab).diagnosis
    assert diagnosis.blind
    assert not diagnosis.causes
    if taken != "NET_ADMIN":
        assert diagnosis.verdict == "unknown"


def missing(lab: Lab, directory: Path) -> set[str]:
    """What a bundle of a node has not, though the lab has it."""
    bundle = directory / "bundle.tar.gz"
    done = in_a_terminal(lab, "node", "diags", "node-a", "--to", str(bundle))
    assert done.returncode == 0, done.stderr
    with tarfile.open(bundle) as files:
        (name,) = [one for one in files.getnames() if one.endswith("/missing.txt")]
        told = files.extractfile(name)
        assert told is not None
        found = {line.decode().partition(":")[0] for line in told if line.startswith(b"nodes/")}
    # Files of a node with calico-node's image, and a tool that the image has not.
    return found - {f"nodes/node-a/{one}" for one in ("calico/mtu", "calico/nodename", "logs", "wireguard.txt")}


def is_kept_from_most(lab: Lab) -> bool:
    """Whether this kernel shows its log to the lab, and to nobody without SYSLOG."""
    return Path("/proc/sys/kernel/dmesg_restrict").read_text().strip() == "1" and shows_its_log(lab)


def shows_its_log(lab: Lab) -> bool:
    return subprocess.run(inside(lab, "node-a", "dmesg"), capture_output=True).returncode == 0


def test_a_bundle_and_a_capture_have_all_with_the_capabilities_of_the_container(lab: Lab, tmp_path: Path) -> None:
    lab.heal()
    with probes(lab, tmp_path, CAPABILITIES):
        assert missing(lab, tmp_path) == (set() if shows_its_log(lab) else {"nodes/node-a/kernel-log.txt"})
        packets = str(tmp_path / "packets.pcapng")
        done = in_a_terminal(lab, "capture", *QUESTION.split(), "--seconds", "1", "-o", packets)
        assert done.returncode == 3 and "could not" not in done.stdout, done.stdout + done.stderr
        status = in_a_terminal(lab, "node", "status", "node-a")
        assert status.returncode == 0, status.stdout


def test_the_bots_words_and_pictures_need_no_call_that_its_container_refuses(lab: Lab, tmp_path: Path) -> None:
    lab.heal()
    confined = (sys.executable, "-m", "tests.seccomp", seccomp.word([]), "--")
    with probes(lab, tmp_path, CAPABILITIES):
        picture = tmp_path / "path.png"
        done = in_a_terminal(lab, "why", *QUESTION.split(), "--picture", str(picture), through=confined)
        assert done.returncode == 0 and picture.stat().st_size, done.stdout + done.stderr


def test_the_restricted_probe_answers_without_net_admin(lab: Lab, tmp_path: Path) -> None:
    lab.heal()
    kept = container("probe", "restricted")["securityContext"]["capabilities"]["add"]
    with probes(lab, tmp_path, kept):
        told = lab.inflict("neighbor_wrong_mac")
        assert [one.rule for one in answered(lab, words_for(told)).diagnosis.causes] == ["neighbor_wrong_mac"]
    lab.heal()


# One for each kind of fix that a node's fixer does.
FIXED = (
    "checksum_offload_broken",
    "fdb_entry_wrong_node",
    "ip_forwarding_off",
    "neighbor_wrong_mac",
    "route_missing",
    "route_shadowed",
    "underlay_neighbor_mistaken",
    "vxlan_device_down",
    "vxlan_device_mac_wrong",
)


def test_the_nodes_fixer_mends_what_it_may_with_net_admin_alone(lab: Lab, tmp_path: Path) -> None:
    fixer = container("fixer")
    assert fixer["securityContext"]["capabilities"]["add"] == ["NET_ADMIN"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(probes(lab, tmp_path, CAPABILITIES))
        for node in NODES:
            stack.enter_context(contained(lab, node, fixer, ["NET_ADMIN"], tmp_path / f"fixer-{node}.log"))
        asyncio.run(without_limits(lab))
        done = set()
        for mode in FIXED:
            lab.heal()
            told = lab.inflict(mode)
            requests = asyncio.run(ended(lab, answered(lab, words_for(told)), mode))
            assert requests, mode
            for request in requests:
                assert request.status.phase is Phase.VERIFIED, f"{mode}: {request.status.message}"
                done.add(request.spec.kind)
        assert done == {name for name, kind in kinds().items() if isinstance(kind, NodeKind)}


def test_it_writes_nothing_without_that_capability(lab: Lab, tmp_path: Path) -> None:
    lab.heal()
    with contextlib.ExitStack() as stack:
        stack.enter_context(probes(lab, tmp_path, CAPABILITIES))
        for node in NODES:
            stack.enter_context(contained(lab, node, container("fixer"), [], tmp_path / f"fixer-{node}.log"))
        told = lab.inflict("neighbor_wrong_mac")
        requests = asyncio.run(ended(lab, answered(lab, words_for(told)), "neighbor_wrong_mac"))
    assert {one.status.phase for one in requests} == {Phase.FAILED}
    lab.heal()
