"""Which pods a question is about; without it nobody would know what was asked."""

from __future__ import annotations

from facts.fact import Fact


class Endpoint(Fact, frozen=True, kw_only=True):
    """One side of the question as Kubernetes describes it."""

    name: str  # "namespace/name" of a pod; a node's name; an IP address
    kind: str  # "pod" | "node" | "service" | "address": outside the cluster | "nobody": of a pool, and no pod has it
    node: str = ""  # "" when not scheduled or not known
    address: str = ""  # IPv4 address, "" when it has none
    address6: str = ""  # IPv6 address, "" when it has none
    addresses: tuple[str, ...] = ()  # all families
    host_network: bool = False
    phase: str = ""  # Pending | Running | Succeeded | Failed | Unknown, pods only
    reason: str = ""  # why it is not running: container state or newest event, in the cluster's own words
    ready: bool = False
    terminating: bool = False
    starting: bool = False  # scheduled, being created, and nothing has failed yet
    network_failure: str = ""  # message of the newest event that its network could not be set up; "" when there is none
    annotated: tuple[str, ...] = ()  # addresses CNI wrote on the pod (cni.projectcalico.org/podIPs), all families
    container_id: str = ""  # annotation cni.projectcalico.org/containerID: the live IPAM handle's suffix
    interface: str = ""  # host side of the veth, computed from namespace and name (calico.md 4.3)
    own_kernel: bool = False  # a virtual machine or a sandbox (runtimeClassName): another kernel may have its address


class AddressHolders(Fact, frozen=True, kw_only=True):
    """Which pods have this address now: running ones that are not being deleted and have a network of their own."""

    address: str
    pods: tuple[str, ...]  # namespace/name, sorted
    machine: str = ""  # the one virtual machine all of them run for: while it migrates, two pods have its address
