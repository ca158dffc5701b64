"""The terminal's answer: the first line answers, nothing is said that was not seen, nothing in it moves a cursor."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.reply import blocks, commands, evidence
from bot.reply.text import render
from engine.diagnosis import diagnose
from facts import Neighbor, ProbeResult
from lab.slack.validation import validate_message
from tests import answers
from tests.scene import change, healthy
from tests.test_cases import RECORDINGS, facts_of

FIX = {
    "metadata": {"name": "fx-abcd2345"},
    "spec": {
        "kind": "replace_neighbor",
        "node": "node-a",
        "title": "Replace the neighbor 10.244.218.64 on node-a",
        "undo": "Not needed.",
        "expiresAt": "2026-11-22T22:19:00Z",
    },
}


def test_a_cause_is_told_in_the_order_a_person_needs_it() -> None:
    lines = render(answers.wrong_mac()).splitlines()
    head = "shop/cart 10.244.174.132 on node-a  ->  shop/db 10.244.218.68 on node-b   5432/tcp"
    assert lines[0].startswith(head) and lines[0].endswith("vxlan, Calico v3.32.1      [prod-eu-1]")
    assert lines[2].startswith("x node-a: Wrong MAC for the peer's tunnel address  ")
    assert lines[2].endswith(" neighbor_wrong_mac") and len(lines[2]) == 100
    assert answers.WRONG_MAC in lines[3] and "66:89:3a:22:7a:ac" in lines[3]
    assert "Felix on node-a is alive" in lines[4]
    text = "\n".join(lines)
    assert "forward   eth0 ok > cali4c1aaaaaaaa ok > node-a ok > vxlan.calico x first bad hop" in text
    assert text.index("first bad hop") < text.index("See it") < text.index("Do now") < text.index("Checked and well: ")
    assert "  See it    node-a# ip neigh get 10.244.218.64 dev vxlan.calico\n" in text
    mends = "ip neigh replace 10.244.218.64 lladdr 66:89:3a:22:7a:ac dev vxlan.calico nud permanent"
    assert f"\n            node-a# {mends}\n" in text
    assert "Could not see: nothing" in lines[-1] and "0.21 s" in lines[-1]


def test_a_fix_that_was_requested_names_the_command_for_the_second_person() -> None:
    assert "calico-why approve" not in render(answers.wrong_mac())
    text = render(answers.wrong_mac(), fixes=[FIX])
    assert "a second person: calico-why approve fx-abcd2345   until 2026-11-22T22:19:00Z" in text
    other = {**FIX, "spec": {**FIX["spec"], "node": "node-c"}}
    assert "fx-abcd2345" not in render(answers.wrong_mac(), fixes=[other])


def test_healthy_says_what_passed_and_how_much_was_checked() -> None:
    answer = answers.well()
    text = render(answer)
    assert "ok shop/cart reaches shop/db on 5432/tcp" in text
    assert "2 of 2 answered" in text and "Do now" not in text and "\nx " not in text
    assert f"Checked and well: {len(answer.diagnosis.checked)} " in text


def test_unknown_says_what_could_not_be_seen_and_what_would_help() -> None:
    text = render(answers.unseen())
    assert "? I cannot say why shop/cart did not reach shop/db on 5432/tcp" in text
    assert f"node-b: probe: {answers.SILENT_PROBE.reason}" in text
    assert "Next      make the probe of node-b answer, then ask again" in text
    assert "reaches shop/db on 5432/tcp: everything" not in text


def test_an_answer_without_an_engine_still_is_one() -> None:
    text = render(answers.no_engine())
    assert "? I cannot say whether shop/cart reaches shop/db" in text
    assert "could not judge: the engine ended by signal 9" in text


def test_blind_spots_are_told_beside_a_cause_too() -> None:
    answer = answers.wrong_mac()
    blind = msgspec.structs.replace(answer.diagnosis, blind=(answers.SILENT_PROBE,))
    text = render(msgspec.structs.replace(answer, diagnosis=blind))
    assert "Could not see: 1" in text and answers.SILENT_PROBE.reason in text


def test_warnings_follow_a_healthy_answer() -> None:
    answer = answers.well()
    warning = msgspec.structs.replace(answers.wrong_mac().diagnosis.causes[0], severity="warns")
    diagnosis = msgspec.structs.replace(answer.diagnosis, warnings=(warning,))
    text = render(msgspec.structs.replace(answer, diagnosis=diagnosis))
    well = "ok shop/cart reaches shop/db on 5432/tcp, but not all is as it should be"
    assert text.index(well) < text.index("! node-a: Wrong MAC")


def test_what_passes_is_not_put_in_question_by_what_could_not_be_seen() -> None:
    answer = answers.well()
    diagnosis = msgspec.structs.replace(answer.diagnosis, verdict="unknown", blind=(answers.SILENT_PROBE,))
    text = render(msgspec.structs.replace(answer, diagnosis=diagnosis))
    assert "? shop/cart reaches shop/db on 5432/tcp, but I cannot say that all is as it should be" in text


def test_of_many_looks_that_could_not_be_made_for_one_reason_a_few_are_named() -> None:
    answer = answers.well()
    blind = tuple(msgspec.structs.replace(answers.SILENT_PROBE, look=f"look{number}") for number in range(9))
    found = msgspec.structs.replace(answer, diagnosis=msgspec.structs.replace(answer.diagnosis, blind=blind))
    assert "node-b: look0, look1, look2, 6 more: " in render(found)
    assert "look8" in render(found, verbose=True)


# What no single command shows: packets of a size, some of many, or one that was met behind the rule that denies it;
# and WireGuard's, which tell nothing of what is inside.
NOT_BY_A_COMMAND = {
    "large_packets_filtered",
    "packets_lost_now_and_then",
    "policy_bypassed",
    "underlay_drops_wireguard",
}


def test_every_failure_mode_can_be_seen_with_a_command() -> None:
    unseen = set()
    for mode, recording in (case.values for case in RECORDINGS):
        diagnosis = diagnose(facts_of(recording))
        causes = [one for one in (*diagnosis.causes, *diagnosis.warnings) if one.rule == mode]
        unseen |= {mode for cause in causes if not commands.to_see(cause, diagnosis)}
    assert unseen == NOT_BY_A_COMMAND


def test_a_sentence_begins_with_a_capital_and_a_name_of_the_cluster_as_it_is_written() -> None:
    missing = change(healthy(), Neighbor, {"node": "node-a"}, mac="", found=False)
    lost = change(missing, ProbeResult, {}, answered=0, outcome="silence", rtt_us=-1)
    assert "\n  The entry for 10.244.218.64 on vxlan.calico of node-a " in render(answers.investigation(diagnose(lost)))
    assert "\n  node-a sends frames for " in render(answers.wrong_mac())


def test_verbose_lists_what_was_checked_and_seen_with_the_wrong_one_marked() -> None:
    text = render(answers.wrong_mac(), verbose=True)
    assert "fdb_entry_missing (" in text and "--verbose" not in text
    marked = [line for line in text.splitlines() if line.startswith("  x ")]
    assert marked[0].endswith(f"{answers.WRONG_MAC}   expected 66:89:3a:22:7a:ac")


def test_saved_and_not_saved_are_told() -> None:
    answer = answers.well()
    assert "saved as /s/inv.json" in render(msgspec.structs.replace(answer, saved="/s/inv.json"))
    assert "Not saved: disk full" in render(msgspec.structs.replace(answer, not_saved="disk full"))


def test_colour_only_where_asked_for() -> None:
    plain, coloured = render(answers.wrong_mac()), render(answers.wrong_mac(), colour=True)
    assert "\x1b" not in plain
    assert "\x1b[31;1mx node-a: Wrong MAC" in coloured
    for code in ("\x1b[31;1m", "\x1b[0m"):
        coloured = coloured.replace(code, "")
    assert coloured == plain


@pytest.mark.parametrize("name", ["\x1b[2J\x1b[31m", "a\rb", "a\nx Fine", "\u202egnirts", "x" * 5000])
def test_no_name_moves_the_cursor_or_forges_a_line(name: str) -> None:
    answer = answers.hostile(name)
    text = render(answer, verbose=True)
    assert not any(one != "\n" and not one.isprintable() for one in text)
    assert text.count("\n") == render(answers.hostile("x"), verbose=True).count("\n")


@given(st.text(max_size=40), st.integers(0, 4))
def test_anything_can_be_rendered(name: str, count: int) -> None:
    assert render(answers.hostile(name, count), verbose=True).endswith("\n")


def test_evidence_puts_the_wrong_fact_of_the_cause_first_and_knows_every_other_as_right() -> None:
    rows = evidence.rows(answers.wrong_mac().diagnosis)
    assert (rows[0].node, rows[0].expected, rows[0].seen) == ("node-a", "66:89:3a:22:7a:ac", answers.WRONG_MAC)
    assert {row.what.split()[0] for row in rows if row.wrong} == {"neighbor", "icmp", "icmp,", "tcp"}
    assert not any(row.wrong for row in evidence.rows(answers.well().diagnosis))
    kinds = {row.what.split()[0] for row in evidence.rows(answers.well().diagnosis)}
    assert {"neighbor", "FDB", "route", "device", "addresses", "IPAM", "Felix", "pod", "who"} <= kinds


@pytest.mark.parametrize(("mode", "recording"), RECORDINGS)
def test_every_recorded_wound_is_shown_with_its_wrong_fact_first(mode: str, recording: dict[str, Any]) -> None:
    answer = answers.investigation(diagnose(facts_of(recording)))
    first = evidence.rows(answer.diagnosis)[0]
    only_warned = not answer.diagnosis.causes
    assert first.cited and (first.wrong or only_warned)
    text = render(answer, verbose=True)
    assert f" {mode}\n" in text and ("Do later" if only_warned else "Do now") in text
    for message in (blocks.answer(answer), *blocks.thread(answer)):
        assert validate_message({"text": message.text, "blocks": message.blocks}) == []
