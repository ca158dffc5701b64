"""A client of the API server that a kubeconfig names; without it fixers and signers would each read one differently."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit

from kubernetes.aio import client, config


class NoCluster(Exception):
    """None can be known. `sentence`: why, and what to do."""

    def __init__(self, error: Exception) -> None:
        self.sentence = (
            f"No cluster to talk to ({error}). Set KUBECONFIG to a kubeconfig file, or run in a pod of the cluster."
        )
        super().__init__(self.sentence)


@contextlib.asynccontextmanager
async def opened(path: str, context: str = "") -> AsyncGenerator[client.ApiClient]:
    """path: "" for the pod's own account. context: its current one by default. Raises NoCluster."""
    configuration = client.Configuration()
    try:
        if path:
            await config.load_kube_config(
                path, context or None, client_configuration=configuration, persist_config=False
            )
        else:
            config.load_incluster_config(client_configuration=configuration)
    except Exception as error:  # the loader has no error of its own: it lets through whatever parsing met
        raise NoCluster(error) from error
    if _is_loopback(configuration.host):  # a proxy to the world does not lead to this machine
        configuration.client_session_kwargs = {"trust_env": False}
    async with client.ApiClient(configuration) as api:
        yield api


def _is_loopback(server: str) -> bool:
    host = urlsplit(server).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
