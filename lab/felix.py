"""Programs a node's kernel the way Felix does; without it the nodes of the lab would be empty machines.

Without healing it acts on changes of the API objects only, and only on what changed, so a wound in the kernel stays.
With healing it also looks again, in Felix's own rhythm: the tunnel device every 10 s, routes, neighbors, FDB and its
firewall (lab/firewall) every 90 s; never at interfaces of pods, sysctls or what others put there.
"""

from __future__ import annotations

import errno
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from facts.flow import TUNNEL_DEVICES
from lab.intent import Intent, TunnelDevice
from lab.kernel import BIRD, FELIX, KERNEL, LOCAL, MAIN, Kernel, Route

DEVICE_TICK_S = 10.0
REFRESH_S = 90.0
# By the family of the pod's address.
POD_INTERFACE_SYSCTLS = {
    4: {
        "ipv4/conf/{}/proxy_arp": "1",
        "ipv4/conf/{}/forwarding": "1",
        "ipv4/conf/{}/route_localnet": "1",
        "ipv4/neigh/{}/proxy_delay": "0",
        "ipv6/conf/{}/accept_ra": "0",
    },
    6: {"ipv6/conf/{}/accept_ra": "0", "ipv6/conf/{}/proxy_ndp": "1", "ipv6/conf/{}/forwarding": "1"},
}
log = logging.getLogger("felix")


LOG_LINES = 2000


class Felix:
    """One node's, for one family. Blocking; to be called from the thread that owns the node's netlink socket."""

    def __init__(self, node: str, kernel: Kernel, family: int = 4) -> None:
        self.node = node
        self.kernel = kernel
        self.family = family
        self.device = TUNNEL_DEVICES["vxlan", family]
        self.applied = Intent(device=None)
        self.log: deque[str] = deque(maxlen=LOG_LINES)  # what it wrote into the kernel, as a real one's log tells

    def apply(self, wanted: Intent) -> None:
        """Writes what differs from the last time, and nothing else."""
        before, self.applied = self.applied, wanted
        kernel = self.kernel
        if wanted.device is None and before.device is not None:
            kernel.delete_link(self.device)
        fresh = wanted.device is not None and wanted.device != before.device and self._shape_device(wanted.device)
        if fresh:  # a new device has lost everything that hung on it
            before = Intent(
                device=None,
                routes=frozenset(route for route in before.routes if route.device != self.device),
                endpoints=before.endpoints,
            )
        for interface in wanted.endpoints.keys() - before.endpoints.keys():
            self.set_pod_interface_sysctls(interface)
        wanted_keys = {route.key for route in wanted.routes}
        for route in before.routes - wanted.routes:
            if route.key not in wanted_keys:
                self._try(kernel.delete_route, route)
        for address in before.neighbors.keys() - wanted.neighbors.keys():
            self._try(kernel.delete_neighbor, self.device, address)
        for mac in before.fdb.keys() - wanted.fdb.keys():
            self._try(kernel.delete_fdb, self.device, mac)
        for address, mac in wanted.neighbors.items():
            if before.neighbors.get(address) != mac:
                self._try(kernel.put_neighbor, self.device, address, mac)
        for mac, peer in wanted.fdb.items():
            if before.fdb.get(mac) != peer:
                self._try(kernel.put_fdb, self.device, mac, peer)
        for route in _in_order(wanted.routes - before.routes):
            self._try(kernel.put_route, route)

    def check_device(self) -> None:
        """The 10 s tick: the device is there, up and as it should be; one made or raised anew gets its entries back."""
        wanted = self.applied.device
        if wanted is None:
            return
        found = self.kernel.link(self.device)
        was_down = found is None or not found.up
        if self._shape_device(wanted) or was_down:
            self.refresh()

    def refresh(self) -> None:
        """The 90 s resync: routes, neighbors and FDB are as wanted, and nothing foreign is on Felix's own devices."""
        wanted, kernel = self.applied, self.kernel
        wanted_routes = {route.key: route for route in wanted.routes}
        present = {}
        endpoints = {*wanted.endpoints, self.device}
        for route in kernel.routes(self.family):
            own = route.device in endpoints or route.device.startswith("cali") or route.protocol in (FELIX, BIRD)
            if route.table != MAIN or route.protocol == KERNEL or not own:
                continue
            if route.key in wanted_routes:
                present[route.key] = route
            else:
                self._try(kernel.delete_route, route)
        for route in _in_order(wanted.routes):
            if present.get(route.key) != route:
                self._try(kernel.put_route, route)
        if kernel.link(self.device) is None:
            return
        neighbors = {address: (mac, state) for address, _, mac, state in kernel.neighbors(self.device, self.family)}
        for address, (_, state) in neighbors.items():
            if state == "PERMANENT" and address not in wanted.neighbors:
                self._try(kernel.delete_neighbor, self.device, address)
        for address, mac in wanted.neighbors.items():
            if neighbors.get(address) != (mac, "PERMANENT"):
                self._try(kernel.put_neighbor, self.device, address, mac)
        entries = {mac: peer for mac, _, peer, _ in kernel.fdb(self.device) if peer}
        for mac in entries.keys() - wanted.fdb.keys():
            self._try(kernel.delete_fdb, self.device, mac)
        for mac, peer in wanted.fdb.items():
            if entries.get(mac) != peer:
                self._try(kernel.put_fdb, self.device, mac, peer)

    def remake_device(self, **settings: str | int) -> None:
        """The tunnel device anew with settings of its own (fields of TunnelDevice), and all that hung on the old one.

        As a Felix does whose environment says something else than the API.
        """
        if self.applied.device is not None:
            self._shape_device(replace(self.applied.device, **settings))  # type: ignore[arg-type]
            self.refresh()

    def set_pod_interface_sysctls(self, interface: str) -> None:
        """As real Felix: once, when it meets the endpoint, never again."""
        if self.kernel.link(interface) is None:
            return
        with self.kernel.namespace.entered():
            if self.family == 4:
                loose = Path("/proc/sys/net/ipv4/conf/default/rp_filter").read_text()
                Path(f"/proc/sys/net/ipv4/conf/{interface}/rp_filter").write_text(loose)
            for name, value in POD_INTERFACE_SYSCTLS[self.family].items():
                Path("/proc/sys/net", name.format(interface)).write_text(value)

    def _shape_device(self, wanted: TunnelDevice) -> bool:
        """True when the device had to be made anew."""
        kernel = self.kernel
        found = kernel.link(self.device)
        if found and (found.mac, found.vni, found.port, found.local, found.parent, found.kind) != (
            wanted.mac,
            wanted.vni,
            wanted.port,
            wanted.local,
            wanted.parent,
            "vxlan",
        ):
            kernel.delete_link(self.device)
            found = None
        fresh = found is None
        if fresh:
            kernel.add_link(
                ifname=self.device,
                kind="vxlan",
                address=wanted.mac,
                mtu=wanted.mtu,
                vxlan_id=wanted.vni,
                vxlan_port=wanted.port,
                vxlan_learning=0,
                vxlan_link=kernel.index(wanted.parent),
                **{"vxlan_local" if self.family == 4 else "vxlan_local6": wanted.local},
            )
        elif found and found.mtu != wanted.mtu:
            kernel.set_link(self.device, mtu=wanted.mtu)
        # The new address goes in before an old one goes out: a device that loses its last address loses its routes too.
        address = f"{wanted.address}/{32 if self.family == 4 else 128}"
        kernel.add_address(self.device, address)
        if not (found and found.up):
            kernel.set_link(self.device, up=True)
        for other in kernel.addresses(self.device, self.family):  # of IPv6 the link-local one, too
            if other != address:
                kernel.delete_address(self.device, other)
        for route in kernel.routes(self.family):  # the kernel's own to the address; IPv4 has none in this table
            if route.device == self.device and route.protocol == KERNEL and route.table != LOCAL:
                self._try(kernel.delete_route, route)
        return fresh

    def _try(self, act: Callable[..., None], *arguments: object) -> None:
        """The kernel may refuse one entry (its own address as next hop, a device that is down); the rest goes on."""
        try:
            act(*arguments)
            self._say("INFO", act, arguments)
        except OSError as error:
            self._say("WARNING", act, (*arguments, error))
            if error.errno == errno.ENODEV:  # an interface that is not there yet gets its entries when it comes
                return
            log.warning("%s: the kernel refused %s: %s", self.node, arguments, error)

    def _say(self, level: str, act: Callable[..., None], arguments: tuple[object, ...]) -> None:
        what = ", ".join(map(str, arguments))
        self.log.append(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f} [{level}] felix: {act.__name__}: {what}")


def _in_order(routes: frozenset[Route]) -> list[Route]:
    """Shorter prefixes first, so that a log reads like a routing table."""
    return sorted(routes, key=lambda route: (int(route.destination.rpartition("/")[2]), route.destination))
