"""The configuration: one file, what goes before what, all that is wrong at once; the docs have every key."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bot import settings
from bot.errors import UserError
from fixes import configuration
from fixes.configuration import BY_NAME, KEYS, STRUCTURES, Configuration, Misconfigured, Settings
from fixes.kind import kinds
from lab.apiserver.kubeconfig import kubeconfig

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "configuration.md"


def told(tmp_path: Path, text: str, environment: dict[str, str] | None = None, **flags: str) -> Configuration:
    file = tmp_path / "calico-why.yaml"
    file.write_text(text)
    return configuration.read(environment or {}, flags, str(file))


def wrong(tmp_path: Path, text: str, environment: dict[str, str] | None = None, **flags: str) -> tuple[str, ...]:
    with pytest.raises(Misconfigured) as error:
        told(tmp_path, text, environment, **flags)
    return error.value.lines


def test_without_a_file_all_is_as_it_was() -> None:
    found = configuration.read({"KUBECONFIG": "k", "CALICO_WHY_CLUSTER": "prod", "CALICO_WHY_APPROVERS": "U0BO,S0NET"})
    (cluster,) = found.clusters
    assert (cluster.kubeconfig, cluster.cluster, cluster.namespace) == ("k", "prod", "calico-why")
    assert (
        cluster.approvers.entries == {"U0BO", "S0NET"} and not cluster.approvers.allow_self and cluster.approvers.rbac
    )
    assert configuration.read({}).clusters == (Settings(),)


def test_a_flag_goes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    text = "namespace: of-file\nprobe_port: 1\nlanguage: zh\nstate: kept\n"
    environment = {"CALICO_WHY_PROBE_PORT": "2", "CALICO_WHY_NAMESPACE": "of-env"}
    found = told(tmp_path, text, environment, namespace="of-flag")
    (cluster,) = found.clusters
    assert (cluster.namespace, cluster.probe_port, found.language) == ("of-flag", 2, "zh")
    assert found.told["namespace"] == ("of-flag", "--namespace")
    assert found.told["probe_port"] == ("2", "CALICO_WHY_PROBE_PORT")
    assert found.told["language"] == ("zh", found.file)
    assert found.told["certs"] == ("", "")
    assert cluster.state == tmp_path / "kept", "paths are meant from where the file is"


CLUSTERS = """
probe_port: 1
approvers: [U0ALL]
channels: {C0123: prod}
clusters:
  - name: hub
  - name: prod
    kubeconfig: prod.kubeconfig
    certs: certs-prod
    probe_port: 3
    approvers: [U0PROD]
    self_approval: true
"""


def test_what_a_cluster_says_of_itself_goes_before_what_is_said_of_all(tmp_path: Path) -> None:
    """A KUBECONFIG in somebody's shell must not lead `--cluster prod` to another cluster."""
    found = told(tmp_path, CLUSTERS, {"KUBECONFIG": "mine", "CALICO_WHY_CERTS": "c", "CALICO_WHY_APPROVERS": "U0ENV"})
    hub, prod = found.clusters
    assert (hub.kubeconfig, str(hub.certs), hub.probe_port, hub.approvers.entries) == ("mine", "c", 1, {"U0ENV"})
    assert (prod.kubeconfig, prod.certs) == (str(tmp_path / "prod.kubeconfig"), tmp_path / "certs-prod")
    assert (prod.probe_port, prod.approvers.entries, prod.approvers.allow_self) == (3, {"U0PROD"}, True)
    assert [one.approvers.cluster for one in found.clusters] == ["hub", "prod"]
    assert found.channels == {"C0123": "prod"}
    (flagged,) = told(tmp_path, CLUSTERS, cluster="prod", probe_port="9").clusters
    assert (flagged.cluster, flagged.probe_port) == ("prod", 9)


def test_a_fixer_knows_which_of_several_clusters_it_runs_in(tmp_path: Path) -> None:
    assert told(tmp_path, CLUSTERS).here.cluster == "hub"
    assert told(tmp_path, CLUSTERS, {"CALICO_WHY_CLUSTER": "prod"}).here.cluster == "prod"
    both = "clusters: [{name: a, kubeconfig: a}, {name: b, kubeconfig: b}]"
    with pytest.raises(Misconfigured, match="which of a, b is this"):
        told(tmp_path, both).here  # noqa: B018
    assert configuration.read({}).here == Settings()


def test_all_that_is_wrong_is_told_at_once_each_with_its_place(tmp_path: Path) -> None:
    text = """
development: maybe
slck: {mode: http}
mode: http
slack:
  mod: socket
  listen: 3000
approvers: [U0BO, bo, "relase_ip:S012", [x]]
people: U0BO=bo
channels: {C0123: prdo, general: prod}
clusters:
  - {name: prod, kubeconfig: a, probe_port: 99999}
  - {name: prod, kubeconfig: a, probe_prot: 1, development: true}
  - kubeconfig: {x: y}
  - staging
"""
    found = wrong(tmp_path, text, {"CALICO_WHY_PATIENCE_MS": "soon", "CALICO_WHY_CLUSTER": "prodd"})
    for place, sentence in (
        ("development", "neither true nor false"),
        ("slck", "did you mean slack?"),
        ("mode", "it is slack.mode"),
        ("slack.mod", "did you mean slack.mode?"),
        ("slack.listen", "is not host:port"),
        ("approvers[1]", "lets nobody in"),
        ("approvers[2]", "Did you mean release_ip?"),
        ("approvers[3]", "this is a list"),
        ("people", "Write a list"),
        ("channels.C0123", "Did you mean prod?"),
        ("channels.general", "no id of a channel"),
        ("clusters[0].probe_port", "is not a port"),
        ("clusters[1].name", "is the name of clusters[0], too"),
        ("clusters[1].kubeconfig", "both would be one cluster"),
        ("clusters[1].probe_prot", "did you mean clusters[1].probe_port?"),
        ("clusters[1].development", "at the top of the file"),
        ("clusters[2].name", "is missing"),
        ("clusters[2].kubeconfig", "this is a group of keys"),
        ("clusters[3]", "this is one value"),
        ("CALICO_WHY_PATIENCE_MS", "'soon' is no time"),
        ("CALICO_WHY_CLUSTER", "did you mean prod?"),
    ):
        assert any(line.startswith(f"{place}: ") and sentence in line for line in found), (place, found)


@pytest.mark.parametrize("key", ["bot_token", "SLACK_APP_TOKEN", "signing_secret"])
@pytest.mark.parametrize(
    "text", ["{key}: hush-hush", "slack:\n  {key}: hush-hush", "clusters: [{{name: a, {key}: hush-hush}}]"]
)
def test_a_secret_in_the_file_is_refused_and_not_shown(tmp_path: Path, text: str, key: str) -> None:
    (line,) = wrong(tmp_path, text.format(key=key))
    assert "is a secret" in line and f"SLACK_{key.upper().removeprefix('SLACK_')}" in line
    assert "hush" not in line
    (line,) = wrong(tmp_path, "cluster: xoxb-12-34")
    assert "is a secret" in line and "12-34" not in line


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cluster: [", "line 1: this is not YAML"),
        ("cluster: a\ncluster: b", "line 2: this is not YAML: cluster is written twice"),
        ("? [a, b]\n: c", "line 1: this is not YAML: found unhashable key"),
        ("cluster: &a b\nnamespace: *a", "line 2: this is not YAML: aliases"),
        ("- a", "this is a list. Write keys"),
        ("cluster: a\nclusters: [{name: b}]", "so leave this out"),
        ("clusters: {a: {name: b}}", "Write a list"),
        ("clusters: [{name: a b}]", "cannot be written in a question"),
        ("namespace: Upper", "cannot be the name of a namespace"),
        ("channels: {C0123: prod}", "`clusters` is not written"),
        ("api_group: projectcalico.org/v1", "it is crd.projectcalico.org/v1 or projectcalico.org/v3"),
    ],
)
def test_what_cannot_be_meant(tmp_path: Path, text: str, sentence: str) -> None:
    found = wrong(tmp_path, text)
    assert any(sentence in line for line in found), found


def test_words_of_the_file_stay_words(tmp_path: Path) -> None:
    """YAML would make false of a cluster called no, and a number of one called 010."""
    assert told(tmp_path, "cluster: no").clusters[0].cluster == "no"
    assert [one.cluster for one in told(tmp_path, "clusters: [{name: 010}]").clusters] == ["010"]
    assert told(tmp_path, "cluster:\nnamespace: ''\nclusters: []").clusters == (Settings(),)


def test_a_file_that_is_not_there_is_told() -> None:
    with pytest.raises(Misconfigured, match=r"/nowhere/x\.yaml: it cannot be read"):
        configuration.read({"CALICO_WHY_CONFIG": "/nowhere/x.yaml"})


def test_a_kind_of_fix_in_the_list_of_approvers_is_one_that_there_is() -> None:
    known = [*kinds(), "switch", "capture"]
    found = configuration.read({"CALICO_WHY_APPROVERS": ",".join(f"{kind}@prod:U0BO" for kind in known)})
    assert len(found.clusters[0].approvers.entries) == len(known)


def test_a_language_that_is_not_there_is_wrong_too() -> None:
    found, lines = settings.look(argparse.Namespace(), {"CALICO_WHY_LANG": "tlh", "CALICO_WHY_PROBE_PORT": "x"})
    assert [line.partition(":")[0] for line in lines] == ["CALICO_WHY_PROBE_PORT", "CALICO_WHY_LANG"]
    assert found.clusters[0].probe_port == 9797


def calico_why(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bot.cli", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **environment},
    )


@pytest.mark.parametrize("words", [("bot",), ("fixer", "--cluster"), ("why", "a", "b"), ("fixes",), ("preflight",)])
def test_every_program_that_reads_it_ends_with_all_of_it(tmp_path: Path, words: tuple[str, ...]) -> None:
    file = tmp_path / "calico-why.yaml"
    file.write_text("probe_port: x\napprover: [U0BO]\n")
    done = calico_why(*words, "--config", str(file))
    assert done.returncode == 2
    assert "probe_port: 'x' is not a port" in done.stderr
    assert "approver: there is no such key; did you mean approvers?" in done.stderr
    again = calico_why(*words, CALICO_WHY_CONFIG=str(file))
    assert again.stderr == done.stderr


def test_the_bot_asks_for_kubeconfigs_that_can_be_used(tmp_path: Path) -> None:
    """All of them at once, and with what else is wrong: a bot that told one of them at each start would be started
    anew for each."""
    names = ("gone", "torn", "empty", "other", "folder")
    (tmp_path / "torn").write_text("clusters: [{name: ")
    (tmp_path / "empty").touch()
    (tmp_path / "other").write_text("slack: {mode: socket}")
    (tmp_path / "folder").mkdir()
    (tmp_path / "well").write_text(kubeconfig("https://127.0.0.1:1", "token"))
    file = tmp_path / "calico-why.yaml"
    clusters = ", ".join(f"{{name: prod-{name}, kubeconfig: {name}}}" for name in ("well", *names))
    file.write_text(f"clusters: [{clusters}]")
    done = calico_why("bot", CALICO_WHY_CONFIG=str(file))
    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if line.startswith("clusters[")]
    assert len(told) == len(names), "a cluster whose API server is gone is no reason not to start"
    for index, (name, line) in enumerate(zip(names, told, strict=True), start=1):
        assert line.startswith(f"clusters[{index}].kubeconfig: "), line
        assert str(tmp_path / name) in line and f"so the cluster prod-{name} cannot be served. Give a file " in line
    whys = ("there is no kubeconfig", "line 1, column 19", "it is empty", "current-context", "is a directory")
    for why, line in zip(whys, told, strict=True):
        assert why in line
    assert "SLACK_BOT_TOKEN is not set" in done.stderr and "SLACK_APP_TOKEN is not set" in done.stderr
    again = calico_why("config", CALICO_WHY_CONFIG=str(file))
    assert (again.returncode, again.stdout) == (2, "")
    assert [line for line in again.stderr.splitlines() if line.startswith("clusters[")] == told


def test_a_terminal_picks_a_cluster_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "calico-why.yaml"
    file.write_text("clusters: [{name: a, kubeconfig: ka}, {name: prod, kubeconfig: kp}]")
    environment = {"CALICO_WHY_CONFIG": str(file)}
    for flags, expected in (([], "ka"), (["--cluster", "prod"], "kp")):
        done = calico_why("fixes", *flags, **environment)
        assert done.returncode == 3 and str(tmp_path / expected) in done.stderr
    done = calico_why("fixes", "--cluster", "prdo", **environment)
    assert done.returncode == 2 and "did you mean prod?" in done.stderr


def test_config_tells_what_holds_and_where_it_is_from_and_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "calico-why.yaml"
    file.write_text(CLUSTERS)
    for name in re.findall(r"kubeconfig: ([^\s}]+)", CLUSTERS):
        (tmp_path / name).write_text(kubeconfig("https://127.0.0.1:1", "token"))
    done = calico_why("config", CALICO_WHY_CONFIG=str(file), CALICO_WHY_LANG="zh", SLACK_BOT_TOKEN="xoxb-12-34")
    assert done.returncode == 0, done.stderr
    rows = [re.split(r"  +", line) for line in done.stdout.splitlines()]
    assert ["language", "zh", "CALICO_WHY_LANG"] in rows
    assert ["probe_port", "1", str(file)] in rows
    assert ["clusters[1].approvers", "U0PROD", str(file)] in rows
    assert ["namespace", "calico-why", "default"] in rows
    assert ["SLACK_BOT_TOKEN", "(set)", "environment"] in rows and ["SLACK_APP_TOKEN", "(not set)"] in rows
    assert "12-34" not in done.stdout


def test_docs_tell_every_key_and_no_other() -> None:
    """Key, variable, flag and default, as they are in the code."""
    rows = re.findall(r"^\| `([\w.\[\]]+)` \| (.*?) \| (.*?) \| (.*?) \|", DOCS.read_text(), flags=re.M)
    written = {name: (variable, flag, default) for name, variable, flag, default in rows}
    assert written.keys() == {*BY_NAME, *STRUCTURES, "clusters[].name"}
    for key in KEYS:
        variable, flag, default = written[key.name]
        assert variable == (f"`{key.variable}`" if key.variable else ""), key.name
        assert flag == (f"`{key.flag}`" if key.flag else ""), key.name
        assert default == (f"`{key.default}`" if key.default else ""), key.name
    below = DOCS.read_text().partition("An entry of `clusters` may say")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", below)) == {key.name for key in KEYS if key.of_cluster}


def test_the_example_of_the_docs_is_read(tmp_path: Path) -> None:
    example, _ = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), flags=re.S)
    assert len(told(tmp_path, example).clusters) == 2
    with pytest.raises(UserError, match="2 things are wrong"):
        raise settings.refused(["a: b", "c: d"])
