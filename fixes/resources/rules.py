"""What Calico itself refuses of a resource (libcalico-go's validator and client); without it people would be asked to
approve what then breaks, or what Calico reads as nothing."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from facts.selector import SelectorError, parse
from fixes.resources.form import DEFAULT, TIER, WELL_FORMED, tier_of
from fixes.resources.kinds import KINDS, TIERED, Object
from fixes.resources.policies import of_kubernetes, of_policy

NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
POLICY = re.compile(rf"({LABEL.pattern}\.)?{LABEL.pattern}")
MADE_BY_CALICO = re.compile(rf"(?:knp|ossg)\.default\.{NAME.pattern}")
QUALIFIED = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
INTERFACE = re.compile(r"[a-zA-Z0-9_.-]{1,15}")
COMMUNITY = re.compile(r"(\d+):(\d+)(:(\d+))?")
MOST_OF_A_NAME, MOST_OF_A_LABEL = 253, 63
MODES = ("Always", "CrossSubnet", "Never")
USES = ("Workload", "Tunnel", "LoadBalancer", "HostSecondaryInterface")
SIZES = {4: (20, 32), 6: (116, 128)}
LINK_LOCAL = {4: ipaddress.ip_network("169.254.0.0/16"), 6: ipaddress.ip_network("fe80::/10")}
TIER_ORDERS = {DEFAULT: 1000000, "adminnetworkpolicy": 1000, "baselineadminnetworkpolicy": 10000000,
               "kube-admin": 1000, "kube-baseline": 10000000}  # fmt: skip

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Beside(NamedTuple):
    """What is stored beside the resource, in the form of projectcalico.org/v3; None where it was not read."""

    pools: Sequence[Object] | None = None
    blocks: Sequence[str] | None = None  # CIDRs
    tiers: Sequence[str] | None = None


def refused(found: Object, plural: str, *, version: str = "") -> list[str]:
    """What Calico refuses of this projectcalico.org/v3 object by itself, a sentence each; [] where it takes it. Fields
    and their types are another question (fixes.resources.fields, schema). version: of Calico."""
    spec = found.get("spec")
    if not isinstance(spec, dict):
        return ["spec: has to be given, as a mapping of fields."]
    if wrong := list(_metadata(found.get("metadata") or {}, plural)):
        return wrong
    try:
        return [*_name(found, plural, version), *_SPECS.get(plural, _nothing)(found)]
    except (AttributeError, TypeError, KeyError, ValueError) as error:  # a type that no rule above looks at
        return [f"spec: is not of the form that Calico reads ({error})."]


def changed(found: Object, before: Object, plural: str) -> list[str]:
    """What may not be changed of a resource that is there."""
    if plural != "ippools":
        return []
    new, old = found["spec"], before["spec"]
    wrong = []
    if _network(new.get("cidr")) != _network(old.get("cidr")):
        wrong.append(
            f"spec.cidr: the CIDR of a pool cannot be modified; it is {old.get('cidr')}. Make another pool beside it."
        )
    if new.get("blockSize", old.get("blockSize")) != old.get("blockSize"):
        wrong.append(
            f"spec.blockSize: the block size of a pool cannot be modified; it is {old.get('blockSize')}. Make another "
            "pool beside it."
        )
    if "LoadBalancer" in (old.get("allowedUses") or ()) and set(new.get("allowedUses") or ()) - {"LoadBalancer"}:
        wrong.append("spec.allowedUses: cannot be changed from LoadBalancer to anything else.")
    return wrong


def clashes(found: Object, plural: str, beside: Beside, *, new: bool) -> list[str]:
    """What stands against it in the cluster."""
    spec, name = found["spec"], str(found["metadata"]["name"])
    if plural in TIERED and beside.tiers is not None:
        tier = str(spec.get("tier") or DEFAULT)
        if tier not in (*beside.tiers, DEFAULT):
            return [f"spec.tier: there is no tier {tier}; there is {', '.join(sorted({*beside.tiers, DEFAULT}))}."]
    if plural != "ippools" or not new:
        return []
    own = ipaddress.ip_network(spec["cidr"])
    wrong = []
    for pool in beside.pools or ():
        other = _network((pool.get("spec") or {}).get("cidr"))
        if other is not None and pool["metadata"]["name"] != name and _overlap(own, other):
            wrong.append(f"spec.cidr: {own} overlaps with {other} of IPPool {pool['metadata']['name']}.")
    size = spec.get("blockSize") or (26 if own.version == 4 else 122)
    blocks = [block for one in beside.blocks or () if (block := _network(one)) and _overlap(own, block)]
    if other_size := sorted({block.prefixlen for block in blocks} - {size}):
        wrong.append(
            f"spec.blockSize: {len(blocks)} blocks of /{other_size[0]} are there within {own} already, so a pool there "
            f"has that block size and not {size}."
        )
    return wrong


def completed(found: Object, plural: str) -> Object:
    """With what Calico's client fills in before it writes, and names as it writes them."""
    spec = dict(found["spec"])
    if plural == "ippools" and (network := _network(spec.get("cidr"))):
        spec["cidr"] = str(network)
        defaults = {"blockSize": 26 if network.version == 4 else 122, "nodeSelector": "all()", "ipipMode": "Never",
                    "vxlanMode": "Never", "allowedUses": ["Workload", "Tunnel"]}  # fmt: skip
        spec |= {name: value for name, value in defaults.items() if not spec.get(name)}
    elif plural in TIERED:
        spec["tier"] = spec.get("tier") or tier_of(str(found["metadata"].get("name") or ""))
        if spec.get("stagedAction") != "Delete":
            has = [name for name, field in (("Ingress", "ingress"), ("Egress", "egress")) if spec.get(field)]
            spec["types"] = spec.get("types") or (["Ingress"] if "Egress" not in has else has)
        for field in ("ingress", "egress"):
            if field in spec:
                spec[field] = [_protocols(rule) for rule in spec[field] or ()]
    return {**found, "spec": spec}


# -- of every kind ----------------------------------------------------------------------------------------------------


def _metadata(metadata: Object, plural: str) -> Iterator[str]:
    name = metadata.get("name")
    if not isinstance(name, str) or not name:
        generated = " generateName is not taken." if metadata.get("generateName") else ""
        yield f"metadata.name: has to be given.{generated}"
        return
    most = MOST_OF_A_LABEL if plural == "tiers" else MOST_OF_A_NAME
    if len(name) > most:
        yield f"metadata.name: is too long by {len(name) - most} characters."
    if KINDS[plural].namespaced and not metadata.get("namespace"):
        yield "metadata.namespace: has to be given."
    if not KINDS[plural].namespaced and metadata.get("namespace"):
        yield f"metadata.namespace: {KINDS[plural].shown} is a kind without namespaces."
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    for what, pairs in (("labels", labels), ("annotations", annotations)):
        if not isinstance(pairs, dict):
            yield f"metadata.{what}: is not a mapping of text."
            return
        for key, value in pairs.items():
            if not isinstance(value, str):
                yield f"metadata.{what}.{key}: {value!r} is not text; write it in quotes."
            elif not isinstance(key, str) or not QUALIFIED.fullmatch(key.lower() if what == "annotations" else key):
                yield f"metadata.{what}.{key}: is not the name of a label."
            elif what == "labels" and not VALUE.fullmatch(value):
                yield f"metadata.labels.{key}: {value!r} is not the value of a label."
    if plural in ("networksets", "globalnetworksets") and "projectcalico.org/namespace" in labels:
        yield "metadata.labels.projectcalico.org/namespace: is Calico's own."


def _name(found: Object, plural: str, version: str) -> Iterator[str]:
    name = str(found["metadata"]["name"])
    rule = "has small letters, digits, '-' and '.' only, and begins and ends with a letter or a digit"
    if plural in TIERED:
        tier = str(found["spec"].get("tier") or tier_of(name))
        if name.startswith(WELL_FORMED) or MADE_BY_CALICO.fullmatch(name):
            yield f"metadata.name: {name} is made of a Kubernetes policy. Change that one, with kubectl."
        elif not POLICY.fullmatch(name):
            yield "metadata.name: the name of a policy has small letters, digits and '-', and its tier before a '.'."
        elif _before(version, 3, 32) and tier_of(name) != tier:
            right = f"{tier}.{name.rpartition('.')[2]}"
            yield f"metadata.name: a policy of tier {tier} has it before its name: {right}."
        if (found["metadata"].get("labels") or {}).get(TIER, tier) != tier:
            yield f"metadata.labels.{TIER}: says another tier than spec.tier, {tier}."
    elif plural == "tiers" and not LABEL.fullmatch(name):
        yield "metadata.name: the name of a tier has small letters, digits and '-' only."
    elif not NAME.fullmatch(name):
        yield f"metadata.name: {name} is not a name; one {rule}."
    elif plural in ("ipamconfigs", "kubecontrollersconfigurations") and name != DEFAULT:
        yield f"metadata.name: the only {KINDS[plural].shown} is called {DEFAULT}."


# -- pools and addresses ----------------------------------------------------------------------------------------------


def _pool(found: Object) -> Iterator[str]:
    spec = found["spec"]
    text = spec.get("cidr") or ""
    network = _network(text)
    if network is None or "/" not in text:
        yield f"spec.cidr: {text!r} is not a network in CIDR form." if text else "spec.cidr: has to be given."
        return
    version = network.version
    if str(ipaddress.ip_interface(text).ip) != str(network.network_address):
        yield f"spec.cidr: {text} has bits beyond its mask; write {network}."
    if _overlap(network, LINK_LOCAL[version]):
        yield f"spec.cidr: overlaps with the link-local addresses {LINK_LOCAL[version]}."
    least, most = SIZES[version]
    size = spec.get("blockSize") or (26 if version == 4 else 122)
    if not least <= size <= most:
        yield f"spec.blockSize: {size} is not between {least} and {most}, as it is for IPv{version}."
    elif not spec.get("disabled") and network.prefixlen > size:
        yield f"spec.cidr: {network} is smaller than one block of /{size}."
    ipip, vxlan = spec.get("ipipMode") or "Never", spec.get("vxlanMode") or "Never"
    for field, mode in (("ipipMode", ipip), ("vxlanMode", vxlan)):
        yield from _one_of(mode, MODES, f"spec.{field}")
    if ipip != "Never" and vxlan != "Never":
        yield "spec.vxlanMode: a pool has VXLAN or IPIP and not both; set the other to Never."
    if ipip != "Never" and version == 6:
        yield "spec.ipipMode: there is no IPIP for IPv6."
    yield from _one_of(spec.get("assignmentMode") or "Automatic", ("Automatic", "Manual"), "spec.assignmentMode")
    uses = spec.get("allowedUses") or ()
    for use in uses:
        yield from _one_of(use, USES, "spec.allowedUses")
    if "LoadBalancer" in uses:
        if len(uses) > 1:
            yield "spec.allowedUses: LoadBalancer stands alone."
        if (ipip, vxlan) != ("Never", "Never"):
            yield "spec.allowedUses: a pool for LoadBalancer has neither VXLAN nor IPIP."
        if (spec.get("nodeSelector") or "all()") != "all()":
            yield "spec.nodeSelector: a pool for LoadBalancer has all() here."
        if spec.get("disableBGPExport"):
            yield "spec.disableBGPExport: is not for a pool for LoadBalancer."
    for field in ("nodeSelector", "namespaceSelector"):
        yield from _selector(spec.get(field), f"spec.{field}")


def _reservation(found: Object) -> Iterator[str]:
    yield from _networks(found["spec"].get("reservedCIDRs"), "spec.reservedCIDRs", loose=True)


def _ipam(found: Object) -> Iterator[str]:
    spec = found["spec"]
    if (spec.get("maxBlocksPerHost") or 0) < 0:
        yield "spec.maxBlocksPerHost: is less than 0."
    if not spec.get("strictAffinity") and spec.get("autoAllocateBlocks") is False:
        yield "spec.autoAllocateBlocks: is not switched off without strictAffinity: no pod would get an address."
    if (spec.get("maxBlocksPerHost") or 0) > 0 and not spec.get("strictAffinity"):
        yield "spec.maxBlocksPerHost: is for strictAffinity only."
    if not 0 <= (spec.get("ipCooldownSeconds") or 0) <= 1200:
        yield "spec.ipCooldownSeconds: is not between 0 and 1200."


# -- tiers, sets, endpoints -------------------------------------------------------------------------------------------


def _tier(found: Object) -> Iterator[str]:
    name, order = str(found["metadata"]["name"]), found["spec"].get("order")
    if name in TIER_ORDERS and order != TIER_ORDERS[name]:
        yield f"spec.order: of tier {name} it is {TIER_ORDERS[name]}."
    yield from _one_of(found["spec"].get("defaultAction") or "Deny", ("Deny", "Pass"), "spec.defaultAction")


def _set(found: Object) -> Iterator[str]:
    yield from _networks(found["spec"].get("nets"), "spec.nets", loose=True)


def _host(found: Object) -> Iterator[str]:
    spec = found["spec"]
    if not spec.get("node"):
        yield "spec.node: has to be given."
    name = spec.get("interfaceName")
    if not name and not spec.get("expectedIPs"):
        yield "spec.interfaceName: it, or expectedIPs, has to be given."
    if name and name != "*" and not INTERFACE.fullmatch(name):
        yield f"spec.interfaceName: {name!r} is not the name of an interface."
    for number, one in enumerate(spec.get("expectedIPs") or ()):
        if not _is_address(one):
            yield f"spec.expectedIPs[{number}]: {one!r} is not an address."
    for number, port in enumerate(spec.get("ports") or ()):
        path = f"spec.ports[{number}]"
        if str(port.get("protocol")).upper() not in ("TCP", "UDP", "SCTP", "6", "17", "132"):
            yield f"{path}.protocol: {port.get('protocol')!r} has no ports."
        if not 1 <= (port.get("port") or 0) <= 65535:
            yield f"{path}.port: is not between 1 and 65535."


def _status(found: Object) -> Iterator[str]:
    spec = found["spec"]
    if not spec.get("node"):
        yield "spec.node: has to be given."
    classes = spec.get("classes") or []
    if not classes or len(set(classes)) != len(classes):
        yield "spec.classes: are to be given, each once."
    for one in classes:
        yield from _one_of(one, ("Agent", "BGP", "Routes"), "spec.classes")
    if not 0 <= (spec.get("updatePeriodSeconds") or 0) <= 86400:
        yield "spec.updatePeriodSeconds: is not between 0 and 86400."


# -- BGP --------------------------------------------------------------------------------------------------------------


def _bgp(found: Object) -> Iterator[str]:
    spec = found["spec"]
    if found["metadata"]["name"] != DEFAULT:
        for field in ("nodeToNodeMeshEnabled", "asNumber", "serviceLoadBalancerIPs", "serviceExternalIPs",
                      "serviceClusterIPs", "nodeMeshPassword", "nodeMeshMaxRestartTime"):  # fmt: skip
            if spec.get(field) not in (None, []):
                yield f"spec.{field}: can be set of the BGPConfiguration {DEFAULT} only."
    yield from _asn(spec.get("asNumber"), "spec.asNumber")
    if spec.get("nodeToNodeMeshEnabled") is False:
        for field in ("nodeMeshPassword", "nodeMeshMaxRestartTime"):
            if spec.get(field):
                yield f"spec.{field}: cannot be set while the mesh is disabled."
    if (port := spec.get("listenPort")) is not None and not 1 <= port <= 65535:
        yield "spec.listenPort: is not between 1 and 65535."
    for field in ("serviceLoadBalancerIPs", "serviceExternalIPs", "serviceClusterIPs"):
        yield from _networks([one.get("cidr") for one in spec.get(field) or ()], f"spec.{field}")
    communities = spec.get("communities") or ()
    advertised = spec.get("prefixAdvertisements") or ()
    if communities and not advertised:
        yield "spec.communities: are not used by any of prefixAdvertisements."
    for number, one in enumerate(communities):
        yield from _community(one.get("value"), f"spec.communities[{number}].value")
    names = {one.get("name") for one in communities}
    for number, one in enumerate(advertised):
        path = f"spec.prefixAdvertisements[{number}]"
        yield from _networks([one.get("cidr")], f"{path}.cidr")
        for value in one.get("communities") or ():
            if value not in names:
                yield from _community(value, f"{path}.communities")


def _peer(found: Object) -> Iterator[str]:
    spec = found["spec"]
    ip = spec.get("peerIP")
    for both, why in (
        (("node", "nodeSelector"), "Leave node out where there is a nodeSelector."),
        (("peerIP", "peerSelector"), "Leave peerIP out where there is a peerSelector."),
        (("asNumber", "peerSelector"), "Leave asNumber out where there is a peerSelector."),
        (("peerIP", "localWorkloadSelector"), "Leave peerIP out where there is a localWorkloadSelector."),
        (("peerSelector", "localWorkloadSelector"), "Leave peerSelector out where there is a localWorkloadSelector."),
    ):
        if all(spec.get(one) for one in both):
            yield f"spec.{both[0]}: does not go with {both[1]}. {why}"
    if spec.get("localWorkloadSelector") and not spec.get("asNumber"):
        yield "spec.asNumber: has to be given with localWorkloadSelector."
    address = _peer_address(ip) if ip else None
    if ip and address is None:
        yield f"spec.peerIP: {ip!r} is neither an address, nor IPv4:PORT, nor [IPv6]:PORT."
    if by := spec.get("reachableBy"):
        if not ip:
            yield "spec.reachableBy: is for a peer with a peerIP."
        elif not _is_address(by) or (address and ipaddress.ip_address(by).version != address.version):
            yield f"spec.reachableBy: {by!r} is not an address of the family of peerIP."
    if spec.get("keepOriginalNextHop") and spec.get("nextHopMode"):
        yield "spec.keepOriginalNextHop: is not set together with nextHopMode, which replaces it."
    yield from _asn(spec.get("asNumber"), "spec.asNumber")
    yield from _one_of(spec.get("sourceAddress") or "None", ("UseNodeIP", "None"), "spec.sourceAddress")
    for field in ("nodeSelector", "peerSelector", "localWorkloadSelector"):
        yield from _selector(spec.get(field), f"spec.{field}")


def _filter(found: Object) -> Iterator[str]:
    for field, version in (("exportV4", 4), ("importV4", 4), ("exportV6", 6), ("importV6", 6)):
        for number, rule in enumerate(found["spec"].get(field) or ()):
            path = f"spec.{field}[{number}]"
            yield from _one_of(rule.get("action"), ("Accept", "Reject"), f"{path}.action")
            if bool(rule.get("cidr")) != bool(rule.get("matchOperator")):
                yield f"{path}.cidr: it and matchOperator are both set, or none."
            if rule.get("prefixLength") and not rule.get("cidr"):
                yield f"{path}.cidr: has to be given with prefixLength."
            if operator := rule.get("matchOperator"):
                yield from _one_of(operator, ("Equal", "NotEqual", "In", "NotIn"), f"{path}.matchOperator")
            if rule.get("operations") and rule.get("action") != "Accept":
                yield f"{path}.operations: are for the action Accept only."
            if cidr := rule.get("cidr"):
                network = _network(cidr)
                if network is None or network.version != version:
                    yield f"{path}.cidr: {cidr!r} is not a network of IPv{version}."


# -- Felix and kube-controllers ---------------------------------------------------------------------------------------

_FELIX: Mapping[str, Sequence[str]] = {
    "logSeverityScreen": ("Trace", "Debug", "Info", "Warning", "Error", "Fatal"),
    "logSeverityFile": ("Trace", "Debug", "Info", "Warning", "Error", "Fatal"),
    "logSeveritySys": ("Trace", "Debug", "Info", "Warning", "Error", "Fatal"),
    "bpfLogLevel": ("", "Debug", "Info", "Off"),
    "bpfExternalServiceMode": ("Tunnel", "DSR"),
    "bpfConnectTimeLoadBalancing": ("TCP", "Enabled", "Disabled"),
    "bpfHostNetworkedNATWithoutCTLB": ("Enabled", "Disabled"),
    "defaultEndpointToHostAction": ("Drop", "Accept", "Return"),
    "iptablesFilterAllowAction": ("Accept", "Return"),
    "iptablesMangleAllowAction": ("Accept", "Return"),
    "iptablesFilterDenyAction": ("Drop", "Reject"),
    "iptablesBackend": ("", "Auto", "NFT", "Legacy"),
    "nftablesMode": ("Auto", "Enabled", "Disabled"),
    "routeSource": ("WorkloadIPs", "CalicoIPAM"),
    "floatingIPs": ("Enabled", "Disabled"),
    "chainInsertMode": ("Insert", "Append", "insert", "append"),
}


def _felix(found: Object) -> Iterator[str]:
    spec = found["spec"]
    for field, values in _FELIX.items():
        if field in spec and spec[field] is not None:
            yield from _one_of(spec[field], values, f"spec.{field}")
    for field in ("vxlanPort", "wireguardListeningPort", "wireguardListeningPortV6", "healthPort",
                  "prometheusMetricsPort"):  # fmt: skip
        if (port := spec.get(field)) is not None and not (isinstance(port, int) and 0 <= port <= 65535):
            yield f"spec.{field}: {port!r} is not a port."
    if (vni := spec.get("vxlanVNI")) is not None and not (isinstance(vni, int) and 0 <= vni < 1 << 24):
        yield f"spec.vxlanVNI: {vni!r} is not a VXLAN identifier."
    for field in ("natOutgoingAddress", "deviceRouteSourceAddress"):
        if spec.get(field) and not _is_address(spec[field], 4):
            yield f"spec.{field}: {spec[field]!r} is not an IPv4 address."
    if spec.get("deviceRouteSourceAddressIPv6") and not _is_address(spec["deviceRouteSourceAddressIPv6"], 6):
        yield "spec.deviceRouteSourceAddressIPv6: is not an IPv6 address."
    if spec.get("routeTableRange") and spec.get("routeTableRanges"):
        yield "spec.routeTableRange: is not set together with routeTableRanges."
    if (one := spec.get("routeTableRange")) and not 1 <= one.get("min", 0) <= one.get("max", 0) <= 250:
        yield "spec.routeTableRange: is not within 1 to 250."
    for number, one in enumerate(spec.get("routeTableRanges") or ()):
        if not 1 <= one.get("min", 0) <= one.get("max", 0) <= 0xFFFFFFFF:
            yield f"spec.routeTableRanges[{number}]: is not a range of tables."
    if len(spec.get("kubeNodePortRanges") or ()) > 7:
        yield "spec.kubeNodePortRanges: has more than 7 ranges."
    yield from _networks(spec.get("externalNodesList"), "spec.externalNodesList")


def _controllers(found: Object) -> Iterator[str]:
    controllers = found["spec"].get("controllers")
    if controllers is None:
        yield "spec.controllers: has to be given; a controller that is left out is switched off."
        return
    host: Object = ((controllers.get("node") or {}).get("hostEndpoint")) or {}
    seen = set()
    for number, one in enumerate(host.get("templates") or ()):
        path = f"spec.controllers.node.hostEndpoint.templates[{number}]"
        name = one.get("generateName")
        if not name or name in seen:
            yield f"{path}.generateName: has to be given, another one for each template."
        seen.add(name)
        if not one.get("interfaceCIDRs") and not one.get("interfacePattern"):
            yield f"{path}.interfaceCIDRs: they, or interfacePattern, have to be given."
        yield from _networks(one.get("interfaceCIDRs"), f"{path}.interfaceCIDRs", loose=True)
        yield from _selector(one.get("nodeSelector"), f"{path}.nodeSelector")
    switches = ("Enabled", "Disabled")
    for path, value in (
        ("spec.healthChecks", found["spec"].get("healthChecks")),
        ("spec.controllers.node.syncLabels", (controllers.get("node") or {}).get("syncLabels")),
        ("spec.controllers.node.hostEndpoint.autoCreate", host.get("autoCreate")),
    ):
        yield from _one_of(value or "Enabled", switches, path)


def _nothing(found: Object) -> Iterator[str]:
    return iter(())


def _policy(found: Object) -> Iterator[str]:
    return of_policy(found["spec"], everywhere="Global" in str(found.get("kind")))


def _of_kubernetes(found: Object) -> Iterator[str]:
    return of_kubernetes(found["spec"])


_SPECS: Mapping[str, Callable[[Object], Iterator[str]]] = {
    "ippools": _pool,
    "ipreservations": _reservation,
    "ipamconfigs": _ipam,
    "tiers": _tier,
    "networksets": _set,
    "globalnetworksets": _set,
    "hostendpoints": _host,
    "caliconodestatuses": _status,
    "bgpconfigurations": _bgp,
    "bgppeers": _peer,
    "bgpfilters": _filter,
    "felixconfigurations": _felix,
    "kubecontrollersconfigurations": _controllers,
    "stagedkubernetesnetworkpolicies": _of_kubernetes,
    **dict.fromkeys(TIERED, _policy),
}


# -- values -----------------------------------------------------------------------------------------------------------


def _one_of(value: object, known: Sequence[str], path: str) -> Iterator[str]:
    if value not in known:
        yield f"{path}: {value!r} is not one of {', '.join(one for one in known if one)}."


def _selector(text: object, path: str) -> Iterator[str]:
    if text:
        try:
            parse(str(text))
        except SelectorError as error:
            yield f"{path}: {error}."


def _networks(values: Sequence[Any] | None, path: str, *, loose: bool = False) -> Iterator[str]:
    """loose: bits beyond the mask are taken."""
    for number, one in enumerate(values or ()):
        network = _network(one)
        if network is None:
            yield f"{path}[{number}]: {one!r} is neither a network nor an address."
        elif not loose and ipaddress.ip_interface(one).ip != network.network_address:
            yield f"{path}[{number}]: {one} has bits beyond its mask; write {network}."


def _network(text: Any) -> Network | None:
    try:
        return ipaddress.ip_network(str(text), strict=False)
    except ValueError:
        return None


def _is_address(text: Any, version: int = 0) -> bool:
    try:
        found = ipaddress.ip_address(str(text))
    except ValueError:
        return False
    return version in (0, found.version)


def _peer_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    found = re.fullmatch(r"(?:(\d+\.\d+\.\d+\.\d+)|\[([0-9a-fA-F:.]+)\]):(\d+)", text)
    if found and not 1 <= int(found[3]) <= 65535:
        return None
    try:
        return ipaddress.ip_address((found[1] or found[2]) if found else text)
    except ValueError:
        return None


def _asn(value: object, path: str) -> Iterator[str]:
    text = str(value)
    if value in (None, 0):
        return
    high, dot, low = text.partition(".")
    parts = [high, low] if dot else [high]
    if not all(one.isascii() and one.isdigit() for one in parts) or any(
        int(one) >= (1 << 16 if dot else 1 << 32) for one in parts
    ):
        yield f"{path}: {text} is not an AS number."


def _community(value: object, path: str) -> Iterator[str]:
    found = COMMUNITY.fullmatch(str(value))
    bits = 32 if found and found[4] else 16
    if not found or any(int(one) >= 1 << bits for one in (found[1], found[2], found[4] or "0")):
        yield f"{path}: {value!r} is neither aa:nn of 16 bits each, nor aa:nn:mm of 32."


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def _before(version: str, major: int, minor: int) -> bool:
    """Also where the version is not known."""
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return not found or (int(found[1]), int(found[2])) < (major, minor)


def _protocols(rule: Object) -> Object:
    names = {one.lower(): one for one in ("TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite")}
    return {
        key: names.get(value.lower(), value) if key in ("protocol", "notProtocol") and isinstance(value, str) else value
        for key, value in rule.items()
    }
