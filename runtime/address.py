"""How the hosts of a job reach each other: addresses and network interfaces, without name service.

Names mislead: Debian gives a host's own name the address 127.0.1.1, and compute nodes often
know no names at all. The route that the kernel would take to a peer is what counts.
"""

from __future__ import annotations

import fcntl
import socket
import struct

# ioctl SIOCGIFADDR: the IPv4 address of an interface (linux/sockios.h, struct ifreq).
ASK_ADDRESS = 0x8915
NAME_BYTES = 15
ADDRESS_PLACE = slice(20, 24)
# Datagram sockets send nothing on connect; the port only has to be a valid one.
ANY_PORT = 9


def address_towards(peer: str) -> str:
    """This host's IPv4 address on the interface that leads to `peer`; OSError if none does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((peer, ANY_PORT))
        address: str = probe.getsockname()[0]
        return address


def interface_of(address: str) -> str | None:
    """The name of the interface that has this IPv4 address; None when none has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:NAME_BYTES])
            try:
                answer = fcntl.ioctl(probe.fileno(), ASK_ADDRESS, request)
            except OSError:
                continue  # an interface without an IPv4 address
            if socket.inet_ntoa(answer[ADDRESS_PLACE]) == address:
                return name
    return None
