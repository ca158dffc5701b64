"""`policy` in Slack: what the policies say, where it was asked; without it only a terminal could ask before sending."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from bot.errors import UserError
from bot.language import ENGLISH, Language
from bot.place import Place
from bot.reply import second_opinion as reply
from bot.reply.block_kit import escape, of_cluster
from bot.second_opinion import SecondOpinion, understand
from bot.slack import NotInChannel, Slack, cannot_be_heard
from bot.words import Asked
from facts import say

log = logging.getLogger(__name__)

Judge = Callable[[Asked], Awaitable[SecondOpinion]]


class Policies:
    """Answers `policy A B [PORT]` for everybody in the channel, and trouble for who asked alone."""

    def __init__(
        self,
        slack: Slack,
        judge: Judge,
        *,
        bot_name: str,
        cluster: str = "",
        flag: str = "",
        language: Language = ENGLISH,
    ) -> None:
        """flag: what leads a question to this cluster, where there are several."""
        self._slack = slack
        self._judge = judge
        self._bot_name = bot_name
        self._cluster = cluster
        self._flag = flag
        self._language = language

    async def answer(self, words: Sequence[str], place: Place) -> None:
        """Raises UserError when Slack does not take what is said."""
        try:
            asked = understand(words)
            found = await self._judge(asked)
            message = reply.slack(found, place.user, self._language, self._flag)
            await self._slack.insist(lambda: self._slack.post(place.channel, message, place.thread))
            return
        except NotInChannel as error:
            trouble = self._language(cannot_be_heard(error, self._bot_name))
        except UserError as error:
            trouble = escape(error.sentence)
        except Exception:
            log.exception("policy %s could not be judged", " ".join(words))
            trouble = self._language(say("Something in me broke, and the log has it. Please ask again."))
        await self._slack.whisper(of_cluster(trouble, self._cluster), place)
