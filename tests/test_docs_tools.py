"""What the pages have people type into other programs than ours is done or read by these programs themselves; without
it a page would go on about a word that its program never had."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from bot import cli
from fixes import configuration
from lab.client import Lab
from tests import manifests
from tests.doc_commands import NODE_TOOLS, OF_IPTABLES_NODES, ROOT, TOOLS, Written, commands, first, typed
from tests.namespaces import in_namespaces


class Grammar(NamedTuple):
    """What a program takes after these words: flags that are alone, flags that a value follows, and how many arguments
    at most."""

    alone: frozenset[str] = frozenset()
    valued: frozenset[str] = frozenset()
    arguments: int = 0


# Of programs that few machines have; where one is here, its own --help is asked whether this is so.
GRAMMARS = {
    # `kind load docker-image --help`, kind 0.29
    "kind load docker-image": Grammar(frozenset({"--quiet"}), frozenset({"--name", "--nodes", "--verbosity"}), 99),
    # `kustomize edit set image --help`, kustomize 5.5
    "kustomize edit set image": Grammar(frozenset({"--stack-trace"}), arguments=99),
    # Docker's reference of its command line, buildx 0.24
    "docker buildx build": Grammar(
        frozenset({"--push", "--load", "--no-cache"}),
        frozenset({"--file", "--tag", "--build-arg", "--platform", "--output"}),
        1,
    ),
    "docker buildx imagetools inspect": Grammar(frozenset({"--raw"}), frozenset({"--builder", "--format"}), 1),
    # Calico's reference of calicoctl, 3.32
    "calicoctl datastore migrate unlock": Grammar(),
    "calicoctl ipam check": Grammar(frozenset({"--show-all-ips", "--show-problem-ips"}), frozenset({"-o", "--output"})),
    "calicoctl ipam release": Grammar(frozenset({"--force"}), frozenset({"--ip", "--from-report"})),
    "calicoctl node diags": Grammar(valued=frozenset({"--log-dir"})),
    "calicoctl node status": Grammar(),
}


def run(argv: Sequence[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, **kwargs)


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on this machine")


def grammar(argv: Sequence[str]) -> None:
    """Fails where nothing is known of the program's words, or it takes other flags or fewer arguments. A flag that ends
    the line is only named."""
    found = [name for name in GRAMMARS if list(argv[: len(name.split())]) == name.split()]
    assert found, f"nothing is known of {shlex.join(argv)}"
    (name,) = found
    known, rest, plain = GRAMMARS[name], iter(argv[len(name.split()) :]), 0
    for word in rest:
        flag, assigned, _ = word.partition("=")
        if not word.startswith("-"):
            plain += 1
        elif flag in known.valued:
            if not assigned:
                next(rest, "")
        else:
            assert word in known.alone, f"{name} has no {word}"
    assert plain <= known.arguments, f"{name} takes fewer arguments"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind load docker-images calico-why:dev", "nothing is known"),
        ("calicoctl ipam check --show-problems", "has no --show-problems"),
        ("calicoctl node status node-a", "takes fewer"),
    ],
)
def test_a_word_that_a_program_never_had_is_noticed(text: str, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        grammar(text.split())


@pytest.mark.parametrize("name", GRAMMARS)
def test_what_is_known_of_a_program_is_what_it_says_itself(name: str) -> None:
    program, *rest = name.split()
    needs(program)
    done = run([program, *rest, "--help"])
    if name not in done.stdout:
        pytest.skip(f"the {program} of this machine has no {rest[0]}")
    flags = GRAMMARS[name].alone | GRAMMARS[name].valued
    assert {flag for flag in flags if not re.search(rf"(?<![\w-]){flag}\b", done.stdout)} == set()


# ---- by program


def apt(one: Written) -> None:
    """Debian has these packages, and they are what .ci/venv asks for where they are missing."""
    asked = set(re.findall(r"[\w-]+", " ".join(re.findall(r"apt install ([\w -]+)", (ROOT / ".ci/venv").read_text()))))
    assert asked - {"python3"} <= set(one.text.split()), "README names all"
    needs("apt-get")
    done = run(["apt-get", *one.text.split()[1:], "--simulate"])
    if "Unable to locate package" in done.stderr and not any(Path("/var/lib/apt/lists").glob("*_Packages*")):
        pytest.skip("apt has no lists of packages on this machine")
    assert done.returncode == 0, done.stderr


def calicoctl(one: Written) -> None:
    for argv in typed(one.text):
        grammar(argv)


def docker(one: Written) -> None:
    for argv in typed(one.text):
        dockerfile = (ROOT / "deploy/Dockerfile").read_text()
        if argv[1] == "buildx":
            grammar(argv)
            asked = argv[4] if argv[2] == "imagetools" else ""
            assert not asked or f"ARG PYTHON_IMAGE={asked}\n" in dockerfile, "the base of the image"
            continue
        assert argv[1] == "build"
        parser = argparse.ArgumentParser(exit_on_error=False)
        for flag in ("--file", "--tag"):
            parser.add_argument(flag)
        parser.add_argument("--build-arg", action="append", default=[])
        parser.add_argument("context")
        args = parser.parse_args(argv[2:])
        assert args.file == "deploy/Dockerfile"
        for argument in args.build_arg:
            assert re.search(rf"^ARG {argument.partition('=')[0]}\b", dockerfile, re.MULTILINE), argument
        for source in re.findall(r"^COPY (?!--)([^\n]*) \S+$", dockerfile, re.MULTILINE):
            assert all((ROOT / args.context / path).exists() for path in source.split()), source
        assert args.tag in manifests.text("socket-mode"), "the image that the manifests start"
        here = [program for program in ("docker", "podman", "buildah") if shutil.which(program)]
        if not here:
            pytest.skip("none of docker, podman and buildah on this machine")
        for program in here:  # install.md says that all of them take these words
            told = run([program, "build", "--help"]).stdout
            missing = {word for word in argv if word.startswith("--") and not re.search(rf" {word}\b", told)}
            assert missing == set(), f"{program} build has no {missing}"


def export(one: Written) -> None:
    """The next line finds what it needs: PATH has our words, another variable is one of our settings."""
    if "PATH=" in one.text and not (ROOT / ".venv/bin/calico-why").exists():
        pytest.skip("no .venv here: these tests run from elsewhere")
    name = re.findall(r"export ([A-Z_]+)=", one.text)[0]
    done = run(["sh", "-c", f"{one.text}\ncommand -v calico-why; printenv {name}"], cwd=ROOT)
    if name == "PATH":
        assert done.stdout.splitlines()[0] == str(ROOT / ".venv/bin/calico-why")
    else:
        assert name in [key.variable for key in configuration.KEYS] and done.returncode == 0, name


def kill(one: Written) -> None:
    victim = subprocess.Popen(["sleep", "60"])
    assert run(["sh", "-c", f"{one.text} {victim.pid}"]).returncode == 0
    assert victim.wait() == -9


def kind(one: Written) -> None:
    (argv,) = typed(one.text)
    grammar(argv)
    assert f"image: {argv[3]}\n" in manifests.text(Path(one.file).parent.name), "an image that this overlay starts"


def kustomize(one: Written) -> None:
    """Typed in the directory of the overlay whose file has it."""
    (argv,) = typed(one.text)
    grammar(argv)
    name, _, new = argv[4].partition("=")
    overlay = Path(one.file).parent
    images = yaml.safe_load((ROOT / one.file).read_text())["images"]
    assert name in [image["name"] for image in images]
    assert re.fullmatch(r"[\w.-]+(/[\w.-]+)+@sha256:\S+", new)
    needs("kustomize")
    with tempfile.TemporaryDirectory() as directory:
        for part in ("deploy", "fixes"):
            shutil.copytree(ROOT / part, Path(directory, part))
        done = run(argv, cwd=Path(directory, overlay))
        assert done.returncode == 0, done.stderr
        assert f"image: {new}\n" in manifests.rendered(Path(directory, overlay))


RECIPE = re.compile(r"\.venv/bin/python (-m )?(\S+) ?(.*)$", re.MULTILINE)


def make(one: Written) -> None:
    """Make reads it, hands each variable on, and what it would run knows its flags."""
    for argv in typed(one.text):
        # What the make that runs these tests was given is handed on to every make below it.
        given = {"MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", *(word.partition("=")[0] for word in argv[2:])}
        environment = {name: value for name, value in os.environ.items() if name not in given}
        done = run(["make", "--dry-run", *argv[1:]], cwd=ROOT, env=environment)
        assert done.returncode == 0, done.stderr
        for variable in argv[2:]:
            rest = [word for word in argv[1:] if word != variable]
            without = run(["make", "--dry-run", *rest], cwd=ROOT, env=environment)
            assert without.stdout != done.stdout, f"{argv[1]} does not read {variable}"
        for module, name, rest in RECIPE.findall(done.stdout):
            if not module:
                assert (ROOT / name).exists()
                continue
            assert importlib.util.find_spec(name), name
            flags = {word for word in rest.split() if re.match(r"--?[a-z]", word)}
            assert not flags or name in ("pytest", cli.__name__) or flags <= flags_of(name), rest


@functools.cache
def flags_of(module: str) -> set[str]:
    done = run([sys.executable, "-m", module, "--help"], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", done.stdout))


def python(one: Written) -> None:
    """A module that runs, with as many words as it reads."""
    for argv in typed(one.text):
        assert argv[1] == "-m"
        spec = importlib.util.find_spec(argv[2])
        assert spec and spec.origin, argv[2]
        source = Path(spec.origin).read_text()
        assert '__name__ == "__main__"' in source
        read = {int(number) for number in re.findall(r"sys\.argv\[(\d)\]", source)}
        assert len(argv) - 3 <= max(read, default=0) and (not read or len(argv) > 3), argv


CHECKS: dict[str, Callable[[Written], None]] = {
    one.__name__: one for one in (apt, calicoctl, docker, export, kill, kind, kustomize, make, python)
}


def test_each_program_that_is_known_is_looked_at() -> None:
    assert CHECKS.keys() == set(TOOLS)
    assert {name for name in CHECKS if not commands(name)} == set(), "no page has it any more"
    told = [one.text for one in commands(*TOOLS)]
    assert {name for name in GRAMMARS if not any(text.startswith(name) for text in told)} == set()


@pytest.mark.parametrize("one", commands(*TOOLS), ids=str)
def test_it_can_be_typed(one: Written) -> None:
    CHECKS[first(one.text)](one)


# ---- on a node


class Alone(NamedTuple):
    """How one is tried in a network of its own. before: what made it so; rest: what the reader types after it."""

    before: tuple[str, ...] = ()
    rest: str = ""


# What a lab's node does not answer, or what would take its rules from it.
ALONE = {
    "bridge -j": Alone(rest="link"),
    "bpftool net": Alone(),
    "ip -6 route get": Alone(("ip link set lo up",), "::1"),
    "ip -d -j": Alone(rest="link"),
    "ip link set INTERFACE mtu N": Alone(),
    "iptables -F": Alone(),
    "iptables-save -t mangle": Alone(),
    "nft flush ruleset": Alone(),
    "tc filter del": Alone(
        ("tc qdisc add dev lo clsact", "tc filter add dev lo ingress protocol ip u32 match u32 0 0 flowid 1:1"),
        "dev lo ingress",
    ),
    "tcpdump -ni INTERFACE arp or icmp6": Alone(("ip link set lo up",), "-d"),  # read, and not waited for packets
    "tc qdisc del": Alone(("tc qdisc add dev lo clsact",), "dev lo clsact"),
    "wg show DEVICE": Alone(),
}
ON_NODES = [one for one in commands(*NODE_TOOLS) if first(one.text) not in OF_IPTABLES_NODES]
# The beginning of one that is typed whole.
NAMED = [one.text for one in ON_NODES if any(other.text.startswith(f"{one.text} ") for other in ON_NODES)]
REFUSED = {
    # A user namespace's root may not ask for programs of the kernel; that it was understood is seen.
    "bpftool net": "can't query prog: Operation not permitted",
    # Of a device that is no WireGuard's, and few kernels of labs have one.
    "wg show DEVICE": "Unable to access interface",
}


@pytest.mark.parametrize("text", ALONE)
@in_namespaces
def test_what_is_typed_on_a_node_is_answered_in_a_network_of_its_own(text: str) -> None:
    assert text in [one.text for one in ON_NODES], "no page has it any more"
    needs(first(text))
    for words in ALONE[text].before:
        done = run(words.split())
        assert done.returncode == 0, f"{words}: {done.stderr}"
    (argv,) = typed(f"{text} {ALONE[text].rest}", {"DEVICE": "lo", "INTERFACE": "lo", "N": "1400"})
    done = run(argv)
    assert done.returncode == 0 or (text in REFUSED and REFUSED[text] in done.stderr), done.stderr


@pytest.mark.parametrize("one", [one for one in ON_NODES if one.text not in (*ALONE, *NAMED)], ids=lambda one: one.text)
def test_what_is_typed_on_a_node_is_answered_there(one: Written, shared_lab: Lab) -> None:
    """By the node's own tools, in a node of the lab."""
    needs(first(one.text))
    shared_lab.heal()
    peer = json.loads(shared_lab.exec("node-a", "ip", "-j", "neigh", "show", "dev", "vxlan.calico").stdout)[0]
    there = {
        "ADDRESS": peer["dst"],
        "MAC": peer["lladdr"],
        "NAME": "net.ipv4.ip_forward",
        "SOURCE": "10.244.174.129",
        "N": "254",
    }
    for argv in typed(one.text, there):
        done = shared_lab.exec("node-a", *argv)
        assert done.returncode == 0, f"{shlex.join(argv)}: {done.stderr}"
