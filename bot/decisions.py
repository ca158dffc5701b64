"""What people decide in Slack, by click or word, carried out; without it a decision that was taken could be lost with
the bot that took it, or be told and not written down."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from bot import speech
from bot.approvals import Decision, Shown
from bot.errors import UserError
from bot.journal import Click, Journal
from bot.language import Language
from bot.place import Place, place_of
from bot.reply.block_kit import escape, of_cluster
from bot.reply.fix_card import Deciding
from bot.served import Desk, Desks
from bot.slack import Slack, escape_but_mentions, others
from facts import say
from facts.logs import about
from fixes.request import Person, Phase
from fixes.store import StoreError

log = logging.getLogger(__name__)

REASON_MAX = 300
DECISIONS = {"approve": Phase.APPROVED, "reject": Phase.REJECTED, "cancel": Phase.CANCELLED}


class Decisions:
    """All of them are in the journal before they come here, and stay there until they are told and written down."""

    def __init__(self, slack: Slack, journal: Journal, desks: Desks, *, team: str, language: Language) -> None:
        """team: the workspace whose members decide."""
        self._slack = slack
        self._journal = journal
        self._desks = desks
        self._team = team
        self._language = language

    def of_words(self, said: speech.Said, place: Place, identity: str) -> Click | None:
        """What these words decide; None when they decide nothing, or too much at once."""
        to = DECISIONS.get(said.word)
        if to is None or not said.rest or (to is Phase.APPROVED and len(said.rest) > 1):
            return None
        return Click(
            id=identity,
            request=said.rest[0],
            to=to,
            user=place.user,
            team=self._team,
            channel=place.channel,
            thread=place.thread,
            reason=" ".join(said.rest[1:])[:REASON_MAX],
            response_url=place.response_url,
            cluster=said.cluster,
        )

    async def carry_out(self, click: Click, *, again: bool = False) -> None:
        """Decide, tell who clicked what the card does not, and then write it down, which may take longer than people
        wait. again: a bot that died may have done any of it."""
        with about(request=click.request):
            await self._carried_out(click, again)

    async def _carried_out(self, click: Click, again: bool) -> None:
        person, shown = Person(id=click.user, via="slack"), (click.channel, click.card) if click.card else None
        decision = None
        try:
            desk = await self._desks.of(click.request, click.channel, click.cluster)
        except UserError as error:
            await self._slack.whisper(escape(self._language(error.sentence)), place_of(click))
            await asyncio.to_thread(self._journal.finish, click)
            return
        if not click.told:
            click = msgspec.structs.replace(click, cluster=desk.name)
            told, decision = await self._decided(click, desk, person, shown, again)
            told = of_cluster(told, desk.name)
            refused = decision.sentence if decision and not decision.changed else ""
            click = msgspec.structs.replace(click, told=told, refused=str(refused))
            try:
                await asyncio.to_thread(self._journal.update, click)
            except OSError as error:
                log.warning("%s is told, which cannot be kept: %s", click.id, error)
        elif click.refused:
            decision = Decision(False, click.refused)
        telling = self._slack.whisper(click.told, place_of(click)) if click.told else asyncio.sleep(0)
        if decision is not None:  # neither waits for the other: Slack or the cluster may be gone
            writing = desk.approvals.write_down(click.request, Phase(click.to), person, decision, shown)
            await asyncio.gather(telling, writing)
        else:
            await telling
        await asyncio.to_thread(self._journal.finish, click)

    async def _decided(
        self, click: Click, desk: Desk, person: Person, shown: Shown | None, again: bool
    ) -> tuple[str, Decision | None]:
        """Decides, draws the card as it is then, and gives what the person is told, as markup. None: undecided."""
        name, to = click.request, Phase(click.to)
        if click.team != self._team:
            refusal = others()
            return self._language(refusal), Decision(False, refusal)
        deciding = desk.approvals.decide(name, to, person, reason=click.reason, shown=shown, again=again, written=False)
        try:
            if shown:
                deciding = desk.cards.while_deciding(name, click.card, Deciding(to, click.user), deciding)
            decision = await deciding
        except StoreError as error:
            if not shown or error.denied:
                return escape(error.sentence), None
            undecided = say(
                "{why} So your click has decided nothing that I know of; the card shows its buttons again.",
                why=error.sentence,
            )
            return escape(self._language(undecided)), None
        except Exception:
            log.exception("%s could not be decided", click.id)
            broken = say(
                "I could not decide on {name}: something in me broke, and the log has it under {id}. Please try again.",
                name=name,
                id=click.id,
            )
            return escape(self._language(broken)), None
        log.info("%s by %s in %s: %s", to, click.user, click.channel, decision.sentence)
        if decision.request is not None:
            # A click that changed nothing may have been made on a card that lags behind.
            await desk.cards.draw(decision.request)
        shows_it = decision.changed and shown
        return "" if shows_it else escape_but_mentions(self._language(decision.sentence)), decision
