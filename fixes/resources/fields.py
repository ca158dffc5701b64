"""Which fields Calico's resources have; without it a misspelt one would be written where the cluster's schema does not
tell, and mean nothing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fixes.resources.kinds import Object

STR, BOOL, INT, NUM, MAP, ANY = "text", "true or false", "a whole number", "a number", "a mapping of text", ""
INT_OR_STR = "a number or a name"
DURATION = "a duration, such as 90s or 1m30s"

_GO_DURATION = re.compile(r"0|[-+]?((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))+")

_ENTITY: Mapping[str, Any] = {
    "nets": [STR],
    "notNets": [STR],
    "selector": STR,
    "notSelector": STR,
    "namespaceSelector": STR,
    "ports": [INT_OR_STR],
    "notPorts": [INT_OR_STR],
    "serviceAccounts": {"names": [STR], "selector": STR},
    "services": {"name": STR, "namespace": STR},
}
_ICMP = {"type": INT, "code": INT}
_RULE: Mapping[str, Any] = {
    "action": STR,
    "ipVersion": INT,
    "protocol": INT_OR_STR,
    "notProtocol": INT_OR_STR,
    "icmp": _ICMP,
    "notICMP": _ICMP,
    "source": _ENTITY,
    "destination": _ENTITY,
    "http": {"methods": [STR], "paths": [{"exact": STR, "prefix": STR}]},
    "metadata": {"annotations": MAP},
}
_POLICY: Mapping[str, Any] = {
    "tier": STR,
    "order": NUM,
    "ingress": [_RULE],
    "egress": [_RULE],
    "selector": STR,
    "types": [STR],
    "serviceAccountSelector": STR,
    "performanceHints": [STR],
}
_GLOBAL: Mapping[str, Any] = {
    **_POLICY,
    "namespaceSelector": STR,
    "doNotTrack": BOOL,
    "preDNAT": BOOL,
    "applyOnForward": BOOL,
}
_STAGED = {"stagedAction": STR}
_BY_LABELS = {"matchLabels": MAP, "matchExpressions": [{"key": STR, "operator": STR, "values": [STR]}]}
_PEER = {
    "podSelector": _BY_LABELS,
    "namespaceSelector": _BY_LABELS,
    "ipBlock": {"cidr": STR, "except": [STR]},
}  # of a Kubernetes policy
_TO_PORT = {"protocol": STR, "port": INT_OR_STR, "endPort": INT}
_CIDRS = [{"cidr": STR}]
_ROUTES = {
    "action": STR,
    "matchOperator": STR,
    "cidr": STR,
    "prefixLength": {"min": INT, "max": INT},
    "source": STR,
    "interface": STR,
    "peerType": STR,
    "priority": INT,
    "communities": ANY,
    "asPathPrefix": ANY,
    "operations": ANY,
}
_PASSWORD = {"secretKeyRef": {"name": STR, "key": STR, "optional": BOOL}}
_PERIOD = {"reconcilerPeriod": DURATION}

# The fields of `spec`, by plural. Felix's are below: it has too many, and more with every version.
SPEC: Mapping[str, Mapping[str, Any]] = {
    "ippools": {
        "cidr": STR,
        "vxlanMode": STR,
        "ipipMode": STR,
        "natOutgoing": BOOL,
        "disabled": BOOL,
        "disableBGPExport": BOOL,
        "blockSize": INT,
        "nodeSelector": STR,
        "namespaceSelector": STR,
        "allowedUses": [STR],
        "assignmentMode": STR,
    },
    "ipamconfigs": {
        "strictAffinity": BOOL,
        "autoAllocateBlocks": BOOL,
        "maxBlocksPerHost": INT,
        "kubeVirtVMAddressPersistence": STR,
        "ipCooldownSeconds": INT,
    },
    "ipreservations": {"reservedCIDRs": [STR]},
    "networkpolicies": _POLICY,
    "globalnetworkpolicies": _GLOBAL,
    "stagednetworkpolicies": {**_POLICY, **_STAGED},
    "stagedglobalnetworkpolicies": {**_GLOBAL, **_STAGED},
    "stagedkubernetesnetworkpolicies": {
        **_STAGED,
        "podSelector": _BY_LABELS,
        "ingress": [{"from": [_PEER], "ports": [_TO_PORT]}],
        "egress": [{"to": [_PEER], "ports": [_TO_PORT]}],
        "policyTypes": [STR],
    },
    "networksets": {"nets": [STR]},
    "globalnetworksets": {"nets": [STR]},
    "tiers": {"order": NUM, "defaultAction": STR},
    "hostendpoints": {
        "node": STR,
        "interfaceName": STR,
        "expectedIPs": [STR],
        "profiles": [STR],
        "ports": [{"name": STR, "protocol": INT_OR_STR, "port": INT}],
    },
    "bgpconfigurations": {
        "logSeverityScreen": STR,
        "nodeToNodeMeshEnabled": BOOL,
        "asNumber": INT_OR_STR,
        "serviceLoadBalancerIPs": _CIDRS,
        "serviceExternalIPs": _CIDRS,
        "serviceClusterIPs": _CIDRS,
        "serviceLoadBalancerAggregation": STR,
        "communities": [{"name": STR, "value": STR}],
        "prefixAdvertisements": [{"cidr": STR, "communities": [STR]}],
        "listenPort": INT,
        "bindMode": STR,
        "ignoredInterfaces": [STR],
        "localWorkloadPeeringIPV4": STR,
        "localWorkloadPeeringIPV6": STR,
        "nodeMeshPassword": _PASSWORD,
        "nodeMeshMaxRestartTime": DURATION,
        "programClusterRoutes": STR,
        "ipv4NormalRoutePriority": INT,
        "ipv4ElevatedRoutePriority": INT,
        "ipv6NormalRoutePriority": INT,
        "ipv6ElevatedRoutePriority": INT,
    },
    "bgppeers": {
        "node": STR,
        "nodeSelector": STR,
        "peerIP": STR,
        "asNumber": INT_OR_STR,
        "localASNumber": INT_OR_STR,
        "peerSelector": STR,
        "keepOriginalNextHop": BOOL,
        "nextHopMode": STR,
        "password": _PASSWORD,
        "sourceAddress": STR,
        "failureDetectionMode": STR,
        "restartMode": STR,
        "maxRestartTime": DURATION,
        "numAllowedLocalASNumbers": INT,
        "ttlSecurity": INT,
        "reachableBy": STR,
        "keepaliveTime": DURATION,
        "filters": [STR],
        "localWorkloadSelector": STR,
        "reversePeering": STR,
    },
    "bgpfilters": {name: [_ROUTES] for name in ("exportV4", "importV4", "exportV6", "importV6")},
    "caliconodestatuses": {"node": STR, "classes": [STR], "updatePeriodSeconds": INT},
    "kubecontrollersconfigurations": {
        "logSeverityScreen": STR,
        "healthChecks": STR,
        "etcdV3CompactionPeriod": DURATION,
        "prometheusMetricsPort": INT,
        "debugProfilePort": INT,
        "controllers": {
            "node": {
                **_PERIOD,
                "syncLabels": STR,
                "leakGracePeriod": DURATION,
                "hostEndpoint": {
                    "autoCreate": STR,
                    "createDefaultHostEndpoint": STR,
                    "templates": [
                        {
                            "generateName": STR,
                            "interfaceCIDRs": [STR],
                            "interfacePattern": STR,
                            "labels": MAP,
                            "nodeSelector": STR,
                        }
                    ],
                },
            },
            "policy": _PERIOD,
            "workloadEndpoint": _PERIOD,
            "serviceAccount": _PERIOD,
            "namespace": _PERIOD,
            "loadBalancer": {"assignIPs": STR},
            "policyMigration": {"enabled": STR},
            "migration": ANY,
        },
    },
}
_TIMES = re.compile(r"(Interval|Timeout|Delay|Period|KeepAlive)$")  # how Felix's fields end that are durations
_HOST_PORTS = [{"net": STR, "port": INT, "protocol": STR}]
_TABLES = {"min": INT, "max": INT}
_FELIX_NAMES = {
    BOOL: """
        allowIPIPPacketsFromWorkloads allowVXLANPacketsFromWorkloads bpfConnectTimeLoadBalancingEnabled
        bpfDisableUnprivileged bpfEnabled bpfHostConntrackBypass bpfKubeProxyEndpointSlicesEnabled
        bpfKubeProxyIptablesCleanupEnabled bpfPolicyDebugEnabled debugDisableLogDropping disableConntrackInvalidCheck
        endpointReportingEnabled genericXDPEnabled healthEnabled ipipEnabled ipv6Support prometheusGoMetricsEnabled
        prometheusMetricsEnabled prometheusProcessMetricsEnabled prometheusWireGuardMetricsEnabled removeExternalRoutes
        routeSyncDisabled sidecarAccelerationEnabled usageReportingEnabled useInternalDataplaneDriver vxlanEnabled
        wireguardEnabled wireguardEnabledV6 wireguardHostEncryptionEnabled wireguardThreadingEnabled xdpEnabled
    """,
    INT: """
        bpfExtToServiceConnmark bpfMapSizeConntrack bpfMapSizeIPSets bpfMapSizeIfState bpfMapSizeNATAffinity
        bpfMapSizeNATBackend bpfMapSizeNATFrontend bpfMapSizeRoute debugPort deviceRouteProtocol goGCThreshold
        goMaxProcs goMemoryLimitMB healthPort ipipMTU iptablesMarkMask maxIpsetSize metadataPort nftablesMarkMask
        prometheusMetricsPort vxlanMTU vxlanMTUV6 vxlanPort vxlanVNI wireguardListeningPort wireguardListeningPortV6
        wireguardMTU wireguardMTUV6 wireguardRoutingRulePriority
    """,
    DURATION: """
        bpfKubeProxyMinSyncPeriod dataplaneWatchdogTimeout debugSimulateCalcGraphHangAfter
        debugSimulateDataplaneApplyDelay debugSimulateDataplaneHangAfter endpointReportingDelay
        interfaceRefreshInterval ipsetsRefreshInterval iptablesLockProbeInterval iptablesLockTimeout
        iptablesPostWriteCheckInterval iptablesRefreshInterval netlinkTimeout nftablesRefreshInterval
        reportingInterval reportingTTL routeRefreshInterval usageReportingInitialDelay usageReportingInterval
        wireguardKeepAlive xdpRefreshInterval
    """,
    STR: """
        awsSrcDstCheck bpfCTLBLogFilter bpfConnectTimeLoadBalancing bpfDataIfacePattern bpfDisableGROForIfaces
        bpfEnforceRPF bpfExternalServiceMode bpfHostNetworkedNATWithoutCTLB bpfL3IfacePattern bpfLogLevel bpfProfiling
        bpfRedirectToPeer chainInsertMode dataplaneDriver debugHost debugMemoryProfilePath defaultEndpointToHostAction
        deviceRouteSourceAddress deviceRouteSourceAddressIPv6 endpointStatusPathPrefix featureDetectOverride
        featureGates floatingIPs healthHost interfaceExclude interfacePrefix ipForwarding iptablesBackend
        iptablesFilterAllowAction iptablesFilterDenyAction iptablesLockFilePath iptablesMangleAllowAction
        iptablesNATOutgoingInterfaceFilter logDebugFilenameRegex logFilePath logPrefix logSeverityFile
        logSeverityScreen logSeveritySys metadataAddr mtuIfacePattern natOutgoingAddress nftablesFilterAllowAction
        nftablesFilterDenyAction nftablesFlowTableOffload nftablesMangleAllowAction nftablesMode openstackRegion
        policySyncPathPrefix prometheusMetricsHost routeSource serviceLoopPrevention windowsManageFirewallRules
        wireguardInterfaceName wireguardInterfaceNameV6 workloadSourceSpoofing
    """,
}
# Felix has more with every version: only what nearly is one of these is refused as misspelt.
FELIX: Mapping[str, Any] = {
    "bpfDSROptoutCIDRs": [STR],
    "bpfExcludeCIDRsFromNAT": [STR],
    "bpfForceTrackPacketsFromIfaces": [STR],
    "bpfLogFilters": MAP,
    "bpfPSNATPorts": INT_OR_STR,
    "externalNodesList": [STR],
    "failsafeInboundHostPorts": _HOST_PORTS,
    "failsafeOutboundHostPorts": _HOST_PORTS,
    "healthTimeoutOverrides": [{"name": STR, "timeout": STR}],
    "kubeNodePortRanges": [INT_OR_STR],
    "natPortRange": INT_OR_STR,
    "routeTableRange": _TABLES,
    "routeTableRanges": [_TABLES],
    **{name: kind for kind, names in _FELIX_NAMES.items() for name in names.split()},
}


def wrong(spec: Object, plural: str) -> list[str]:
    """What of this `spec` is no field of the kind, or not of its type, a sentence each."""
    if plural == "felixconfigurations":
        return [one for name, value in spec.items() for one in _felix(str(name), value)]
    return list(_wrong(spec, SPEC[plural], "spec")) if plural in SPEC else []


def is_duration(value: object) -> bool:
    """As Go reads one."""
    return isinstance(value, str) and bool(_GO_DURATION.fullmatch(value))


def unknown(name: str, known: Mapping[str, Any], path: str) -> str:
    """The sentence for a field that there is not, with the nearest that there is."""
    near = [one for one in known if one.lower() == name.lower()] or difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    return f"{path}.{name}: there is no such field{hint}"


def _felix(name: str, value: Any) -> Iterator[str]:
    if name in FELIX:
        yield from _wrong(value, FELIX[name], f"spec.{name}")
    elif _TIMES.search(name):
        yield from _wrong(value, DURATION, f"spec.{name}")
    elif difflib.get_close_matches(name, FELIX, n=1, cutoff=0.9) or name.lower() in map(str.lower, FELIX):
        yield unknown(name, FELIX, "spec")


def _wrong(value: Any, wanted: Any, path: str) -> Iterator[str]:
    if value is None or wanted == ANY:
        return
    if isinstance(wanted, Mapping):
        if not isinstance(value, dict):
            yield f"{path}: {_shown(value)} is not a mapping of fields."
            return
        for name, one in value.items():
            if name in wanted:
                yield from _wrong(one, wanted[name], f"{path}.{name}")
            else:
                yield unknown(str(name), wanted, path)
    elif isinstance(wanted, list):
        if not isinstance(value, list):
            yield f"{path}: {_shown(value)} is not a list; begin each item with '- '."
            return
        for number, one in enumerate(value):
            yield from _wrong(one, wanted[0], f"{path}[{number}]")
    elif not _is(value, wanted):
        yield f"{path}: {_shown(value)} is not {wanted}."


def _is(value: Any, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted == BOOL
    if wanted == STR:
        return isinstance(value, str)
    if wanted == INT:
        return isinstance(value, int)
    if wanted == NUM:
        return isinstance(value, int | float)
    if wanted == INT_OR_STR:
        return isinstance(value, int | str)
    if wanted == DURATION:
        return is_duration(value)
    return wanted == MAP and isinstance(value, dict) and all(isinstance(one, str) for one in value.values())


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
