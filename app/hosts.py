"""Whether a host is this machine, and whether an address is on the public internet."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

_UNICAST = ip_network("2000::/3")  # the public part of IPv6
_TO_IPV4 = ip_network("2002::/16")  # 6to4, out of use: leads to any IPv4 address
_NAT64 = ip_network("64:ff9b::/96")  # leads to the IPv4 address in its last 32 bits
_SPECIAL = (  # Python 3.11 takes them for public
    ip_network("192.0.0.0/24"),  # protocols; metadata of virtual machines at Oracle
    ip_network("192.88.99.0/24"),  # relays for 6to4
    ip_network("168.63.129.16/32"),  # the machine under each virtual one at Azure
)


def is_loopback(authority: str) -> bool:
    """Whether `authority` is this machine: localhost, 127.0.0.0/8 or [::1], with any port."""
    try:
        parts = urlsplit(f"//{authority}")
        name, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if parts.netloc != authority or "@" in authority:
        return False
    name = name.removesuffix(".")
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet. False for what is no IP address.

    An IPv6 address that leads to an IPv4 address is as public as that one.
    """
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        elif found in _NAT64:
            found = IPv4Address(int(found) & 0xFFFF_FFFF)
        elif found.scope_id is not None or found not in _UNICAST or found in _TO_IPV4:
            return False
    return (
        found.is_global
        and not found.is_multicast
        and not any(found in network for network in _SPECIAL)
    )
