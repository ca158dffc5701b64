"""What the policies say of a question before anything is sent; without it people would have to lose packets to learn
which policy stands where."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence

import msgspec

from bot import words
from bot.errors import UserError
from bot.sources.kubernetes import Cluster
from bot.sources.policies import policies
from engine.opinions import PolicyWalk, walks
from facts import Backend, Blind, Endpoint, Fact, PoliciesRead, Question

USAGE = "policy POD|NODE|IP POD|SERVICE|NODE|IP [PORT/tcp|udp], for example: policy shop/cart shop/db 5432/tcp"


class SecondOpinion(msgspec.Struct, frozen=True, kw_only=True):
    """What the API's policies say of one question. The kernel, which decides, was not asked."""

    cluster: str
    asked: str  # the words, such as "shop/cart shop/db 5432/tcp"
    started: str  # ISO 8601, UTC
    elapsed_ms: int
    source: str  # both as they were found
    target: str
    verdict: str  # of all flows: "allow" | "some" | "deny" | "unknown"
    walks: tuple[PolicyWalk, ...]  # one for each family both have, and for each endpoint of a Service
    node_port_of: str = ""  # the Service whose nodePort was asked: its packets are translated on the way, so not judged
    unjudged: int = 0  # endpoints of the Service that were not looked up, for there are too many
    blind: tuple[Blind, ...] = ()  # what could not be read
    staged_read: bool = True  # False: some kind of staged policies could not be read


def understand(said: Sequence[str]) -> words.Asked:
    """Two ends and perhaps a port. Raises UserError."""
    try:
        return words.parse(said)
    except UserError as error:
        sentence = error.sentence.replace(words.USAGE, USAGE).replace(" why ", " policy ")
        raise UserError(sentence, status=error.status) from None


async def second_opinion(asked: words.Asked, *, cluster: Cluster) -> SecondOpinion:
    """Reads both ends and the policies about them; no probe is asked. Raises UserError as `Cluster.look` does."""
    began, started = time.monotonic(), datetime.datetime.now(datetime.UTC)
    known = await cluster.look(asked)
    about = await policies(cluster, known)
    facts = [*known, *about]
    question = next(one for one in known if isinstance(one, Question))
    may_lead_on = bool(asked.port and not question.port)  # Services, whose port it may be, could not be read
    found = () if may_lead_on or question.service else tuple(walks(facts))
    left = 0 if question.service else _unjudged(known, question)
    read = next(one for one in about if isinstance(one, PoliciesRead))
    looks = about if found else facts  # why no way is known is told by the look at both ends
    return SecondOpinion(
        cluster=cluster.name,
        asked=str(asked),
        started=started.isoformat(timespec="seconds"),
        elapsed_ms=round((time.monotonic() - began) * 1000),
        source=question.source,
        target=question.target,
        verdict="unknown" if left else together(found),
        walks=found,
        node_port_of=question.service,
        unjudged=left,
        blind=tuple(one for one in looks if isinstance(one, Blind)),
        staged_read=read.staged_read,
    )


def _unjudged(known: Sequence[Fact], question: Question) -> int:
    """Endpoints that packets may be sent to, beside those looked up and the sender itself. A stale one is nobody's."""
    ends = {one.name for one in known if isinstance(one, Endpoint)}
    used = [one for one in known if isinstance(one, Backend) and one.used and not one.stale]
    return len({one.pod or one.address for one in used if one.endpoint not in ends and one.pod != question.source})


def together(walks: Sequence[PolicyWalk]) -> str:
    """The verdict of all of them; what of one is not known is not known of all."""
    verdicts = [one.verdict for one in walks]
    if not verdicts or "unknown" in verdicts:
        return "unknown"
    return verdicts[0] if len(set(verdicts)) == 1 else "some"
