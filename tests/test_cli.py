"""The command line: every word found without importing the others, every error one sentence with its exit status."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from bot import cli, investigate
from bot.commands import why
from bot.errors import UserError
from bot.investigate import save
from facts import Diagnosis
from tests import answers

PROBE = "tests.test_cli"
HELP = "a command of this test"
doing: Any = None  # what the command does when it runs


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("word", nargs="?")


def run(args: Namespace) -> int:
    return int(doing(args))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`probe-me` is the only word; the test says what it does."""
    one = importlib.metadata.EntryPoint("probe-me", PROBE, cli.GROUP)
    monkeypatch.setattr(cli, "entry_points", lambda group: [one])
    module = importlib.import_module(PROBE)

    def does(action: Any) -> None:
        monkeypatch.setattr(module, "doing", action)

    return does


def raising(error: BaseException) -> Any:
    def action(_args: Namespace) -> int:
        raise error

    return action


def test_a_command_gets_its_words_and_its_status_is_returned(command: Any) -> None:
    command(lambda args: 0 if args.word == "hello" else 3)
    assert cli.main(["probe-me", "hello"]) == 0
    assert cli.main(["probe-me", "else"]) == 3


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_lists_every_word_with_its_line(command: Any, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([word]) == 0
    out = capsys.readouterr().out
    assert f"probe-me  {HELP}" in out and "Exit status" in out


def test_a_word_whose_package_was_left_out_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left_out = importlib.metadata.EntryPoint("lab", "left_out.command", cli.GROUP)
    monkeypatch.setattr(cli, "entry_points", lambda group: [left_out])
    assert cli.main(["lab"]) == 2
    assert capsys.readouterr().err.startswith("lab is not in this installation of calico-why")
    assert cli.main(["--help"]) == 0
    assert "lab  (not installed)" in capsys.readouterr().out


def test_nothing_at_all_is_wrong_usage_with_the_help(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert HELP in capsys.readouterr().out


def test_an_unknown_word_is_answered_with_the_nearest(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prob-me"]) == 2
    assert capsys.readouterr().err == "'prob-me' is not a word of calico-why; did you mean `calico-why probe-me`?\n"
    assert cli.main(["zzz"]) == 2
    assert "there is probe-me" in capsys.readouterr().err


def test_a_user_error_is_its_sentence_on_stderr(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    command(raising(UserError("What happened. What to do.", status=3)))
    assert cli.main(["probe-me"]) == 3
    out, err = capsys.readouterr()
    assert (out, err) == ("", "What happened. What to do.\n")


def test_an_interrupt_ends_quietly(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    command(raising(KeyboardInterrupt()))
    assert cli.main(["probe-me"]) == 130
    assert capsys.readouterr() == ("", "")


def test_an_unforeseen_error_is_one_sentence_and_a_file(
    command: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CALICO_WHY_STATE", str(tmp_path / "state"))
    command(raising(ZeroDivisionError("secret detail")))
    assert cli.main(["probe-me"]) == 3
    err = capsys.readouterr().err
    (file,) = (tmp_path / "state").iterdir()
    assert err.count("\n") == 1 and "Traceback" not in err and "ZeroDivisionError" in err and str(file) in err
    assert "secret detail" in file.read_text() and file.stat().st_mode & 0o777 == 0o600


def test_an_unforeseen_error_where_nothing_can_be_written(
    command: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CALICO_WHY_STATE", str(tmp_path / "file"))
    command(raising(ValueError()))
    assert cli.main(["probe-me"]) == 3
    assert "--debug" in capsys.readouterr().err


def test_debug_prints_the_traceback(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    command(raising(ValueError("here")))
    assert cli.main(["--debug", "probe-me"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_wrong_arguments_are_wrong_usage_and_help_is_not(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["probe-me", "--nonsense"]) == 2
    assert "I do not know '--nonsense'. Write: calico-why probe-me" in capsys.readouterr().err
    assert cli.main(["probe-me", "--help"]) == 0
    assert "usage: calico-why probe-me" in capsys.readouterr().out


def process(*words: str, code: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CALICO", "KUBE"))}
    program = ["-c", code] if code else ["-m", "bot.cli", *words]
    return subprocess.run(
        [sys.executable, *program], capture_output=True, text=True, env={**kept, **environment}, timeout=60, check=False
    )


def test_an_error_shows_the_words_and_help_all_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["get", "-o", "yml", "ippools"]) == 2
    assert capsys.readouterr().err == (
        "I do not know 'yml'; did you mean yaml? Write: calico-why get [-h] [-n NAMESPACE] [-A] "
        "[-o {text,wide,yaml,json}] KIND [NAME ...], for example: get ippools -o wide\n"
    )
    assert cli.main(["get", "--help"]) == 0
    assert "--kubeconfig" in capsys.readouterr().out


def test_help_imports_no_command() -> None:
    heavy = ("kubernetes", "aiohttp", "slack_bolt", "pyroute2", "durable", "bot.commands.why", "lab.command")
    code = f"import sys; from bot import cli; cli.main(['--help']); print([m for m in {heavy!r} if m in sys.modules])"
    done = process(code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert "why can A (a pod or node) not reach B (a pod, Service, node or address)?" in done.stdout


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["why"], 2, "A question has two sides"),
        (["why", "shop/cart", "shop/db", "http"], 2, "is not a port"),
        (["why", "a", "b", "--deadline", "0"], 2, "--deadline: '0'"),
        (["why", "a", "b", "--probe-port", "x"], 2, "is not a port"),
        (["why", "a", "b", "--patience", "1001"], 2, "is no time to wait for the answer to a packet"),
        (["why", "a", "b", "--probe-proxy", "socks://x"], 2, "is not a proxy"),
        (["why", "a", "b", "--watch", "x"], 2, "--watch: 'x' is no number."),
        (["why", "a", "b", "--picture", "path.gif"], 2, "'path.gif' is neither an SVG nor a PNG"),
        (["cancel"], 2, "arguments are required: fx-NAME. Write"),
        # What cannot be meant needs no cluster to be told so.
        (["approve", "x"], 2, "'x' is no name of a fix request"),
        (["get", "foo"], 2, "Calico has no kind 'foo'"),
        (["get", "networkpolicies", "x", "-A"], 2, "A name is looked for in one namespace"),
        (["apply"], 2, "Say what: apply -f FILE"),
        (["create", "-f", "/does/not/exist"], 2, "/does/not/exist cannot be read"),
        (["patch", "ippool", "x"], 2, "Say what is to be changed"),
        (["delete", "block", "x"], 2, "IPAM's blocks are not written by hand"),
        (["ipam", "show", "--ip", "x"], 2, "'x' is not an IP address"),
        (["ipam", "release", "--ip", "10.0.0.1,10.0.0.2"], 2, "One address is released at a time"),
        (["ipam", "check", "--watch", "1"], 2, "give the seconds to go on"),
        (["ipam", "check", "--since", "/does/not/exist"], 2, "/does/not/exist cannot be read"),
        (["why", "a", "b", "--kubeconfig", "/does/not/exist"], 3, "There is no kubeconfig /does/not/exist"),
    ],
)
def test_the_program_itself_says_what_is_wrong(words: list[str], status: int, told: str) -> None:
    done = process(*words, KUBECONFIG="/does/not/exist")
    assert (done.returncode, done.stdout) == (status, "")
    assert told in done.stderr and done.stderr.count("\n") == 1


def test_a_closed_pipe_is_no_error() -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read(); from bot import cli; sys.exit(cli.main(['--help']))"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert writer.stdin is not None and writer.stdout is not None and writer.stderr is not None
    writer.stdout.close()
    writer.stdin.close()
    errors = writer.stderr.read()
    writer.stderr.close()
    assert b"Traceback" not in errors and writer.wait() == 0, errors


# -- why ---------------------------------------------------------------------------------------------------------------


class Nothing:
    """Stands where the cluster, the probes and the worker would."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    async def __aenter__(self) -> Nothing:
        return self

    async def __aexit__(self, *args: object) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`why` answers with the given investigation, whatever the cluster."""
    import bot.sources.kubernetes
    import bot.sources.probes
    import engine.worker

    monkeypatch.setattr(bot.sources.kubernetes, "Cluster", Nothing)
    monkeypatch.setattr(bot.sources.probes, "Probes", Nothing)
    monkeypatch.setattr(engine.worker, "Worker", Nothing)

    def with_answer(answer: Any) -> None:
        async def investigated(words: Any, means: Any) -> Any:
            return answer

        monkeypatch.setattr(investigate, "investigate", investigated)

    return with_answer


def why_status(*words: str) -> int:
    parser = ArgumentParser()
    why.add_arguments(parser)
    return why.run(parser.parse_args(["shop/cart", "shop/db", *words]))


@pytest.mark.parametrize(
    ("make", "plain", "strict"),
    [(answers.wrong_mac, 0, 1), (answers.well, 0, 0), (answers.unseen, 3, 3), (answers.no_engine, 3, 3)],
)
def test_exit_status_of_an_answer(
    answered: Any, make: Any, plain: int, strict: int, capsys: pytest.CaptureFixture[str]
) -> None:
    answered(make())
    assert (why_status(), why_status("--exit-code")) == (plain, strict)
    assert capsys.readouterr().out


def test_the_three_forms(answered: Any, capsys: pytest.CaptureFixture[str]) -> None:
    answered(answers.wrong_mac())
    why_status("-o", "text")
    assert capsys.readouterr().out.startswith("shop/cart 10.244.174.132 on node-a")
    why_status("-o", "json")
    assert json.loads(capsys.readouterr().out)["verdict"] == "cause"
    why_status("-o", "slack")
    parent, path, *_ = json.loads(capsys.readouterr().out)
    assert parent["blocks"] and "first bad" in path["text"]


# -- the order of an investigation -------------------------------------------------------------------------------------


async def test_an_investigation_looks_plans_asks_and_judges_in_this_order(tmp_path: Path) -> None:
    from facts import Blind, CalicoNode, Fact, NodeAsk
    from tests.scene import healthy

    whole, steps = healthy(), list[str]()
    kernel = [fact for fact in whole if isinstance(fact, answers.KERNEL)]
    api = [fact for fact in whole if fact not in kernel]

    async def look(asked: Any) -> list[Fact]:
        steps.append(f"look {asked}")
        return api

    async def ask(asks: list[NodeAsk], addresses: dict[str, str]) -> list[Fact]:
        steps.append(f"ask {[one.node for one in asks]}")
        assert addresses == {f.name: f.internal_address for f in api if isinstance(f, CalicoNode)}
        return [*kernel, Blind(node="node-a", look="x", reason="y")]

    def diagnose(facts: list[Fact]) -> Diagnosis:
        steps.append("judge")
        seen = [*kernel, Blind(node="node-a", look="x", reason="y")]
        assert facts[: len(api)] == api and facts[len(api) : len(whole) + 1] == seen
        # This cluster tells no policies, which are read beside the probes.
        assert [(type(one), one.minor) for one in facts[len(whole) + 1 :]] == [(Blind, True)]
        return Diagnosis(verdict="unknown")

    told: list[str] = []

    async def progress(text: str) -> None:
        told.append(text)

    cluster: Any = SimpleNamespace(look=look, name="prod-eu-1")
    answer = await investigate.investigate(
        ["shop/cart", "shop/db", "tcp/5432"],
        investigate.Means(
            cluster,
            SimpleNamespace(ask=ask, port=9797),  # type: ignore[arg-type]
            SimpleNamespace(diagnose=diagnose),  # type: ignore[arg-type]
            tmp_path,
        ),
        asked_by="U0ANA",
        progress=progress,
    )
    assert steps == ["look shop/cart shop/db 5432/tcp", "ask ['node-a', 'node-b']", "judge"]
    assert told == ["looking up shop/cart and shop/db", "asking node-a and node-b", "judging"]
    assert (answer.asked, answer.asked_by, answer.cluster) == ("shop/cart shop/db 5432/tcp", "U0ANA", "prod-eu-1")
    (file,) = (tmp_path / "investigations").glob("*")
    saved = json.loads(file.read_text())
    assert str(file) == answer.saved
    assert saved["id"] == answer.id == file.stem and saved["diagnosis"]["verdict"] == "unknown"


def test_only_the_newest_investigations_are_kept(tmp_path: Path) -> None:
    answer = answers.well()
    most, directory = 200_000, tmp_path / "investigations"
    for number in range(100):
        one = save(msgspec.structs.replace(answer, id=f"inv-20261122-{number:06}-aa"), tmp_path, most)
        assert Path(one.saved).exists()
        assert sum(path.stat().st_blocks * 512 for path in directory.iterdir()) <= most
    kept = sorted(path.stem for path in directory.iterdir())
    assert kept == [f"inv-20261122-{number:06}-aa" for number in range(100 - len(kept), 100)]
    assert sum(path.stat().st_blocks * 512 for path in directory.iterdir()) > most / 2


def test_an_answer_that_cannot_be_saved_is_still_an_answer(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    answer = save(answers.well(), tmp_path / "file")
    assert answer.saved == "" and "Not a directory" in answer.not_saved
