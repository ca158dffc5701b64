"""Writes the file by which clients find the server; without it every test would build its own."""

from __future__ import annotations

import yaml


def kubeconfig(url: str, token: str, *, cluster: str = "calico-why-lab", namespace: str = "default") -> str:
    """The text of a kubeconfig whose only context is named like the cluster."""
    user: dict[str, str] = {"token": token} if token else {}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": cluster, "cluster": {"server": url}}],
            "users": [{"name": cluster, "user": user}],
            "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": cluster, "namespace": namespace}}],
            "current-context": cluster,
        },
        sort_keys=False,
    )
