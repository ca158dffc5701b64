"""What the words about fixes share in a terminal; without it each would reach the cluster and fail in its own way."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator

from bot.approvals import Approvals, meant
from bot.errors import COULD_NOT_JUDGE, UserError
from bot.settings import Settings, about, from_arguments, of
from fixes.request import Phase
from fixes.store import FixStore, StoreError, connect


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncGenerator[FixStore]:
    """The fix requests of the configured cluster. What goes wrong inside with them is a UserError outside."""
    try:
        async with connect(settings.kubeconfig, settings.namespace, settings.context) as store:
            yield store
    except StoreError as error:
        raise UserError(error.sentence, status=COULD_NOT_JUDGE) from error


def name_cluster(settings: Settings) -> None:
    """Which cluster an answer is about, where it has a name; not among what somebody may read by program."""
    if settings.cluster:
        print(f"[{settings.cluster}]", file=sys.stderr)


def decide(args: argparse.Namespace, to: Phase) -> int:
    """Approve, reject or cancel as the Kubernetes user of the kubeconfig, by the same rules as a click in Slack."""
    near = args.name if args.name.lower().startswith("fx-") else ""  # with a slip: the cluster knows which was meant
    name = meant(args.name) or near
    if not name:
        raise UserError(f"{args.name!r} is no name of a fix request; they look like fx-7k2pabcd: calico-why fixes")
    settings = from_arguments(args)
    with about(settings):
        return asyncio.run(_decide(name, to, " ".join(getattr(args, "reason", [])), settings))


def turn(settings: Settings, on: bool, reason: str) -> int:
    """Switch all fixes on or off as the Kubernetes user of the kubeconfig."""
    with about(settings):
        return asyncio.run(_turn(settings, on, reason))


async def _turn(settings: Settings, on: bool, reason: str) -> int:
    async with opened(settings) as store:
        decision = await _approvals(store, settings).turn(on, await store.whoami(), reason)
    if not decision.changed:
        raise UserError(decision.sentence, status=COULD_NOT_JUDGE)
    print(f"{decision.sentence}{of(settings)}")
    return 0


async def _decide(name: str, to: Phase, reason: str, settings: Settings) -> int:
    async with opened(settings) as store:
        person = await store.whoami()
        decision = await _approvals(store, settings).decide(name, to, person, reason=reason)
    if not decision.changed:
        raise UserError(decision.sentence, status=COULD_NOT_JUDGE)
    print(f"{decision.sentence} You are {person.id}. Where it is: calico-why fixes{of(settings)}")
    return 0


def _approvals(store: FixStore, settings: Settings) -> Approvals:
    return Approvals(store, settings.approvers, right=store.right_to_approve, writer="terminal")
