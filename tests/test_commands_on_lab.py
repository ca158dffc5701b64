"""What an answer gives to be typed, typed into a real kernel: a command that shows something else than the answer says
takes all trust from it, and one that does not mend is the worst it could say."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bot.reply import commands
from bot.reply.commands import ANYWHERE, Command
from facts import Cause, Diagnosis, Fact, FdbEntry, Link, Listener, Neighbor, RouteLookup, RuleDrop, Sysctl
from lab.client import Lab
from lab.faults import families, load, names, needs, variant
from tests import exhaustive
from tests.asking import ask, told, words_for

WOUNDS = [
    [(mode, families(mode)[0], variant(mode)), *((mode, 6, "dualstack") for one in families(mode)[1:] if one == 6)]
    for mode in names()
    if not needs(mode)
]
# The kernel forgot what hung on a device that was down, or without IPv6: Felix, which a lab has not, puts it back.
THE_REST_IS_FELIX_TO_DO = ("vxlan_device_down", "ipip_device_down", "pod_interface_down", "ipv6_disabled")
NOT_THE_CARD = ("checksum_offload_broken",)  # a lab's cable spoils the packets, as the remedy says may be


@pytest.mark.parametrize(("mode", "family", "shape"), exhaustive.one_of_each(WOUNDS))
async def test_what_is_to_be_typed_shows_what_the_answer_says_and_mends(
    labs: Callable[[str], Lab], mode: str, family: int, shape: str
) -> None:
    lab = labs(shape)
    inflicted = lab.inflict(mode, where=load(mode).WHERE[0], family=family)
    diagnosis = (await ask(lab.environment(), words_for(inflicted))).diagnosis
    causes = told(diagnosis, mode)
    for cause in causes:
        for command in commands.to_see(cause, diagnosis):
            if command.place != ANYWHERE:
                shows(lab, command, cause, diagnosis)
    typed = [one for cause in diagnosis.causes for one in commands.by_hand(cause, diagnosis.facts)]
    typed = [one for one in dict.fromkeys(typed) if one.place != ANYWHERE]
    for command in typed:
        done = lab.exec(command.place, "sh", "-c", command.line)
        assert done.returncode == 0, (str(command), done.stderr)
    if typed and mode not in NOT_THE_CARD:
        again = (await ask(lab.environment(), words_for(inflicted))).diagnosis
        assert mode not in [cause.rule for cause in again.causes], again.causes
        assert again.verdict == "healthy" or mode in THE_REST_IS_FELIX_TO_DO, (typed, again.causes, again.summary)


def shows(lab: Lab, command: Command, cause: Cause, diagnosis: Diagnosis) -> None:
    done = lab.exec(command.place, "sh", "-c", command.line)
    told = done.stdout + done.stderr
    shown = [
        one for one in diagnosis.facts if one.id in cause.evidence and commands.shows(one, diagnosis.facts) == command
    ]
    assert any(all(word in told for word in words(fact)) for fact in shown), (str(command), told, shown)


def words(fact: Fact) -> list[str]:
    """What of the fact a person looks for in what is printed."""
    match fact:
        case Neighbor(found=True, mac=mac) if mac:
            return [mac]
        case FdbEntry(found=True, peer=peer):
            return [peer]
        case RouteLookup(found=True, type="unicast", device=device, next_hop=hop):
            return [f"dev {device}", hop]
        case RouteLookup(type=other, prefix=prefix, incoming="") if other and prefix:
            return [f"{other} {prefix.removesuffix('/32').removesuffix('/128')}"]
        case Sysctl(found=True, value=value):
            return [f"= {value}"]
        case RuleDrop(text=text, backend="nft"):
            return [text]
        case Link(found=True, mac=mac):
            return [mac]
        case Listener(found=True, port=port):
            return [f":{port} "]
    return []
