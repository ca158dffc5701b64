"""The Chinese answer is as complete as the English one; a sentence nobody translated would be found in an incident."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bot import cli, trail
from bot import language as languages
from bot.approvals import listing
from bot.errors import UserError
from bot.investigate import Investigation
from bot.language import ENGLISH, Language, language
from bot.reply import blocks, evidence
from bot.reply.fix_card import fix_card
from bot.reply.text import LABEL, WIDTH, render
from bot.reply.wording import width
from bot.second_look import second_look
from engine import rulebase
from engine.diagnosis import diagnose, prepared
from engine.rule import CauseRule
from facts import say
from fixes.request import NOTHING_NOW, Phase, document
from lab.slack.validation import validate_message
from tests import answers, sentences
from tests.fix_samples import NOW, a_request
from tests.test_cases import RECORDINGS, facts_of

MODES = [rule for rule in rulebase.load().rules if isinstance(rule, CauseRule)]
LANGUAGES = [name for name in languages.names() if name != ENGLISH.name]
CHINESE = re.compile(r"[\u4e00-\u9fff]")
zh = language("zh")


def catalogue(name: str, mode: str = "") -> dict[str, str]:
    path = languages.CATALOGUES / name / f"{mode}.yaml" if mode else languages.CATALOGUES / f"{name}.yaml"
    return languages.read(path) if path.exists() else {}


def compare(path: str, english: set[str], translated: Mapping[str, str]) -> None:
    missing, stale = english - set(translated), set(translated) - english
    assert not missing, f"{path} lacks (python -m tests.translate takes them): {sorted(missing)}"
    assert not stale, f"{path} translates what nobody says (any more): {sorted(stale)}"
    for template, other in translated.items():
        assert other.strip(), f"{path}: nothing stands for {template!r}"
        # What a person reads may need a name once more, or leave out one that the sentence repeats; none is invented.
        assert sentences.placeholders(other) == sentences.placeholders(template), f"{path}: {template!r}"


@pytest.mark.parametrize("name", LANGUAGES)
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_every_failure_mode_is_translated_and_nothing_else(name: str, mode: CauseRule) -> None:
    compare(f"bot/lang/{name}/{mode.name}.yaml", sentences.of_mode(mode), catalogue(name, mode.name))


@pytest.mark.parametrize("name", LANGUAGES)
def test_the_frame_of_an_answer_is_translated_and_nothing_else(name: str) -> None:
    compare(f"bot/lang/{name}.yaml", sentences.of_frame(), catalogue(name))


@pytest.mark.parametrize("name", LANGUAGES)
def test_catalogues_are_of_failure_modes_and_agree(name: str) -> None:
    modes = {path.stem for path in (languages.CATALOGUES / name).glob("*.yaml")}
    assert modes <= {mode.name for mode in MODES}
    found: dict[str, str] = {}
    for words in [catalogue(name), *(catalogue(name, mode) for mode in sorted(modes))]:
        for english, other in words.items():
            assert found.setdefault(english, other) == other, f"{english!r} is said in two ways"


def test_a_sentence_put_together_outside_of_say_is_found(tmp_path: Path) -> None:
    """What the tests above compare with is read from the source: it must not overlook a sentence."""
    source = tmp_path / "rule.py"
    source.write_text('WORDS = {"a": "one", "b": "two"}\nsay("x" if y else "{z} y", z=say(WORDS[k]))\n')
    assert sentences.said_in(source) == {"x", "{z} y", "one", "two"}
    source.write_text('say(f"{node} is down")\n')
    with pytest.raises(TypeError, match=r"rule\.py:1"):
        sentences.said_in(source)


def test_no_rule_has_english_beside_what_it_says(tmp_path: Path) -> None:
    """Words glued to a value would stand in the middle of a Chinese sentence."""
    rules = sorted((sentences.ROOT / "engine/rules").glob("*.py"))
    assert {path.stem: sentences.unsaid_in(path) for path in rules if sentences.unsaid_in(path)} == {}
    glued = tmp_path / "rule.py"
    glued.write_text('def f(x):\n    """Not this."""\n    return say("{on} it", on=f"{x} on {x}" if x else "no one")\n')
    assert sentences.unsaid_in(glued) == {" on ", "no one"}


def test_no_kind_of_fix_has_english_beside_what_it_says() -> None:
    told = ("title", "blast_radius", "undo")
    kinds = sorted((sentences.ROOT / "fixes/kinds").glob("*.py"))
    assert {path.stem: sentences.unsaid_in(path, told) for path in kinds if sentences.unsaid_in(path, told)} == {}


def test_a_card_reads_chinese_but_for_what_would_be_written() -> None:
    preview = ("ip neigh replace 10.244.218.64 lladdr 66:89:3a:22:7a:ac dev vxlan.calico nud permanent",)
    changed = (f"{NOTHING_NOW}The entry is right.",)
    told = []
    for lines in (preview, changed):
        waiting = a_request()
        waiting = msgspec.structs.replace(waiting, status=msgspec.structs.replace(waiting.status, preview=lines))
        told.append(json.dumps(fix_card(document(waiting, "ns"), NOW, language=zh).blocks, ensure_ascii=False))
    for words in (
        "*在 node-a 上替换邻居表项 10.244.218.64*",
        "*影响范围：* node-a 的 vxlan.calico 上的一个表项：node-a -&gt; node-b 的流量，现在是不通的。",
        "*撤销：* 不需要：66:89:3a:22:7a:ac 正是 Felix 自己会为 node-b 写入的。这不归 Felix 管。",
        '"text": "在 node-a 上替换邻居表项 10.244.218.64. node-a 的 vxlan.calico',  # asked before it is approved
        preview[0],
    ):
        assert words in told[0]
    assert "按现在的情况不会写入任何东西：The entry is right." in told[1]


def test_a_request_is_shown_by_what_it_would_do_and_not_by_what_it_calls_itself() -> None:
    """Whoever may create a FixRequest writes its title; only kind, node, arguments and evidence are bound to it."""
    forged = a_request(title="Read a counter", blast_radius="nothing", undo="not needed")
    told = json.dumps(fix_card(document(forged, "ns"), NOW).blocks)
    assert "Replace the neighbor 10.244.218.64 on node-a" in told and "traffic node-a -&gt; node-b" in told
    assert "Read a counter" not in told and "nothing" not in told
    for listed in (listing([forged]), trail.request(forged)):
        assert "Replace the neighbor 10.244.218.64 on node-a" in listed and "Read a counter" not in listed
    unknown = a_request(kind="of_a_newer_version", title="Turn a page")
    assert "Turn a page" in json.dumps(fix_card(document(unknown, "ns"), NOW).blocks)


def test_parts_of_a_sentence_are_translated_and_names_are_not() -> None:
    words = Language("xx", {"{who} likes {what}.": "{what}: {who}!", "the uplink": "UPLINK", "tea": "THE"})
    assert words(say("{who} likes {what}.", who="tea", what=say("the uplink"))) == "UPLINK: tea!"
    assert words(say("{who} hates {what}.", who="a", what=say("the uplink"))) == "a hates UPLINK."
    assert words("the\n  uplink") == "UPLINK"
    assert words(say("{who} likes {what}.", who="{what}", what="{0}")) == "{0}: {what}!"


def test_words_that_replaced_a_sentence_are_told_as_they_are() -> None:
    cause = answers.wrong_mac().diagnosis.causes[0]
    other = msgspec.structs.replace(cause, text="something else")
    assert zh(other.text, other.message) == "something else"


def first_recordings() -> list[Any]:
    """One recording of each case."""
    return list({param.values[0]: param for param in reversed(RECORDINGS)}.values())


@pytest.mark.parametrize(("mode", "recording"), first_recordings())
def test_every_recorded_wound_is_told_in_chinese(mode: str, recording: dict[str, Any]) -> None:
    facts = facts_of(recording)
    found = rulebase.load().evaluate(prepared(facts)).causes
    assert mode in {cause.rule for cause in found}
    for cause in found:
        for said in (zh(cause.title), zh(cause.text, cause.message), zh(cause.remedy)):
            assert CHINESE.search(said), said
    diagnosis = diagnose(facts)
    for cause in (*diagnosis.causes, *diagnosis.warnings):
        assert not cause.felix or CHINESE.search(zh(cause.felix, cause.felix_message))
    for blind in diagnosis.blind:
        assert blind.message is None or CHINESE.search(zh(blind.reason, blind.message))
    answer = answers.investigation(diagnosis)
    assert "已检查且正常" in render(answer, verbose=True, language=zh)
    for message in (blocks.answer(answer, zh), *blocks.thread(answer, language=zh)):
        assert validate_message({"text": message.text, "blocks": message.blocks}) == []


def test_an_answer_reads_chinese_from_the_first_to_the_last_line() -> None:
    lines = render(answers.wrong_mac(), language=zh).splitlines()
    assert lines[0].startswith("shop/cart 10.244.174.132 位于 node-a  ->  shop/db 10.244.218.68 位于 node-b")
    assert lines[2].startswith("x node-a：对端隧道地址的 MAC 错误  ") and lines[2].endswith(" neighbor_wrong_mac")
    assert width(lines[2]) == WIDTH, "a Chinese character takes two columns"
    assert lines[3] == (
        f"  node-a 把发往 10.244.218.64 的帧送给 {answers.WRONG_MAC}；而 node-b 的 vxlan.calico 是 66:89:3a:22:7a:ac。"
    )
    assert "node-a 上的 Felix 存活" in lines[4]
    text = "\n".join(lines)
    assert "去程      eth0 ok > cali4c1aaaaaaaa ok > node-a ok > vxlan.calico x 首个异常点" in text
    do_now = next(line for line in lines if "立即处理" in line)
    assert width(do_now.split("用正确的")[0]) == 2 + LABEL
    assert "未能看到：无" in lines[-1]
    english = re.findall(r"\b(the|of|is|Do now|Could|seen|nothing|answered)\b", text)
    assert english == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (answers.well, "ok shop/cart 能访问 shop/db 的 5432/tcp：两者之间一切正常"),
        (answers.unseen, "? 无法判断 shop/cart 为什么访问不了 shop/db 的 5432/tcp"),
        (answers.unseen, "node-b: probe: 其位于 172.30.0.12 的探针 4 秒内没有应答"),
        (answers.no_engine, "无法判断：the engine ended by signal 9"),
    ],
)
def test_every_verdict_has_its_line(make: Any, words: str) -> None:
    assert words in render(make(), language=zh)


def test_the_coloured_answer_marks_the_bad_hop_in_every_language() -> None:
    assert "\x1b[31;1mx 首个异常点\x1b[0m" in render(answers.wrong_mac(), language=zh, colour=True)


def test_evidence_in_chinese_marks_the_same_rows_wrong() -> None:
    text = render(answers.wrong_mac(), verbose=True, language=zh)
    marked = [line for line in text.splitlines() if line.startswith("  x ")]
    assert len(marked) == sum(row.wrong for row in evidence.rows(answers.wrong_mac().diagnosis))
    assert marked[0].endswith(f"{answers.WRONG_MAC}   期望 66:89:3a:22:7a:ac")


def test_slack_gets_the_answer_in_its_language() -> None:
    told = json.dumps(
        [
            message.blocks
            for message in (blocks.answer(answers.wrong_mac(), zh), *blocks.thread(answers.wrong_mac(), language=zh))
        ],
        ensure_ascii=False,
    )
    for words in ("对端隧道地址的 MAC 错误", "node-a 上的 Felix 存活", "立即处理", "未能看到", "期望"):
        assert words in told


@pytest.mark.parametrize(
    ("answer", "verdict", "words"),
    [
        (answers.wrong_mac, "cause", "仍然不通"),
        (answers.well, "healthy", "已验证"),
        (answers.unseen, "unknown", "无法判断"),
    ],
)
async def test_the_second_look_tells_in_the_bots_language(answer: Any, verdict: str, words: str) -> None:
    async def ask(*_: object, **__: object) -> Investigation:
        return answer()  # type: ignore[no-any-return]

    told = await second_look(ask, zh)(a_request(Phase.VERIFIED))
    assert told[0] == verdict
    assert words in told[1] and (verdict != "cause" or "对端隧道地址的 MAC 错误" in told[1])


# --- which language -------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> str:
    path = tmp_path / "inv.json"
    path.write_bytes(msgspec.json.encode(answers.wrong_mac()))
    return str(path)


@pytest.mark.parametrize(
    ("variable", "flags", "words"),
    [
        ("", [], "Wrong MAC"),
        ("zh", [], "MAC 错误"),
        ("", ["--lang", "zh"], "MAC 错误"),
        ("zh", ["--lang", "en"], "Wrong MAC"),
    ],
)
def test_the_flag_wins_over_the_environment(
    variable: str, flags: list[str], words: str, saved: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv(languages.VARIABLE, variable)
    assert cli.main(["replay", saved, *flags]) == 0
    assert words in capsys.readouterr().out


def test_json_is_english_in_every_language(saved: str, capsys: Any) -> None:
    assert cli.main(["replay", saved, "-o", "json", "--lang", "zh"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["causes"][0]["title"] == "Wrong MAC for the peer's tunnel address"


def test_a_language_there_is_not_is_told_with_those_there_are(saved: str, capsys: Any) -> None:
    assert cli.main(["replay", saved, "--lang", "tlh"]) == 2
    assert "en and zh" in capsys.readouterr().err
    with pytest.raises(UserError):
        language("../zh")
