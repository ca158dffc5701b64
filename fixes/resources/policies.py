"""What Calico refuses of a policy's rules; without it people would approve what Felix cannot write."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import Any

from facts.selector import SelectorError, parse
from fixes.resources.kinds import Object

ACTIONS = ("Allow", "Deny", "Log", "Pass")
PROTOCOLS = ("TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite")
WITH_PORTS = ("tcp", "udp", "sctp", "6", "17", "132")
TYPES = ("Ingress", "Egress")
STAGED = ("Set", "Delete", "Learn", "Ignore")
MOST_RULES = 1024  # of one direction
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_GLOBAL = re.compile(r"global\(")


def of_policy(spec: Object, *, everywhere: bool) -> Iterator[str]:
    """everywhere: a policy of no namespace. A sentence for each thing."""
    if (action := spec.get("stagedAction")) is not None and action not in STAGED:
        yield f"spec.stagedAction: {action!r} is not one of {', '.join(STAGED)}."
    if spec.get("stagedAction") == "Delete":
        if more := sorted(set(spec) - {"stagedAction", "tier"}):
            yield f"spec.{more[0]}: with the stagedAction Delete nothing but the tier is said."
        return
    types = spec.get("types") or []
    for one in types:
        if one not in TYPES:
            yield f"spec.types: {one!r} is not one of {', '.join(TYPES)}."
    if len(set(types)) != len(types):
        yield "spec.types: says one of them twice."
    for field in ("selector", "serviceAccountSelector", "namespaceSelector"):
        yield from _selector(spec.get(field), f"spec.{field}")
        if _GLOBAL.search(str(spec.get(field) or "")):
            yield f"spec.{field}: global() is for the namespaceSelector of a rule only."
    if spec.get("doNotTrack") and spec.get("preDNAT"):
        yield "spec.preDNAT: does not go with doNotTrack."
    if spec.get("preDNAT") and (spec.get("egress") or "Egress" in types):
        yield "spec.egress: a policy with preDNAT has none, nor the type Egress."
    if (spec.get("doNotTrack") or spec.get("preDNAT")) and not spec.get("applyOnForward"):
        yield "spec.applyOnForward: has to be true with preDNAT or doNotTrack."
    for direction in ("ingress", "egress"):
        rules = spec.get(direction) or []
        if len(rules) > MOST_RULES:
            yield f"spec.{direction}: {len(rules)} rules; there may be {MOST_RULES}."
        for number, rule in enumerate(rules):
            yield from _rule(rule, f"spec.{direction}[{number}]", direction, everywhere)


def of_kubernetes(spec: Object) -> Iterator[str]:
    """Of a staged policy in the words of Kubernetes."""
    if (action := spec.get("stagedAction")) is not None and action not in STAGED:
        yield f"spec.stagedAction: {action!r} is not one of {', '.join(STAGED)}."
    if spec.get("stagedAction") == "Delete":
        if more := sorted(set(spec) - {"stagedAction"}):
            yield f"spec.{more[0]}: with the stagedAction Delete nothing else is said."
        return
    for one in spec.get("policyTypes") or ():
        if one not in TYPES:
            yield f"spec.policyTypes: {one!r} is not one of {', '.join(TYPES)}."
    yield from _by_labels(spec.get("podSelector"), "spec.podSelector")
    for direction, side in (("ingress", "from"), ("egress", "to")):
        for number, rule in enumerate(spec.get(direction) or ()):
            path = f"spec.{direction}[{number}]"
            for index, peer in enumerate(rule.get(side) or ()):
                yield from _peer(peer, f"{path}.{side}[{index}]")
            for index, port in enumerate(rule.get("ports") or ()):
                yield from _to_port(port, f"{path}.ports[{index}]")


def _peer(peer: Object, path: str) -> Iterator[str]:
    for field in ("podSelector", "namespaceSelector"):
        yield from _by_labels(peer.get(field), f"{path}.{field}")
    block = peer.get("ipBlock")
    if not peer:
        yield f"{path}: says nothing; leave it out for everybody."
    if block is None:
        return
    if len(peer) > 1:
        yield f"{path}.ipBlock: does not go with selectors."
    for field, values in (("cidr", [block.get("cidr")]), ("except", block.get("except") or [])):
        for one in values:
            try:
                ipaddress.ip_network(str(one), strict=False)
            except ValueError:
                yield f"{path}.ipBlock.{field}: {one!r} is not a network in CIDR form."


def _to_port(port: Object, path: str) -> Iterator[str]:
    if port.get("protocol") not in (None, "TCP", "UDP", "SCTP"):
        yield f"{path}.protocol: {port['protocol']!r} is not one of TCP, UDP, SCTP."
    low, high = port.get("port"), port.get("endPort")
    if low is not None and (isinstance(low, str) or not 1 <= low <= 65535):
        text = str(low)
        if not isinstance(low, str) or not _PORT_NAME.fullmatch(text) or "--" in text or len(text) > 15:
            yield f"{path}.port: {low!r} is neither a port nor the name of one."
    if high is not None and not (isinstance(low, int) and low <= high <= 65535):
        yield f"{path}.endPort: {high} does not end a range that begins with port."


def _by_labels(selector: Object | None, path: str) -> Iterator[str]:
    for number, one in enumerate((selector or {}).get("matchExpressions") or ()):
        operator, values = one.get("operator"), one.get("values")
        if operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
            yield (
                f"{path}.matchExpressions[{number}].operator: {operator!r} is not one of In, NotIn, Exists, "
                "DoesNotExist."
            )
        elif bool(values) != (operator in ("In", "NotIn")):
            yield f"{path}.matchExpressions[{number}].values: go with In and NotIn, and with nothing else."
        if not one.get("key"):
            yield f"{path}.matchExpressions[{number}].key: has to be given."


def _rule(rule: Object, path: str, direction: str, everywhere: bool) -> Iterator[str]:
    source, destination = rule.get("source") or {}, rule.get("destination") or {}
    if rule.get("action") not in ACTIONS:
        yield f"{path}.action: {rule.get('action')!r} is not one of {', '.join(ACTIONS)}."
    if (version := rule.get("ipVersion")) not in (None, 4, 6):
        yield f"{path}.ipVersion: is 4 or 6."
    for field in ("protocol", "notProtocol"):
        yield from _protocol(rule.get(field), f"{path}.{field}")
    protocol = str(rule.get("protocol") or "").lower()
    for side, entity in (("source", source), ("destination", destination)):
        for field in ("ports", "notPorts"):
            if entity.get(field) and protocol not in WITH_PORTS:
                yield f"{path}.{side}.{field}: a rule with ports says the protocol, TCP, UDP or SCTP."
    for field in ("icmp", "notICMP"):
        yield from _icmp(rule.get(field), protocol, f"{path}.{field}")
    for name, wanted in (("icmp", 4), ("icmpv6", 6)):
        if name in (protocol, str(rule.get("notProtocol") or "").lower()) and version not in (None, wanted):
            yield f"{path}.ipVersion: is {wanted} with {name}."
    if http := rule.get("http"):
        yield from _http(http, rule, protocol, direction, f"{path}.http")
    yield from _families(source, destination, version, path)
    for side, entity in (("source", source), ("destination", destination)):
        yield from _entity(entity, f"{path}.{side}")
    inside = ("source", source) if direction == "egress" else ("destination", destination)
    if inside[1].get("services"):
        yield f"{path}.{inside[0]}.services: stands on the other side of an {direction} rule."
    if destination.get("services") and (destination.get("ports") or destination.get("notPorts")):
        yield f"{path}.destination.ports: are those of the service; leave them out."
    for side, entity in (("source", source), ("destination", destination)):
        if everywhere and entity.get("services") and not entity["services"].get("namespace"):
            yield f"{path}.{side}.services.namespace: has to be given in a policy of no namespace."


def _entity(entity: Object, path: str) -> Iterator[str]:
    for field in ("selector", "notSelector", "namespaceSelector"):
        yield from _selector(entity.get(field), f"{path}.{field}")
    accounts: Object = entity.get("serviceAccounts") or {}
    yield from _selector(accounts.get("selector"), f"{path}.serviceAccounts.selector")
    for field in ("selector", "notSelector"):
        if _GLOBAL.search(str(entity.get(field) or "")):
            yield f"{path}.{field}: global() is for a namespaceSelector only."
    spaces = str(entity.get("namespaceSelector") or "")
    if _GLOBAL.search(spaces) and spaces.replace(" ", "") != "global()":
        yield f"{path}.namespaceSelector: global() stands alone."
    for field in ("ports", "notPorts"):
        for number, port in enumerate(entity.get(field) or ()):
            yield from _port(port, f"{path}.{field}[{number}]")
    if services := entity.get("services"):
        if not services.get("name"):
            yield f"{path}.services.name: has to be given."
        for field in ("namespaceSelector", "selector", "notSelector", "serviceAccounts", "nets", "notNets"):
            if entity.get(field):
                yield f"{path}.{field}: does not go with services."


def _families(source: Object, destination: Object, version: int | None, path: str) -> Iterator[str]:
    seen: set[int] = set()
    for side, entity in (("source", source), ("destination", destination)):
        for field in ("nets", "notNets"):
            for number, one in enumerate(entity.get(field) or ()):
                here = f"{path}.{side}.{field}[{number}]"
                try:
                    network = ipaddress.ip_network(str(one), strict=False)
                except ValueError:
                    yield f"{here}: {one!r} is not a network in CIDR form."
                    continue
                if "/" not in str(one):
                    yield f"{here}: {one} is an address; write {network}."
                if version not in (None, network.version):
                    yield f"{here}: {one} is of IPv{network.version}, and the rule of IPv{version}."
                seen.add(network.version)
    if len(seen) > 1:
        yield f"{path}: has networks of IPv4 and of IPv6; make a rule for each."


def _protocol(value: Any, path: str) -> Iterator[str]:
    if value is None:
        return
    text = str(value)
    if text.isascii() and text.isdigit():
        if not 1 <= int(text) <= 255:
            yield f"{path}: {text} is not a protocol; they are 1 to 255."
    elif text.lower() not in map(str.lower, PROTOCOLS):
        yield f"{path}: {value!r} is neither a number nor one of {', '.join(PROTOCOLS)}."


def _icmp(icmp: Object | None, protocol: str, path: str) -> Iterator[str]:
    if icmp is None:
        return
    if path.endswith(".icmp") and protocol not in ("icmp", "icmpv6"):
        yield f"{path}: a rule with it says the protocol, ICMP or ICMPv6."
    if icmp.get("code") is not None and icmp.get("type") is None:
        yield f"{path}.code: is said with a type only."
    for field, most in (("type", 254), ("code", 255)):
        if (value := icmp.get(field)) is not None and not 0 <= value <= most:
            yield f"{path}.{field}: {value} is not between 0 and {most}."


def _http(http: Object, rule: Object, protocol: str, direction: str, path: str) -> Iterator[str]:
    if protocol not in ("", "tcp", "6"):
        yield f"{path}: is for TCP only."
    if rule.get("action") != "Allow":
        yield f"{path}: is for the action Allow only."
    if direction == "egress":
        yield f"{path}: is for ingress rules only."
    methods: Sequence[str] = http.get("methods") or ()
    if len(set(methods)) != len(methods):
        yield f"{path}.methods: says one of them twice."
    for number, one in enumerate(http.get("paths") or ()):
        said = [text for text in (one.get("exact"), one.get("prefix")) if text]
        if len(said) != 1 or not said[0].startswith("/") or set(said[0]) & set("? #"):
            yield f"{path}.paths[{number}]: has either exact or prefix, a path that begins with '/'."


def _port(port: Any, path: str) -> Iterator[str]:
    text = str(port)
    if found := re.fullmatch(r"(\d+)(?::(\d+))?", text):
        low, high = int(found[1]), int(found[2] or found[1])
        if not 1 <= low <= high <= 65535:
            yield f"{path}: {text} is not a port, nor a range of ports, between 1 and 65535."
    elif not isinstance(port, str) or not _PORT_NAME.fullmatch(text) or "--" in text or len(text) > 15:
        hint = f"; a range is written {text.replace('-', ':')}" if re.fullmatch(r"\d+-\d+", text) else ""
        yield f"{path}: {port!r} is neither a port, nor a range such as 80:90, nor the name of one{hint}."


def _selector(text: Any, path: str) -> Iterator[str]:
    if text:
        try:
            parse(str(text))
        except SelectorError as error:
            yield f"{path}: {error}."
