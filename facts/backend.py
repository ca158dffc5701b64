"""A Service's port and what stands behind it; its address is nobody's, so without these there is nothing to follow."""

from __future__ import annotations

from facts.fact import Fact


class ServicePort(Fact, frozen=True, kw_only=True):
    """The asked port of a Service in one family: one for each address it was asked by, and of a headless one for each
    family."""

    service: str  # namespace/name
    family: int = 4
    address: str = ""  # its ClusterIP, or of a nodePort the node's; "" when it is headless
    protocol: str  # "tcp" | "udp"
    port: int  # as asked
    found: bool = True  # False: the Service has no such port
    target_port: str = ""  # as its spec says: a number, or the name of a container's port
    node_port: int = 0
    by_node_port: bool = False  # asked by its nodePort: `port` is that one
    node: str = ""  # whose kube-proxy decides: the client's, or the one whose nodePort is asked
    local: bool = False  # it sends this client only to endpoints on that node
    kind: str = "ClusterIP"  # ClusterIP | NodePort | LoadBalancer
    headless: bool = False
    selector: str = ""  # app=db,tier=backend; "" when somebody else writes its endpoints
    internal_policy: str = "Cluster"  # internalTrafficPolicy: Cluster | Local
    external_policy: str = ""  # externalTrafficPolicy
    affinity: str = "None"  # ClientIP: one client always gets the same endpoint
    ports: tuple[str, ...] = ()  # all of them: 5432/tcp
    counted: bool = True  # False: its EndpointSlices could not be read
    ready: int = 0  # endpoints of this port and family that are ready
    serving: int = 0  # that are being ended and still serve: used where none is ready
    waiting: tuple[str, ...] = ()  # those that are neither, namespace/name of a pod or an address
    nodes: tuple[str, ...] = ()  # of those that are ready or serving; "" where a slice names none


class Backend(Fact, frozen=True, kw_only=True):
    """One endpoint of that port, as an EndpointSlice has it, and as kube-proxy of the ServicePort's node uses it."""

    service: str
    family: int = 4
    address: str
    protocol: str
    port: int  # where it listens
    endpoint: str = ""  # name of its Endpoint fact; "" where it was not looked up
    pod: str = ""  # targetRef: namespace/name; "" when it is no pod
    node: str = ""  # as the slice says
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    used: bool = True  # that kube-proxy may send to it
    sender: str = ""  # name of the Endpoint whose packets go there: the client, or the node whose nodePort is asked
    declared: bool = False  # a container of the pod names this port in its spec
    stale: bool = False  # looked up, and no pod and no node has this address
    has_now: str = ""  # of a stale one: the address its pod has instead
