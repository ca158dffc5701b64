"""`python deploy/chart.py DIRECTORY`: a Helm chart of these manifests; without it who installs everything by Helm would
write one, and the two would differ.

Its templates are what kubectl makes of the overlays, with an `if` where these differ, and five values.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parent
OVERLAYS = ("socket-mode", "http", "restricted")
IMAGE, CALICO, SETTINGS, FILE = "calico-why", "calico-system", "calico-why-settings", "calico-why.yaml"
BOT = ("Deployment", "calico-why", "calico-why-bot")
KEPT = ("CustomResourceDefinition", "Namespace")  # with them the trail of who decided what would go
# What a value of the manifests becomes. None of it may be in them already.
PLACES = {
    "@image@": "{{ .Values.image }}",
    "@replicas@": "{{ .Values.replicas }}",
    "@calico@": "{{ .Values.calicoNamespace }}",
    "@settings@": SETTINGS + "-{{ .Values.configuration | sha256sum | trunc 10 }}",
    "@configuration@": "{{ .Values.configuration | toJson }}",
}
VALUES = """# socket-mode: the bot asks Slack. http: Slack sends to the Service calico-why-bot.
# restricted: nothing is ever changed.
overlay: socket-mode
# All containers are of this one image; best by digest.
image: {image}
# Of the bot, each on a node of its own: 1 where one node alone takes pods.
replicas: {replicas}
# Where Calico's own pods are: calico-system where the operator installed it, kube-system where a manifest did.
calicoNamespace: {calico}
# calico-why.yaml, with every key of docs/configuration.md.
configuration: |
{configuration}"""
NOTES = """calico-why is in the namespace calico-why. Its pods wait for Slack's tokens:

  kubectl --namespace calico-why create secret generic calico-why-slack --from-env-file=slack.env
  kubectl --namespace calico-why rollout status daemonset/calico-why-node
  kubectl --namespace calico-why exec deployment/calico-why-bot -- calico-why preflight
"""

Object = dict[str, Any]


def rendered(overlay: str) -> list[Object]:
    """Raises CalledProcessError, FileNotFoundError where there is no kubectl."""
    command = ["kubectl", "kustomize", str(DEPLOY / "overlays" / overlay)]
    return list(yaml.safe_load_all(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def key(one: Object) -> tuple[str, str, str]:
    """A settings' ConfigMap by the name that kustomize has not put a hash behind."""
    name = one["metadata"]["name"]
    return one["kind"], one["metadata"].get("namespace", ""), SETTINGS if name.startswith(f"{SETTINGS}-") else name


def template(one: Object, image: str) -> str:
    """One object, its values as the chart's."""

    def placed(found: Any) -> Any:
        if isinstance(found, dict):
            return {name: "@configuration@" if name == FILE else placed(value) for name, value in found.items()}
        if isinstance(found, list):
            return [placed(value) for value in found]
        if found == image:
            return "@image@"
        if found == CALICO:
            return "@calico@"
        return "@settings@" if isinstance(found, str) and found.startswith(f"{SETTINGS}-") else found

    if one["kind"] in KEPT:
        kept = {**one["metadata"].get("annotations", {}), "helm.sh/resource-policy": "keep"}
        one = {**one, "metadata": {**one["metadata"], "annotations": kept}}
    if key(one) == BOT:
        one = {**one, "spec": {**one["spec"], "replicas": "@replicas@"}}
    text = yaml.safe_dump(placed(one), sort_keys=False, width=10_000).replace("{{", '{{ "{{" }}')
    for place, value in PLACES.items():
        text = text.replace(f"'{place}'", value)
    return text


def templates() -> dict[str, str]:
    """Text by name of file: an object each, in the order in which kustomize writes them."""
    of = {overlay: {key(one): one for one in rendered(overlay)} for overlay in OVERLAYS}
    found: dict[str, str] = {}
    for number, which in enumerate(dict.fromkeys(one for objects in of.values() for one in objects)):
        texts: dict[str, list[str]] = {}
        for overlay in OVERLAYS:
            if which in of[overlay]:
                texts.setdefault(template(of[overlay][which], image()), []).append(overlay)
        parts = [
            text
            if len(overlays) == len(OVERLAYS)
            else f"{{{{- if has .Values.overlay (list {_words(overlays)}) }}}}\n{text}{{{{- end }}}}\n"
            for text, overlays in texts.items()
        ]
        kind, namespace, name = which
        file = "-".join(filter(None, (f"{number:02}", kind.lower(), namespace, name.replace(":", "-"))))
        found[f"{file}.yaml"] = "".join(parts)
    return found


def _words(overlays: list[str]) -> str:
    return " ".join(map(json.dumps, overlays))


def version() -> str:
    return str(tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]["version"])


def image() -> str:
    return f"{IMAGE}:{version()}"


def write(directory: Path) -> None:
    """The whole chart. What else is in the directory stays there."""
    schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "overlay": {"enum": list(OVERLAYS)},
            "replicas": {"type": "integer", "minimum": 1},
            **{name: {"type": "string", "minLength": 1} for name in ("image", "calicoNamespace", "configuration")},
        },
    }
    chart = {
        "apiVersion": "v2",
        "name": "calico-why",
        "description": "Why can pod A not reach pod B: asked in Slack, with fixes that people approve",
        "type": "application",
        "version": version(),
        "appVersion": version(),
        "kubeVersion": ">=1.30.0-0",
    }
    told = (DEPLOY / "base" / FILE).read_text()
    lines = "".join(f"  {line}\n" if line else "\n" for line in told.splitlines())
    (bot,) = [one for one in rendered(OVERLAYS[0]) if key(one) == BOT]
    values = VALUES.format(image=image(), replicas=bot["spec"]["replicas"], calico=CALICO, configuration=lines)
    files = {
        "Chart.yaml": yaml.safe_dump(chart, sort_keys=False, width=200),
        "values.yaml": values,
        "values.schema.json": json.dumps(schema, indent=2) + "\n",
        "templates/NOTES.txt": NOTES,
        **{f"templates/{name}": text for name, text in templates().items()},
    }
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
