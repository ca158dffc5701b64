"""What `kubectl apply -k` would send, rendered by kubectl; without it each test of deploy/ would read it anew."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"
OVERLAYS = sorted(path.name for path in (DEPLOY / "overlays").iterdir())


@functools.cache
def text(overlay: str) -> str:
    """The YAML of all objects. Skips where there is no kubectl."""
    return rendered(DEPLOY / "overlays" / overlay)


def rendered(kustomization: Path) -> str:
    """The YAML of all objects of a directory. Skips where there is no kubectl."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on this machine: manifests are rendered by it")
    done = subprocess.run(["kubectl", "kustomize", str(kustomization)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def objects(overlay: str) -> tuple[dict[str, Any], ...]:
    return tuple(yaml.safe_load_all(text(overlay)))


def one(overlay: str, kind: str, name: str) -> dict[str, Any]:
    (found,) = [it for it in objects(overlay) if (it["kind"], it["metadata"]["name"]) == (kind, name)]
    return found


def pod(overlay: str, kind: str, name: str) -> dict[str, Any]:
    """The spec of the pods of a Deployment or DaemonSet."""
    spec: dict[str, Any] = one(overlay, kind, name)["spec"]["template"]["spec"]
    return spec


def configuration(overlay: str) -> str:
    """calico-why.yaml, as it is mounted."""
    (found,) = [it for it in objects(overlay) if it["metadata"]["name"].startswith("calico-why-settings-")]
    text: str = found["data"]["calico-why.yaml"]
    return text


def containers(overlay: str) -> dict[str, dict[str, Any]]:
    """Of all pods, by WORKLOAD/CONTAINER."""
    return {
        f"{it['metadata']['name']}/{container['name']}": container
        for it in objects(overlay)
        if it["kind"] in ("Deployment", "DaemonSet", "Job", "CronJob", "StatefulSet")
        for spec in [it["spec"]["jobTemplate"]["spec"] if it["kind"] == "CronJob" else it["spec"]]
        for part in ("initContainers", "containers")
        for container in spec["template"]["spec"].get(part) or ()
    }
