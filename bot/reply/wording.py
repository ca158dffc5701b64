"""The sentences every form of the answer shares; without it Slack and the terminal would tell different stories."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from bot.investigate import Investigation
from bot.language import ENGLISH, Language
from engine import passage
from facts import (
    Backend,
    CalicoSettings,
    Cause,
    Checked,
    Diagnosis,
    Endpoint,
    Flow,
    Leg,
    LegPath,
    Message,
    ProbeResult,
    ServicePort,
    Text,
    listed,
    say,
)

Request = Mapping[str, Any]  # a FixRequest as its custom resource
SHOWN = 3  # endpoints of a Service, and names of looks, in a line

NAMES = {
    "vxlan": "vxlan",
    "ipip": "ipip",
    "direct": "no encapsulation",
    "local": "same node",
    "wireguard": "wireguard",
    "host": "node to node",
    "outside": "out of the cluster",
}

LEGS = {"forward": "forward", "reverse": "reverse", "both": "both"}
PLACES = {  # of facts.flow.STAGES
    "source pod": "source pod",
    "source veth": "source veth",
    "source node": "source node",
    "source tunnel": "source tunnel",
    "underlay": "underlay",
    "target tunnel": "target tunnel",
    "target node": "target node",
    "target veth": "target veth",
    "target pod": "target pod",
}


def printable(text: str) -> str:
    """Without anything a terminal would obey: names and messages of a cluster are not to be trusted with a cursor."""
    return "".join(one if one.isprintable() else " " if one.isspace() else "�" for one in text)


def width(text: str) -> int:
    """Columns on a terminal: a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


def padded(text: str, columns: int) -> str:
    return text + " " * max(columns - width(text), 0)


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


def placed(investigation: Investigation, name: str, language: Language = ENGLISH) -> str:
    """`shop/cart 10.244.174.132 on node-a`, with as much of it as is known; of a Service also what it leads to."""
    question = investigation.diagnosis.question
    service = question.service if question and question.service and name == question.target else name
    ports = [
        fact for fact in investigation.diagnosis.facts if isinstance(fact, ServicePort) and fact.service == service
    ]
    if ports:
        return _service(ports, [fact for fact in investigation.diagnosis.facts if isinstance(fact, Backend)], language)
    for fact in investigation.diagnosis.facts:
        if isinstance(fact, Endpoint) and fact.name == name:
            address = ", ".join(one for one in (fact.address, fact.address6) if one and one != name)
            where = language(say("on {node}", node=fact.node)) if fact.node and fact.node != name else ""
            return " ".join(filter(None, (name, address, where)))
    return name


def _service(ports: Sequence[ServicePort], backends: Sequence[Backend], language: Language) -> str:
    """`service shop/db-service (10.96.0.9:80) -> shop/db:5432 on node-b, 2 more`."""
    name = ports[0].service
    addresses = ", ".join(_with_port(one.address, one.port) for one in ports if one.address)
    named = language(
        say("service {name} ({addresses})", name=name, addresses=addresses)
        if addresses
        else say("headless service {name}", name=name)
    )
    used = [one for one in backends if one.used and one.service == name]
    used.sort(key=lambda one: (not one.endpoint, one.pod, one.address))  # those that were looked at first
    ends = list(dict.fromkeys(_end(one, language) for one in used))
    if len(ends) > SHOWN:
        ends[SHOWN:] = [language(say("{count} more", count=len(ends) - SHOWN))]
    if not ends and any(one.found and one.counted for one in ports):
        ends = [language(say("no endpoint it may use"))]
    return f"{named} -> {', '.join(ends)}" if ends else named


def _end(backend: Backend, language: Language) -> str:
    name = _with_port(backend.pod or backend.endpoint or backend.address, backend.port)
    return f"{name} {language(say('on {node}', node=backend.node))}" if backend.node else name


def _with_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def setting(diagnosis: Diagnosis, language: Language = ENGLISH) -> str:
    """`vxlan, Calico v3.32.1`: how packets travel, and the version."""
    forward = [fact for fact in diagnosis.facts if isinstance(fact, Leg) and fact.direction == "forward"]
    settings = next((fact for fact in diagnosis.facts if isinstance(fact, CalicoSettings)), None)
    known = [
        *dict.fromkeys(language(say(NAMES[leg.encapsulation])) for leg in forward if leg.encapsulation in NAMES),
        f"Calico {settings.version}" if settings and settings.version else "",
    ]
    return ", ".join(filter(None, known))


def headline(investigation: Investigation, language: Language = ENGLISH) -> str:
    """The answer in one line, without its mark."""
    source, target = sides(investigation)
    asked = port(investigation)
    names = {"source": source, "target": target, "port": asked}
    diagnosis = investigation.diagnosis
    if diagnosis.verdict == "cause" and diagnosis.causes:
        return titled(diagnosis.causes[0], language)
    if diagnosis.verdict == "healthy" and not diagnosis.warnings:
        well = say(
            "{source} reaches {target} on {port}: everything between them is as it should be"
            if asked
            else "{source} reaches {target}: everything between them is as it should be",
            **names,
        )
        return language(well)
    if diagnosis.verdict == "healthy":
        warned = say(
            "{source} reaches {target} on {port}, but not all is as it should be"
            if asked
            else "{source} reaches {target}, but not all is as it should be",
            **names,
        )
        return language(warned)
    passes = _passes(diagnosis)
    if passes:
        seen = say(
            "{source} reaches {target} on {port}, but I cannot say that all is as it should be"
            if asked
            else "{source} reaches {target}, but I cannot say that all is as it should be",
            **names,
        )
        return language(seen)
    unknown = say(
        (
            "I cannot say whether {source} reaches {target} on {port}"
            if asked
            else "I cannot say whether {source} reaches {target}"
        )
        if passes is None
        else "I cannot say why {source} did not reach {target} on {port}"
        if asked
        else "I cannot say why {source} did not reach {target}",
        **names,
    )
    return language(unknown)


def _passes(diagnosis: Diagnosis) -> bool | None:
    """Did all small fresh packets of the asked kind come back, on all flows? None: nobody knows of all of them."""
    probes = [fact for fact in diagnosis.facts if isinstance(fact, ProbeResult)]
    legs = [fact for fact in diagnosis.facts if isinstance(fact, Leg) and fact.direction == "forward"]
    small = [[one for one in passage.wanted(leg, probes) if not one.size] for leg in legs]
    if any(map(passage.is_lost, chain.from_iterable(small))):
        return False
    return True if small and all(small) else None


def titled(cause: Cause, language: Language = ENGLISH) -> str:
    """What is wrong, and on which node: whoever reads no further knows where to go."""
    if not cause.node:
        return language(cause.title)
    return language(say("{node}: {title}", node=cause.node, title=language(cause.title)))


def told(cause: Cause, language: Language = ENGLISH) -> list[str]:
    """The proof, and what Felix will do about it."""
    sentences = ((cause.text, cause.message), (cause.felix, cause.felix_message))
    return [_begun(language(text, message), message) for text, message in sentences if text]


def _begun(sentence: str, message: Message | None) -> str:
    """With a capital, where it begins with a word of ours: a name of the cluster stays as it is written."""
    ours = message is not None and re.match("[a-z]+ ", message.template)
    return sentence[0].upper() + sentence[1:] if ours else sentence


def summary(diagnosis: Diagnosis, language: Language = ENGLISH) -> str:
    return language(diagnosis.summary, diagnosis.summary_message)


def checked(diagnosis: Diagnosis, language: Language = ENGLISH) -> list[str]:
    """What was checked and well, a name with where it was checked."""
    found: dict[str, list[Checked]] = {}
    for one in diagnosis.checked:
        found.setdefault(one.rule, []).append(one)
    places = {rule: _where(ones, language) for rule, ones in found.items()}
    return [f"{rule} ({where})" if where else rule for rule, where in places.items()]


def _where(ones: Sequence[Checked], language: Language) -> str:
    places = dict.fromkeys(" ".join(filter(None, (one.node, way(one.leg, language)))) for one in ones)
    return ", ".join(place for place in places if place)


def way(name: str, language: Language) -> str:
    return language(say(LEGS[name])) if name in LEGS else name


def blind(diagnosis: Diagnosis, language: Language = ENGLISH, *, most: int = SHOWN) -> list[str]:
    """What could not be seen, a sentence each, with where and why; equal reasons are told once, of at most so many
    looks by name."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in diagnosis.blind:
        found.setdefault((one.node, language(one.reason, one.message)), []).append(one.look)
    return [
        f"{node + ': ' if node else ''}{', '.join(_first(list(dict.fromkeys(looks)), most, language))}: {reason}"
        for (node, reason), looks in found.items()
    ]


def _first(names: list[str], most: int, language: Language) -> list[str]:
    if len(names) <= most + 1:  # "1 more" takes no less room than its name
        return names
    return [*names[:most], language(say("{count} more", count=len(names) - most))]


def next_step(investigation: Investigation, language: Language = ENGLISH) -> str:
    """What would make an answer possible; else how to keep the scene for who looks further."""
    blind_facts = investigation.diagnosis.blind
    probes = list(dict.fromkeys(one.node for one in blind_facts if one.look == "probe"))
    if probes:
        step = say(
            "make the probe of {nodes} answer, then ask again; {command} says what keeps it from that",
            nodes=listed(probes),
            command="`preflight`",
        )
        return language(step)
    gone = [one for one in investigation.diagnosis.facts if isinstance(one, Endpoint) and one.kind == "nobody"]
    if gone:
        step = say(
            "ask about a pod by its name, or about an address that one has now; {command} tells whose this one is in "
            "IPAM",
            command=f"`ipam show --ip={gone[0].name}`",
        )
        return language(step)
    if any(one.look == "engine" for one in blind_facts):
        return language(say("ask again; if it stays so, the saved investigation holds what is needed to find out why"))
    keep = f"`keep {investigation.asked}`"
    return language(say("keep the scene for who looks further, before it changes: {command}", command=keep))


def legs(diagnosis: Diagnosis, language: Language = ENGLISH) -> list[tuple[str, LegPath]]:
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
                        way(leg.direction, language),
                        f"IPv{families[leg.flow]}" if several and leg.flow in families else "",
                        flows[leg.flow].target if targets and leg.flow in flows else "",
                    ),
                )
            ),
            leg,
        )
        for leg in diagnosis.path
    ]


def path(leg: LegPath, language: Language = ENGLISH) -> str:
    """`eth0 ok > cali4c1a ok > vxlan.calico x`: up to the first bad hop; a stretch nobody could judge is one `?`."""
    words: list[str] = []
    for hop in leg.hops:
        if hop.state == "bad":
            return " > ".join([*words, f"{hop.name} {bad_hop(language)}"])
        if hop.state == "ok":
            words.append(f"{hop.name} ok")
        elif words[-1:] != ["?"]:
            words.append("?")
    return " > ".join(words) if words != ["?"] else f"? {language(say('nothing can be said about it'))}"


def lost(leg: LegPath, language: Language = ENGLISH) -> str:
    """Where its packets were seen last, and where no more; "" where that is not known."""
    return language(leg.lost, leg.lost_message)


def bad_hop(language: Language = ENGLISH) -> str:
    """What is drawn behind the first hop that does not work."""
    return f"x {language(say('first bad hop'))}"


def place(stage: str) -> Text:
    """One of facts.flow.STAGES as a person reads it."""
    return say(PLACES[stage])


def ends(name: str, leg: LegPath, language: Language = ENGLISH) -> str:
    """`forward: last good source node, first bad source tunnel`: the path for those who cannot see it drawn."""
    if not leg.first_bad:
        return f"{name}: {path(leg, language)}"
    bad = say(
        "{leg}: last good {last_good}, first bad {first_bad}" if leg.last_good else "{leg}: first bad {first_bad}",
        leg=name,
        last_good=place(leg.last_good) if leg.last_good else "",
        first_bad=place(leg.first_bad),
    )
    return language(bad)


def path_in_words(diagnosis: Diagnosis, language: Language = ENGLISH) -> str:
    """All legs, one after the other; "" where there is none."""
    return "; ".join(ends(name, leg, language) for name, leg in legs(diagnosis, language))


def remedy(cause: Cause, language: Language = ENGLISH) -> str:
    return language(cause.remedy or say("nothing is known that helps; look at the evidence"))


def fix_for(cause: Cause, fixes: Sequence[Request]) -> Request | None:
    """The request that was made for this cause."""
    for one in fixes:
        spec = one.get("spec") or {}
        if cause.fix and (spec.get("kind"), spec.get("node")) == (cause.fix, cause.node):
            return one
    return None


def request_name(request: Request) -> str:
    return str((request.get("metadata") or {}).get("name") or "")
