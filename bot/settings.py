"""What a command was told of clusters, probes and directories, decided once, lest every command read the environment
its own way. The keys, and what goes before what, are in fixes.configuration."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
from collections.abc import Iterator, Mapping

from bot import language as languages
from bot.errors import UserError
from bot.language import Language
from fixes import configuration
from fixes.configuration import Configuration
from fixes.configuration import Settings as Settings

# Where argparse keeps what was said for a key; of these a command has those that mean something to it.
FLAGS = {
    "kubeconfig": "kubeconfig",
    "context": "context",
    "certs": "certs",
    "probe_port": "probe_port",
    "probe_proxy": "probe_proxy",
    "patience": "patience_ms",
    "deadline": "deadline_s",
    "namespace": "namespace",
    "cluster": "cluster",
    "state": "state",
    "lang": "language",
    "mode": "slack.mode",
    "listen": "slack.listen",
    "observe": "observe",
    "log": "log",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `from_arguments`; each falls back to its environment variable, and that to the file."""
    group = parser.add_argument_group("connection")
    add_file(group)
    group.add_argument(
        "--cluster",
        help="the cluster to ask, of those in the file (the first); without such a file, its name in answers (the "
        "context's, $CALICO_WHY_CLUSTER)",
    )
    group.add_argument("--kubeconfig", help="kubeconfig file ($KUBECONFIG; without one: in-cluster configuration)")
    group.add_argument("--context", help="context of the kubeconfig (its current one)")
    group.add_argument("--certs", help="directory with ca.crt, bot.crt and bot.key ($CALICO_WHY_CERTS)")
    group.add_argument("--probe-port", help="port of the probes (9797, $CALICO_WHY_PROBE_PORT)")
    group.add_argument(
        "--probe-proxy", help="http://host:port of an HTTP CONNECT proxy to the probes ($CALICO_WHY_PROBE_PROXY)"
    )
    group.add_argument(
        "--patience",
        metavar="MS",
        help="for the answer to a packet, where all of the network is near (1000, the most; $CALICO_WHY_PATIENCE_MS)",
    )
    group.add_argument("--namespace", help="namespace of the fix requests (calico-why, $CALICO_WHY_NAMESPACE)")
    group.add_argument("--state", help="directory for saved investigations ($CALICO_WHY_STATE)")


def add_file(parser: argparse._ActionsContainer) -> None:
    """The flag that says where calico-why.yaml is."""
    parser.add_argument("--config", metavar="FILE", help=f"{configuration.NAME} (${configuration.VARIABLE}, none)")


def look(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> tuple[Configuration, list[str]]:
    """What holds, and all that is wrong with it, a line each."""
    said = {key: getattr(args, name, None) for name, key in FLAGS.items()}
    flags = {key: str(value) for key, value in said.items() if value is not None}
    found, wrong = configuration.look(environment, flags, getattr(args, "config", None) or "")
    if found.language not in languages.names():
        origin = found.told["language"][1]
        where = "language" if origin == found.file and origin else origin
        known = " and ".join(languages.names())
        wrong.append(f"{where}: {found.language!r} is not a language of this version; there is {known}.")
    return found, wrong


def configured(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Configuration:
    """All that the flags, else the environment, else the file say. Raises UserError with all that is wrong with it."""
    found, wrong = look(args, environment)
    if wrong:
        raise refused(wrong)
    return found


def of_kubeconfigs(configured: Configuration, *, named: bool = False) -> list[str]:
    """What is wrong with the files that say where clusters are, of which none is asked anything, a line each. named: of
    those alone that somebody named."""
    from certificates import kubeconfig  # which few of the words need

    async def each() -> list[str]:
        wrong = []
        for where, one in zip(configured.where, configured.clusters, strict=True):
            if named and not (one.kubeconfig or one.context):
                continue
            try:
                await kubeconfig.known(one.kubeconfig or kubeconfig.own(), one.context)
            except kubeconfig.NoCluster as error:
                cluster = f"the cluster {one.cluster}".rstrip()
                wrong.append(
                    f"{where}kubeconfig: {error.problem}, so {cluster} cannot be served. "
                    "Give a file that `kubectl --kubeconfig FILE config view` reads."
                )
        return wrong

    return asyncio.run(each())


def refused(wrong: list[str]) -> UserError:
    """What is wrong with a configuration, one line or several."""
    if len(wrong) == 1:
        return UserError(wrong[0])
    return UserError("\n".join([f"{len(wrong)} things are wrong with the configuration:", *wrong]))


def from_arguments(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Settings:
    """Of the one cluster that is meant. Raises UserError with all that is wrong."""
    return configured(args, environment).clusters[0]


def language(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Language:
    """Of the answer. Raises UserError."""
    return languages.language(configured(args, environment).language)


def of(settings: Settings) -> str:
    """What names the cluster behind a sentence, "" where it has no name."""
    return f"   [{settings.cluster}]" if settings.cluster else ""


@contextlib.contextmanager
def about(settings: Settings) -> Iterator[None]:
    """What is refused inside is refused of this cluster, and says so."""
    try:
        yield
    except UserError as error:
        error.sentence += of(settings)
        raise


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """The same without flags."""
    return from_arguments(argparse.Namespace(), environment)
