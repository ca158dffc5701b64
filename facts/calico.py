"""What Calico says about a node and about itself; every expectation of the rules starts here."""

from __future__ import annotations

from facts.fact import Fact


class CalicoSettings(Fact, frozen=True, kw_only=True):
    """ClusterInformation, IPAMConfig and the cluster-wide FelixConfiguration."""

    version: str  # "v3.32.1"; "" when ClusterInformation does not say
    group: str  # backing store: "crd.projectcalico.org/v1" or "projectcalico.org/v3"
    datastore_ready: bool = True
    strict_affinity: bool = False
    dataplane: str = ""  # "iptables" | "nftables" | "ebpf"; "" when the node decides (nftablesMode Auto)
    ipip_routes_by: str = ""  # who writes routes of IPIP pools: "felix" | "bird" | "both" | "nobody"; "": not known
    plain_routes_by: str = ""  # and of pools without encapsulation
    routes_said: str = ""  # the two settings that say so, in the cluster's own words


class CalicoNode(Fact, frozen=True, kw_only=True):
    """A node as its annotations and FelixConfiguration (default overlaid by node.<name>) describe it, for one family:
    a dual stack node is two of these."""

    name: str
    family: int = 4  # of its addresses, its tunnel and its pools
    address: str  # IPv4Address (IPv6Address) annotation without its prefix length; "" when missing
    subnet: str  # the network of that annotation, such as 172.30.0.0/24
    internal_address: str  # status.addresses InternalIP: where the probe is reached
    tunnel_address: str  # IPv4VXLANTunnelAddr (IPv6VXLANTunnelAddr) annotation; "" when missing
    tunnel_mac: str  # VXLANTunnelMACAddr annotation, else "66:" + SHA1(name)[:5]; of the name + "-v6" for IPv6
    tunnel_block: str = ""  # CIDR of the block that holds that address; "" when no block does, or it was not read
    ipip_address: str = ""  # IPv4IPIPTunnelAddr annotation, and its block: what the node itself sends by tunl0
    ipip_block: str = ""
    wireguard_address: str = ""  # likewise IPv4WireguardInterfaceAddr (IPv6WireguardInterfaceAddr)
    wireguard_block: str = ""
    vxlan_expected: bool  # an enabled VXLAN pool selects this node
    ready: bool = True
    unready: str = ""  # reason and message of condition Ready when it is False or Unknown; "" when True or not said
    pod_cidrs: tuple[str, ...] = ()  # spec.podCIDRs: where host-local IPAM would take addresses from
    vni: int = 4096
    vxlan_port: int = 4789
    interface_prefix: str = "cali"
    felix_health_port: int = 9099
    felix_health: bool = True  # False: Felix is told to answer no health checks
    route_refresh_s: int = 90
    bpf: bool = False
    wireguard: bool = False  # encryption is switched on
    wireguard_key: str = ""  # WireguardPublicKey (WireguardPublicKeyV6) annotation; "" on a node that cannot encrypt
    wireguard_device: str = ""  # wireguardInterfaceName (wireguardInterfaceNameV6) where it is set; "" for the usual
    wireguard_port: int = 0  # wireguardListeningPort (wireguardListeningPortV6) where it is set; 0 for the usual
    system: str = "linux"  # label kubernetes.io/os
    foreign_dataplane: bool = False  # Felix is told to leave the dataplane to somebody else: VPP
    backend: str = ""  # CALICO_NETWORKING_BACKEND of its calico-node: bird | vxlan | none; "" where that is not known
    metrics_port: int = 9091  # of Felix, where it is told to have one
    settings_read: bool = True  # False: not all of Felix's settings could be read; what comes of them here is a default
    settings_unread: tuple[str, ...] = ()  # of its calico-node's own: FELIX_VXLANVNI, or a file


class FelixHealth(Fact, frozen=True, kw_only=True):
    """What Felix answers on its health port, asked by the node's probe."""

    node: str
    reachable: bool  # False: nothing listens, or no answer
    live: bool = False
    ready: bool = False
    detail: str = ""
    confirmed: bool = False  # it answered as badly when asked again, 3 s later


class CalicoPod(Fact, frozen=True, kw_only=True):
    """The calico-node pod of a node; only where Calico runs as such pods."""

    node: str
    running: bool
    name: str = ""  # namespace/name; "" when there is no such pod on the node
    reason: str = ""  # why it is not running
    restarts: int = -1  # of its container calico-node; -1 where the kubelet does not say
