"""What bot, fixers and terminals are told by file, environment and flags; without it each would read them in its own
way, and the first thing that is wrong would hide the second.

One file, calico-why.yaml (docs/configuration.md has every key). Secrets stand in the environment only. A flag goes
before the environment, that before the file. What an entry of `clusters` says of its own cluster goes before the
environment, which knows of one cluster only.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

import fixes.kinds
from fixes.approvers import PERSON, Approvers, parse
from fixes.strict_yaml import Strict

VARIABLE = "CALICO_WHY_CONFIG"
NAME = "calico-why.yaml"
LONGEST_PATIENCE_MS = 1000
STATE_MIB = 256
API_GROUPS = ("crd.projectcalico.org/v1", "projectcalico.org/v3")
OTHER_KINDS = ("switch", "capture")  # of what may be approved, beside the kinds of fixes
CHANNEL = re.compile(r"[CG][A-Z0-9]{2,}")
SECRETS = {
    "bot_token": "SLACK_BOT_TOKEN",
    "app_token": "SLACK_APP_TOKEN",
    "signing_secret": "SLACK_SIGNING_SECRET",
}

_TOKEN = re.compile(r"xox[a-z]+[-.]|xapp-")
_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_SHOWN = 60


class Misconfigured(Exception):
    """All that is wrong, a line each: where, what it means, what to do."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed to reach one cluster and its probes, and who may decide there."""

    kubeconfig: str = ""  # "" means ~/.kube/config where it exists, else in-cluster configuration
    context: str = ""  # of the kubeconfig; "" means its current one
    api_group: str = ""  # overrides what discovery would say
    certs: Path | None = None  # directory with ca.crt, bot.crt, bot.key
    probe_port: int = 9797
    probe_proxy: str = ""  # http://host:port of a CONNECT proxy
    patience_ms: int = LONGEST_PATIENCE_MS  # for the answer to a packet, at most
    deadline_s: float = 4.0  # that a probe may take
    namespace: str = "calico-why"  # where FixRequests live
    cluster: str = ""  # name shown in answers; "" means the context's name
    state: Path | None = None  # journal and saved investigations; None: nothing is kept
    state_mib: int = STATE_MIB  # of saved investigations, of which the newest are kept
    approvers: Approvers = Approvers(rbac=True)


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. clusters: those to be served, of which the first is meant where nobody says which."""

    clusters: tuple[Settings, ...]
    channels: Mapping[str, str]  # Slack channel id -> name of the cluster that is meant there
    development: bool
    language: str
    log: str
    observe: str
    state: Path | None
    slack_mode: str
    slack_listen: str
    slack_capture: str
    slack_shared: str
    file: str  # "" without one
    told: Mapping[str, tuple[str, str]]  # key as docs/configuration.md writes it -> the value, and where it is from
    where: Sequence[str]  # of each of `clusters`, how what is wrong with it begins: "clusters[1]."
    own: int | None  # which of `clusters` this runs in, None where that cannot be told

    @property
    def here(self) -> Settings:
        """The cluster this runs in. Raises Misconfigured."""
        if self.own is None:
            names = ", ".join(one.cluster for one in self.clusters)
            which = f"clusters: which of {names} is this?"
            raise Misconfigured([f"{which} Set CALICO_WHY_CLUSTER, or leave kubeconfig out of that one entry."])
        return self.clusters[self.own]


class Key(NamedTuple):
    """One thing that can be told. take: raises ValueError, a sentence, for what cannot be meant."""

    name: str  # in the file; "slack.mode" is `mode` below `slack`
    take: Callable[[str], Any]
    default: str = ""
    variable: str = ""
    flag: str = ""
    of_cluster: bool = False  # an entry of `clusters` may say it as well
    many: bool = False  # a list; in the environment its words are separated by commas
    path: bool = False  # of a file or directory; in the file it is meant from where that is


def _text(said: str) -> str:
    return said


def _number(least: int, most: int, what: str) -> Callable[[str], int]:
    def take(said: str) -> int:
        if not said.isascii() or not said.isdigit() or not least <= int(said) <= most:
            raise ValueError(f"{_shown(said)} is {what}. Give a number from {least} to {most}.")
        return int(said)

    return take


def _seconds(said: str) -> float:
    try:
        found = float(said)
    except ValueError:
        found = 0.0
    if not 0.1 <= found <= 300:
        raise ValueError(f"{_shown(said)}: give the seconds a probe may take, from 0.1 to 300.")
    return found


def _flag(said: str) -> bool:
    if said not in ("true", "false", "1", "0"):
        raise ValueError(f"{_shown(said)} is neither true nor false.")
    return said in ("true", "1")


def _one_of(*known: str, about: str = "") -> Callable[[str], str]:
    def take(said: str) -> str:
        if said not in known:
            raise ValueError(f"{_shown(said)} is not known; it is {' or '.join(filter(None, known))}{about}.")
        return said

    return take


def _proxy(said: str) -> str:
    if said and not said.startswith("http://"):
        raise ValueError(f"{_shown(said)} is not a proxy this program can use: give it as http://host:port.")
    return said


def _namespace(said: str) -> str:
    if not _LABEL.fullmatch(said):
        raise ValueError(f"{_shown(said)} cannot be the name of a namespace.")
    return said


def _cluster(said: str) -> str:
    if len(said) > 253 or not said.isprintable():
        raise ValueError(f"{_shown(said)} cannot be the name of a cluster: give at most 253 characters on one line.")
    return said


def _address(said: str) -> str:
    host, colon, port = said.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not int(port) < 65536 or not host:
        raise ValueError(f"{_shown(said)} is not host:port, such as 127.0.0.1:3000.")
    return said


def _observe(said: str) -> str:
    return _address(said) if said else ""


def _approver(said: str) -> str:
    entry = parse(said)
    if entry is None:
        raise ValueError(f"{_shown(said)} lets nobody in: it is no Slack id, group id or kubernetes:NAME.")
    known = (*_kinds(), *OTHER_KINDS)
    if entry.kind and entry.kind not in known:
        near = difflib.get_close_matches(entry.kind, known, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"There is {', '.join(known)}."
        raise ValueError(f"{_shown(said)} lets nobody in: there is no kind of fix {_shown(entry.kind)}. {hint}")
    return said


def _kinds() -> list[str]:
    """Names of the kinds of fixes, which their files have; to import them would take as long as all the rest."""
    found = (Path(place).glob("*.py") for place in fixes.kinds.__path__)
    return sorted(path.stem for paths in found for path in paths if path.stem != "__init__")


def _person(said: str) -> str:
    if not PERSON.fullmatch(said):
        raise ValueError(f"{_shown(said)} makes nobody known: it is not SLACK_ID=KUBERNETES_NAME.")
    return said


# All that there is, in the order in which docs/configuration.md tells it.
KEYS = (
    Key("development", _flag, "false", "CALICO_WHY_DEVELOPMENT"),
    Key("language", _text, "en", "CALICO_WHY_LANG", "--lang"),
    Key("state", _text, "", "CALICO_WHY_STATE", "--state", path=True),
    Key(
        "state_mib",
        _number(1, 1_000_000, "no room for saved answers, in MiB"),
        str(STATE_MIB),
        "CALICO_WHY_STATE_MIB",
    ),
    Key("log", _one_of("text", "json"), "text", "CALICO_WHY_LOG", "--log"),
    Key("observe", _observe, "", "CALICO_WHY_OBSERVE", "--observe"),
    Key("slack.mode", _one_of("socket", "http"), "socket", "CALICO_WHY_SLACK_MODE", "--mode"),
    Key("slack.listen", _address, "127.0.0.1:3000", "CALICO_WHY_SLACK_LISTEN", "--listen"),
    Key(
        "slack.capture",
        _one_of(
            "headers",
            "approval",
            "approvers",
            "off",
            about=": everybody may capture headers, and whole packets are for approvers or need their approval; a "
            "second person has to approve each capture; nobody but approvers may capture; nobody may",
        ),
        "headers",
        "CALICO_WHY_SLACK_CAPTURE",
    ),
    Key("slack.shared", _one_of("", "answer", "refuse"), "", "CALICO_WHY_SLACK_SHARED"),
    Key("cluster", _cluster, "", "CALICO_WHY_CLUSTER", "--cluster"),
    Key("kubeconfig", _text, "", "KUBECONFIG", "--kubeconfig", of_cluster=True, path=True),
    Key("context", _text, "", "", "--context", of_cluster=True),
    Key("namespace", _namespace, "calico-why", "CALICO_WHY_NAMESPACE", "--namespace", of_cluster=True),
    Key("certs", _text, "", "CALICO_WHY_CERTS", "--certs", of_cluster=True, path=True),
    Key(
        "probe_port",
        _number(1, 65535, "not a port"),
        "9797",
        "CALICO_WHY_PROBE_PORT",
        "--probe-port",
        of_cluster=True,
    ),
    Key("probe_proxy", _proxy, "", "CALICO_WHY_PROBE_PROXY", "--probe-proxy", of_cluster=True),
    Key(
        "patience_ms",
        _number(1, LONGEST_PATIENCE_MS, "no time to wait for the answer to a packet, in milliseconds"),
        str(LONGEST_PATIENCE_MS),
        "CALICO_WHY_PATIENCE_MS",
        "--patience",
        of_cluster=True,
    ),
    Key("deadline_s", _seconds, "4", "", "--deadline", of_cluster=True),
    Key("api_group", _one_of("", *API_GROUPS), "", "CALICO_API_GROUP", of_cluster=True),
    Key("approvers", _approver, "", "CALICO_WHY_APPROVERS", of_cluster=True, many=True),
    Key("people", _person, "", "CALICO_WHY_PEOPLE", of_cluster=True, many=True),
    Key("self_approval", _flag, "false", "CALICO_WHY_ALLOW_SELF_APPROVAL", of_cluster=True),
    Key("rbac_approval", _flag, "true", "CALICO_WHY_RBAC_APPROVAL", of_cluster=True),
)
BY_NAME = {key.name: key for key in KEYS}
STRUCTURES = ("clusters", "channels")  # keys of the file alone, with more below them


def look(
    environment: Mapping[str, str] = os.environ, flags: Mapping[str, str] | None = None, file: str = ""
) -> tuple[Configuration, list[str]]:
    """What holds, and all that is wrong with it, a line each; in place of what is wrong stands the default.

    flags: name of a key -> what was said. file: before that of CALICO_WHY_CONFIG.
    """
    return _Reading(environment, flags or {}, file or environment.get(VARIABLE, "")).result()


def read(
    environment: Mapping[str, str] = os.environ, flags: Mapping[str, str] | None = None, file: str = ""
) -> Configuration:
    """The same. Raises Misconfigured with all that is wrong."""
    found, wrong = look(environment, flags, file)
    if wrong:
        raise Misconfigured(wrong)
    return found


class _Reading:
    """One reading of file, environment and flags."""

    def __init__(self, environment: Mapping[str, str], flags: Mapping[str, str], file: str) -> None:
        self._environment = environment
        self._flags = flags
        self._file = file
        self._base = Path(file).expanduser().absolute().parent
        self.wrong: list[str] = []
        self.told: dict[str, tuple[str, str]] = {}

    def result(self) -> tuple[Configuration, list[str]]:
        top = self._mapping(self._content(), "", [*BY_NAME, *STRUCTURES])
        slack = self._mapping(top.pop("slack", None), "slack.", [*BY_NAME])
        written = {**top, **{f"slack.{name}": value for name, value in slack.items()}}
        value = {key.name: self._value(key, written) for key in KEYS}
        entries, clusters = self._clusters(written, value)
        chosen = self._chosen(str(value["cluster"]), clusters)
        named = [clusters[index].cluster for index in chosen]
        ours = [index for index in chosen if not {"kubeconfig", "context"} & entries[index].keys()]
        own = chosen.index(ours[0]) if len(ours) == 1 else 0 if len(chosen) == 1 else None
        found = Configuration(
            clusters=tuple(clusters[index] for index in chosen),
            channels=self._channels(written.get("channels"), [one.cluster for one in clusters], named),
            development=value["development"],
            language=value["language"],
            log=value["log"],
            observe=value["observe"],
            state=Path(value["state"]) if value["state"] else None,
            slack_mode=value["slack.mode"],
            slack_listen=value["slack.listen"],
            slack_capture=value["slack.capture"],
            slack_shared=value["slack.shared"],
            file=self._file,
            told=self.told,
            where=[f"clusters[{index}]." if written.get("clusters") else "" for index in chosen],
            own=own,
        )
        return found, self.wrong

    def _content(self) -> object:
        """What is in the file: mappings, lists, and words as they are written, so that no `no` becomes false."""
        if not self._file:
            return None
        try:
            text = Path(self._file).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            self.wrong.append(f"{self._file}: it cannot be read ({why}). Give another file to --config or {VARIABLE}.")
            return None
        try:
            return yaml.load(text, _Loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f", line {mark.line + 1}" if mark else ""
            self.wrong.append(f"{self._file}{line}: this is not YAML: {error.problem or error.context}.")
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            self.wrong.append(f"{self._file}: this is not YAML: {str(error).splitlines()[0]}.")
        return None

    def _mapping(self, content: object, place: str, known: Collection[str]) -> dict[str, object]:
        """What is known of it; all else is wrong. known: full names, and those that begin with `place` are meant."""
        if content in (None, ""):
            return {}
        if not isinstance(content, dict):
            where = place.rstrip(".") or self._file
            self.wrong.append(f"{where}: this is {_form(content)}. Write keys with values below it, each `key: value`.")
            return {}
        here = {name[len(place) :].split(".")[0] for name in known if name.startswith(place)}
        if place.startswith("clusters["):
            here = {"name", *(key.name for key in KEYS if key.of_cluster)}
        found = {}
        for name, one in content.items():
            if (secret := _secret(str(name), one)) is not None:
                self.wrong.append(f"{place}{name}: {secret}")
            elif name in here:
                found[str(name)] = one
            else:
                self.wrong.append(f"{place}{name}: {_unknown(str(name), here, place)}")
        return found

    def _value(self, key: Key, written: Mapping[str, object]) -> Any:
        """The value of a key of all clusters."""
        said = self._said(key, written)
        return self._taken(key, *said)

    def _said(self, key: Key, written: Mapping[str, object]) -> tuple[object, str]:
        """What was said where it counts, and where."""
        if key.name in self._flags:
            return self._flags[key.name], key.flag
        if key.variable and (value := self._environment.get(key.variable, "")):
            return value, key.variable
        if key.name in written and written[key.name] is not None:
            return written[key.name], key.name
        return key.default, ""

    def _taken(self, key: Key, said: object, where: str) -> Any:
        """What that means; the default, and a line of what is wrong, where it means nothing. where: "" by default."""
        in_file = where not in ("", key.flag, key.variable)
        self.told.setdefault(where if in_file else key.name, (_told(said), where if not in_file else self._file))
        if key.many:
            words = said if isinstance(said, list) and in_file else str(said).split(",")
            if in_file and not isinstance(said, list):
                if said:
                    self.wrong.append(f"{where}: this is {_form(said)}. Write a list: {where}: [..., ...].")
                return frozenset()
            taken = (self._one(key, one, f"{where}[{index}]" if in_file else where) for index, one in enumerate(words))
            return frozenset(one for one in taken if one)
        if not isinstance(said, str):
            self.wrong.append(f"{where}: this is {_form(said)}. Write one value: {where}: ...")
            said, in_file = key.default, False
        if in_file and said == "":
            said = key.default
        value = self._one(key, said, where)
        if value is None:
            value = key.take(key.default)
        if key.path and in_file and value:
            return os.pathsep.join(str(self._base / Path(one).expanduser()) for one in value.split(os.pathsep))
        return value

    def _one(self, key: Key, said: object, where: str) -> Any:
        if not isinstance(said, str):
            self.wrong.append(f"{where}: this is {_form(said)}. Write one value.")
            return None
        try:
            return key.take(said.strip()) if said.strip() or not key.many else None
        except ValueError as error:
            self.wrong.append(f"{where}: {error}")
            return None

    def _clusters(
        self, written: Mapping[str, object], common: Mapping[str, Any]
    ) -> tuple[list[Mapping[str, object]], list[Settings]]:
        """Each entry as it is written, and what it means."""
        content = written.get("clusters")
        if content in (None, "", []):
            return [{}], [self._settings(common, str(common["cluster"]))]
        if not isinstance(content, list):
            self.wrong.append(f"clusters: this is {_form(content)}. Write a list, each with `- name: ...`.")
            return [{}], [self._settings(common, "")]
        if written.get("cluster"):
            self.wrong.append("cluster: the clusters below `clusters` have a `name` each, so leave this out.")
        entries: list[Mapping[str, object]] = []
        found: list[Settings] = []
        for index, one in enumerate(content):
            place = f"clusters[{index}]"
            entry = self._mapping(one, f"{place}.", ())
            name = self._name(entry.pop("name", None), place, [before.cluster for before in found])
            value = dict(common)
            for key in KEYS:
                if key.of_cluster and entry.get(key.name) is not None and key.name not in self._flags:
                    value[key.name] = self._taken(key, entry[key.name], f"{place}.{key.name}")
            self.told.setdefault(f"{place}.name", (name, self._file))
            settings = self._settings(value, name)
            for before, other in enumerate(found):
                if (other.kubeconfig, other.context) == (settings.kubeconfig, settings.context):
                    self.wrong.append(
                        f"{place}.kubeconfig: clusters[{before}] has the same, so both would be one cluster. Give each "
                        "its own kubeconfig or context."
                    )
            entries.append(entry)
            found.append(settings)
        return entries, found

    def _name(self, said: object, place: str, before: Sequence[str]) -> str:
        if not isinstance(said, str) or not said:
            self.wrong.append(f"{place}.name: it is missing. Give the name by which people ask for this cluster.")
            return ""
        if len(said) > 253 or not said.isprintable() or re.search(r"[\s`]", said):
            self.wrong.append(
                f"{place}.name: {_shown(said)} cannot be written in a question: take out what is no word."
            )
        if said in before:
            other = before.index(said)
            self.wrong.append(f"{place}.name: {_shown(said)} is the name of clusters[{other}], too. Give each its own.")
        return said

    def _settings(self, value: Mapping[str, Any], name: str) -> Settings:
        return Settings(
            kubeconfig=value["kubeconfig"],
            context=value["context"],
            api_group=value["api_group"],
            certs=Path(value["certs"]) if value["certs"] else None,
            probe_port=value["probe_port"],
            probe_proxy=value["probe_proxy"],
            patience_ms=value["patience_ms"],
            deadline_s=value["deadline_s"],
            namespace=value["namespace"],
            cluster=name,
            state=Path(value["state"]) if value["state"] else None,
            state_mib=value["state_mib"],
            approvers=Approvers(
                entries=value["approvers"],
                people=value["people"],
                allow_self=value["self_approval"],
                rbac=value["rbac_approval"],
                cluster=name,
            ),
        )

    def _chosen(self, name: str, clusters: Sequence[Settings]) -> list[int]:
        """Which of them are meant: that of --cluster or CALICO_WHY_CLUSTER, else all."""
        said = name if "cluster" in self._flags or self._environment.get("CALICO_WHY_CLUSTER") else ""
        names = [one.cluster for one in clusters]
        if not said or said in names or (len(clusters) == 1 and clusters[0].cluster == name):
            return [names.index(said)] if said in names else list(range(len(clusters)))
        where = "--cluster" if "cluster" in self._flags else "CALICO_WHY_CLUSTER"
        near = difflib.get_close_matches(said, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(names)}."
        self.wrong.append(f"{where}: {_shown(said)} is no cluster of {self._file}; {hint}")
        return list(range(len(clusters)))

    def _channels(self, content: object, names: Sequence[str], served: Sequence[str]) -> dict[str, str]:
        """Of the clusters that are served; a channel of another one has the first."""
        if content in (None, ""):
            return {}
        if not isinstance(content, dict):
            self.wrong.append(f"channels: this is {_form(content)}. Write `C0123ABC: NAME` below it for each channel.")
            return {}
        for channel, name in content.items():
            place = f"channels.{channel}"
            self.told.setdefault(place, (_told(name), self._file))
            if not CHANNEL.fullmatch(str(channel)):
                self.wrong.append(
                    f"{place}: this is no id of a channel: it is at the end of the channel's details in Slack, such as "
                    "C0123ABC."
                )
            if name not in names:
                near = difflib.get_close_matches(str(name), names, n=1)
                known = ", ".join(filter(None, names)) or "none: `clusters` is not written"
                hint = f"Did you mean {near[0]}?" if near else f"There is {known}."
                self.wrong.append(f"{place}: {_shown(str(name))} is no cluster of this file. {hint}")
        return {str(channel): str(name) for channel, name in content.items() if name in served}


class _Loader(Strict, yaml.BaseLoader):
    """Words stay words."""


def _secret(name: str, said: object) -> str | None:
    """What is wrong with a secret in the file, never the secret itself; None for what is none."""
    plain = name.lower().removeprefix("slack_").replace("-", "_")
    if plain not in SECRETS and not (isinstance(said, str) and _TOKEN.match(said)):
        return None
    variable = SECRETS.get(plain, "SLACK_BOT_TOKEN, SLACK_APP_TOKEN")
    return (
        "this is a secret, and none may stand in this file, which more people read. Set "
        f"{variable} in the environment, take it out of here, and have Slack make a new one."
    )


def _unknown(name: str, here: Collection[str], place: str) -> str:
    elsewhere = [one for one in (*BY_NAME, *STRUCTURES) if one.rpartition(".")[2] == name]
    if elsewhere and not place:
        return f"this is no key here; it is {elsewhere[0]}: write it below `{elsewhere[0].partition('.')[0]}`."
    if elsewhere:
        return "this is said of all clusters: write it at the top of the file."
    near = difflib.get_close_matches(name, here, n=1)
    return (
        f"there is no such key; did you mean {place}{near[0]}?"
        if near
        else (f"there is no such key. There is: {', '.join(sorted(here))}.")
    )


def _form(content: object) -> str:
    return "a list" if isinstance(content, list) else "a group of keys" if isinstance(content, dict) else "one value"


def _told(said: object) -> str:
    return ", ".join(map(str, said)) if isinstance(said, list) else str(said)


def _shown(said: str) -> str:
    """What was written, safe to print; a token is never shown."""
    if _TOKEN.search(said):
        return "a Slack token"
    return repr(said if len(said) <= _SHOWN else said[: _SHOWN - 1] + "…")
