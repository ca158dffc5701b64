"""What the API server has to let the bot do, from the manifests that grant it, lest a list beside them grow stale."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

from bot.preflight.model import NOT, OK, SHOWN, UNSEEN, Line, several
from bot.sources.kubernetes import CLASSIC, NATIVE
from facts import Text, joined, say
from fixes.request import GROUP
from fixes.store import FixStore, StoreError

HERE = Path(__file__).parent
BOT = HERE / "rbac-bot.yaml"  # links into deploy/
CALICO = HERE / "rbac-calico.yaml"
CALICO_ROLE = "calico-why-reader"
AT_ONCE = 16
PART = "rights"


class Right(msgspec.Struct, frozen=True, kw_only=True):
    """Attributes of a SelfSubjectAccessReview; namespace "": in the whole cluster; name "": of all names."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def on(self) -> str:
        """What it is a right on, as kubectl writes it."""
        word = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        word += f".{self.group}" if self.group else ""
        return word + (f" {self.name}" if self.name else "")

    def attributes(self) -> dict[str, str]:
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value}


def needed(served: Collection[str], calico_group: str, namespace: str, calico_namespace: str) -> list[Right]:
    """All that the bot asks for in this cluster.

    served: API groups. namespace: of the fix requests; calico_namespace: of Calico's own pods, "" where unknown.
    """
    found = list[Right]()
    for role in yaml.safe_load_all(BOT.read_text()):
        if role["kind"] in ("ClusterRole", "Role"):
            found += _rights(role, "" if role["kind"] == "ClusterRole" else namespace)
    if calico_namespace:
        for role in yaml.safe_load_all(CALICO.read_text()):
            if role["kind"] == "Role" and role["metadata"]["name"] == CALICO_ROLE:
                found += _rights(role, calico_namespace)
    other = ({CLASSIC, NATIVE} - {calico_group}).pop().split("/")[0]
    # The two groups of ours and of Calico are told of by others when they are not served.
    own = {"", GROUP, calico_group.split("/")[0]}
    return [one for one in found if one.group != other and (one.group in own or one.group in served)]


def _rights(role: dict[str, Any], namespace: str) -> Iterator[Right]:
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for word in rule["resources"]:
                resource, _, below = word.partition("/")
                for name in rule.get("resourceNames", ("",)):
                    for verb in rule["verbs"]:
                        yield Right(
                            verb=verb,
                            group=group,
                            resource=resource,
                            subresource=below,
                            namespace=namespace,
                            name=name,
                        )


async def lines(store: FixStore, wanted: Collection[Right]) -> list[Line]:
    """Whether who asks may do all of this."""
    about = say("API permissions")
    gate = asyncio.Semaphore(AT_ONCE)

    async def allowed(right: Right) -> bool:
        async with gate:
            return await store.allowed(right.attributes())

    try:
        who = (await store.whoami()).id
        answers = await asyncio.gather(*map(allowed, wanted))
    except StoreError as error:
        return [Line(part=PART, about=about, state=UNSEEN, found=error.sentence)]
    denied = [right for right, may in zip(wanted, answers, strict=True) if not may]
    if not denied:
        said = say("{who} may do all {count} things the bot asks the API server for", who=who, count=len(answers))
        return [Line(part=PART, about=about, state=OK, found=said)]
    by = dict[tuple[str, str], list[str]]()
    for one in denied:
        by.setdefault((one.on, one.namespace), []).append(one.verb)
    remedy = say(
        "Bind the roles of deploy/base/rbac-bot.yaml and of deploy/components/ of this version to it: kubectl apply "
        "-k, with the overlay you chose."
    )
    found = [
        Line(
            part=PART,
            about=about,
            state=NOT,
            found=_denied(who, joined(verbs), on, namespace),
            means=_means(on, namespace),
            remedy=remedy,
        )
        for (on, namespace), verbs in list(by.items())[:SHOWN]
    ]
    if more := list(by)[SHOWN:]:
        also = say("{who} may not do all that is needed with {names}", who=who, names=several([on for on, _ in more]))
        found.append(Line(part=PART, about=about, state=NOT, found=also, remedy=remedy))
    return found


def _denied(who: str, verbs: str, on: str, namespace: str) -> Text:
    if namespace:
        return say("{who} may not {verbs} {on} in the namespace {namespace}", who=who, verbs=verbs, on=on,
                   namespace=namespace)  # fmt: skip
    return say("{who} may not {verbs} {on}", who=who, verbs=verbs, on=on)


def _means(on: str, namespace: str) -> Text:
    if namespace and on == "events":  # those of its own namespace
        return say("A mention that Slack delivers twice may be answered by two replicas.")
    if GROUP in on or on.startswith("configmaps calico-why"):
        return say("Fixes cannot be asked for, decided or written down as they should.")
    return say("Answers that rest on it say that it could not be read.")
