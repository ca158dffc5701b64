"""Which cluster, probes and directories to use, decided once, lest every command read the environment its own way."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from bot.errors import UserError

LONGEST_PATIENCE_MS = 1000


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a command needs to reach the cluster and its probes."""

    kubeconfig: str = ""  # "" means ~/.kube/config where it exists, else in-cluster configuration
    api_group: str = ""  # CALICO_API_GROUP: overrides what discovery would say
    certs: Path | None = None  # directory with ca.crt, bot.crt, bot.key
    probe_port: int = 9797
    probe_proxy: str = ""  # http://host:port of a CONNECT proxy
    patience_ms: int = LONGEST_PATIENCE_MS  # for the answer to a packet, at most
    namespace: str = "calico-why"  # where FixRequests live
    cluster: str = ""  # name shown in answers; "" means the context's name
    state: Path | None = None  # journal and saved investigations; None: nothing is kept


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `from_arguments`; each falls back to its environment variable."""
    group = parser.add_argument_group("connection")
    group.add_argument("--kubeconfig", help="kubeconfig file ($KUBECONFIG; without one: in-cluster configuration)")
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
    group.add_argument("--cluster", help="name of the cluster in answers (the context's, $CALICO_WHY_CLUSTER)")
    group.add_argument("--state", help="directory for saved investigations ($CALICO_WHY_STATE)")


def from_arguments(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the flags of `add_arguments`, else the environment. Raises UserError for a senseless value."""
    return from_environment(
        {
            **environment,
            **{
                variable: value
                for variable, value in {
                    "KUBECONFIG": args.kubeconfig,
                    "CALICO_WHY_CERTS": args.certs,
                    "CALICO_WHY_PROBE_PORT": args.probe_port,
                    "CALICO_WHY_PROBE_PROXY": args.probe_proxy,
                    "CALICO_WHY_PATIENCE_MS": args.patience,
                    "CALICO_WHY_NAMESPACE": args.namespace,
                    "CALICO_WHY_CLUSTER": args.cluster,
                    "CALICO_WHY_STATE": args.state,
                }.items()
                if value is not None
            },
        }
    )


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the environment alone. Raises UserError for a senseless value."""
    port = environment.get("CALICO_WHY_PROBE_PORT") or "9797"
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"{port!r} is not a port: CALICO_WHY_PROBE_PORT (or --probe-port) is a number from 1 to 65535.")
    proxy = environment.get("CALICO_WHY_PROBE_PROXY", "")
    if proxy and not proxy.startswith("http://"):
        raise UserError(f"{proxy!r} is not a proxy this program can use: give it as http://host:port.")
    patience = environment.get("CALICO_WHY_PATIENCE_MS") or str(LONGEST_PATIENCE_MS)
    if not patience.isascii() or not patience.isdigit() or not 0 < int(patience) <= LONGEST_PATIENCE_MS:
        raise UserError(
            f"{patience!r} is no time to wait for the answer to a packet: CALICO_WHY_PATIENCE_MS (or --patience) is a "
            f"number of milliseconds from 1 to {LONGEST_PATIENCE_MS}."
        )
    certs, state = environment.get("CALICO_WHY_CERTS", ""), environment.get("CALICO_WHY_STATE", "")
    return Settings(
        kubeconfig=environment.get("KUBECONFIG", ""),
        api_group=environment.get("CALICO_API_GROUP", ""),
        certs=Path(certs) if certs else None,
        probe_port=int(port),
        probe_proxy=proxy,
        patience_ms=int(patience),
        namespace=environment.get("CALICO_WHY_NAMESPACE") or "calico-why",
        cluster=environment.get("CALICO_WHY_CLUSTER", ""),
        state=Path(state) if state else None,
    )
