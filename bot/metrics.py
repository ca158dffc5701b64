"""All that the bot counts and times, each with what it means; without it nobody would know that answers get slow before
people stop asking. docs/metrics.md is made of it (`python -m bot.metrics`)."""

from __future__ import annotations

import contextlib
import math
import platform
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any, ParamSpec, TypeVar

import msgspec
import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from bot.errors import UserError
from bot.told import WORDS
from facts import Diagnosis
from facts.redaction import redact
from fixes.kind import kinds
from fixes.request import ENDS, FixRequest, Phase, moment
from fixes.store import FixStore, Seen

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series each, read by nobody

PREFIX = "calico_why_"
CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST
QUESTIONS = ("why", "watch", "capture", "policy", *WORDS)  # watch: a `why` that goes on looking
OUTCOMES = ("answered", "refused", "broken", "stopped")
VERDICTS = ("cause", "healthy", "unknown")
FIX_KINDS = 40  # values of a label that comes from outside; more than there are
LOOKS = 200
CODES = 60
OTHER = "other"
SAID_BY = ("chat.postMessage", "chat.update", "chat.postEphemeral")  # what Slack limits most

_ANSWER_S = (0.25, 0.5, 1, 2, 3, 4, 5, 7.5, 10, 15, 30, 60, 120, 300)
_API_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_PROBE_S = (0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 4, 5, 6)
_ENGINE_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SLACK_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60)
_ACK_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3)
_FIX_S = (1, 2, 5, 10, 30, 60, 120, 300, 900, 3600)
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,62}")

P = ParamSpec("P")
T = TypeVar("T")


class Declared(msgspec.Struct, frozen=True):
    """A metric as Prometheus sees it. kind: counter | gauge | histogram."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]

    @property
    def series(self) -> tuple[str, ...]:
        """The names that can be queried."""
        if self.kind != "histogram":
            return (self.name,)
        return (f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count")


class Bounded:
    """Values of a label that others have a hand in: of a form, and so many at most, lest a probe or a person fill the
    memory of whoever collects them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value not in self._known:
            if len(self._known) >= self._most or not _PLAIN.fullmatch(value) or redact(value) != value:
                return OTHER
            self._known.add(value)
        return value


class Metrics:
    """Of one bot, in a registry of its own. No label holds the name of a pod, a node, a person or a channel."""

    def __init__(self) -> None:
        self.declared: list[Declared] = []
        self._registry = CollectorRegistry(auto_describe=False)
        self._looks, self._codes, self._kinds = Bounded(LOOKS), Bounded(CODES), Bounded(FIX_KINDS)
        ProcessCollector(registry=self._registry)
        self._build = self._gauge("build_info", "Always 1; the version that runs.", "version", "python")
        self._build.labels(version("calico-why"), platform.python_version()).set(1)

        self._questions = self._counter(
            "questions_total",
            "Questions by their word and what became of them: answered (with any verdict), refused (it cannot be asked "
            "so, or the cluster not be read), broken (an error of ours), stopped (the bot ended meanwhile).",
            "cluster",
            "word",
            "outcome",
        )
        self._question_s = self._histogram(
            "question_duration_seconds",
            "From when a question is begun to its answer, before Slack has it.",
            _ANSWER_S,
            "cluster",
            "word",
        )
        self._at_work = self._gauge("questions_in_progress", "Questions that are looked into now.", "cluster", "word")
        self._waiting = self._gauge("questions_waiting", "Accepted questions that have no place yet to be looked into.")
        self._verdicts = self._counter("verdicts_total", "Answers to `why`, by verdict.", "cluster", "verdict")
        self._causes = self._counter(
            "causes_total", "Causes that answers to `why` name, by failure mode (docs/runbook.md).", "cluster", "rule"
        )
        self._blind = self._counter(
            "blind_looks_total",
            "Looks that answers to `why` say could not be made, by what was not seen. minor: only warnings would have "
            "come of it.",
            "cluster",
            "look",
            "minor",
        )

        self._api_s = self._histogram(
            "api_request_duration_seconds",
            "Reads from the Kubernetes API, by HTTP status; none where no answer came.",
            _API_S,
            "cluster",
            "status",
        )
        self._probe_s = self._histogram(
            "probe_request_duration_seconds",
            "What the probe of one node was asked, by outcome: answered, or silent (not there, late, or refused).",
            _PROBE_S,
            "cluster",
            "outcome",
        )
        self._engine_s = self._histogram(
            "engine_duration_seconds",
            "Judging, with the wait for the question before: judged, or failed (the answer is unknown then).",
            _ENGINE_S,
            "outcome",
        )
        self._engine_restarts = self._counter(
            "engine_restarts_total", "Processes of the engine that died or were given up, and were started anew."
        )

        self._ack_s = self._histogram(
            "acknowledgement_duration_seconds",
            "From a delivery of Slack to its acknowledgement, for which Slack waits 3 s, by what was delivered and the "
            "HTTP status it was acknowledged with.",
            _ACK_S,
            "delivery",
            "status",
        )
        self._slack_s = self._histogram(
            "slack_call_duration_seconds", "Calls of Slack's Web API, retries and waits included.", _SLACK_S, "method"
        )
        self._slack_errors = self._counter(
            "slack_errors_total",
            "Calls of Slack's Web API that failed for good, by Slack's error; unreachable where no answer came.",
            "method",
            "error",
        )
        self._rate_limited = self._counter(
            "slack_rate_limited_total", "Answers of Slack that told to come back later (429).", "method"
        )
        self._connected = self._gauge(
            "slack_connected", "1 while Slack can reach the bot: its socket is open, or in HTTP mode the bot listens."
        )
        self._heard_s = self._gauge(
            "slack_heard_seconds", "Since Slack's socket answered a ping; 0 in HTTP mode, where there is none."
        )
        self._journal = self._gauge(
            "journal_entries", "What was accepted and is not answered yet: question or decision.", "entry"
        )

        self._certificate = self._gauge(
            "certificate_expiry_timestamp_seconds",
            "When the certificate runs out by which the bot asks probes, since 1970; NaN where it has none.",
            "cluster",
        )

        self._fixes_open = self._gauge(
            "fixes_open",
            "Fix requests that have not ended, by kind and phase. Each bot of a cluster sees the same ones.",
            "cluster",
            "kind",
            "phase",
        )
        self._fixes_ended = self._counter(
            "fixes_ended_total",
            "Fix requests that this bot saw end, by kind and last phase. Each bot of a cluster sees the same ones.",
            "cluster",
            "kind",
            "phase",
        )
        self._fix_s = self._histogram(
            "fix_duration_seconds", "From an approval to the end of the fix, by kind.", _FIX_S, "cluster", "kind"
        )
        self._fix_oldest_s = self._gauge(
            "fixes_oldest_seconds",
            "For how long the oldest request has been Approved and nobody took it up, or Running. What waits and says "
            "why (the switch, a second look) does not count.",
            "cluster",
            "phase",
        )

        for method in SAID_BY:
            self._rate_limited.labels(method)

    # -- declaring ----------------------------------------------------------------------------------------------------

    def _declare(self, name: str, kind: str, about: str, labels: tuple[str, ...]) -> str:
        self.declared.append(Declared(PREFIX + name, kind, about, labels))
        return PREFIX + name

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(self._declare(name, "counter", about, labels), about, labels, registry=self._registry)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(self._declare(name, "gauge", about, labels), about, labels, registry=self._registry)

    def _histogram(self, name: str, about: str, buckets: Sequence[float], *labels: str) -> Histogram:
        whole = self._declare(name, "histogram", about, labels)
        return Histogram(whole, about, labels, registry=self._registry, buckets=buckets)

    def text(self) -> bytes:
        """All of it as Prometheus reads it (CONTENT_TYPE). Blocks for a disk: the journal is looked at."""
        return generate_latest(self._registry)

    # -- measuring ----------------------------------------------------------------------------------------------------

    def serves(self, cluster: str) -> None:
        """From now on what has not happened yet is 0 for it: an increase is seen from its first time on."""
        for word in QUESTIONS:
            for outcome in OUTCOMES:
                self._questions.labels(cluster, word, outcome)
        for verdict in VERDICTS:
            self._verdicts.labels(cluster, verdict)
        for outcome in ("answered", "silent"):
            self._probe_s.labels(cluster, outcome)
        for status in ("200", "401", "403", "none"):
            self._api_s.labels(cluster, status)
        for kind in kinds():
            for phase in ENDS:
                self._fixes_ended.labels(cluster, self._kinds(kind), phase)

    def measured(self, cluster: str, word: str, work: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """The same, counted and timed as a question of that word."""

        async def measured(*args: P.args, **kwargs: P.kwargs) -> T:
            with self.asked(cluster, word):
                return await work(*args, **kwargs)

        return measured

    @contextlib.contextmanager
    def asked(self, cluster: str, word: str) -> Iterator[None]:
        began, outcome = time.monotonic(), "stopped"
        try:
            with self._at_work.labels(cluster, word).track_inprogress():
                yield
            outcome = "answered"
        except UserError:
            outcome = "refused"
            raise
        except Exception:
            outcome = "broken"
            raise
        finally:
            self._questions.labels(cluster, word, outcome).inc()
            if outcome == "answered":
                self._question_s.labels(cluster, word).observe(time.monotonic() - began)

    def diagnosed(self, cluster: str, diagnosis: Diagnosis) -> None:
        self._verdicts.labels(cluster, diagnosis.verdict).inc()
        for cause in diagnosis.causes:
            self._causes.labels(cluster, cause.rule).inc()
        for blind in diagnosis.blind:
            self._blind.labels(cluster, self._looks(blind.look), str(blind.minor).lower()).inc()

    def api(self, cluster: str) -> Callable[[int | None, float], None]:
        """Of one cluster: to be told of each request its status (None: no answer came) and seconds."""
        return lambda status, seconds: self._api_s.labels(cluster, str(status or "none")).observe(seconds)

    def probe(self, cluster: str) -> Callable[[bool, float], None]:
        """Of one cluster: to be told of each ask whether it was answered, and seconds."""
        return lambda answered, seconds: self._probe_s.labels(cluster, "answered" if answered else "silent").observe(
            seconds
        )

    def judged(self, failed: bool, seconds: float) -> None:
        self._engine_s.labels("failed" if failed else "judged").observe(seconds)

    def engine_restarted(self) -> None:
        self._engine_restarts.inc()

    def acknowledged(self, delivery: str, status: int, seconds: float) -> None:
        """delivery: command | event | action | form."""
        self._ack_s.labels(delivery, str(status)).observe(seconds)

    def called(self, method: str, error: str, seconds: float) -> None:
        """A call of Slack. error: "" where it went well."""
        self._slack_s.labels(method).observe(seconds)
        if error:
            self._slack_errors.labels(method, self._codes(error)).inc()

    def told_to_wait(self, method: str) -> None:
        self._rate_limited.labels(method).inc()

    def reads(
        self,
        *,
        connected: Callable[[], bool],
        heard_s: Callable[[], float],
        waiting: Callable[[], int],
        journal: dict[str, Callable[[], int]],
    ) -> None:
        """Where to look whenever somebody collects."""
        self._waiting.set_function(waiting)
        self._connected.set_function(lambda: float(connected()))
        self._heard_s.set_function(heard_s)
        for entry, depth in journal.items():
            self._journal.labels(entry).set_function(depth)

    def certified(self, cluster: str, until: Callable[[], datetime | None]) -> None:
        """until: where to look for the end of the bot's certificate there, whenever somebody collects."""

        def at() -> float:
            end = until()
            return end.timestamp() if end else math.nan

        self._certificate.labels(cluster).set_function(at)

    def fixes(self, cluster: str, store: FixStore) -> Callable[[Seen, FixRequest], None]:
        """Of one cluster: to be told all that a watch of its fix requests tells."""
        watched = _Fixes(self, cluster, store)
        for phase, oldest_s in ((Phase.APPROVED, watched.approved_s), (Phase.RUNNING, watched.running_s)):
            self._fix_oldest_s.labels(cluster, phase).set_function(oldest_s)
        return watched.saw

    def _fix_at(self, cluster: str, request: FixRequest) -> Gauge:
        return self._fixes_open.labels(cluster, self._kinds(request.spec.kind), request.status.phase)

    def _fix_ended(self, cluster: str, request: FixRequest) -> None:
        kind, status = self._kinds(request.spec.kind), request.status
        self._fixes_ended.labels(cluster, kind, status.phase).inc()
        with contextlib.suppress(ValueError, TypeError):  # of a time nobody can read, or never approved
            seconds = (moment(status.finished_at) - moment(status.approved_at)).total_seconds()
            self._fix_s.labels(cluster, kind).observe(max(0.0, seconds))


class _Fixes:
    """The open fix requests of one cluster."""

    def __init__(self, metrics: Metrics, cluster: str, store: FixStore) -> None:
        self._metrics = metrics
        self._cluster = cluster
        self._store = store
        self._open: dict[str, FixRequest] = {}

    def saw(self, seen: Seen, request: FixRequest) -> None:
        before = self._open.pop(request.name, None)
        if before is not None:
            self._metrics._fix_at(self._cluster, before).dec()
        if seen == "deleted":
            return
        if request.open:
            self._open[request.name] = request
            self._metrics._fix_at(self._cluster, request).inc()
        elif before is not None:  # else it ended before this bot began to look
            self._metrics._fix_ended(self._cluster, request)

    def approved_s(self) -> float:
        return self._oldest_s(Phase.APPROVED, lambda request: request.status.approved_at)

    def running_s(self) -> float:
        return self._oldest_s(Phase.RUNNING, lambda request: request.status.started_at)

    def _oldest_s(self, phase: Phase, since: Callable[[FixRequest], str]) -> float:
        oldest, now = 0.0, self._store.now()
        for request in list(self._open.values()):
            if request.status.phase is phase and request.status.waits is None:
                with contextlib.suppress(ValueError, TypeError):
                    oldest = max(oldest, (now - moment(since(request))).total_seconds())
        return oldest


def document() -> str:
    """docs/metrics.md: every metric with its labels and its sentence."""
    rows = [
        f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels) or '-'} | {one.help} |"
        for one in Metrics().declared
    ]
    return "\n".join([_HEAD, *rows, _FOOT])


_HEAD = """# What the bot measures

`GET /metrics` of the bot, where `--observe` (`CALICO_WHY_OBSERVE`) says; how to collect it and what to alert on is in
[deploy/observability](../deploy/observability). Made by `python -m bot.metrics`.

| metric | kind | labels | meaning |
|---|---|---|---|"""
_FOOT = """
Beside these there are `process_*` (memory, CPU, open files) of the bot's own process, without its engine's.

No label holds the name of a pod, a node, a person or a channel. `cluster` is the name from the configuration, `rule`
one of [the failure modes](runbook.md), `look` what could not be seen, `kind` a kind of fix. Values that others have a
hand in are bounded in form and number; what is beyond that is `other`.

Of several bots each counts what it answers, and all of them see the same fix requests: of those take the maximum, of
all else the sum.

Probes and fixers measure nothing. How probes fare is seen by who asks them
(`calico_why_probe_request_duration_seconds`); that a fixer works, by its taking up what was approved
(`calico_why_fixes_oldest_seconds`): it has no listening socket.
"""


if __name__ == "__main__":
    print(document(), end="")
