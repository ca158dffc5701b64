"""What the bot is told by its environment: who may approve, and where it keeps what it accepted; without it both would
show when the first approval is refused or the first restart loses a question."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bot.preflight.model import NOT, OK, SKIPPED, Line
from facts import Text, joined, listed, say
from fixes.approvers import Approvers
from fixes.configuration import Configuration

FREE = 64 << 20  # bytes, of questions and what was seen for them


def configuration(told: Configuration, cluster: str) -> Line:
    """What holds. cluster: the one that is looked at. What is wrong with it is told before anything is begun."""
    file = say("it is read from {file}", file=told.file) if told.file else say("there is no file")
    of = [one.cluster for one in told.clusters]
    several = say("{clusters} are served, and this is about {cluster}", clusters=listed(of), cluster=cluster)
    said = [file, several if len(of) > 1 else "", say("this is development") if told.development else ""]
    return Line(part="configuration", about=say("configuration"), state=OK, found=joined(filter(None, said)))


def approvers(who: Approvers, *, of_a_bot: bool) -> list[Line]:
    """of_a_bot: this environment is a bot's; a terminal's need not say who may approve."""
    part, about = "approvers", say("approvers")
    if who.entries:
        said = say("{count} entries in CALICO_WHY_APPROVERS", count=len(who.entries))
        return [Line(part=part, about=about, state=OK, found=said)]
    if not of_a_bot:
        said = say("not looked at: CALICO_WHY_APPROVERS is not set here")
        return [Line(part=part, about=about, state=SKIPPED, found=said)]
    return [
        Line(
            part=part,
            about=about,
            state=NOT,
            found=say("CALICO_WHY_APPROVERS is empty"),
            means=say("Nobody can approve a fix in Slack."),
            remedy=say(
                "Set it, or `approvers` in calico-why.yaml, for bot and fixers alike, such as S0123ABC for a group of "
                "Slack."
            ),
        ),
    ]


def state(directory: Path | None, *, of_a_bot: bool) -> list[Line]:
    """Whether what was accepted can be kept. Nothing is written to find out."""
    part, about = "state", say("CALICO_WHY_STATE")
    lost = say("A question or a click accepted just before a restart of the bot is lost.")
    remedy = say("Set CALICO_WHY_STATE to a directory this user may write to.")
    if directory is None:
        if not of_a_bot:
            return [Line(part=part, about=about, state=SKIPPED, found=say("not looked at: it is not set here"))]
        return [Line(part=part, about=about, state=NOT, found=say("it is not set"), means=lost, remedy=remedy)]

    def no(found: Text) -> list[Line]:
        return [Line(part=part, about=about, state=NOT, found=found, means=lost, remedy=remedy)]

    there = next(one for one in (directory.absolute(), *directory.absolute().parents) if one.exists())
    if not there.is_dir():
        return no(say("{path} is no directory", path=there))
    if not os.access(there, os.W_OK | os.X_OK):
        return no(say("{path} cannot be written to", path=there))
    if (free := shutil.disk_usage(there).free) < FREE:
        return no(say("the disk of {path} has {size} MiB left", path=there, size=free >> 20))
    return [Line(part=part, about=about, state=OK, found=say("{path} can be written to", path=directory))]
