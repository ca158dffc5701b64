"""Alerts and dashboard ask for what there is, say what to do, are silent about a healthy bot, and fire about each thing
they are there for. What the dashboard looks like is not tested: there is no Grafana where this is developed."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import promql_parser as promql
import pytest
import yaml

from bot.errors import UserError
from bot.line import PLACES
from bot.metrics import Metrics
from fixes.request import FixRequest, Phase, Status, stamp
from tests import manifests
from tests.answers import unseen, well, wrong_mac
from tests.fix_samples import a_spec
from tests.manifests import DEPLOY
from tests.promql import Query, look, selectors
from tests.test_bot_slack import Room, room

__all__ = ["room"]

OBSERVABILITY = DEPLOY / "observability"
GROUPS = yaml.safe_load((OBSERVABILITY / "alerts.yaml").read_text())["groups"]
ALERTS: dict[str, dict[str, Any]] = {one["alert"]: one for group in GROUPS for one in group["rules"]}
DASHBOARD: dict[str, Any] = json.loads((OBSERVABILITY / "dashboard.json").read_text())
PANELS: list[dict[str, Any]] = [one for one in DASHBOARD["panels"] if one["type"] != "row"]
GRAFANAS = {"$__rate_interval": "5m", "$cluster": ".*"}
SERIES = {name: one for one in Metrics().declared for name in one.series}
OF_TARGETS = {"instance", "job"}
PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total"}


def expressions() -> Iterator[tuple[str, str]]:
    """Every query there is, with where it stands."""
    for name, alert in ALERTS.items():
        yield name, alert["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            expression = target["expr"]
            for variable, value in GRAFANAS.items():
                expression = expression.replace(variable, value)
            yield panel["title"], expression


def labels(expression: Any) -> set[str]:
    """Every label by which it groups or joins."""
    found: set[str] = set()
    if isinstance(expression, promql.AggregateExpr):
        found = set(expression.modifier.labels) if expression.modifier else set()
        found |= labels(expression.expr)
    elif isinstance(expression, promql.BinaryExpr):
        matching = expression.modifier.matching if expression.modifier else None
        found = set(matching.labels) if matching else set()
        found |= labels(expression.lhs) | labels(expression.rhs)
    elif isinstance(expression, promql.Call):
        found = set().union(*map(labels, expression.args))
    elif isinstance(expression, promql.ParenExpr):
        found = labels(expression.expr)
    return found


@pytest.mark.parametrize(("where", "text"), list(expressions()))
def test_a_query_is_about_what_there_is(where: str, text: str) -> None:
    expression = promql.parse(text)
    asked = list(selectors(expression))
    assert asked
    known: set[str] = set(OF_TARGETS)
    for one in asked:
        if one.name in PROCESS:
            continue
        assert one.name in SERIES, f"{where}: there is no {one.name}"
        own = {*SERIES[one.name].labels, *OF_TARGETS} | ({"le"} if one.name.endswith("_bucket") else set())
        assert {matcher.name for matcher in one.matchers.matchers} <= own, where
        known |= own
    assert labels(expression) <= known, where


def test_all_that_is_measured_is_drawn() -> None:
    drawn = {one.name for _, text in expressions() for one in selectors(promql.parse(text))}
    assert [one.name for one in Metrics().declared if not drawn & set(one.series)] == []


def test_each_alert_says_what_is_wrong_and_what_to_do() -> None:
    for name, alert in ALERTS.items():
        assert re.fullmatch(r"CalicoWhy[A-Z]\w+", name)
        assert alert["labels"]["severity"] in ("critical", "warning", "info")
        assert alert["annotations"].keys() == {"summary", "what_to_do"}
        said = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]))
        assert said <= labels(promql.parse(alert["expr"])), f"{name} names a label that its query does not keep"


def test_the_operators_rules_are_the_same() -> None:
    rule = yaml.safe_load((DEPLOY / "components" / "prometheus" / "rules.yaml").read_text())
    assert rule["spec"]["groups"] == GROUPS


def test_the_dashboard_is_whole() -> None:
    everything = DASHBOARD["panels"]
    assert len({one["id"] for one in everything}) == len(everything)
    taken: set[tuple[int, int]] = set()
    for panel in everything:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
    variables = {one["name"] for one in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "cluster"}
    for panel in PANELS:
        for one in (panel, *panel["targets"]):
            assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        for target in panel["targets"]:
            kept = labels(promql.parse(target["expr"].replace("$__rate_interval", "5m"))) | OF_TARGETS
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept, panel["title"]


# -- what fires when ---------------------------------------------------------------------------------------------------

NOW = datetime.now(UTC)
STORE: Any = SimpleNamespace(now=lambda: NOW)


class Bot:
    """What one bot measures, as if it had run for a while and answered."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.metrics.serves("east")
        self.connected = True
        self.waiting = 0
        self.metrics.reads(
            connected=lambda: self.connected,
            heard_s=lambda: 3.0,
            waiting=lambda: self.waiting,
            journal={"question": lambda: 1, "decision": lambda: 0},
        )
        self.saw = self.metrics.fixes("east", STORE)
        self.certified_until: datetime | None = NOW + timedelta(days=11)
        self.metrics.certified("east", lambda: self.certified_until)
        self.well()

    def well(self) -> None:
        """What happens to a bot that is well."""
        with self.metrics.asked("east", "why"):
            pass
        for _ in range(40):
            self.metrics.api("east")(200, 0.05)
        for _ in range(4):
            self.metrics.probe("east")(True, 0.8)
        self.metrics.judged(False, 0.2)
        self.metrics.acknowledged("command", 200, 0.05)
        self.metrics.called("chat.postMessage", "", 0.2)
        for error in ("not_in_channel", "message_not_found", "internal_error"):
            self.metrics.called("chat.postMessage", error, 0.2)

    def ask(self, error: type[BaseException] | None = None) -> None:
        try:
            with self.metrics.asked("east", "why"):
                if error is not None:
                    raise error("")
        except (UserError, RuntimeError, KeyboardInterrupt):
            pass

    def fix(self, phase: Phase, minutes: float = 0) -> None:
        at = stamp(NOW - timedelta(minutes=minutes))
        status = Status(phase=phase, approved_at=at, started_at=at, finished_at=at)
        self.saw("changed", FixRequest(name="fx-aaaaaaaa", spec=a_spec(NOW), status=status, resource_version="1"))


def firing(act: Callable[[Bot], None]) -> set[str]:
    bot = Bot()
    before = look(bot.metrics.text().decode())
    bot.well()
    act(bot)
    query = Query(before, look(bot.metrics.text().decode()))
    return {name for name, alert in ALERTS.items() if query(alert["expr"])}


def times(count: int, act: Callable[[Bot], None]) -> Callable[[Bot], None]:
    def often(bot: Bot) -> None:
        for _ in range(count):
            act(bot)

    return often


def has_no_certificate(bot: Bot) -> None:
    bot.certified_until = None


def goes_wrong(bot: Bot) -> None:
    bot.fix(Phase.RUNNING)
    bot.fix(Phase.NOT_FIXED)


def loses_its_socket(bot: Bot) -> None:
    bot.connected = False


def keeps_people_waiting(bot: Bot) -> None:
    bot.waiting = PLACES + 1


def nears_its_end(bot: Bot) -> None:
    bot.certified_until = NOW + timedelta(days=6)


CASES: dict[str, Callable[[Bot], None]] = {
    "CalicoWhyCertificateEnds": nears_its_end,
    "CalicoWhyNotReachedBySlack": loses_its_socket,
    "CalicoWhyTokenRefused": lambda bot: bot.metrics.called("chat.update", "token_revoked", 0.1),
    "CalicoWhySlackRefuses": times(9, lambda bot: bot.metrics.called("chat.postMessage", "internal_error", 0.1)),
    "CalicoWhySlackLimits": times(30, lambda bot: bot.metrics.told_to_wait("chat.postMessage")),
    "CalicoWhyAcknowledgesLate": times(9, lambda bot: bot.metrics.acknowledged("command", 200, 2.7)),
    "CalicoWhyQuestionsWait": keeps_people_waiting,
    "CalicoWhyAnswersSlow": times(9, lambda bot: bot.metrics._question_s.labels("east", "why").observe(40)),
    "CalicoWhyBroken": lambda bot: bot.ask(RuntimeError),
    "CalicoWhyEngineDies": times(3, lambda bot: bot.metrics.engine_restarted()),
    "CalicoWhyProbesSilent": times(5, lambda bot: bot.metrics.probe("east")(False, 4.0)),
    "CalicoWhyClusterUnreachable": times(5, lambda bot: bot.metrics.api("east")(None, 5.0)),
    "CalicoWhyRightsMissing": lambda bot: bot.metrics.api("east")(403, 0.01),
    "CalicoWhyFixNotTakenUp": lambda bot: bot.fix(Phase.APPROVED, minutes=4),
    "CalicoWhyFixRunsLong": lambda bot: bot.fix(Phase.RUNNING, minutes=6),
    "CalicoWhyFixWentWrong": goes_wrong,
}
OTHERWISE = {"CalicoWhyGone", "CalicoWhyMemory"}


def test_a_healthy_bot_sets_off_nothing() -> None:
    assert firing(lambda _: None) == set()


@pytest.mark.parametrize(
    "act",
    [
        lambda bot: bot.ask(UserError),
        lambda bot: bot.ask(KeyboardInterrupt),
        lambda bot: bot.metrics.probe("east")(False, 4.0),  # one node is down, which is the answer
        lambda bot: bot.metrics.api("east")(404, 0.01),
        lambda bot: bot.fix(Phase.PENDING, minutes=14),
        lambda bot: bot.fix(Phase.APPROVED, minutes=1),
        lambda bot: bot.fix(Phase.REJECTED),
        has_no_certificate,  # which each answer says
        lambda bot: bot.metrics.acknowledged("command", 401, 9.0),  # by whom, nobody knows
    ],
)
def test_what_belongs_to_a_day_sets_off_nothing(act: Callable[[Bot], None]) -> None:
    assert firing(act) == set()


@pytest.mark.parametrize("name", CASES)
def test_each_alert_fires_about_what_it_is_there_for_and_no_other_does(name: str) -> None:
    assert firing(CASES[name]) == {name}


def test_the_alert_about_waiting_says_how_many_need_not_wait() -> None:
    assert f"{PLACES} are looked into at once" in ALERTS["CalicoWhyQuestionsWait"]["annotations"]["what_to_do"]


def test_there_is_a_case_for_each() -> None:
    assert ALERTS.keys() == CASES.keys() | OTHERWISE


def test_no_bot_at_all_and_one_that_eats_memory() -> None:
    assert {name for name, alert in ALERTS.items() if Query({}, {})(alert["expr"])} == {"CalicoWhyGone"}
    well = look(Bot().metrics.text().decode())
    (name,) = [one for one in well if one == "process_resident_memory_bytes"]
    well[name] = dict.fromkeys(well[name], 800000000.0)
    assert {name for name, alert in ALERTS.items() if Query(well, well)(alert["expr"])} == {"CalicoWhyMemory"}


async def test_a_real_bot_that_answers_and_mends_sets_off_nothing(room: Room) -> None:
    async with room.bot() as app:
        before = look(app.metrics.text().decode())
        await room.ask()
        request, thread, ts = await room.card()
        await room.slack.click("bo", "incident", ts, "fix_approve")
        await room.slack.wait_for(lambda: room.posted("approved, about to be done", thread))
        await room.store.transition(request.name, Phase.RUNNING)
        await room.store.transition(request.name, Phase.VERIFIED, message="It is so now.")
        await room.slack.wait_for(lambda: room.posted("verified", thread))
        query = Query(before, look(app.metrics.text().decode()))
        assert [name for name, alert in ALERTS.items() if query(alert["expr"])] == []


def test_each_panel_shows_a_bot_that_has_seen_everything() -> None:
    bot = Bot()

    def everything() -> None:
        bot.well()
        for act in CASES.values():
            act(bot)
        for one in (well(), wrong_mac(), unseen()):
            bot.metrics.diagnosed("east", one.diagnosis)
        bot.fix(Phase.VERIFIED)

    everything()
    before = look(bot.metrics.text().decode())
    everything()
    query = Query(before, look(bot.metrics.text().decode()))
    for panel in PANELS:
        for target in panel["targets"]:
            expression = target["expr"]
            for variable, value in GRAFANAS.items():
                expression = expression.replace(variable, value)
            found = query(expression)
            assert found and not any(math.isnan(one) for one in found.values()), f"{panel['title']}: {expression}"
            for name in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert all(dict(series).get(name) for series in found), f"{panel['title']}: {name}"


# -- the component -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", ["socket-mode", "http"])
def test_the_component_opens_the_bot_to_who_collects(overlay: str, tmp_path: Path) -> None:
    parts = {
        "resources": [os.path.relpath(DEPLOY / "overlays" / overlay, tmp_path)],
        "components": [os.path.relpath(DEPLOY / "components" / "prometheus", tmp_path)],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(parts))
    found = {(it["kind"], it["metadata"]["name"]): it for it in yaml.safe_load_all(manifests.rendered(tmp_path))}
    template = found["Deployment", "calico-why-bot"]["spec"]["template"]
    (bot,) = template["spec"]["containers"]
    names = [one["name"] for one in bot["env"]]
    assert names.index("NODE_ADDRESS") < names.index("CALICO_WHY_OBSERVE"), "else Kubernetes leaves $(...) as it is"
    told = {one["name"]: one.get("value") for one in bot["env"]}
    assert told["CALICO_WHY_OBSERVE"] == "$(NODE_ADDRESS):9798"
    for name, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert bot[name]["httpGet"] == {"path": path, "port": "observe"}, "by the address it listens on"
    monitor = found["PodMonitor", "calico-why-bot"]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] in {one["name"] for one in bot["ports"]}
    assert found["PrometheusRule", "calico-why"]["spec"]["groups"] == GROUPS
