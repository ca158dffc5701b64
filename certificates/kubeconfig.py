"""How an API server is reached that a kubeconfig or a pod's account names; without it bot, fixers and signers would
each do so in their own way."""

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
    reach(configuration, in_cluster=not path)
    async with client.ApiClient(configuration) as api:
        yield api


def reach(configuration: client.Configuration, *, in_cluster: bool) -> None:
    """What no kubeconfig says. in_cluster: it is of a pod's own account."""
    # From Python 3.13 on authorities are refused that lack a key identifier, as many clusters' do (EKS's older ones).
    configuration.disable_strict_ssl_verification = True
    # A proxy to the world, which is there for Slack, leads neither to this machine nor to the cluster's own addresses;
    # that NO_PROXY names these by a range, as in most clusters, is not understood here.
    if in_cluster or _is_loopback(configuration.host):
        configuration.client_session_kwargs = {"trust_env": False}


def _is_loopback(server: str) -> bool:
    host = urlsplit(server).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
