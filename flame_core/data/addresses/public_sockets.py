"""No way into one's own network: every connection is checked where its socket is made.

The text of an address says little: a name may resolve to 169.254.169.254, and a public server may redirect to
127.0.0.1. aiohttp's `socket_factory` sees the real address of every connection, those after redirects included.
`ipaddress.is_global` lets through more than it should, so further networks are refused, and an IPv4 address that is
embedded in an IPv6 one is checked too.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

PORTS = (80, 443, 8080, 8443)
REFUSED = "is not an address of the public internet"  # in the message, by which the error is known again
_MORE = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.0.0/24", "192.88.99.0/24", "224.0.0.0/4", "ff00::/8", "fec0::/10", "64:ff9b:1::/48", "2001::/32"),
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(text: str) -> bool:
    """Whether an address, such as `93.184.215.14`, is one of the public internet."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if embedded := _embedded(address):
        return _is_public(embedded)
    return _is_public(address)


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that a mapped, compatible, 6to4 or NAT64 address leads to."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64 or address in _COMPATIBLE:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _is_public(address: Address) -> bool:
    return address.is_global and not any(address in network for network in _MORE if network.version == address.version)


class SocketCheck:
    """A `socket_factory` that refuses what is not public, except networks and ports in `allow` (`10.0.0.0/8:8080`)."""

    def __init__(self, allow: Sequence[str]) -> None:
        places = (place.rpartition(":") for place in allow)
        self._allow = [(ipaddress.ip_network(network.strip("[]")), int(port)) for network, _, port in places]

    def may_use(self, port: int) -> bool:
        """Whether any address may be asked at this port."""
        return port in PORTS or any(port == allowed for _, allowed in self._allow)

    def admits(self, address: str, port: int) -> bool:
        """Whether this address may be asked at this port."""
        plain = ipaddress.ip_address(address.partition("%")[0])
        if any(port == of and plain.version == net.version and plain in net for net, of in self._allow):
            return True
        return port in PORTS and is_public(address)

    def __call__(self, place: tuple[Any, Any, int, str, tuple[Any, ...]]) -> socket.socket:
        """A socket for (family, kind, protocol, name, (address, port, ...)).

        Raises:
            OSError: with `REFUSED` in its message.
        """
        family, kind, protocol, _, where = place
        address, port = where[0], where[1]
        if not self.admits(address, port):
            raise OSError(f"{address} at port {port} {REFUSED}")
        return socket.socket(family, kind, protocol)
