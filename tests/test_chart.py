"""The Helm chart is the manifests: whoever installs by Helm would have other rights and powers where it is not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import manifests

OVERLAYS = ("socket-mode", "http", "restricted")
KUBERNETES = "1.30.0"


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As it is written for whoever wants one."""
    manifests.text(OVERLAYS[0])  # skips without kubectl
    directory = tmp_path_factory.mktemp("chart")
    subprocess.run([sys.executable, str(manifests.DEPLOY / "chart.py"), str(directory)], check=True)
    return directory


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("helm") is None:
        pytest.skip("no helm on this machine: it alone says what a chart becomes")
    return subprocess.run(["helm", *words], capture_output=True, text=True)


def installed(chart: Path, **values: str) -> list[dict[str, Any]]:
    """The objects that Helm would send."""
    said = [word for name, value in values.items() for word in (_set(value), f"{name}={value}")]
    done = helm("template", "calico-why", str(chart), "--kube-version", KUBERNETES, *said)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def _set(value: str) -> str:
    return "--set" if value.isdigit() else "--set-string"


def bare(one: dict[str, Any]) -> str:
    """Without what is Helm's: that some objects outlive an uninstall, and another hash behind a name."""
    metadata = dict(one["metadata"])
    noted = {name: value for name, value in metadata.pop("annotations", {}).items() if not name.startswith("helm.sh/")}
    text = yaml.safe_dump({**one, "metadata": {**metadata, **({"annotations": noted} if noted else {})}})
    return text.replace(settings(text), "calico-why-settings-") if settings(text) else text


def settings(text: str) -> str:
    """The name of the settings' ConfigMap in a text, "" where it has none."""
    return next((word for word in text.split() if word.startswith("calico-why-settings-")), "")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_helm_sends_what_kustomize_does(chart: Path, overlay: str) -> None:
    sent = sorted(map(bare, installed(chart, overlay=overlay)))
    assert sent == sorted(bare(one) for one in manifests.objects(overlay))


def test_its_values_are_where_they_belong(chart: Path) -> None:
    before = installed(chart)
    values = {"calicoNamespace": "kube-system", "configuration": "cluster: b"}
    found = installed(chart, image="here/calico-why@sha256:0", replicas="1", **values)
    (bot,) = [one for one in found if one["kind"] == "Deployment" and one["metadata"]["name"] == "calico-why-bot"]
    assert bot["spec"]["replicas"] == 1
    images = {
        container["image"]
        for one in found
        if one["kind"] in ("Deployment", "DaemonSet")
        for part in ("containers", "initContainers")
        for container in one["spec"]["template"]["spec"].get(part) or ()
    }
    assert images == {"here/calico-why@sha256:0"}
    elsewhere = {one["metadata"].get("namespace", "calico-why") for one in found} - {"calico-why"}
    assert elsewhere == {"kube-system"}
    (config,) = [one["data"] for one in found if one["metadata"]["name"].startswith("calico-why-settings-")]
    assert config == {"calico-why.yaml": "cluster: b"}
    names = [{settings(yaml.safe_dump(one)) for one in objects} - {""} for objects in (before, found)]
    assert len(names[0]) == len(names[1]) == 1 and names[0] != names[1], "pods are started anew with other settings"


def test_uninstalling_keeps_the_trail_and_the_namespace_it_is_in(chart: Path) -> None:
    kept = {
        one["metadata"]["name"]
        for one in installed(chart)
        if (one["metadata"].get("annotations") or {}).get("helm.sh/resource-policy") == "keep"
    }
    assert kept == {"calico-why", "fixrequests.calico-why.io", "auditrecords.calico-why.io"}


def test_helm_finds_nothing_wrong_with_it_and_refuses_what_is_no_overlay(chart: Path) -> None:
    assert helm("lint", "--strict", str(chart)).returncode == 0
    done = helm("template", "x", str(chart), "--kube-version", KUBERNETES, "--set", "overlay=socket")
    assert done.returncode != 0 and "overlay" in done.stderr
    assert helm("template", "x", str(chart), "--kube-version", KUBERNETES, "--set", "imag=x").returncode != 0


def test_every_overlay_that_is_to_be_chosen_is_in_it(chart: Path) -> None:
    """Without Helm, too."""
    told = yaml.safe_load((chart / "values.yaml").read_text())
    base = (manifests.DEPLOY / "base" / "calico-why.yaml").read_text()
    assert told["configuration"] == base and told["image"] in manifests.text("socket-mode")
    files = {one.name: one.read_text() for one in (chart / "templates").iterdir()}
    named = {name.partition("-")[2] for name in files}
    for overlay in OVERLAYS:
        for one in manifests.objects(overlay):
            assert any(name.startswith(one["kind"].lower()) for name in named), one["metadata"]["name"]
    (service,) = [text for name, text in files.items() if name.endswith("-service-calico-why-calico-why-bot.yaml")]
    assert service.startswith('{{- if has .Values.overlay (list "http") }}')
