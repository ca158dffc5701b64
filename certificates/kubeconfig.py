"""How an API server is reached that a kubeconfig or a pod's account names; without it bot, fixers and signers would
each do so in their own way, and each say in its own words why it cannot be."""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import yaml
from kubernetes.aio import client, config

_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")  # of the pod this runs in


class NoCluster(Exception):
    """None can be known. problem: why, the begin of a sentence. `sentence`: the same, and what to do in a terminal."""

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem = problem
        self.sentence = f"{problem[0].upper()}{problem[1:]}, so no cluster is known. {remedy}"
        super().__init__(self.sentence)


class Known(NamedTuple):
    """An API server to ask. context: its name in the kubeconfig; namespace: what is meant where nobody names one."""

    configuration: client.Configuration
    context: str
    namespace: str


async def known(path: str, context: str = "") -> Known:
    """path: of a kubeconfig, or of several as $KUBECONFIG has them; "" for the pod's own account. context: its current
    one by default. The API server need not be there. Raises NoCluster."""
    configuration = client.Configuration()
    if not path:
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException as error:
            raise NoCluster(
                "there is no kubeconfig, and this is not a pod of a cluster",
                "Set KUBECONFIG or give --kubeconfig FILE.",
            ) from error
        reach(configuration, in_cluster=True)
        return Known(configuration, "cluster", _own_namespace())
    if not _any_exists(path):
        raise NoCluster(f"there is no kubeconfig {path}", "Set KUBECONFIG or give --kubeconfig FILE.")
    try:
        loader = await config.load_kube_config(
            path, context or None, client_configuration=configuration, persist_config=False
        )
        current = loader.current_context
    except Exception as error:  # the loader has no error of its own: it lets through whatever parsing met
        raise NoCluster(
            f"the kubeconfig {path} cannot be used ({_why(error)})",
            "Check KUBECONFIG; `kubectl config view` reads the same file.",
        ) from error
    reach(configuration, in_cluster=False)
    return Known(configuration, str(current["name"]), str(current["context"].get("namespace") or "default"))


def own() -> str:
    """The kubeconfig of whoever runs this where nobody names one: ~/.kube/config, "" where that is not there."""
    path = Path("~/.kube/config").expanduser()
    return str(path) if path.exists() else ""


@contextlib.asynccontextmanager
async def opened(path: str, context: str = "") -> AsyncGenerator[client.ApiClient]:
    """A client of it, as `known`. Raises NoCluster."""
    async with client.ApiClient((await known(path, context)).configuration) as api:
        yield api


def _own_namespace() -> str:
    return _OWN_NAMESPACE.read_text().strip() if _OWN_NAMESPACE.exists() else "default"


def _any_exists(paths: str) -> bool:
    """KUBECONFIG may name several files; those that do not exist are passed over."""
    return any(Path(one).expanduser().exists() for one in paths.split(os.pathsep) if one)


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    if isinstance(error, config.ConfigException | yaml.YAMLError):
        return " ".join(str(error).split())
    return "it is empty, or has not the form of one"


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
