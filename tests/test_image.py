"""Every container of deploy/, out of the built image, as a node runs it: an OCI runtime gets user, capabilities, filter
of system calls, mounts and memory of the rendered manifests. Without it the image would first be run by its users."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.investigate import Investigation
from certificates.cluster import BOT_CERTS, connect, content
from fixes.request import Phase
from lab.client import Lab
from lab.server import API_PORT
from lab.workers import PROBE_PORT
from tests import manifests, oci, seccomp
from tests.asking import ask, words_for
from tests.fix_samples import BO
from tests.fixing import ended
from tests.oci import Image, Place
from tests.test_certificates_on_lab import installed
from tests.test_deploy_on_lab import inhabited, inside

NAME = os.environ.get("CALICO_WHY_TEST_IMAGE", "")
pytestmark = pytest.mark.skipif(
    not NAME, reason="CALICO_WHY_TEST_IMAGE names no image; `make image-test` builds one and runs these tests on it"
)

NODES = ("node-a", "node-b", "node-c")
RUNTIMES = sorted(path.stem for path in seccomp.RECORDED.glob("*.json"))
OVERLAY = "dev"  # whose Calico is where the lab has it
NAMESPACE = "calico-why"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
QUESTION = "shop/cart shop/db 5432/tcp"
LARGEST = 220 << 20  # of all packages, unpacked: 190 MB when it was first built, the kubernetes client is half of it
# crun takes a machine's cgroups of one version or the other, not both at once.
ONE_VERSION = "! mountpoint --quiet /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified"
# linux/capability.h
NUMBERS = {"NET_ADMIN": 12, "NET_RAW": 13, "SYS_PTRACE": 19, "SYS_ADMIN": 21, "SYSLOG": 34}
BUILDAH = ("buildah", "--log-level", "error")


def told_by(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(argv)}: {done.stderr}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    container = told_by(*BUILDAH, "from", "--pull-never", NAME)
    try:
        told = json.loads(told_by(*BUILDAH, "inspect", "--type", "image", NAME))["OCIv1"]["config"]
        root = Path(told_by(*BUILDAH, "mount", container))
        yield Image(root, told["Entrypoint"], told["Cmd"], told["Env"], told["User"])
    finally:
        told_by(*BUILDAH, "rm", container)


@pytest.fixture
def lab(image: Image, tmp_path: Path) -> Iterator[Lab]:
    """After the image, whose files it would not see else. Without probes and fixers of its own; in each pod something
    runs, by which a probe finds its network."""
    rbac = tmp_path / "rbac.yaml"
    rbac.write_text(yaml.safe_dump_all(manifests.objects(OVERLAY)))
    with Lab.up(workers=False, rbac=rbac) as lab, inhabited(lab):
        asyncio.run(installed(lab, OVERLAY))
        yield lab


class Container:
    """One that runs on a node of the lab."""

    def __init__(self, lab: Lab, node: str, bundle: Path, image: Image, specification: Mapping[str, Any]) -> None:
        self.lab, self.node, self.name = lab, node, bundle.name
        self.path = bundle / "log"
        process = specification["process"]
        self.user: int = process["user"]["uid"]
        bound = [one for one in specification["mounts"] if one["type"] == "bind"]
        self.read_only = [str(one["destination"]) for one in bound if "ro" in one["options"]]
        self.capabilities = [one.removeprefix("CAP_") for one in process["capabilities"]["bounding"]]
        (bundle / "config.json").write_text(json.dumps(specification))
        (bundle / "own").mkdir()
        (bundle / "rootfs").mkdir()
        own = shlex.quote(str(bundle / "own"))
        steps = [
            "set -e",
            # Its own layer, in which the runtime makes what is mounted on.
            f"mount -t tmpfs tmpfs {own} && mkdir {own}/upper {own}/work",
            f"mount -t overlay overlay {shlex.quote(str(bundle / 'rootfs'))} "
            f"-o lowerdir={shlex.quote(str(image.root))},upperdir={own}/upper,workdir={own}/work",
            crun("run", "--bundle", str(bundle), self.name),
        ]
        with self.path.open("w") as output:
            self.process = subprocess.Popen(
                inside(lab, node, "unshare", "--mount", "sh", "-c", "\n".join(steps)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def log(self) -> str:
        return self.path.read_text()

    def exec(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """As `kubectl exec` does."""
        command = ["unshare", "--mount", "sh", "-c", crun("exec", self.name, *argv)]
        return self.lab.exec(self.node, *command)

    def said(self, words: str) -> None:
        """Returns once its log has these words."""
        until(lambda: words in self.log, lambda: self.process.poll() is None)

    def stop(self) -> int:
        """As a kubelet does; its exit status."""
        self.lab.exec(self.node, "crun", "kill", self.name, "TERM")
        return self.process.wait(30)

    def remove(self) -> None:
        self.lab.exec(self.node, "crun", "delete", "--force", self.name)
        self.process.terminate()
        self.process.wait()


def crun(word: str, *words: str) -> str:
    return f"{ONE_VERSION}; exec {shlex.join(['crun', '--cgroup-manager', 'cgroupfs', word, *words])}"


def until(true: Callable[[], object], is_possible: Callable[[], bool] = lambda: True) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert is_possible() and time.monotonic() < deadline, "what the containers wrote is printed"
        time.sleep(0.1)


class Pods:
    """What kubelets do: a volume is a directory of the node, with the rights that the pod is to find there."""

    def __init__(self, lab: Lab, image: Image, directory: Path, overlay: str, secrets: Mapping[str, Any]) -> None:
        """secrets: of each Secret that containers have in their environment, its variables."""
        self.lab, self.image, self.directory, self.overlay = lab, image, directory, overlay
        self.secrets = secrets
        self.running: list[Container] = []
        self.volumes: dict[tuple[str, str], dict[str, Path]] = {}
        nodes = yaml.safe_load((lab.directory / "kubeconfig.nodes").read_text())
        server = nodes["clusters"][0]["cluster"]["server"]
        host = server.removeprefix("https://").rpartition(":")[0]
        self.variables = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": str(API_PORT)}

    def start(self, workload: str, name: str, node: str, words: Sequence[str] = (), called: str = "") -> Container:
        """The container of a Deployment or DaemonSet. words: instead of its arguments. called: where it is another
        one beside it."""
        kind = "DaemonSet" if workload.endswith("-node") else "Deployment"
        pod = manifests.pod(self.overlay, kind, workload)
        container = dict(manifests.containers(self.overlay)[f"{workload}/{name}"])
        volumes = self._of(workload, node, pod)
        if pod.get("automountServiceAccountToken", True):
            volumes["account"] = volumes.get("account") or self._account(pod, node, "account", 0o644)
            account = {"name": "account", "mountPath": ACCOUNT, "readOnly": True}
            container["volumeMounts"] = [*container["volumeMounts"], account]
        profile = RUNTIMES[NODES.index(node) % len(RUNTIMES)]
        place = Place(node, NAMESPACE, self.variables, self.secrets, volumes, profile)
        bundle = self.directory / f"{workload}-{called or name}-{node}"
        bundle.mkdir()
        specification = oci.specification(self.image, pod, container, place, words)
        self.running.append(Container(self.lab, node, bundle, self.image, specification))
        return self.running[-1]

    def _of(self, workload: str, node: str, pod: Mapping[str, Any]) -> dict[str, Path]:
        found = self.volumes.setdefault((workload, node), {})
        for one in pod["volumes"]:
            if one["name"] not in found:
                found[one["name"]] = self._volume(workload, node, pod, one)
        return found

    def _volume(self, workload: str, node: str, pod: Mapping[str, Any], one: Mapping[str, Any]) -> Path:
        name = f"{workload}-{node}-{one['name']}"
        if "hostPath" in one:
            return Path(one["hostPath"]["path"])
        if "emptyDir" in one:
            made = self._empty(name, pod)
            if one["emptyDir"].get("medium") == "Memory":
                size = oci.bytes_of(one["emptyDir"]["sizeLimit"])
                mounted = self.lab.exec(node, "mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "tmpfs", str(made))
                assert mounted.returncode == 0, mounted.stderr
            return made
        if "projected" in one:
            return self._account(pod, node, name, one["projected"]["defaultMode"])
        if "configMap" in one:
            told = yaml.safe_load(manifests.configuration(self.overlay)) | {"approvers": [BO.id]}
            return self._filled(name, pod, {"calico-why.yaml": yaml.safe_dump(told).encode()}, 0o644)
        return self._filled(
            name, pod, asyncio.run(self.secret(one["secret"]["secretName"])), one["secret"]["defaultMode"]
        )

    async def secret(self, name: str) -> dict[str, bytes]:
        async with connect(self.lab.administrator()["KUBECONFIG"], NAMESPACE) as cluster:
            found = await cluster.secret(name)
            return {key: content(found, key) for key in found.get("data") or {}}

    def _account(self, pod: Mapping[str, Any], node: str, name: str, mode: int) -> Path:
        """The token of the pod's ServiceAccount."""
        told = yaml.safe_load(Path(self.lab.account(pod["serviceAccountName"], node)).read_text())
        files = {
            "token": told["users"][0]["user"]["token"].encode(),
            "ca.crt": base64.b64decode(told["clusters"][0]["cluster"]["certificate-authority-data"]),
            "namespace": NAMESPACE.encode(),
        }
        return self._filled(f"{pod['serviceAccountName']}-{node}-{name}", pod, files, mode)

    def _empty(self, name: str, pod: Mapping[str, Any]) -> Path:
        made = self.directory / "volumes" / name
        made.mkdir(parents=True)
        group = pod["securityContext"].get("fsGroup", 0)
        os.chown(made, 0, group)
        made.chmod(0o2777 if group else 0o777)
        return made

    def _filled(self, name: str, pod: Mapping[str, Any], files: Mapping[str, bytes], mode: int) -> Path:
        made = self._empty(name, pod)
        group = pod["securityContext"].get("fsGroup", 0)
        for file, text in files.items():
            (made / file).write_bytes(text)
            os.chown(made / file, 0, group)
            (made / file).chmod(mode | (0o440 if group else 0))
        return made

    def remove(self) -> None:
        for one in self.running:
            one.remove()


@contextlib.contextmanager
def slack_on(lab: Lab, node: str) -> Iterator[dict[str, str]]:
    """The local Slack at the node's own 127.0.0.1: what a bot there needs to use it."""
    with subprocess.Popen(
        inside(lab, node, sys.executable, "-m", "lab.slack_seat"),
        cwd=manifests.DEPLOY.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        variables: dict[str, str] = json.loads(process.stdout.readline())["environment"]
        variables.pop("CALICO_WHY_APPROVERS")
        yield variables


@contextlib.contextmanager
def pods(lab: Lab, image: Image, directory: Path, overlay: str) -> Iterator[Pods]:
    with slack_on(lab, "node-a") as variables:
        started = Pods(lab, image, directory, overlay, {"calico-why-slack": variables})
        try:
            yield started
        finally:
            started.remove()
            for one in started.running:
                print(f"{one.name}: {one.log}")


def certified(there: Pods) -> None:
    """Signer, and on each node what keeps its certificate and its probe: returns once these listen and the bot's Secret
    is filled."""
    there.start("calico-why-signer", "signer", "node-c")
    probes = [there.start("calico-why-node", "probe", node) for node in NODES]
    for node in NODES:
        there.start("calico-why-node", "certificate", node)
    for probe in probes:
        probe.said(f":{PROBE_PORT}")
    until(lambda: asyncio.run(there.secret(BOT_CERTS)))


def causes(bot: Container, told: Mapping[str, str]) -> list[str]:
    """What `kubectl exec` into a bot's pod answers about a wound."""
    done = bot.exec("calico-why", "why", *words_for(told).split(), "-o", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    return [str(one["rule"]) for one in json.loads(done.stdout)["causes"]]


def answered(there: Pods, words: str) -> Investigation:
    """The same question, asked of the same probes beside the cluster: of it fixes are wanted."""
    certificates = there.volumes["calico-why-bot", "node-a"]["certs"]
    environment = there.lab.environment() | {"CALICO_WHY_CERTS": str(certificates)}
    return asyncio.run(ask(environment, words))


def held(one: Container) -> dict[str, str]:
    """What the kernel tells of its first process."""
    found = json.loads(one.lab.exec(one.node, "crun", "state", one.name).stdout)
    told = one.lab.exec(one.node, "cat", f"/proc/{found['pid']}/status").stdout
    return {name: value.strip() for name, _, value in (line.partition(":") for line in told.splitlines())}


def as_it_is_held(one: Container) -> None:
    """The runtime did what it was told."""
    kernels = held(one)
    assert kernels["Uid"].split() == [str(one.user)] * 4, one.name
    bits = sum(1 << NUMBERS[name] for name in one.capabilities)
    assert {int(kernels[name], 16) for name in ("CapBnd", "CapPrm", "CapEff")} == {bits}, one.name
    assert int(kernels["CapInh"], 16) == int(kernels["CapAmb"], 16) == 0, one.name
    assert (kernels["NoNewPrivs"], kernels["Seccomp"], kernels["Seccomp_filters"]) == ("1", "2", "1"), one.name
    mounts = {
        words[1]: words[3].split(",")
        for words in map(str.split, one.exec("cat", "/proc/self/mounts").stdout.splitlines())
    }
    # A link of the image's, which the runtime follows.
    for target in ("/", "/sys", "/proc/sys", *(path.replace("/var/run/", "/run/") for path in one.read_only)):
        assert "ro" in mounts[target], f"{one.name}: {target}"


def status_of(lab: Lab, node: str, path: str) -> str:
    """What the kubelet of this node would be answered."""
    asked = (
        "import sys, urllib.request, urllib.error\n"
        "try: print(urllib.request.urlopen(sys.argv[1], timeout=5).status)\n"
        "except OSError as error: print(getattr(error, 'code', error))"
    )
    return lab.exec(node, sys.executable, "-c", asked, f"http://127.0.0.1:9798{path}").stdout.strip()


def test_the_image_has_its_programs_and_no_compiler_no_lab_and_no_caches(image: Image) -> None:
    assert image.entrypoint == ["calico-why"]
    assert image.user == "65532:65532"
    (installed,) = image.root.glob("usr/local/lib/python3.*/*-packages/calico_why-*.dist-info")
    packages = {one.name for one in installed.parent.iterdir()}
    assert {"bot", "certificates", "engine", "facts", "fixes", "node_probe"} <= packages
    assert not packages & {"lab", "tests", "deploy", "benchmarks"}
    assert sum(one.stat().st_size for one in installed.parent.rglob("*") if one.is_file()) < LARGEST
    programs = {one.name for place in ("usr/bin", "usr/local/bin") for one in (image.root / place).iterdir()}
    assert "calico-why" in programs and not programs & {"gcc", "cc", "make"}
    assert not [one for place in ("source", "wheels", "own", "others") if (one := image.root / place).exists()]
    assert not list((image.root / "var/lib/apt/lists").iterdir())
    assert not list((image.root / "root").glob(".cache/*"))


def test_every_container_runs_as_the_manifests_say_from_no_certificate_to_a_fix_that_is_done(
    lab: Lab, image: Image, tmp_path: Path
) -> None:
    with pods(lab, image, tmp_path, OVERLAY) as there:
        certified(there)
        fixers = [there.start("calico-why-node", "fixer", node) for node in NODES]
        cluster_fixer = there.start("calico-why-cluster-fixer", "fixer", "node-b")
        bot = there.start("calico-why-bot", "bot", "node-a")
        before = there.start("calico-why-bot", "preflight", "node-a")
        cluster_fixer.said("acts now")
        for fixer in fixers:
            fixer.said("Watching for approved fixes")
        until(lambda: status_of(lab, "node-a", "/readyz") == "200")
        assert status_of(lab, "node-a", "/healthz") == "200"

        assert before.process.wait(90) == 0, before.log
        for one in there.running:
            if one is not before:
                as_it_is_held(one)
        assert "slack" in before.log.lower(), before.log
        looked = bot.exec("calico-why", "preflight")
        assert looked.returncode == 0, looked.stdout + looked.stderr
        assert "calico-why.yaml" in bot.exec("calico-why", "config").stdout
        assert "not in this installation" in bot.exec("calico-why", "lab").stderr

        picture = ("--picture", "/tmp/path.png")
        healthy = bot.exec("calico-why", "why", *QUESTION.split(), *picture, "-o", "json")
        assert healthy.returncode == 0, healthy.stdout + healthy.stderr + bot.log
        assert json.loads(healthy.stdout)["verdict"] == "healthy"
        assert int(bot.exec("stat", "-c", "%s", "/tmp/path.png").stdout) > 0

        told = lab.inflict("neighbor_wrong_mac")
        assert causes(bot, told) == ["neighbor_wrong_mac"]
        answer = answered(there, words_for(told))
        (request,) = asyncio.run(ended(lab, answer, "neighbor_wrong_mac"))
        assert request.status.phase is Phase.VERIFIED, request.status.message

        assert causes(bot, lab.inflict("policy_denies_ingress")) == ["policy_denies_ingress"]

        ended_with = {one.name: one.stop() for one in there.running if one is not before}
        assert set(ended_with.values()) == {0}, {one.name: one.log for one in there.running if ended_with.get(one.name)}


def test_the_restricted_probe_answers_from_the_image_and_says_what_it_does_not_see(
    lab: Lab, image: Image, tmp_path: Path
) -> None:
    with pods(lab, image, tmp_path, "restricted") as there:
        certified(there)
        bot = there.start("calico-why-bot", "bot", "node-a")
        until(lambda: status_of(lab, "node-a", "/readyz") == "200")
        told = lab.inflict("neighbor_wrong_mac")
        assert causes(bot, told) == ["neighbor_wrong_mac"]
        assert answered(there, words_for(told)).diagnosis.blind


@pytest.mark.parametrize("overlay", [one for one in manifests.OVERLAYS if one != OVERLAY])
def test_what_was_run_is_what_every_overlay_says(overlay: str) -> None:
    """Of all that the runtime is told; what differs is told to the program, but for the restricted probe, run above."""
    for name, container in manifests.containers(overlay).items():
        here = manifests.containers(OVERLAY)[name]
        for part in ("securityContext", "volumeMounts", "resources", "command"):
            if (overlay, name, part) != ("restricted", "calico-why-node/probe", "securityContext"):
                assert container.get(part) == here.get(part), f"{name}: {part}"
