"""What Calico's address management says; without it a free pool and a full one look the same."""

from __future__ import annotations

import msgspec

from facts.fact import Fact


class Pool(Fact, frozen=True, kw_only=True):
    """An IPPool, as its resource says."""

    name: str
    cidr: str
    block_size: int
    vxlan_mode: str = "Never"  # Never | Always | CrossSubnet
    ipip_mode: str = "Never"
    nat_outgoing: bool = False
    disabled: bool = False  # or being deleted, which Calico treats alike
    deleting: bool = False
    node_selector: str = "all()"


class PoolUsage(Fact, frozen=True, kw_only=True):
    """The runbook's arithmetic for one pool and one node, in exact numbers."""

    pool: str  # "" when the node may use no pool at all: then there is nothing that could be short
    cidr: str
    node: str
    block_size: int
    addresses: int  # in the whole pool
    blocks_possible: int  # 2 ** (blockSize - prefix length)
    blocks_taken: int
    nodes: int  # nodes of the cluster, the runbook's "more nodes than blocks"; -1 when not known
    free_on_node: int  # free addresses in blocks affine to this node
    free_elsewhere: int  # free addresses in other blocks: what this node could borrow
    empty_elsewhere: int  # blocks without any allocation, affine to other nodes: from 3.32 reclaimable
    strict_affinity: bool
    exhausted: bool  # no address of this pool can be given to a pod on this node
    other_pool: bool = False  # another pool this node may use has an address for it
    forbids: str = (
        ""  # what keeps this node from what its pools have left: strict_affinity | block_limit | auto_allocate
    )
    forbidden: int = 0  # addresses that are left in all its pools and are not for this node
    blocks_on_node: int = -1  # blocks affine to this node, of all pools; -1 when not counted
    block_limit: int = -1  # how many it may have
    cooling: int = 0  # addresses of the pool that were released and are kept back for a while (from 3.33)
    cooldown_s: int = 0  # ipCooldownSeconds: for how long
    claimable: int = 0  # blocks that any node could take
    reclaimable: int = 0  # empty blocks of other nodes that Calico would take for this one (from 3.32)
    auto_allocate: bool = True  # False: no node takes a block by itself
    withheld: int = 0  # addresses that nobody has and that IPReservations keep back


class Allocation(Fact, frozen=True, kw_only=True):
    """What the IPAM blocks say about one address."""

    address: str
    found: bool  # False: no block holds it, or the block says it is free
    block: str = ""  # CIDR of the block that contains the address, "" when there is none
    block_node: str = ""  # node the block is affine to; "" without affinity
    pool: str = ""
    pools_read: bool = True  # False: which pool holds it could not be read
    vxlan_mode: str = ""  # of that pool: what decides how packets to the address travel; "" when no pool holds it
    ipip_mode: str = ""
    nat_outgoing: bool = False  # of that pool
    handle: str = ""
    owner_kind: str = ""  # "pod" | "virtualMachine" | "vxlanTunnelAddress" | another attribute type | "" unknown
    owner: str = ""  # "namespace/name" of a pod; a node for tunnel addresses
    node: str = ""  # attribute node: where the address is in use


class Leak(msgspec.Struct, frozen=True, kw_only=True):
    """One leaked address, with all that releasing it rests on, as in LeakedAddresses."""

    address: str
    block: str
    handle: str
    sequence: str
    owner: str
    pod: str
    unrouted: bool = False  # none of the nodes in `asked` has a route to its pod


class LeakedAddresses(Fact, frozen=True, kw_only=True):
    """Addresses of a pool that IPAM holds for pods that are gone (calico.md 2.3). Counted only where a pool is full."""

    pool: str
    node: str  # where a pod waits for one
    count: int
    examined: int  # allocations to pods in the pool's blocks
    oldest_s: int = -1  # age of the oldest, by its allocation's own time; -1 when none says
    examples: tuple[str, ...] = ()  # "10.244.1.7 (shop/old, node-b)", the first few by address
    # The first of them, with all that releasing it rests on (calico.md 2.3); "" where none has leaked.
    address: str = ""
    block: str = ""
    handle: str = ""
    sequence: str = ""  # its sequence number: 61 bits, which not every reader of JSON keeps whole
    owner: str = ""  # fixes.release.fingerprint of what IPAM holds it for
    pod: str = ""  # namespace/name
    grace_s: int = 900  # how long kube-controllers, too, would look on before they free it
    no_route_on: tuple[str, ...] = ()  # every node of the cluster, where all were asked and none has a route to its pod
    others: tuple[Leak, ...] = ()  # the next few by address
    asked: tuple[str, ...] = ()  # every node of the cluster, where all were asked for routes to those


class BlockClaim(Fact, frozen=True, kw_only=True):
    """A BlockAffinity that names another node than the IPAMBlock itself, which alone is believed."""

    block: str
    node: str  # whom the BlockAffinity names
    block_node: str  # whom the block names; "" for nobody
    state: str = ""  # confirmed | pending | pendingDeletion | "" of old data, which counts as confirmed
