"""The sentences every form of the answer shares; without it Slack and the terminal would tell different stories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bot.investigate import Investigation
from facts import (
    Backend,
    Blind,
    CalicoSettings,
    Cause,
    Checked,
    Diagnosis,
    Endpoint,
    Flow,
    Leg,
    LegPath,
    ServicePort,
)

Request = Mapping[str, Any]  # a FixRequest as its custom resource
SHOWN = 3  # endpoints of a Service in a line

NAMES = {
    "vxlan": "vxlan",
    "ipip": "ipip",
    "direct": "no encapsulation",
    "local": "same node",
    "wireguard": "wireguard",
    "host": "node to node",
    "outside": "out of the cluster",
}


def printable(text: str) -> str:
    """Without anything a terminal would obey: names and messages of a cluster are not to be trusted with a cursor."""
    return "".join(one if one.isprintable() else " " if one.isspace() else "�" for one in text)


def sides(investigation: Investigation) -> tuple[str, str]:
    """Both sides as they were resolved, else as they were written."""
    question = investigation.diagnosis.question
    if question:
        return question.source, question.target
    words = [*investigation.asked.split(), "?", "?"]
    return words[0], words[1]


def port(investigation: Investigation) -> str:
    """5432/tcp, or "" when none was asked for."""
    question = investigation.diagnosis.question
    return f"{question.port}/{question.protocol}" if question and question.protocol else ""


def placed(investigation: Investigation, name: str) -> str:
    """`shop/cart 10.244.174.132 on node-a`, with as much of it as is known; of a Service also what it leads to."""
    ports = [fact for fact in investigation.diagnosis.facts if isinstance(fact, ServicePort) and fact.service == name]
    if ports:
        return _service(ports, [fact for fact in investigation.diagnosis.facts if isinstance(fact, Backend)])
    for fact in investigation.diagnosis.facts:
        if isinstance(fact, Endpoint) and fact.name == name:
            address = ", ".join(one for one in (fact.address, fact.address6) if one and one != name)
            where = f"on {fact.node}" if fact.node and fact.node != name else ""
            return " ".join(filter(None, (name, address, where)))
    return name


def _service(ports: Sequence[ServicePort], backends: Sequence[Backend]) -> str:
    """`service shop/db-service (10.96.0.9:80) -> shop/db:5432 on node-b, 2 more`."""
    addresses = ", ".join(_with_port(one.address, one.port) for one in ports if one.address) or "headless"
    ends = dict.fromkeys(
        f"{_with_port(one.pod or one.endpoint or one.address, one.port)}{f' on {one.node}' if one.node else ''}"
        for one in backends
        if one.used and one.service == ports[0].service
    )
    shown = [*list(ends)[:SHOWN], *([f"{len(ends) - SHOWN} more"] if len(ends) > SHOWN else [])]
    named = f"service {ports[0].service} ({addresses})"
    if not shown and not any(one.found and one.counted for one in ports):
        return named
    return f"{named} -> {', '.join(shown) or 'no endpoint it may use'}"


def _with_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def setting(diagnosis: Diagnosis) -> str:
    """`vxlan, Calico v3.32.1`: how packets travel, and the version."""
    forward = [fact for fact in diagnosis.facts if isinstance(fact, Leg) and fact.direction == "forward"]
    settings = next((fact for fact in diagnosis.facts if isinstance(fact, CalicoSettings)), None)
    known = [
        *dict.fromkeys(NAMES.get(leg.encapsulation, "") for leg in forward),
        f"Calico {settings.version}" if settings and settings.version else "",
    ]
    return ", ".join(filter(None, known))


def headline(investigation: Investigation) -> str:
    """The answer in one line, without its mark."""
    source, target = sides(investigation)
    on = f" on {port(investigation)}" if port(investigation) else ""
    diagnosis = investigation.diagnosis
    if diagnosis.verdict == "cause" and diagnosis.causes:
        return diagnosis.causes[0].title
    if diagnosis.verdict == "healthy":
        return f"{source} reaches {target}{on}: everything between them is as it should be"
    return f"I cannot say whether {source} reaches {target}{on}"


def checked(diagnosis: Diagnosis) -> list[str]:
    """What was checked and well, a name with where it was checked."""
    found: dict[str, list[Checked]] = {}
    for one in diagnosis.checked:
        found.setdefault(one.rule, []).append(one)
    return [f"{rule} ({_where(ones)})" if _where(ones) else rule for rule, ones in found.items()]


def _where(ones: Sequence[Checked]) -> str:
    places = dict.fromkeys(" ".join(filter(None, (one.node, one.leg))) for one in ones)
    return ", ".join(place for place in places if place)


def blind(diagnosis: Diagnosis) -> list[str]:
    """What could not be seen, a sentence each, with where and why; equal reasons are told once."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in diagnosis.blind:
        found.setdefault((one.node, one.reason), []).append(one.look)
    return [
        f"{node + ': ' if node else ''}{', '.join(dict.fromkeys(looks))}: {reason}"
        for (node, reason), looks in found.items()
    ]


def next_step(blind_facts: Sequence[Blind]) -> str:
    """What would make an answer possible; "" when nobody can say."""
    probes = list(dict.fromkeys(one.node for one in blind_facts if one.look == "probe"))
    if probes:
        return f"make the probe of {' and '.join(probes)} answer, then ask again"
    if any(one.look == "engine" for one in blind_facts):
        return "ask again; if it stays so, the saved investigation holds what is needed to find out why"
    return ""


def legs(diagnosis: Diagnosis) -> list[tuple[str, LegPath]]:
    """Each leg drawn, with its name: `forward`, and where a question has several flows also which of them."""
    flows = {leg.flow: leg for leg in diagnosis.path if leg.direction == "forward"}
    families = {fact.name: fact.family for fact in diagnosis.facts if isinstance(fact, Flow)}
    several = len({families.get(flow) for flow in flows}) > 1
    targets = len({leg.target for leg in flows.values()}) > 1
    return [
        (
            " ".join(
                filter(
                    None,
                    (
                        leg.direction,
                        f"IPv{families[leg.flow]}" if several and leg.flow in families else "",
                        flows[leg.flow].target if targets and leg.flow in flows else "",
                    ),
                )
            ),
            leg,
        )
        for leg in diagnosis.path
    ]


def path(leg: LegPath) -> str:
    """`eth0 ok > cali4c1a ok > vxlan.calico x`: up to the first bad hop; a stretch nobody could judge is one `?`."""
    words: list[str] = []
    for hop in leg.hops:
        if hop.state == "bad":
            return " > ".join([*words, f"{hop.name} x first bad hop"])
        if hop.state == "ok":
            words.append(f"{hop.name} ok")
        elif words[-1:] != ["?"]:
            words.append("?")
    return " > ".join(words) if words != ["?"] else "? nothing can be said about it"


def ends(name: str, leg: LegPath) -> str:
    """`forward: last good source node, first bad source tunnel`: the path for those who cannot see it drawn."""
    if not leg.first_bad:
        return f"{name}: {path(leg)}"
    last = f"last good {leg.last_good}, " if leg.last_good else ""
    return f"{name}: {last}first bad {leg.first_bad}"


def remedy(cause: Cause) -> str:
    return cause.remedy or "nothing is known that helps; look at the evidence"


def fix_for(cause: Cause, fixes: Sequence[Request]) -> Request | None:
    """The request that was made for this cause."""
    for one in fixes:
        spec = one.get("spec") or {}
        if cause.fix and (spec.get("kind"), spec.get("node")) == (cause.fix, cause.node):
            return one
    return None


def request_name(request: Request) -> str:
    return str((request.get("metadata") or {}).get("name") or "")
