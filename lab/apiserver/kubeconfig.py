"""Writes the file by which clients find the server; without it every test would build its own."""

from __future__ import annotations

import base64

import yaml


def kubeconfig(
    url: str, token: str, authority: str = "", *, cluster: str = "calico-why-lab", namespace: str = "default"
) -> str:
    """The text of a kubeconfig whose only context is named like the cluster. `authority` is the PEM text of the
    certificate authority of an https URL."""
    server = {"server": url}
    if authority:
        server["certificate-authority-data"] = base64.b64encode(authority.encode()).decode()
    user: dict[str, str] = {"token": token} if token else {}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": cluster, "cluster": server}],
            "users": [{"name": cluster, "user": user}],
            "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": cluster, "namespace": namespace}}],
            "current-context": cluster,
        },
        sort_keys=False,
    )
