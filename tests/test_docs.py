"""What the pages say of the deployment, the life of a fix and what proves a claim is so; without it they would say for
years what was true once, and of security above all."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from bot import cli
from bot.delivery import GIVE_UP_AFTER_S, PATH
from bot.line import PLACES, WATCHES
from bot.node import status
from bot.preflight import nodes
from bot.preflight.cluster import SKEW_S
from bot.work import DRAIN_S
from facts.capture import CAPTURE_BYTES, CAPTURE_PACKETS, CAPTURE_SECONDS
from fixes.approvers import parse
from fixes.limits import PER_KIND, PER_NODE
from fixes.request import GROUP, LIFETIME, TRANSITIONS
from fixes.store import CALL_TIMEOUT_S
from lab.client import Lab
from node_probe.command import DEFAULT_PORT
from node_probe.door import HANDSHAKE_S
from node_probe.server import AT_ONCE, CAPTURES_AT_ONCE
from tests import manifests
from tests.doc_commands import ROOT
from tests.runbook_words import terminal

DOCS = ROOT / "docs"
SVG = "{http://www.w3.org/2000/svg}"


def words_of_the_drawing() -> str:
    root = ElementTree.parse(DOCS / "architecture.svg").getroot()
    return "\n".join("".join(one.itertext()) for one in root.iter(f"{SVG}text"))


@pytest.mark.parametrize("where", ["architecture.svg", "architecture.md"])
def test_the_drawing_has_the_names_and_ports_of_the_manifests(where: str) -> None:
    said = words_of_the_drawing() if where.endswith("svg") else (DOCS / where).read_text()
    ports = {DEFAULT_PORT}
    for overlay in manifests.OVERLAYS:
        for container in manifests.containers(overlay).values():
            ports |= {str(port["containerPort"]) for port in container.get("ports") or ()}
    told = set(re.findall(r"\bport (\d+)", said)) | ({"443"} if "443" in said else set())
    assert told - {"443"} >= ports, "a port that is open is told"
    listening = ports | {"3000", "9798"}  # Slack's way in, and numbers; the bot's own defaults
    assert told - {"443"} <= listening
    for it in manifests.objects("socket-mode"):
        if it["kind"] in ("Deployment", "DaemonSet"):
            name = it["metadata"]["name"]
            assert name in said
            if it["kind"] == "Deployment":
                assert re.search(rf"{name}`?, {it['spec']['replicas']} replicas?\b", said)
        if it["kind"] == "Lease":
            assert it["metadata"]["name"] in said or where.endswith("md")


def test_the_drawing_tells_each_containers_capabilities_and_secrets() -> None:
    said = words_of_the_drawing()
    found = manifests.containers("socket-mode")
    probe, fixer = found["calico-why-node/probe"], found["calico-why-node/fixer"]
    assert " ".join(probe["securityContext"]["capabilities"]["add"]) in said.replace("\n", " ")
    assert fixer["securityContext"]["capabilities"]["add"] == ["NET_ADMIN"]
    assert "NET_ADMIN, /proc/sys/net of the node" in said
    state = [one for one in found["calico-why-bot/bot"]["env"] if one["name"] == "CALICO_WHY_STATE"]
    assert f"in {state[0]['value']}" in said
    for verb in ("relay", "execute", "execute-on-own-node", "approve"):
        assert re.search(rf"check\('{verb}'\)", (ROOT / "fixes/admission.yaml").read_text())
        assert re.search(rf"\b{verb}\b", said)


def test_the_life_of_a_fix_is_the_table_of_the_code() -> None:
    text = (DOCS / "architecture.md").read_text()
    told = {
        before: set(after.split(", ")) for before, after in re.findall(r"^    (\w+) +──▶ (.*)$", text, re.MULTILINE)
    }
    assert told == {str(before): {str(one) for one in after} for before, after in TRANSITIONS.items() if after}
    assert f"`{PATH}`" in text


# ---- security.md


SHOWN = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


@pytest.mark.parametrize("page", ["security.md", "upgrade.md"])
def test_what_shows_a_claim_is_there(page: str) -> None:
    text = (DOCS / page).read_text()
    shown = SHOWN.findall(text)
    for file, name in shown:
        defined = re.search(rf"^(?:async )?def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE)
        assert defined, f"{file}::{name}"
    assert len(shown) == len(re.findall(r"`test_[^`]*`", text)), "each is FILE::TEST"


def test_each_row_of_who_can_do_what_has_something_that_shows_it() -> None:
    rows = re.findall(r"^\| (?!who |---)(.*) \|$", (DOCS / "security.md").read_text(), re.MULTILINE)
    assert rows and all(SHOWN.search(row.rpartition(" | ")[2]) for row in rows)


def test_each_account_and_role_of_the_manifests_has_its_row() -> None:
    text = (DOCS / "security.md").read_text()
    roles = {
        it["metadata"]["name"]
        for it in manifests.objects("socket-mode")
        if it["kind"] in ("ClusterRole", "Role") and "fixer" not in it["metadata"]["name"]
    }
    of_the_bot = {"calico-why-bot", "calico-why-restarter"}  # told as "the bot" and "the cluster's fixer"
    assert {name for name in roles - of_the_bot if f"`{name}`" not in text} == set()


# ---- configuration.md


def test_what_configuration_md_has_people_patch_brings_the_other_cluster_where_its_example_says(tmp_path: Path) -> None:
    page = (DOCS / "configuration.md").read_text()
    example, patches = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    parts = {"resources": [os.path.relpath(manifests.DEPLOY / "overlays/socket-mode", tmp_path)], **patches}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(parts))
    found = yaml.safe_load_all(manifests.rendered(tmp_path))
    (bot,) = [it for it in found if (it["kind"], it["metadata"]["name"]) == ("Deployment", "calico-why-bot")]
    spec = bot["spec"]["template"]["spec"]
    (volume,) = [one for one in spec["volumes"] if one["name"] == "prod"]
    command = re.search(r"create secret generic (\S+) (--from-file=kubeconfig .*)", page)
    assert command and command[1] == volume["secret"]["secretName"]
    brought = {path.rpartition("/")[2] for path in re.findall(r"--from-file=(\S+)", command[2])}
    assert brought == {"kubeconfig", "ca.crt", "bot.crt", "bot.key"}
    (told,) = [one for one in example["clusters"] if one["name"] == "prod"]
    for container in (*spec["initContainers"], *spec["containers"]):
        (mount,) = [one for one in container["volumeMounts"] if one["name"] == "prod"]
        assert told["certs"] == mount["mountPath"] and told["kubeconfig"] == f"{mount['mountPath']}/kubeconfig"


# ---- upgrade.md


def test_whoever_goes_back_takes_every_part_back() -> None:
    """One image has all of them: what is left out would be of the newer version still."""
    text = (DOCS / "upgrade.md").read_text()
    undone = set(re.findall(r"^    kubectl rollout undo (\S+) ", text, re.MULTILINE))
    workloads = [it for it in manifests.objects("socket-mode") if it["kind"] in ("Deployment", "DaemonSet")]
    assert undone == {f"{it['kind'].lower()}/{it['metadata']['name']}" for it in workloads}


# ---- troubleshooting.md


def said(tree: ast.AST) -> set[str]:
    """Templates of all `say(...)` in it."""
    return {
        call.args[0].value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "say"
        if isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str)
    }


def functions(path: str) -> dict[str, ast.AST]:
    tree = ast.parse((ROOT / path).read_text())
    return {one.name: one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}


def not_in_order() -> set[str]:
    """What a line of preflight can have found that is not in order."""
    found = set[str]()
    for path in [*sorted((ROOT / "bot/preflight").glob("*.py")), ROOT / "bot/commands/preflight.py"]:
        for function in functions(str(path.relative_to(ROOT))).values():
            named = dict[str, set[str]]()
            for one in ast.walk(function):
                if isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name):
                    named.setdefault(one.targets[0].id, set()).update(said(one.value))
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Line":
                    told = {keyword.arg: keyword.value for keyword in call.keywords}
                    if "NOT" in ast.unparse(told["state"]):
                        found |= said(told["found"])
                        for name in ast.walk(told["found"]):
                            found |= named.get(getattr(name, "id", ""), set())
    for path, name in (("bot/preflight/rights.py", "_denied"), ("bot/preflight/nodes.py", "_without")):
        found |= {text for text in said(functions(path)[name]) if text.count("{") > 1}
    found |= {
        text for text in said(functions("bot/preflight/here.py")["state"]) if "{path}" in text and "can be" not in text
    }
    return found | {text for text in said(functions("bot/preflight/nodes.py")["silent"]) if "version" in text}


def silent_probes() -> set[str]:
    found = said(ast.parse((ROOT / "bot/sources/identity.py").read_text()))
    for name in ("_one", "_post", "_own", "_reason"):
        found |= said(functions("bot/sources/probes.py")[name])
    return {text.replace("{probe}", "its probe at …") for text in found} - {"not connected", "its probe at {address}"}


def rows(heading: str) -> list[str]:
    """What stands in the first column below a heading, of each row with a sentence of ours."""
    part = (DOCS / "troubleshooting.md").read_text().partition(f"## {heading}")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(.*?)` \|", part, re.MULTILINE)


@pytest.mark.parametrize(
    ("heading", "said"),
    [("What preflight says is not in order", not_in_order()), ("What a probe says", silent_probes())],
)
def test_each_sentence_about_the_bot_itself_has_its_row(heading: str, said: set[str]) -> None:
    shown = {text: re.sub(r"\{\w+\}", "…", text) for text in said}
    told = rows(heading)

    def tells(row: str, text: str) -> bool:
        return row == text or (row.endswith("…") and text.startswith(row[:-1]))

    assert {text for text, plain in shown.items() if not any(tells(row, plain) for row in told)} == set()
    assert {row for row in told if not any(tells(row, plain) for plain in shown.values())} == set(), "nobody says it"


# ---- operate.md


def test_what_a_command_asks_of_the_api_server_is_what_the_page_says(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs a large cluster decides by it. The lab's fixers ask for nothing but requests and records."""
    text = (DOCS / "operate.md").read_text()
    costs = re.findall(r"^\| (?:`calico-why (.*)`|(the same, where packets are lost)) \| (\d+) \|$", text, re.MULTILINE)
    assert len(costs) == 7
    terminal(lab, monkeypatch, tmp_path)
    monkeypatch.setenv("KUBECONFIG", lab.environment()["KUBECONFIG"])  # `preflight` looks for what the bot needs
    asked, wrong = "", list[str]()
    for command, _, told in costs:
        if not command:
            lab.inflict("neighbor_wrong_mac")
        asked = command or asked
        before = len(lab.calls())
        assert cli.main(asked.split()) == 0
        lab.heal()
        counted = sum(call[1] != GROUP for call in lab.calls()[before:])
        if abs(counted - int(told)) > 3:
            wrong.append(f"{asked}: {counted}, and the page says {told}")
    assert wrong == []


def test_approvers_as_the_page_writes_them_let_somebody_in() -> None:
    (written,) = re.findall(r"^```yaml\n(.*?)^```", (DOCS / "operate.md").read_text(), re.MULTILINE | re.DOTALL)
    entries = yaml.safe_load(written)["approvers"]
    assert len(entries) == 3 and all(map(parse, entries))


NUMBERS = [
    ("architecture.md", "within {} minutes", LIFETIME.total_seconds() / 60),
    ("architecture.md", "not older than five minutes", 5),  # of Slack's own library
    ("operate.md", "goes on with its questions for ten seconds", DRAIN_S),
    ("operate.md", "`perNodePerHour` is {}", PER_NODE),
    ("operate.md", "`perKindPerHour` {}", PER_KIND),
    ("operate.md", "ask {} nodes at a time", status.AT_ONCE),
    ("operate.md", "ask {} nodes at a time", nodes.AT_ONCE),
    ("security.md", "looks into {} at once", PLACES),
    ("security.md", "{} s, 20,000 packets, 4 MiB, two captures at once; eight asks at once", CAPTURE_SECONDS),
    ("security.md", "after five seconds at the latest", HANDSHAKE_S),
    ("troubleshooting.md", "{} questions are looked into at once", PLACES),
    ("troubleshooting.md", "{} flows are watched", WATCHES),
    ("troubleshooting.md", "differ by more than {} s", SKEW_S),
    ("troubleshooting.md", "did not answer within {} s", CALL_TIMEOUT_S),
    ("troubleshooting.md", "nobody decided in {} minutes", LIFETIME.total_seconds() / 60),
    ("troubleshooting.md", "does not come back for three minutes", GIVE_UP_AFTER_S / 60),
]
IN_WORDS = {"two": 2, "three": 3, "five": 5, "eight": 8, "ten": 10}


@pytest.mark.parametrize(("page", "words", "number"), NUMBERS)
def test_a_number_on_a_page_is_that_of_the_code(page: str, words: str, number: float) -> None:
    assert words.format(f"{number:g}") in (DOCS / page).read_text().replace("\n", " ")
    if "{}" not in words:
        assert number in [IN_WORDS[word] for word in words.split() if word in IN_WORDS]


def test_the_bounds_of_a_probe_are_those_of_the_page() -> None:
    assert (CAPTURE_PACKETS, CAPTURE_BYTES, CAPTURES_AT_ONCE, AT_ONCE) == (20_000, 4 << 20, 2, 8)
