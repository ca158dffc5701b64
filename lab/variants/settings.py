"""Versions and settings of Calico, and what nodes and devices are called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lab.drawing import Drawing
from lab.intent import ANNOTATION_TUNNEL_MAC
from lab.objects import SYSTEM_NAMESPACE, calico
from lab.sketch import Sketch, node_name
from lab.variants.variant import Variant, drawn, sketched

OPERATOR_NAMESPACE = "calico-system"
TYPHA = "calico-typha"
LONG = ".a-domain-as-long-as-those-that-cloud-providers-make-up.compute.internal.example"


def _of_version(version: str, text: str) -> Variant:
    def change(sketch: Sketch) -> Sketch:
        return replace(sketch, version=version)

    return Variant(f"calico-{version.lstrip('v').rpartition('.')[0]}", text, kind="version", sketch=change)


calico_3_26 = _of_version("v3.26.5", "Calico 3.26: no MTU on routes, no metric on those to pods, plain affinities.")
calico_3_29 = _of_version("v3.29.7", "Calico 3.29: as 3.26, as far as anybody can see from here.")
calico_3_30 = _of_version("v3.30.7", "Calico 3.30: a needless route to every peer's tunnel address.")
calico_3_31 = _of_version("v3.31.7", "Calico 3.31: that needless route, and an MTU on each route.")
calico_3_33 = _of_version("v3.33.0", "Calico 3.33.")
calico_3_34 = _of_version("v3.34.0", "Calico 3.34.")


def _of_iptables(backend: str, text: str, conflicts: str = "") -> Variant:
    def change(drawing: Drawing) -> None:
        drawing.one("FelixConfiguration", "default")["spec"].update(nftablesMode="Disabled", iptablesBackend=backend)

    return Variant(
        f"iptables-{backend.lower()}", text, kind="iptables", conflicts=frozenset(conflicts.split()), objects=change
    )


iptables_legacy = _of_iptables("Legacy", "Calico and kube-proxy write to iptables-legacy.")
iptables_nft = _of_iptables(
    "NFT",
    "Calico and kube-proxy write to iptables-nft.",
    conflicts="docker ufw leftover-chains",  # here these are tables of the same name
)


@sketched()
def native_api(sketch: Sketch) -> Sketch:
    """Calico's objects are stored as projectcalico.org/v3."""
    return replace(sketch, group="projectcalico.org")


@sketched(kind="uplink")
def uplink_ens192(sketch: Sketch) -> Sketch:
    """The nodes' uplink is called ens192."""
    return replace(sketch, uplink="ens192")


@sketched(kind="uplink")
def uplink_br_ex(sketch: Sketch) -> Sketch:
    """The nodes' uplink is called br-ex."""
    return replace(sketch, uplink="br-ex")


@sketched(kind="uplink")
def uplink_bond0(sketch: Sketch) -> Sketch:
    """The nodes' uplink is called bond0, over two network cards (a bridge of both stands in for the bond)."""
    return replace(sketch, uplink="bond0", uplink_slaves=("ens1f0", "ens1f1"))


@sketched()
def jumbo_frames(sketch: Sketch) -> Sketch:
    """The network between the nodes takes packets of 9000 bytes."""
    return replace(sketch, uplink_mtu=9000)


@sketched(kind="names")
def dotted_node_names(sketch: Sketch) -> Sketch:
    """Nodes are called by their domain names."""
    return replace(sketch, node_name=_named(".cluster-1.example.org"))


@sketched(kind="names")
def long_node_names(sketch: Sketch) -> Sketch:
    """The names of nodes are longer than 63 characters."""
    return replace(sketch, node_name=_named(LONG))


def _named(suffix: str) -> Callable[[int], str]:
    return lambda number: node_name(number) + suffix


def _felix(drawing: Drawing, **settings: object) -> None:
    drawing.one("FelixConfiguration", "default")["spec"].update(settings)


@drawn()
def custom_vni(drawing: Drawing) -> None:
    """The tunnels have another VNI than Calico's own choice."""
    _felix(drawing, vxlanVNI=11)


@drawn()
def custom_port(drawing: Drawing) -> None:
    """The tunnels use another UDP port than 4789."""
    _felix(drawing, vxlanPort=8472)


@drawn()
def custom_interface_prefix(drawing: Drawing) -> None:
    """Interfaces of pods are called azv and eleven digits."""
    _felix(drawing, interfacePrefix="azv")


@drawn()
def device_route_protocol(drawing: Drawing) -> None:
    """Felix marks all its routes with the protocol 88."""
    _felix(drawing, deviceRouteProtocol=88)


@drawn()
def custom_refresh(drawing: Drawing) -> None:
    """Felix looks at its routes every ten minutes only."""
    _felix(drawing, routeRefreshInterval="10m0s")


@drawn()
def smaller_tunnel_on_one_node(drawing: Drawing) -> None:
    """One node's tunnel and pods have a smaller MTU than all others."""
    spec = {"vxlanMTU": 1380, "vxlanMTUV6": 1380}
    drawing.entries.append(calico("FelixConfiguration", f"node.{drawing.nodes[-1]}", spec))


@drawn()
def tunnel_mac_by_hand(drawing: Drawing) -> None:
    """One node's annotation gives its tunnel device another MAC than its name would."""
    annotations = drawing.one("Node", drawing.nodes[0])["metadata"]["annotations"]
    for number, family in enumerate(drawing.sketch.families):
        annotations[ANNOTATION_TUNNEL_MAC[family]] = f"66:aa:bb:cc:dd:{number:02x}"


@drawn()
def custom_health_port(drawing: Drawing) -> None:
    """Felix says how it is on another port than 9099."""
    _felix(drawing, healthPort=19099)


@drawn()
def wireguard_without_keys(drawing: Drawing) -> None:
    """WireGuard is wanted, and no node's kernel can do it: packets go as without."""
    _felix(drawing, wireguardEnabled=True)


@drawn()
def no_nat_outgoing(drawing: Drawing) -> None:
    """What pods send out of all pools keeps their own addresses."""
    for pool in drawing.all("IPPool"):
        pool["spec"]["natOutgoing"] = False


@drawn(kind="calico-node")
def operator_namespace(drawing: Drawing) -> None:
    """The operator has installed Calico: its pods are in calico-system."""
    drawing.entries.insert(0, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR_NAMESPACE}})
    for pod in drawing.all("Pod"):
        if pod["metadata"]["namespace"] == SYSTEM_NAMESPACE:
            pod["metadata"]["namespace"] = OPERATOR_NAMESPACE


@drawn(kind="calico-node")
def typha(drawing: Drawing) -> None:
    """Felix hears of changes through Typha."""
    for pod in drawing.all("Pod"):
        if pod["metadata"]["namespace"] == SYSTEM_NAMESPACE:
            pod["spec"]["containers"][0]["env"] = [{"name": "FELIX_TYPHAK8SSERVICENAME", "value": TYPHA}]
    drawing.entries.append(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{TYPHA}-2xk8p",
                "namespace": SYSTEM_NAMESPACE,
                "labels": {"kubernetes.io/service-name": TYPHA},
            },
            "addressType": f"IPv{drawing.sketch.families[0]}",
            "ports": [{"name": TYPHA, "port": 5473, "protocol": "TCP"}],
            "endpoints": [
                {
                    "addresses": [drawing.node_address(0, drawing.sketch.families[0])],
                    "conditions": {"ready": True, "serving": True, "terminating": False},
                }
            ],
        }
    )


@drawn(kind="calico-node")
def no_calico_node_pods(drawing: Drawing) -> None:
    """Calico runs as a service of each node, not as pods."""
    for pod in drawing.all("Pod"):
        if pod["metadata"]["namespace"] == SYSTEM_NAMESPACE:
            drawing.entries.remove(pod)


@drawn()
def strict_affinity(drawing: Drawing) -> None:
    """No node may borrow addresses of another's blocks."""
    drawing.one("IPAMConfig", "default")["spec"]["strictAffinity"] = True


@drawn(conflicts="strict-affinity")
def no_ipam_configuration(drawing: Drawing) -> None:
    """There is no IPAMConfig, as before the first address is given out by an old Calico."""
    drawing.entries.remove(drawing.one("IPAMConfig", "default"))
