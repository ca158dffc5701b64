"""Whoever installs, upgrades or mends by the pages types their commands one after the other: each page is followed here
from its top to its end, on a cluster of its own. A name that is no longer there would be found out on somebody's."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import yaml

from bot import cli
from fixes import limits
from tests import manifests
from tests.doc_commands import ROOT, Written, first, typed, written
from tests.workloads import Cluster, cluster

KUBECTL = [one for one in written() if first(one.text) == "kubectl"]
HELM = [one for one in written() if first(one.text) == "helm"]
# Where nothing of calico-why is there before; every other page is about a cluster it runs on.
BARE = ("README.md", "docs/install.md")
BY_HAND = ("fixes/admission.yaml",)  # it tells what to make where no overlay brings it
OLDER = ("docs/upgrade.md",)  # what is to be upgraded
OLD = "calico-why:0.0."
VALUES = (
    *("-n", "--namespace", "-f", "--filename", "-k", "--kustomize", "-o", "--output", "-l", "--selector"),
    *("-c", "--container", "-p", "--patch", "--type"),
)
# Kinds of which there may be none on a cluster where all is well.
MAYBE_NONE = ("events", "certificatesigningrequests")


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A cluster, and the directory of somebody who has this repository and the files that the pages speak of."""
    manifests.text("socket-mode")  # skips without kubectl
    for part in ("deploy", "fixes"):
        (tmp_path / part).symlink_to(ROOT / part)
    (tmp_path / "slack.env").write_text("SLACK_BOT_TOKEN=xoxb-1\nSLACK_APP_TOKEN=xapp-1\n")
    assert cli.main(["certs", "--directory", str(tmp_path / "certs"), "--nodes", "node-a,node-b"]) == 0
    async with cluster(tmp_path) as found:
        block = {"node": "node-a", "cidr": "10.244.174.128/26", "state": "confirmed"}
        affinity = {"apiVersion": "crd.projectcalico.org/v1", "kind": "BlockAffinity", "spec": block}
        found.store.create({**affinity, "metadata": {"name": "node-a-10-244-174-128-26"}})
        yield found


def installing() -> list[str]:
    """The commands of install.md that bring it onto a cluster."""
    found = [one.text for one in KUBECTL if one.file == "docs/install.md" and one.block]
    return [text for text in found if re.search(r" (apply|create secret) ", text)]


async def install(bare: Cluster, page: str) -> None:
    """What was done before somebody reads this page."""
    if page in BY_HAND:
        assert (await bare.run("kubectl", "create", "namespace", "calico-why")).status == 0
        assert (await bare.run("kubectl", "apply", "-k", "fixes/")).status == 0
    elif page not in BARE:
        assert len(installing()) == 2
        for text in installing():
            (argv,) = typed(text)
            done = await bare.run(*argv)
            assert done.status == 0, done.said
    if page in OLDER:
        older = manifests.text("socket-mode").replace("image: calico-why:", f"image: {OLD}")
        done = await bare.run("kubectl", "apply", "--filename", "-", text=older)
        assert done.status == 0, done.said


def named_only(argv: Sequence[str]) -> bool:
    """`kubectl apply`, `kubectl --namespace NAME logs`, `kubectl apply -k`: a word is spoken of, nothing is done."""
    return argv[-1] in VALUES or argv[-1] == plain(argv)[0]


def plain(argv: Sequence[str]) -> list[str]:
    """The words that are no flags and no values of flags, after kubectl: what is done, then to what."""
    before = argv[1 : argv.index("--")] if "--" in argv else argv[1:]
    pairs = itertools.pairwise(["", *before])
    return [word for flag, word in pairs if not word.startswith("-") and flag not in VALUES]


async def understood(bare: Cluster, argv: Sequence[str]) -> str:
    """What is wrong with one that is only named, "" where kubectl knows its words and flags."""
    done = await bare.run(*argv, *(["."] if argv[-1] in VALUES else []), "--help")
    return "" if done.status == 0 and "Usage:" in done.said else done.said


async def works(bare: Cluster, argv: list[str], page: str) -> str:
    """What is wrong with one that is typed as it stands, "" where it did what the page wants of it."""
    verb, *what = plain(argv)
    if wrong := [word for word in bound(argv) if not bare.has(word)]:
        return f"there is no {wrong}"
    if verb == "create" and what[0] in ("role", "rolebinding", "clusterrolebinding"):
        # kubectl would send these as protobuf, which the API server here reads of few kinds.
        made = await bare.run(*argv, "--dry-run=client", "--output=json")
        if made.status:
            return made.said
        done = await bare.run("kubectl", "create", "--filename", "-", text=made.said[made.said.index("{") :])
        return done.said if done.status else unknown_verb(argv)
    if argv[1:3] == ["create", "namespace"] and bare.has(f"namespace/{argv[3]}"):
        # Another way to have it, beside the one before it in the page.
        assert (await bare.run("kubectl", "delete", "namespace", argv[3])).status == 0
    ran = len(bare.executed)
    done = await bare.run(*argv)
    expected = 1 if verb == "diff" and page in OLDER else 0
    if done.status != expected:
        return f"exit status {done.status}: {done.said}"
    if verb == "get" and what[0] not in MAYBE_NONE and "No resources found" in done.said:
        return done.said
    if verb == "exec" and bare.executed[ran:] != [(bare.executed[-1][0], argv[argv.index("--") + 1 :])]:
        return f"was run: {bare.executed[ran:]}"
    if verb == "exec" and not bare.executed[-1][0].endswith("/bot"):
        return f"in {bare.executed[-1][0]}, which is not where it is to be run"
    if what[1:] == [limits.NAME] and verb == "patch":
        return not_understood(bare, argv)
    return ""


def bound(argv: Sequence[str]) -> list[str]:
    """What flags name: a role that is bound."""
    return [word[2:].replace("=", "/", 1) for word in argv if re.match(r"--(role|clusterrole)=", word)]


def unknown_verb(argv: Sequence[str]) -> str:
    """Verbs that are no verbs of Kubernetes' own are asked for by an admission policy."""
    asked = re.findall(r"check\('([\w-]+)'\)", (ROOT / "fixes/admission.yaml").read_text())
    wrong = [word for word in argv if word.startswith("--verb=") and word.removeprefix("--verb=") not in asked]
    return f"nobody asks for {wrong}" if wrong else ""


def not_understood(bare: Cluster, argv: Sequence[str]) -> str:
    """The limits that are set are those that are counted."""
    told: dict[str, str] = json.loads(argv[argv.index("--patch") + 1])["data"]
    data = bare.store.get("configmaps", limits.NAME, "calico-why")["data"]
    assert told.items() <= data.items()
    known = limits.limits(data) != limits.limits({key: value for key, value in data.items() if key not in told})
    return "" if known else f"nothing reads {list(told)}"


PAGES = list(dict.fromkeys(one.file for one in KUBECTL))


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_that_is_followed_to_its_end_does_what_it_says(page: str, bare: Cluster) -> None:
    found = [(one, argv) for one in KUBECTL if one.file == page for argv in typed(one.text)]
    if not all(named_only(argv) for _, argv in found):
        await install(bare, page)
    wrong = list[str]()
    for one, argv in found:
        if told := await (understood(bare, argv) if named_only(argv) else works(bare, argv, page)):
            wrong.append(f"{one}\n{told}")
    assert wrong == []


MISTAKES = {
    "kubectl --namespace calico-why logs deployment/calico-why-bots": "not found",
    "kubectl --namespace calico-why logs daemonset/calico-why-node --container probes": "probes",
    "kubectl --namespace calico-why rollout status deployment/calico-why-bot --watching": "unknown flag",
    "kubectl --namespace calico-why exec deployment/calico-why-signer -- calico-why preflight": "not where",
    "kubectl get pods --all-namespaces --selector k8s-app=calico-nodes": "No resources found",
    "kubectl apply --kustomize deploy/overlays/sockets": "exit status 1",
    "kubectl -n calico-why create rolebinding x --role=calico-why-asked --group=oncall": "there is no",
    "kubectl -n calico-why create role x --verb=relays --resource=fixrequests.calico-why.io": "nobody asks",
    "kubectl -n calico-why create role x --verb=relay --resource=fixrequests.calico-whys.io": "resource type",
    "kubectl --namespace calico-why patch configmap calico-why-fixes --type merge"
    """ --patch '{"data": {"perNodesPerHour": "5"}}'""": "nothing reads",
}


async def test_a_mistake_in_a_page_is_noticed(bare: Cluster) -> None:
    await install(bare, "docs/operate.md")
    for text, told in MISTAKES.items():
        (argv,) = typed(text)
        assert told in await works(bare, argv, "docs/operate.md"), text


async def test_the_bots_pods_wait_for_slacks_secret(bare: Cluster) -> None:
    """install.md says that they do; so the order of its commands matters to nobody."""
    apply, secret = installing()
    for text, ready in ((apply, 0), (secret, 2)):
        (argv,) = typed(text)
        assert (await bare.run(*argv)).status == 0
        bot = bare.store.get("deployments", "calico-why-bot", "calico-why")
        assert bot["status"]["readyReplicas"] == ready


def new(bare: Cluster) -> set[str]:
    """The workloads of which a pod is of the newer version."""
    pods = bare.store.list("pods", "calico-why")
    images = [(pod["metadata"]["ownerReferences"][0]["name"], pod["spec"]["containers"][0]["image"]) for pod in pods]
    return {name for name, image in images if not image.startswith(OLD)}


async def test_upgrading_in_steps_brings_the_bot_last(bare: Cluster) -> None:
    await install(bare, "docs/upgrade.md")
    text = (ROOT / "docs/upgrade.md").read_text().partition("## In steps\n")[2].partition("\n## ")[0]
    came = list[str]()
    for line in re.findall(r"^    (kubectl .*)$", text, re.MULTILINE):
        (argv,) = typed(line)
        done = await bare.run(*argv)
        assert done.status == 0, done.said
        came += sorted(new(bare) - set(came))
    assert came == ["calico-why-node", "calico-why-signer", "calico-why-cluster-fixer", "calico-why-bot"]


@pytest.mark.parametrize("one", HELM, ids=str)
async def test_helm_installs_the_chart_and_leaves_what_has_the_trail(one: Written, bare: Cluster) -> None:
    if shutil.which("helm") is None:
        pytest.skip("no helm on this machine: it alone says what a chart becomes")
    done = await bare.run(sys.executable, str(ROOT / "deploy/chart.py"), "build/chart")
    assert done.status == 0, done.said
    (argv,) = typed(one.text)
    done = await bare.run(*argv)
    assert done.status == 0, done.said
    missing = [
        f"{it['kind']}/{it['metadata']['name']}"
        for it in yaml.safe_load_all(manifests.text("http"))
        if not bare.has(f"{it['kind']}/{it['metadata']['name']}")
    ]
    assert [name for name in missing if "settings" not in name] == []
    done = await bare.run("helm", "uninstall", argv[2])
    assert done.status == 0, done.said
    assert bare.has("namespace/calico-why") and bare.has("customresourcedefinition/auditrecords.calico-why.io")
    assert not bare.has("deployment/calico-why-bot")
