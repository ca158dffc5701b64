"""`get` shows what calicoctl shows, of every recorded state, from both stores, in a terminal and in Slack."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bot import cli
from bot.errors import WRONG_USAGE, UserError
from bot.resources import core, table, yaml
from bot.resources.names import SHORT, kind_of, plural_of
from bot.told import Context
from fixes.resources.form import shown
from fixes.resources.kinds import KINDS
from lab.slack import LocalSlack
from tests import recorded_calicoctl as calicoctl
from tests.deployed import BOT
from tests.fix_cluster import fix_cluster
from tests.recorded import Object, World, served
from tests.recorded_calicoctl import Printed
from tests.recordings import Files, load
from tests.test_bot_slack import ROOM, Room, _all_text
from tests.test_capture_slack import files

HEALTHY = "v3.32.1/healthy"

STORED = {"ipamconfigurations": "ipamconfigs"}  # whose file has the name that calicoctl has for it
OF_CORE: dict[str, Callable[[Files], list[Object]]] = {
    "nodes": lambda files: [core.node(one) for one in files["k8s/nodes.json"]["items"]],
    "workloadendpoints": lambda files: list(filter(None, map(core.endpoint, files["k8s/pods.json"]["items"]))),
    "profiles": lambda files: core.profiles(
        files["k8s/namespaces.json"]["items"], files["k8s/serviceaccounts.json"]["items"]
    ),
}


def made(state: str, word: str) -> tuple[str, list[Object]]:
    """The plural, and what we make of what was stored then."""
    plural = STORED.get(word, word)
    files = load(state)
    if plural in OF_CORE:
        return plural, OF_CORE[plural](files)
    return plural, [shown(one, plural) for one in files[f"cr/{plural}.json"]["items"]]


def printed(ending: str) -> list[tuple[str, str, Printed]]:
    """Of every recorded `get` that calicoctl answered: the kind's word, the state, and what it printed."""
    found = []
    for path in sorted(calicoctl.files()):
        state, _, file = path.partition("/calicoctl/get-")
        if not file.endswith(ending) or (ending == ".txt" and file.endswith("-wide.txt")):
            continue
        run = calicoctl.printed(path) if ending.endswith(".txt") else Printed("", calicoctl.files()[path], "", 0)
        if run.status == 0 and run.text and not run.text.startswith("$"):
            found.append((file.removesuffix(ending), state, run))
    return found


# ---- the very text


@pytest.mark.parametrize("ending", [".txt", "-wide.txt"])
def test_every_table_is_the_one_that_calicoctl_printed(ending: str) -> None:
    runs = printed(ending)
    assert len(runs) > 140
    for word, state, run in runs:
        plural, found = made(state, word)
        told = [{**one, "asNumber": "64512"} for one in found] if plural == "nodes" else found
        rows = table.rows(plural, told, wide=ending != ".txt", namespace="-A" in run.command)
        assert table.render(rows).rstrip("\n") == run.text.rstrip("\n"), f"{state}: {run.command}"


def without_what_is_empty(value: Any) -> Any:
    """v3.31 prints `source: {}` and `creationTimestamp: null`, and later ones leave them out."""
    if isinstance(value, dict):
        return {key: each for key, one in value.items() if (each := without_what_is_empty(one)) not in ({}, None)}
    return [without_what_is_empty(one) for one in value] if isinstance(value, list) else value


def test_every_resource_is_the_one_that_calicoctl_printed() -> None:
    runs = printed("-json.json")
    assert len(runs) > 140
    for word, state, run in runs:
        _, found = made(state, word)
        wanted = json.loads(run.text)["items"]
        if word == "felixconfigurations":  # kubectl leaves out who manages what, and with that our recordings do
            wanted = [{**one, "metadata": {**one["metadata"], "managedFields": None}} for one in wanted]
            found = [{**one, "metadata": {**one["metadata"], "managedFields": None}} for one in found]
        elif state.startswith("v3.31"):
            wanted, found = without_what_is_empty(wanted), without_what_is_empty(found)
        assert found == wanted, f"{state}: {word}"


def test_labels_and_names_are_read_where_calico_keeps_them() -> None:
    """Recorded policies, network sets and host endpoints: their labels stand in an annotation."""
    files = load("v3.32.1/loose")
    of = {path.rsplit("/", 1)[1].split(".")[0]: [] for path in files if "policy-zoo/" in path and ".crd." in path}
    for path, content in files.items():
        plural = path.rsplit("/", 1)[1].split(".")[0]
        if "policy-zoo/" in path and plural in of:
            of[plural] += [shown(one, plural) for one in content["items"]]
    assert {one["metadata"]["labels"].get("bad") for one in of["globalnetworksets"]} == {"true"}
    assert {one["metadata"]["labels"].get("badlocal") for one in of["networksets"]} == {"true"}
    assert {one["metadata"]["labels"].get("host") for one in of["hostendpoints"]} == {"true"}
    assert {one["spec"]["tier"] for one in of["globalnetworkpolicies"]} >= {"platform", "default"}
    assert all("projectcalico.org/metadata" not in (one["metadata"].get("annotations") or {})
               for found in of.values() for one in found)  # fmt: skip


def test_names_of_policies_of_older_versions_are_shown_as_those_show_them() -> None:
    def policy(name: str, **annotations: str) -> Object:
        return {"apiVersion": "crd.projectcalico.org/v1", "kind": "GlobalNetworkPolicy",
                "metadata": {"name": name, "annotations": annotations}, "spec": {}}  # fmt: skip

    said = {"projectcalico.org/metadata": '{"name":"a"}'}
    for stored, version, name, tier in (
        (policy("default.a"), "v3.26.5", "a", "default"),
        (policy("default.a", **said), "v3.31.7", "a", "default"),
        (policy("default.a"), "v3.32.1", "default.a", "default"),
        (policy("platform.a"), "v3.29.7", "platform.a", "platform"),
        (policy("knp.default.a"), "v3.26.5", "knp.default.a", "default"),
    ):
        found = shown(stored, "globalnetworkpolicies", version)
        assert (found["metadata"]["name"], found["spec"]["tier"]) == (name, tier)


# ---- what is meant by a word


def test_every_kind_has_all_the_names_that_calicoctl_has_for_it() -> None:
    for words in ("ippool IPP pools", "bgpconfig BGPConfigurations", "bgpp bp", "felixConfig FELIXCONFIGURATION",
                  "gnp GlobalNetworkPolicy", "policy np pol networkpolicies", "hep heps", "wep WorkloadEndpoints",
                  "node no nodes", "profile pros", "clusterinfo", "netsets networkset", "gnetsets", "sgnp sgnps", "snp",
                  "spol stagedpolicies", "skpol sknp", "tier tiers", "reservation", "ipamconfig IPAMConfiguration",
                  "nodestatus caliconodestatus", "bgpf bf bgpfilters", "kubecontrollersconfig"):  # fmt: skip
        assert len({plural_of(word) for word in words.split()}) == 1
    assert {kind_of(plural) for plural in SHORT} >= {kind.shown for kind in KINDS.values() if not kind.core}
    assert plural_of("ippools.crd.projectcalico.org") == "ippools"


@pytest.mark.parametrize(("word", "near"), [("ippol", "ippool"), ("gpn", "gnp"), ("felixconfiguratoin", "felix")])
def test_a_kind_that_does_not_exist_is_answered_with_the_nearest(word: str, near: str) -> None:
    with pytest.raises(UserError, match=f"did you mean {near}"):
        plural_of(word)


# ---- through the API server, as a user writes it


def recorded_world() -> list[Object]:
    files = load(HEALTHY)
    found = [one for path, content in files.items() if path.startswith("cr/") for one in content["items"]]
    for name in ("nodes", "pods", "namespaces"):
        found += files[f"k8s/{name}.json"]["items"]
    zoo = load("v3.32.1/loose")
    for path in ("07-tier-pass/objects/globalnetworkpolicies", "06-calico-np-order/objects/networkpolicies"):
        found += zoo[f"policy-zoo/{path}.crd.projectcalico.org.json"]["items"]
    return sorted(found, key=lambda one: one["kind"] != "Namespace")


async def said(world: World, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    kubeconfig = world.settings().kubeconfig
    status = await asyncio.to_thread(cli.main, ["get", *words, "--kubeconfig", kubeconfig])
    told = capsys.readouterr()
    return status, told.out, told.err


@pytest.mark.parametrize("group", ["crd.projectcalico.org", "projectcalico.org"])
async def test_a_terminal_shows_what_is_asked_for(
    group: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served(recorded_world(), tmp_path, group=group) as world:
        status, out, _ = await said(world, capsys, "IPP", "-o", "wide")
        wanted = calicoctl.runs("get-ippools-wide.txt")[HEALTHY].text
        assert (status, out.rstrip("\n")) == (0, wanted.rstrip("\n"))
        _, out, _ = await said(world, capsys, "ippool", "default-ipv4-ippool", "-o", "json")
        assert json.loads(out)["spec"]["cidr"] == "10.244.0.0/16" and json.loads(out)["kind"] == "IPPool"
        _, out, _ = await said(world, capsys, "ippools", "-o", "yaml")
        (listed,) = yaml.documents(out)
        assert listed["kind"] == "IPPoolList" and listed["items"][0]["apiVersion"] == "projectcalico.org/v3"
        assert out.splitlines()[0] == "apiVersion: projectcalico.org/v3"
        _, out, _ = await said(world, capsys, "np", "-A")
        assert out.splitlines()[0].split() == ["NAMESPACE", "NAME", "TIER"] and "allow-rest" in out
        _, out, _ = await said(world, capsys, "np")
        assert out.splitlines()[0].split() == ["NAME", "TIER"] and "allow-rest" in out
        _, out, _ = await said(world, capsys, "gnp", "platform.pass-shop", "-o", "yaml")
        assert "  name: platform.pass-shop\n" in out and "  tier: platform\n" in out
        _, out, _ = await said(world, capsys, "wep", "-n", "shop", "-o", "json")
        assert {one["spec"]["node"] for one in json.loads(out)["items"]} == {"node-a", "node-b", "node-c"}
        _, out, _ = await said(world, capsys, "node", "node-a", "-o", "wide")
        assert out.splitlines()[1].split() == ["node-a", "(64512)", "172.30.0.11/24"]
        _, out, _ = await said(world, capsys, "ipamconfig", "-o", "json")
        assert json.loads(out)["items"][0]["kind"] == "IPAMConfiguration"
        _, out, _ = await said(world, capsys, "blocks", "-o", "wide")
        assert "node-a" in out and "/64" in out


async def test_what_is_not_there_is_answered_with_the_nearest_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served(recorded_world(), tmp_path) as world:
        for words, hint in (
            (
                ["ippool", "default-ipv4-ipool"],
                "There is no IPPool default-ipv4-ipool; did you mean default-ipv4-ippool?",
            ),
            (["ippol"], "did you mean ippool?"),
            (["gnp", "pass-shop"], "did you mean platform.pass-shop?"),
            (["hep", "x"], "there is no HostEndpoint at all"),
            (["np", "x", "-A"], "write -n NAMESPACE"),
            (["ippools", "--wide"], "I do not know '--wide'"),
            (["ippools", "-o", "yml"], "did you mean yaml?"),
        ):
            status, _, err = await said(world, capsys, *words)
            assert status == WRONG_USAGE and hint in err, err


async def test_slack_shows_the_same(tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    async with LocalSlack() as slack, fix_cluster(tmp_path) as fixes, fixes.store(BOT) as store:
        room = Room("http", slack, fixes, store, tmp_path / "state")
        async with served(recorded_world(), tmp_path / "world") as world, world.cluster() as cluster:

            def context(whoami: Any, progress: Any, written: str) -> Context:
                return Context(cluster=cluster, probes=Any, store=store, settings=Any, whoami=whoami,
                               investigate=Any, progress=progress, written=written)  # type: ignore[arg-type]  # fmt: skip

            room.context = context
            async with room.bot():
                await room.ask("/calico get ippools -o wide")
                message = await room.answered("IPPool: 1")
                wanted = calicoctl.runs("get-ippools-wide.txt")[HEALTHY].text.splitlines()
                text = _all_text(message)
                assert all(line.rstrip() in text for line in wanted if line)
                await room.ask("/calico get wep -A -o json")
                await room.answered("WorkloadEndpoint: 9")
                told = slack.messages(ROOM)[-1]["ts"]
                await slack.wait_for(lambda: files(slack, told))
                [(name, content)] = files(slack, told)
                assert name == "answer.json" and len(json.loads(content)["items"]) == 9


def test_yaml_is_read_as_kubernetes_reads_it() -> None:
    (found,) = yaml.documents("a: 1:30\nb: 2026-11-22T00:00:00Z\nc: yes\nd: 8080:8090\ne: ~\nf:\ng: 0x1f\nh: 1e3\n")
    assert found == {"a": "1:30", "b": "2026-11-22T00:00:00Z", "c": True, "d": "8080:8090", "e": None, "f": None,
                     "g": 31, "h": 1000.0}  # fmt: skip
    assert yaml.documents("---\n---\na: 1\n---\nb: 2\n...\n") == [{"a": 1}, {"b": 2}]
    assert yaml.documents('{"a": [1, "x"]}') == [{"a": [1, "x"]}]
    for wrong, why in (
        ("a: 1\na: 2\n", "line 2, column 1: a is written twice"),
        ("a: b: c\n", "line 1, column 5"),
        ("a: [1\n", "line 2"),
        ("a: !!python/name:os.system x\n", "line 1"),
        ("- &a [1]\n- *a\n", "line 2, column 3: aliases are not taken"),
    ):
        with pytest.raises(UserError, match=why):
            yaml.documents(wrong)
    assert yaml.write({"b": "x\ny\n", "a": ["1", 1]}) == "a:\n- '1'\n- 1\nb: |\n  x\n  y\n"
